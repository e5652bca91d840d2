"""A hub: what one peer publishes, thousands of subscribers get.

    python hub.py serve [ADDRESS]
    python hub.py listen ADDRESS COUNT [PEERS]     shows COUNT messages; PEERS subscribers, each its own peer
    python hub.py publish ADDRESS TEXT...          says how many subscribers each text was sent to

Nobody waits for a slow subscriber: it misses messages, and after too many it is sent away.
The delays that `listen` shows are right if publisher and subscribers run on one machine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack

from p2pcore import Host, Stream, run
from p2pcore.streams import broadcast

SUBSCRIBE = "/example-hub/subscribe/1.0.0"
PUBLISH = "/example-hub/publish/1.0.0"
MAX_MESSAGE_BYTES = 1000
MAX_MISSED = 50  # messages in a row
MAX_SUBSCRIBERS = 20_000
DIALS = 50  # at once, of a crowd of subscribers


class Hub:
    """The subscribers, and how many messages in a row each has missed."""

    def __init__(self) -> None:
        self._missed: dict[Stream, int] = {}
        self._order = asyncio.Lock()  # all subscribers get the messages in the same order

    async def subscribe(self, stream: Stream) -> None:
        """The handler of a subscriber: it greets, then waits until the subscriber leaves."""
        self._missed[stream] = 0
        try:
            await stream.write_msg(b"")
            while await stream.read(1024):
                pass
        finally:
            self._missed.pop(stream, None)

    async def publish(self, stream: Stream) -> None:
        """The handler of a publisher: sends each message on, and answers how many subscribers get it."""
        async for message in stream.msgs(MAX_MESSAGE_BYTES):
            async with self._order:
                sent = await self._send(message)
            await stream.write_msg(str(sent).encode())

    async def _send(self, message: bytes) -> int:
        result = await broadcast(self._missed, message, prefix="varint")
        slow = {stream: self._missed.get(stream, 0) + 1 for stream in result.slow}
        for stream in self._missed:
            self._missed[stream] = slow.get(stream, 0)
        for stream, missed in slow.items():
            if missed > MAX_MISSED:
                stream.reset()  # its handler is cancelled, and forgets it
        return result.num_sent


async def serve(address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    hub = Hub()
    async with Host(listen=[address]) as host:
        host.set_stream_handler(SUBSCRIBE, hub.subscribe, max_streams=MAX_SUBSCRIBERS)
        host.set_stream_handler(PUBLISH, hub.publish, max_streams=100, max_streams_per_peer=2)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


async def listen(address: str, count: str, peers: str = "1") -> None:
    dials = asyncio.Semaphore(DIALS)

    async def subscriber() -> Stream:
        async with dials:
            host = await hosts.enter_async_context(Host(listen=[]))
            stream = await hosts.enter_async_context(host.stream(address, SUBSCRIBE))
            await stream.read_msg(MAX_MESSAGE_BYTES)  # the greeting
            return stream

    async def next_message(stream: Stream) -> tuple[int, bytes]:
        message = await stream.read_msg(MAX_MESSAGE_BYTES)
        return time.time_ns() - int.from_bytes(message[:8], "big"), message[8:]

    async with AsyncExitStack() as hosts:
        streams = await asyncio.gather(*(subscriber() for _ in range(int(peers))))
        print(f"{len(streams)} subscribers", flush=True)
        for _ in range(int(count)):
            got = sorted(await asyncio.gather(*map(next_message, streams)))
            half, most = got[len(got) // 2][0], got[len(got) * 99 // 100][0]
            print(f"{got[0][1].decode()}: p50 {half / 1e6:.1f} ms, p99 {most / 1e6:.1f} ms", flush=True)


async def publish(address: str, *texts: str) -> None:
    async with Host(listen=[]) as host, host.stream(address, PUBLISH) as stream:
        for text in texts:
            await stream.write_msg(time.time_ns().to_bytes(8, "big") + text.encode())
            print((await stream.read_msg(MAX_MESSAGE_BYTES)).decode(), flush=True)


if __name__ == "__main__":
    commands: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "serve": serve,
        "listen": listen,
        "publish": publish,
    }
    try:
        run(commands[sys.argv[1]](*sys.argv[2:]))
    except KeyboardInterrupt:
        pass
