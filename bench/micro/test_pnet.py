"""A private network's keystream: bytes a second by the size of what is sent or received at once.

Comes in: sizes. Goes out: seconds for a fixed amount of bytes, bytes per second in extra_info.
"""

from __future__ import annotations

from typing import Any

import layered
import pytest
import uvloop
from layered import TOTAL, take
from rates import rate

from _fast.chains import KEY_A, Cable
from p2pcore._fast.crypto.pnet import PnetLayer

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65537}
NONCE = bytes(24)
HEADER = b"\x13/multistream/1.0.0\n"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send(benchmark: Any, size: int) -> None:
    layered.send(benchmark, PnetLayer(KEY_A, NONCE), size, 65536)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive(benchmark: Any, size: int) -> None:
    """Behind the header come arbitrary bytes, because the keystream works on any bytes."""
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
                take(box)

    rate(benchmark, TOTAL // size * size, run, setup=fresh)
    loop.close()
