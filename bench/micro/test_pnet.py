"""A private network's keystream: bytes a second by the size of what is sent or received at once.

Comes in: sizes. Goes out: seconds for a fixed amount of bytes, bytes per second in extra_info.
"""

from __future__ import annotations

from typing import Any

import pytest
import uvloop

from _fast.chain import KEY_A, Cable
from p2pcore._fast.pnet import PnetLayer

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65537}
TOTAL = 4 << 20
NONCE = bytes(24)
HEADER = b"\x13/multistream/1.0.0\n"


def rate(benchmark: Any, size: int, run: Any, **options: Any) -> None:
    benchmark.pedantic(run, rounds=5, **options)
    benchmark.extra_info["bytes"] = TOTAL // size * size
    benchmark.extra_info["bytes_per_second"] = round(TOTAL / benchmark.stats.stats.min)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send(benchmark: Any, size: int) -> None:
    loop = uvloop.new_event_loop()
    cable = Cable(loop)
    box = cable.mailbox
    box.insert(PnetLayer(KEY_A, NONCE))
    piece = bytes(size)

    def run() -> None:
        for i in range(TOTAL // size):
            box.write(piece)
            if i % max(1, 65536 // size) == 0:
                cable.sent()
        cable.sent()

    rate(benchmark, size, run, warmup_rounds=1)
    cable._lose()
    loop.close()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive(benchmark: Any, size: int) -> None:
    """What comes is garbage behind the header: the keystream does not mind."""
    loop = uvloop.new_event_loop()
    piece = bytes(size)

    def fresh() -> tuple[tuple[Cable], dict[str, Any]]:
        sender, reader = Cable(loop), Cable(loop)
        box = sender.mailbox
        box.insert(PnetLayer(KEY_A, NONCE))
        box.write(HEADER)
        reader.mailbox.insert(PnetLayer(KEY_A, NONCE))
        reader.deliver(sender.sent())
        return (reader,), {}

    def run(reader: Cable) -> None:
        box = reader.mailbox
        for _ in range(TOTAL // size):
            reader.deliver(piece)
            if box.num_held >= 65536:
                _take(box)

    rate(benchmark, size, run, setup=fresh)
    loop.close()


def _take(box: Any) -> None:
    try:
        box.read_exactly(min(box.num_held, 1 << 17)).send(None)  # the bytes are there: it does not wait
    except StopIteration:
        pass
