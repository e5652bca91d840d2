"""What a process knows about its own memory when it is at rest.

Goes out: counts and bytes. Never compares.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Held:
    """What is alive.

    Attributes:
        objects: all that the garbage collector tracks. blocks: of Python's allocator.
        traced: bytes of Python-level allocations, 0 if tracemalloc is off. rss: resident bytes.
    """

    objects: int
    blocks: int
    traced: int
    rss: int

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def held() -> Held:
    """Counts after garbage has been collected and free memory given back to the system."""
    gc.collect()
    gc.collect()
    blocks = sys.getallocatedblocks()
    _trim()
    return Held(len(gc.get_objects()), blocks, tracemalloc.get_traced_memory()[0], _rss())


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
