"""WebSocket frames: framing, masking and parsing, by the size of a write.

Comes in: sizes, roles. Goes out: seconds for a fixed amount of bytes, and bytes per second in extra_info.
"""

from __future__ import annotations

from typing import Any

import layered
import pytest
import uvloop
from layered import TOTAL, read_all
from rates import rate

from _fast.chains import Cable
from p2pcore._fast.chain.websocket import WebsocketLayer

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65519}
ROLES = pytest.mark.parametrize("is_client", [False, True], ids=["server", "client"])


@ROLES
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_send(benchmark: Any, size: int, is_client: bool) -> None:
    layered.send(benchmark, WebsocketLayer(is_client), size, 65519)


@ROLES
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_receive(benchmark: Any, size: int, is_client: bool) -> None:
    loop = uvloop.new_event_loop()
    sender, reader = Cable(loop), Cable(loop)
    out = sender.mailbox
    out.insert(WebsocketLayer(not is_client))
    reader.mailbox.insert(WebsocketLayer(is_client))
    raw = bytearray()
    for _ in range(TOTAL // size):
        out.write(bytes(size))
        raw += sender.sent()
    whole = bytes(raw)

    rate(benchmark, TOTAL // size * size, lambda: read_all(reader, whole), warmup_rounds=1)
    loop.close()
