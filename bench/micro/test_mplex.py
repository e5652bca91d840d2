"""Mplex by itself: parsing and writing messages over a record layer that does nothing.

Comes in: sizes of messages. Goes out: seconds for a fixed number of bytes or streams. Never has a cipher.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from _fast.mplex_chain import CLOSE_I, MSG_I, NEW, RawMplex, msg

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65515}
TOTAL = 8 << 20
MESSAGES = 20_000


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive_data(benchmark: Any, size: int) -> None:
    """Messages of one size, read as they come."""
    loop = uvloop.new_event_loop()
    peer = RawMplex(loop=loop)
    peer.deliver(msg(NEW, 1))
    stream = loop.run_until_complete(peer.session.accept_stream())
    chunk = msg(MSG_I, 1, bytes(size)) * max(1, 65536 // size)

    async def run() -> None:
        for _ in range(TOTAL // len(chunk)):
            peer.deliver(chunk)
            while stream.num_buffered:
                await stream.read(1 << 20)

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=5, warmup_rounds=1)
    benchmark.extra_info["bytes"] = TOTAL
    benchmark.extra_info["bytes_per_second"] = round(TOTAL / benchmark.stats.stats.min)
    peer._lose()
    loop.close()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send_data(benchmark: Any, size: int) -> None:
    """Writes of one size, gathered into messages and records."""
    loop = uvloop.new_event_loop()
    peer = RawMplex(True, loop=loop)
    stream = loop.run_until_complete(peer.session.open_stream())
    piece, burst = bytes(size), max(1, 65536 // size)

    async def run() -> None:
        for _ in range(TOTAL // (size * burst)):
            for _ in range(burst):
                await stream.write(piece)
            await asyncio.sleep(0)
            peer.sent()

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=5, warmup_rounds=1)
    benchmark.extra_info["bytes"] = TOTAL
    benchmark.extra_info["bytes_per_second"] = round(TOTAL / benchmark.stats.stats.min)
    peer._lose()
    loop.close()


def test_receive_streams_that_come_and_go(benchmark: Any) -> None:
    """A new stream, one byte, its end: what short streams cost at least."""
    loop = uvloop.new_event_loop()
    peer = RawMplex(loop=loop)
    chunk = b"".join(msg(NEW, id) + msg(MSG_I, id, b"x") + msg(CLOSE_I, id) for id in range(100))

    async def run() -> None:
        for _ in range(MESSAGES // 300):
            peer.deliver(chunk)
            for _ in range(100):
                await (await peer.session.accept_stream()).close()
            await asyncio.sleep(0)
            peer.sent()

    benchmark.pedantic(lambda: loop.run_until_complete(run()), rounds=5, warmup_rounds=1)
    benchmark.extra_info["us_per_stream"] = round(
        benchmark.stats.stats.min / (MESSAGES // 300 * 100) * 1e6, 2
    )
    peer._lose()
    loop.close()
