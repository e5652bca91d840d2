"""Streams end to end in one process: two sessions over noise and a socket pair, both ends on one loop.

Comes in: sizes of writes. Goes out: seconds for a fixed amount of bytes, round trips or streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from rates import rate

from _fast.chains import session_pair, stream_pair
from p2pcore._fast.mux.stream import Stream

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65536}
TOTAL = 16 << 20
ROUND_TRIPS = 1000
STREAMS = 500


class Pair:
    """A loop with a client's and a server's session."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.client, self.server = self.loop.run_until_complete(session_pair())
        self.tasks: set[asyncio.Task[None]] = set()

    def serve(self, handler: Callable[[Stream], Awaitable[None]]) -> None:
        def start(stream: Stream) -> None:
            async def handle() -> None:
                await handler(stream)

            task = self.loop.create_task(handle())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        self.server.set_stream_handler(start)

    def close(self) -> None:
        async def end() -> None:
            await self.client.close()
            await self.server.close()
            await asyncio.gather(*self.tasks, return_exceptions=True)

        self.loop.run_until_complete(end())
        self.loop.close()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_upload(benchmark: Any, size: int) -> None:
    pair = Pair()
    piece = bytes(size)

    async def run() -> None:
        a, b = await stream_pair(pair.client, pair.server)

        async def send() -> None:
            for _ in range(TOTAL // size):
                await a.write(piece)
            await a.close()

        sending = asyncio.ensure_future(send())
        buffer, n = bytearray(1 << 18), 0
        while got := await b.readinto(buffer):
            n += got
        await sending
        await b.close()
        assert n == TOTAL // size * size

    rate(benchmark, TOTAL, lambda: pair.loop.run_until_complete(run()), warmup_rounds=1)
    pair.close()


@pytest.mark.parametrize("size", [32, 1024], ids=["32B", "1KiB"])
def test_round_trips(benchmark: Any, size: int) -> None:
    pair = Pair()
    a, b = pair.loop.run_until_complete(stream_pair(pair.client, pair.server))
    piece = bytes(size)

    async def echo() -> None:
        while True:
            await b.write(await b.read_exactly(size))

    async def run() -> None:
        for _ in range(ROUND_TRIPS):
            await a.write(piece)
            await a.read_exactly(size)

    task = pair.loop.create_task(echo())
    benchmark.pedantic(lambda: pair.loop.run_until_complete(run()), rounds=5, warmup_rounds=1)
    benchmark.extra_info["us_per_round_trip"] = round(benchmark.stats.stats.min / ROUND_TRIPS * 1e6, 2)
    task.cancel()
    pair.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    pair.close()


@pytest.mark.parametrize("at_once", [1, 64], ids=["one at a time", "64 at a time"])
def test_open_and_close_streams(benchmark: Any, at_once: int) -> None:
    pair = Pair()

    async def answer(stream: Stream) -> None:
        await stream.write(await stream.read_exactly(32))
        await stream.close()

    pair.serve(answer)

    async def one() -> None:
        stream = await pair.client.open_stream()
        await stream.write(bytes(32))
        await stream.read_exactly(32)
        await stream.close()

    async def run() -> None:
        async def worker() -> None:
            for _ in range(STREAMS // at_once):
                await one()

        await asyncio.gather(*(worker() for _ in range(at_once)))

    benchmark.pedantic(lambda: pair.loop.run_until_complete(run()), rounds=5, warmup_rounds=1)
    count = STREAMS // at_once * at_once
    benchmark.extra_info["us_per_stream"] = round(benchmark.stats.stats.min / count * 1e6, 2)
    pair.close()
