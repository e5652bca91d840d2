"""WebSocket frames: framing, masking and taking apart, per size of what is written at once.

Comes in: sizes, roles. Goes out: seconds for a fixed amount of bytes, and bytes per second in extra_info.
Never touches a socket buffer that could fill: what is sent is taken at once.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import uvloop

from _fast.chain import Cable
from p2pcore._fast.websocket import WebsocketLayer

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65519}
TOTAL = 4 << 20
ROLES = pytest.mark.parametrize("is_client", [False, True], ids=["server", "client"])


@ROLES
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send(benchmark: Any, size: int, is_client: bool) -> None:
    loop = uvloop.new_event_loop()
    cable = Cable(loop)
    box = cable.mailbox
    box.insert(WebsocketLayer(is_client))
    piece = bytes(size)

    def run() -> None:
        for i in range(TOTAL // size):
            box.write(piece)
            if i % max(1, 65519 // size) == 0:
                cable.sent()
        cable.sent()

    benchmark.extra_info["bytes"] = TOTAL // size * size
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    benchmark.extra_info["bytes_per_second"] = round(TOTAL / benchmark.stats.stats.min)
    cable._lose()
    loop.close()


@ROLES
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive(benchmark: Any, size: int, is_client: bool) -> None:
    loop = uvloop.new_event_loop()
    sender, reader = Cable(loop), Cable(loop)
    out, box = sender.mailbox, reader.mailbox
    out.insert(WebsocketLayer(not is_client))
    box.insert(WebsocketLayer(is_client))
    raw = bytearray()
    for _ in range(TOTAL // size):
        out.write(bytes(size))
        raw += sender.sent()
    whole = bytes(raw)

    def run() -> None:
        for at in range(0, len(whole), 1 << 18):
            reader.deliver(whole[at : at + (1 << 18)])
            while box.num_held:
                with contextlib.suppress(StopIteration):  # the bytes are there: it does not wait
                    box.read_exactly(min(box.num_held, 1 << 17)).send(None)

    benchmark.extra_info["bytes"] = TOTAL // size * size
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    benchmark.extra_info["bytes_per_second"] = round(TOTAL / benchmark.stats.stats.min)
    loop.close()
