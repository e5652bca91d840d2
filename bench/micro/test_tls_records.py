"""TLS records: sealing and opening, by the size of a write; compare with test_records.py.

Comes in: sizes. Goes out: seconds for a fixed amount of bytes, and bytes per second in extra_info.
"""

from __future__ import annotations

from typing import Any

import layered
import pytest

from tls_pairs import channels

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "64KiB": 65280}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_seal(benchmark: Any, size: int) -> None:
    layered.send(benchmark, channels()[0], size, 65280)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_open(benchmark: Any, size: int) -> None:
    layered.open_records(benchmark, channels, size)
