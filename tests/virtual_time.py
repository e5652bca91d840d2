"""The clock of p2pcore.testing, and what the suite needs with it."""

from __future__ import annotations

import asyncio

from p2pcore.testing import VirtualLoop, run_virtual, virtual

__all__ = ["VirtualLoop", "now", "run_virtual", "virtual"]


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()
