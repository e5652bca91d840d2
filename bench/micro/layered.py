"""What every benchmark of a layer below the multiplexer does: it moves bytes through it, each way.

Comes in: layers, sizes. Goes out: a rate. Never fills a socket buffer: sent bytes are taken at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import uvloop
from rates import rate

from _fast.chains import Cable
from p2pcore._fast.chain.layer import Layer, Mailbox

TOTAL = 4 << 20
READ_BYTES = 1 << 18


def send(benchmark: Any, layer: Layer, size: int, burst: int) -> None:
    """Writes of `size` bytes, taken away after every `burst` bytes."""
    loop = uvloop.new_event_loop()
    cable = Cable(loop)
    box = cable.mailbox
    box.insert(layer)
    piece = bytes(size)

    def run() -> None:
        for i in range(TOTAL // size):
            box.write(piece)
            if i % max(1, burst // size) == 0:
                cable.sent()
        cable.sent()

    rate(benchmark, TOTAL // size * size, run, warmup_rounds=1)
    cable._lose()
    loop.close()


def open_records(benchmark: Any, pair: Callable[[], tuple[Layer, Layer]], size: int) -> None:
    """Records of `size` bytes that the first layer of a new `pair()` has sealed, for the second to open."""
    loop = uvloop.new_event_loop()

    def records() -> tuple[tuple[Cable, bytes], dict[str, Any]]:
        sender, reader = Cable(loop), Cable(loop)
        one, other = pair()
        box = sender.mailbox
        box.insert(one)
        reader.mailbox.insert(other)
        raw = bytearray()
        for _ in range(TOTAL // size):
            box.write(bytes(size))
            loop.run_until_complete(asyncio.sleep(0))
            raw += sender.sent()
        return (reader, bytes(raw)), {}

    rate(benchmark, TOTAL // size * size, read_all, setup=records, rounds=3)
    loop.close()


def read_all(reader: Cable, raw: bytes) -> None:
    """Delivers `raw` in reads of 256 KiB, and takes the result."""
    box = reader.mailbox
    for at in range(0, len(raw), READ_BYTES):
        reader.deliver(raw[at : at + READ_BYTES])
        while box.num_held:
            take(box)


def take(box: Mailbox) -> None:
    """What is in `box`, up to 128 KiB."""
    with contextlib.suppress(StopIteration):  # the bytes are there: it does not wait
        box.read_exactly(min(box.num_held, 1 << 17)).send(None)
