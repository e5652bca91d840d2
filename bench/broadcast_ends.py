"""Both ends of the broadcast benchmark: a server that tells all, and a process that holds all connections.

Comes in: what to be, then commands in lines. Goes out: JSON lines. A message has the second at which its
broadcast began, on the clock that all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import selectors
import socket
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from p2pcore import Host, Stream
from p2pcore.streams import broadcast

MESSAGE_BYTES = 100
STAMP = struct.Struct(">d")
PROTOCOL = "/hub/1.0.0"
NUM_HOSTS = 64
PAUSE_S = 0.15
OPENING = 16
"""Connections that are opened at once."""


def message() -> bytes:
    return STAMP.pack(time.monotonic()) + b"x" * (MESSAGE_BYTES - STAMP.size)


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def command() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def serve(have: list[Any], tell: Callable[[bytes], Awaitable[None]]) -> None:
    """Waits for the command, then tells all as often as asked, with pauses."""
    conns, messages = map(int, (await command()).split())
    gc.collect()
    await asyncio.sleep(1)  # the last ones arrive
    assert len(have) == conns
    spent = 0.0
    for _ in range(messages):
        before = time.process_time()
        await tell(message())
        await asyncio.sleep(PAUSE_S)
        spent += time.process_time() - before
    say(cpu_s=spent)
    await asyncio.sleep(3600)


class Receipts:
    """How long each message took."""

    def __init__(self) -> None:
        self.by_message: dict[bytes, list[float]] = {}

    def got(self, data: bytes) -> None:
        """One message, or several that came together."""
        now = time.monotonic()
        for at in range(0, len(data), MESSAGE_BYTES):
            stamp = data[at : at + STAMP.size]
            self.by_message.setdefault(stamp, []).append(now - STAMP.unpack(stamp)[0])

    def report(self) -> None:
        each = [delay * 1e3 for delays in self.by_message.values() for delay in delays]
        cuts = statistics.quantiles(each, n=100)
        last = statistics.median(max(delays) * 1e3 for delays in self.by_message.values())
        say(received=len(each), p50_ms=cuts[49], p99_ms=cuts[98], last_ms=last)


async def receive(receipts: Receipts, conns: int) -> None:
    """All connections are there: waits for the end of the broadcasts, and reports."""
    gc.collect()
    gc.freeze()
    say(conns=conns)
    await command()
    await asyncio.sleep(1)
    receipts.report()
    await asyncio.sleep(3600)


async def many(conns: int, one: Callable[[], Awaitable[None]]) -> None:
    left = iter(range(conns))

    async def work() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(work() for _ in range(OPENING)))


# -- p2pcore -----------------------------------------------------------------------------------------


async def serve_p2pcore() -> None:
    streams: list[Stream] = []

    async def join(stream: Stream) -> None:
        streams.append(stream)
        while await stream.read():
            pass

    async def tell(data: bytes) -> None:
        result = await broadcast(streams, data)
        assert result.num_sent == len(streams)

    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        host.set_stream_handler(PROTOCOL, join)
        say(addr=str(host.addrs_with_peer[0]))
        await serve(streams, tell)


async def receive_p2pcore(addr: str, conns: int) -> None:
    receipts = Receipts()
    hosts = [await Host(listen=[]).__aenter__() for _ in range(NUM_HOSTS)]
    numbers = iter(range(conns))
    tasks: list[asyncio.Task[None]] = []

    async def listen(stream: Stream) -> None:
        while data := await stream.read():
            receipts.got(data)

    async def one() -> None:
        conn = await hosts[next(numbers) % NUM_HOSTS].swarm.dial_addr(addr)
        stream = await conn.new_stream(PROTOCOL)
        await stream.write(b"!")
        tasks.append(asyncio.create_task(listen(stream)))

    await many(conns, one)
    await receive(receipts, conns)


# -- websockets --------------------------------------------------------------------------------------


async def serve_websockets() -> None:
    from websockets.asyncio.server import broadcast as tell_all, serve as listen

    have: list[Any] = []

    async def join(conn: Any) -> None:
        have.append(conn)
        await conn.wait_closed()

    async def tell(data: bytes) -> None:
        tell_all(have, data)

    async with listen(join, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        say(addr=f"ws://127.0.0.1:{port}")
        await serve(have, tell)


async def receive_websockets(addr: str, conns: int) -> None:
    from websockets.asyncio.client import connect

    receipts = Receipts()
    tasks: list[asyncio.Task[None]] = []

    async def listen(conn: Any) -> None:
        async for data in conn:
            receipts.got(data)

    async def one() -> None:
        conn = await connect(addr, compression=None, ping_interval=None)
        tasks.append(asyncio.create_task(listen(conn)))

    await many(conns, one)
    await receive(receipts, conns)


# -- bare sockets ------------------------------------------------------------------------------------


async def serve_bare() -> None:
    have: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)

    async def accept() -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            have.append(sock)

    async def tell(data: bytes) -> None:
        for sock in have:
            sock.send(data)

    say(addr=f"127.0.0.1:{listener.getsockname()[1]}")
    accepting = asyncio.create_task(accept())
    await serve(have, tell)
    await accepting


async def receive_bare(addr: str, conns: int) -> None:
    host, _, port = addr.partition(":")
    receipts = Receipts()
    poll = selectors.DefaultSelector()
    for _ in range(conns):
        poll.register(socket.create_connection((host, int(port))), selectors.EVENT_READ)
    poll.register(sys.stdin, selectors.EVENT_READ)
    gc.freeze()
    say(conns=conns)
    while True:
        for key, _ in poll.select():
            if isinstance(key.fileobj, socket.socket):
                receipts.got(key.fileobj.recv(65536))
            else:
                receipts.report()
                return


ENDS: dict[str, Callable[..., Awaitable[None]]] = {
    "serve p2pcore": serve_p2pcore,
    "serve websockets": serve_websockets,
    "serve bare": serve_bare,
    "receive p2pcore": receive_p2pcore,
    "receive websockets": receive_websockets,
    "receive bare": receive_bare,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["serve", "receive"])
    parser.add_argument("kind")
    parser.add_argument("addr", nargs="?")
    parser.add_argument("conns", nargs="?", type=int)
    options = parser.parse_args()
    end = ENDS[f"{options.what} {options.kind}"]
    uvloop.run(end(options.addr, options.conns) if options.what == "receive" else end())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
