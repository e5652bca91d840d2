"""How often Python's collector looks at all objects of a process that holds many connections: seldom.

Comes in: the settings of `gc`. Goes out: the same, with a full collection ten times less often and without
the objects that are there already, until the end of the block. What connections and streams leave is freed
without the collector (docs/decisions/0045), so it finds the circles of the program only.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from p2pcore.limits import GC_OLDEST_THRESHOLD


@contextmanager
def seldom() -> Iterator[None]:
    """Leaves what the program has set already. It may set something else inside."""
    was = young, middle, oldest = gc.get_threshold()
    is_frozen = gc.get_freeze_count() > 0
    gc.set_threshold(young, middle, max(oldest, GC_OLDEST_THRESHOLD))
    if not is_frozen:
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(*was)
        if not is_frozen:
            gc.unfreeze()
