"""Noise records: sealing and opening, by the size of a write.

Comes in: sizes. Goes out: seconds for a fixed amount of bytes, and bytes per second in extra_info.
"""

from __future__ import annotations

from typing import Any

import layered
import pytest

from _fast.chains import KEY_A, KEY_B
from p2pcore._fast.crypto.secure import NoiseChannel

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65519}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_seal(benchmark: Any, size: int) -> None:
    layered.send(benchmark, NoiseChannel(KEY_A, KEY_B), size, 65519)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_open(benchmark: Any, size: int) -> None:
    layered.open_records(benchmark, lambda: (NoiseChannel(KEY_A, KEY_B), NoiseChannel(KEY_B, KEY_A)), size)
