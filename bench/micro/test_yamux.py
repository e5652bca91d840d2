"""Yamux by itself: parsing and writing frames over a record layer that does nothing.

Comes in: sizes of frames. Goes out: seconds for a fixed number of bytes or frames. Never includes a cipher.
"""

from __future__ import annotations

from typing import Any

import muxed
import pytest
import uvloop

from _fast.chains import PING, SYN, WU, RawYamux, data, frame

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65507}
FRAMES = 20_000


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive_data(benchmark: Any, size: int) -> None:
    """Data frames of one size, read as they come."""
    peer = RawYamux(loop=uvloop.new_event_loop())
    muxed.receive(benchmark, peer, frame(WU, SYN, 1), data(1, bytes(size)), size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send_data(benchmark: Any, size: int) -> None:
    """Writes of one size, gathered into frames and records."""
    muxed.send(
        benchmark, RawYamux(True, loop=uvloop.new_event_loop()), size, lambda sent: frame(WU, 0, 1, sent)
    )


@pytest.mark.parametrize(
    "raw",
    [frame(WU, 0, 1, 0), frame(PING, 2, 0, 7), data(1, b"")],
    ids=["window update", "pong", "empty data"],
)
def test_receive_small_frames(benchmark: Any, raw: bytes) -> None:
    """Frames that do nothing: what a flood of them costs."""
    loop = uvloop.new_event_loop()
    peer = RawYamux(loop=loop)
    peer.deliver(frame(WU, SYN, 1))
    chunk = raw * (FRAMES // 10)

    def run() -> None:
        for _ in range(10):
            peer.deliver(chunk)

    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
    benchmark.extra_info["frames"] = FRAMES
    benchmark.extra_info["ns_per_frame"] = round(benchmark.stats.stats.min / FRAMES * 1e9, 1)
    peer._lose()
    loop.close()
