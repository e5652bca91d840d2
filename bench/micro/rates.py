"""Bytes per second of a benchmark.

Comes in: the fixture of pytest-benchmark, a work of a fixed number of bytes. Goes out: `bytes` and
`bytes_per_second` in its extra_info, the latter of the quickest round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def rate(benchmark: Any, total: int, run: Callable[..., object], **options: Any) -> None:
    """Runs `run`, which moves `total` bytes, with `options` of benchmark.pedantic."""
    benchmark.pedantic(run, **({"rounds": 5} | options))
    benchmark.extra_info["bytes"] = total
    benchmark.extra_info["bytes_per_second"] = round(total / benchmark.stats.stats.min)
