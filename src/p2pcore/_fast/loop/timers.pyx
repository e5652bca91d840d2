"""One coarse timer for all deadlines of a loop's connections.

Comes in: layers, and how long each may take. Goes out: one call of overdue() for each that took longer, up to
SWEEP_S late. The timer runs only while something is watched.
"""

import logging

cimport cython

from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.flush cimport Flushable

logger = logging.getLogger("p2pcore.loop")

cdef double SWEEP_S = 0.25


@cython.final
cdef class Timers:
    """The layers of one loop that have a deadline."""

    def __cinit__(self, loop):
        self.loop = loop
        self.watched = {}

    cdef int watch(self, Flushable layer, double seconds) except -1:
        """Calls layer.overdue() once, `seconds` from now. A later watch() or unwatch() replaces this one."""
        self.watched[layer] = monotonic() + seconds
        if self.handle is None:
            self.handle = self.loop.call_later(SWEEP_S, self._sweep)
        return 0

    cdef int unwatch(self, Flushable layer) except -1:
        self.watched.pop(layer, None)
        return 0

    def _sweep(self):
        cdef double now = monotonic()
        self.handle = None
        late = [layer for layer, at in self.watched.items() if at <= now]
        for layer in late:
            if self.watched.pop(layer, None) is not None:
                try:
                    (<Flushable> layer).overdue()
                except Exception:
                    logger.exception("a deadline's action failed")
        if self.watched and self.handle is None:
            self.handle = self.loop.call_later(SWEEP_S, self._sweep)
