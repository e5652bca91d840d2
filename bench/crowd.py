#!/usr/bin/env python3
"""The dialer of the rows about many peers: hosts of p2pcore, the same for every listener.

Comes in: an operation, `-to MULTIADDR/p2p/ID` and options, as interop/README.md has them; a line on standard
input where an operation waits for one. Goes out: `HELD n` and JSON lines; exit 0 if and only if every peer
did all it should. Each stranger has an identity of its own that the listener has never seen. Never measures
itself: a row takes the CPU of the listener, and delays as a client sees them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self

from p2pcore import Conn, Host, Multiaddr, P2PError, PrivateKey, Stream, run
from p2pcore._fast.mux.echo import echo as send_back
from p2pcore.protocols.identify import IdentifyService

ECHO = "/echo/1.0.0"
HOSTS = 64
"""Hosts of `busy`."""
TIMED = 10
"""Of so many connections of `busy`, one is timed. The others send back what comes: they cost little."""
QUIET_S = 0.1
"""If nothing has come for so long, nothing is under way."""
MESSAGE_OVERHEAD = 12 + 2 + 16
"""Bytes that yamux and Noise add to a message."""
DIALS_AT_ONCE = 32
ANNOUNCED = ("/ip4/127.0.0.1/tcp/4001",)
"""Where a stranger says that it listens: so it tells a signed record, as peers of a network do."""
FAILURES = (P2PError, OSError, ValueError, TimeoutError)
PATIENCE_S = 60.0
"""The longest that one peer may take for all it does."""


class Teller(IdentifyService):
    """identify that tells when the other side has asked, and has been told."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.swarm, host.private_key)
        self.told = asyncio.Event()

    async def serve(self, stream: Stream) -> None:
        """As it is in every host; then nobody needs to wait any longer."""
        await super().serve(stream)
        self.told.set()


class Stranger:
    """A host that tells an address in a signed record, and that identifies each peer both ways.

    Args:
        security: its only security protocol. key: its identity; None: a new one.
    """

    def __init__(self, security: str, key: PrivateKey | None = None) -> None:
        self.host = Host(key, listen=(), announce=ANNOUNCED, security=(security,), identify=False)
        self._teller = Teller(self.host)

    async def __aenter__(self) -> Self:
        await self.host.start()
        self._teller.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._teller.close()
        await self.host.close()

    async def meet(self, addr: Multiaddr) -> Conn:
        """Connects; both sides know each other then."""
        conn = await self.host.swarm.dial_addr(addr)
        await self._teller.identify(conn)
        await self._teller.told.wait()
        return conn


async def strangers(options: argparse.Namespace) -> None:
    """n strangers, c at a time, or `rate` each second: each is identified both ways, echoes, and goes."""
    took: list[float] = []

    async def one() -> None:
        async with asyncio.timeout(PATIENCE_S), Stranger(options.sec) as stranger:
            began = time.perf_counter()
            conn = await stranger.meet(options.to)
            await echo(conn, options.size)
            took.append(time.perf_counter() - began)
            await conn.close()

    began = time.perf_counter()
    await (at_rate(options, one) if options.rate else at_once(options.n, options.c, one))
    report(options, took, time.perf_counter() - began)


async def held(options: argparse.Namespace) -> None:
    """n strangers, identified both ways, that stay until a line comes."""
    async with AsyncExitStack() as stack:

        async def one() -> None:
            stranger = await stack.enter_async_context(Stranger(options.sec))
            async with asyncio.timeout(PATIENCE_S):
                await stranger.meet(options.to)

        await at_once(options.n, DIALS_AT_ONCE, one)
        print(f"HELD {options.n}", flush=True)
        await line()
        os._exit(0)  # to close them one by one would take longer than the measurement


async def busy(options: argparse.Namespace) -> None:
    """c connections of HOSTS hosts with a stream each; at a line, n messages over all, and back."""
    async with AsyncExitStack() as stack:
        made = [Host(listen=(), security=(options.sec,), identify=False) for _ in range(HOSTS)]
        hosts = itertools.cycle([await stack.enter_async_context(host) for host in made])
        streams: list[Stream] = []

        async def one() -> None:
            conn = await next(hosts).swarm.dial_addr(options.to)
            streams.append(await conn.new_stream(ECHO))
            await there_and_back(streams[-1], bytes(options.size))

        await at_once(options.c, DIALS_AT_ONCE, one)
        print(f"HELD {options.c}", flush=True)
        await line()
        await talk(options, streams)
        await line()
        os._exit(0)


async def talk(options: argparse.Namespace, streams: list[Stream]) -> None:
    """On every stream at once: a message, its echo, the next one, and so on."""
    timed, others = streams[::TIMED], [stream for at, stream in enumerate(streams) if at % TIMED]
    message, took = bytes(options.size), list[float]()
    left = iter(range(options.n * len(timed) // len(streams)))
    received = num_received(others)
    for stream in others:
        await stream.write(message)
        send_back(stream)

    async def one(stream: Stream) -> None:
        for _ in left:
            began = time.perf_counter()
            await there_and_back(stream, message)
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(one, timed))
    seconds = time.perf_counter() - began
    await quiet(others)
    more = (num_received(others) - received) // (options.size + MESSAGE_OVERHEAD)
    report(options, took, seconds, more)


async def quiet(streams: list[Stream]) -> None:
    """Sends back nothing more, and waits for what is under way: the listener has done all that is counted."""
    for stream in streams:
        await stream.close_read()
    before = -1
    while before != (before := num_received(streams)):  # noqa: ASYNC110 - nothing tells when nothing comes
        await asyncio.sleep(QUIET_S)


def num_received(streams: list[Stream]) -> int:
    """Bytes that the connections of these streams have received so far."""
    return sum(stream.conn.stat.bytes_in for stream in streams)


async def pings(options: argparse.Namespace) -> None:
    """n pings of an honest peer, `rate` each second. A delay counts from the moment at which it was due."""
    took: list[float] = []
    async with Host(listen=(), security=(options.sec,)) as host:
        conn = await host.connect(options.to)
        stream = await conn.new_stream("/ipfs/ping/1.0.0")
        began = time.perf_counter()
        for number in range(options.n):
            due = began + number / options.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await there_and_back(stream, os.urandom(32))
            took.append(time.perf_counter() - due)
        report(options, took, time.perf_counter() - began)


# -- tools -----------------------------------------------------------------------------------------


async def echo(conn: Conn, size: int) -> None:
    """A message there and back on a stream of its own."""
    stream = await conn.new_stream(ECHO)
    await there_and_back(stream, bytes(size))
    await stream.close()


async def there_and_back(stream: Stream, message: bytes) -> None:
    """A message, and what the other side makes of it."""
    await stream.write(message)
    if await stream.read_exactly(len(message)) != message:
        raise ValueError("something else came back")


async def at_once(n: int, c: int, one: Callable[[], Awaitable[None]]) -> None:
    """`one` n times, c at a time."""
    left = iter(range(n))

    async def work() -> None:
        for _ in left:
            await one()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(n, c)):
            group.create_task(work())


async def at_rate(options: argparse.Namespace, one: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """`one` n times, `rate` each second, at most c at a time: what comes too late to begin is left out.

    A listener may be too slow for so many, so one that fails is left out too.
    """
    begun: set[asyncio.Task[None]] = set()

    async def tried() -> None:
        with contextlib.suppress(*FAILURES):
            await one()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(options.n):
            await asyncio.sleep(max(0.0, began + number / options.rate - time.perf_counter()))
            begun = {task for task in begun if not task.done()}
            if len(begun) < options.c:
                begun.add(group.create_task(tried()))


async def line() -> None:
    """Waits for a line on standard input, or for its end."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), came.set)
    await came.wait()
    loop.remove_reader(sys.stdin.fileno())
    os.read(sys.stdin.fileno(), 1024)


def report(options: argparse.Namespace, took: list[float], seconds: float, more: int = 0) -> None:
    """The result line of the contract; `more` were done and not timed."""
    timed, n = len(took), len(took) + more
    took = sorted(took) or [0.0]
    shares = {"p50_us": took[timed // 2] * 1e6, "p99_us": took[timed * 99 // 100] * 1e6}
    print(json.dumps({"op": options.op, "n": n, "c": options.c, "per_s": n / seconds} | shares), flush=True)


OPERATIONS: dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, None]]] = {
    "strangers": strangers,
    "held": held,
    "busy": busy,
    "pings": pings,
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; see interop/README.md for those of the same name."""
    parser = argparse.ArgumentParser(prog="crowd.py", allow_abbrev=False)
    parser.add_argument("op", choices=list(OPERATIONS))
    parser.add_argument("-to", required=True, type=Multiaddr)
    parser.add_argument("-sec", default="noise", choices=["noise", "tls"])
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-c", type=int, default=16)
    parser.add_argument("-size", type=int, default=32)
    parser.add_argument("-rate", type=float, default=0.0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parsed = parse(sys.argv[1:])
    try:
        run(OPERATIONS[parsed.op](parsed))
    except (*FAILURES, ExceptionGroup) as failure:
        reasons = failure.exceptions if isinstance(failure, ExceptionGroup) else [failure]
        print(f"ERROR {reasons[0]!r}".replace("\n", " "), file=sys.stderr)
        sys.exit(1)
