"""Mplex by itself: parsing and writing messages over a record layer that does nothing.

Comes in: sizes of messages. Goes out: seconds for a fixed number of bytes or streams. There is no cipher.
"""

from __future__ import annotations

import asyncio
from typing import Any

import muxed
import pytest
import uvloop

from _fast.mplex_chain import CLOSE_I, MSG_I, NEW, RawMplex, msg

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65515}
MESSAGES = 20_000


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive_data(benchmark: Any, size: int) -> None:
    """Messages of one size, read as they come."""
    peer = RawMplex(loop=uvloop.new_event_loop())
    muxed.receive(benchmark, peer, msg(NEW, 1), msg(MSG_I, 1, bytes(size)), size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send_data(benchmark: Any, size: int) -> None:
    """Writes of one size, gathered into messages and records."""
    muxed.send(benchmark, RawMplex(True, loop=uvloop.new_event_loop()), size)


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
