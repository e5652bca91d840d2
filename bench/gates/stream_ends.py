"""The process of the stream and frame rows: two hosts on one connection.

Goes out: one line of JSON: the memory that an open idle stream and a received frame keep alive.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

from gates.figures import Held, held
from p2pcore import Host, Stream, run

PROTOCOL = "/gates/1.0.0"
BEFORE, STREAMS = 100, 400
FRAMES = 2000
FRAME_BYTES = 1024
TURNS = 20
"""Turns of the event loop in which everything under way ends."""


class Ends:
    """A host that serves, and one with a connection to it."""

    def __init__(self) -> None:
        self.server = Host(identify=False)
        self.dialer = Host(listen=(), identify=False)
        self.served: list[Stream] = []

    async def hold(self, stream: Stream) -> None:
        """Serves a stream by waiting for bytes that do not come."""
        await stream.read_exactly(1)
        self.served.append(stream)
        await asyncio.get_running_loop().create_future()

    async def open(self, count: int) -> list[Stream]:
        """Streams on which one byte was sent, so both sides have agreed on the protocol."""
        streams = []
        wanted = len(self.served) + count
        for _ in range(count):
            stream = await self.conn.new_stream(PROTOCOL)
            await stream.write(b"x")
            streams.append(stream)
        await turns(lambda: len(self.served) == wanted)
        return streams

    async def start(self) -> None:
        """Connects."""
        await self.server.start()
        await self.dialer.start()
        self.server.set_stream_handler(PROTOCOL, self.hold)
        self.conn = await self.dialer.connect(self.server.addrs_with_peer[0])

    async def close(self) -> None:
        """Closes both."""
        await self.dialer.close()
        await self.server.close()


async def turns(condition: Callable[[], bool] = lambda: True) -> None:
    """Lets the event loop turn until the condition is true, and a little longer."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def idle_streams() -> dict[str, float]:
    """What each of STREAMS more streams keeps alive: both ends and the handler's task."""
    ends = Ends()
    await ends.start()
    kept = await ends.open(BEFORE)
    before = held()
    kept += await ends.open(STREAMS)
    figures = per_one(before, held(), STREAMS)
    await ends.close()
    return figures


async def frames() -> dict[str, float]:
    """What each of FRAMES frames keeps alive when it has been received and read."""
    ends = Ends()
    await ends.start()
    (near,) = await ends.open(1)
    far = ends.served[0]
    data = bytes(FRAME_BYTES)

    async def exchange(count: int) -> None:
        for _ in range(count):
            await near.write(data)
            await far.read_exactly(FRAME_BYTES)
        await turns()

    await exchange(FRAMES)
    before = held()
    await exchange(FRAMES)
    figures = per_one(before, held(), FRAMES)
    await ends.close()
    return figures


def per_one(before: Held, after: Held, count: int) -> dict[str, float]:
    """The difference, for each of `count`."""
    first, second = before.as_dict(), after.as_dict()
    return {key: (second[key] - first[key]) / count for key in first}


def main() -> None:
    """The command line: "streams" or "frames"."""
    print(json.dumps(run({"streams": idle_streams, "frames": frames}[sys.argv[1]]())))


if __name__ == "__main__":
    main()
