"""TLS records: sealing and opening, per size of what is written at once; compare with test_records.py.

Comes in: sizes. Goes out: seconds for a fixed amount of bytes, and bytes per second in extra_info. Never
touches a socket buffer that could fill: what is sent is taken at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import uvloop

from _fast.chain import Cable
from tls_pairs import channels

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65280}
TOTAL = 4 << 20
READ_BYTES = 1 << 18


def rate(benchmark: Any, size: int, run: Any, **options: Any) -> None:
    done = TOTAL // size * size
    benchmark.extra_info["bytes"] = done
    benchmark.pedantic(run, **options)
    benchmark.extra_info["bytes_per_second"] = round(done / benchmark.stats.stats.min)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_seal(benchmark: Any, size: int) -> None:
    loop = uvloop.new_event_loop()
    cable = Cable(loop)
    box = cable.mailbox
    box.insert(channels()[0])
    piece = bytes(size)

    def run() -> None:
        for i in range(TOTAL // size):
            box.write(piece)
            if i % max(1, 65280 // size) == 0:
                cable.sent()
        cable.sent()

    rate(benchmark, size, run, rounds=5, warmup_rounds=1)
    cable._lose()
    loop.close()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_open(benchmark: Any, size: int) -> None:
    loop = uvloop.new_event_loop()

    def records() -> tuple[tuple[Cable, bytes], dict[str, Any]]:
        """What one channel has sealed, for the other to open."""
        sender, reader = Cable(loop), Cable(loop)
        one, other = channels()
        box = sender.mailbox
        box.insert(one)
        reader.mailbox.insert(other)
        raw = bytearray()
        for _ in range(TOTAL // size):
            box.write(bytes(size))
            loop.run_until_complete(asyncio.sleep(0))
            raw += sender.sent()
        return (reader, bytes(raw)), {}

    def run(reader: Cable, raw: bytes) -> None:
        box = reader.mailbox
        for at in range(0, len(raw), READ_BYTES):
            reader.deliver(raw[at : at + READ_BYTES])
            while box.num_held:
                with contextlib.suppress(StopIteration):  # the bytes are there: it does not wait
                    box.read_exactly(min(box.num_held, 1 << 17)).send(None)

    rate(benchmark, size, run, setup=records, rounds=3)
    loop.close()
