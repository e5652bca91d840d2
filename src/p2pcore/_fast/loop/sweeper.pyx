"""A look now and then at who holds what the program may have dropped.

Comes in: sessions that have streams. Goes out: one call of each one's sweep() each STREAM_SWEEP_S. The timer runs
only while there are any: an idle connection without a stream wakes nobody.
"""

import logging

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.flush cimport Flushable

logger = logging.getLogger("p2pcore.loop")

cdef double SWEEP_S = limits.STREAM_SWEEP_S


@cython.final
cdef class Sweeper:
    """The sessions of one loop that have streams."""

    def __cinit__(self, loop):
        self.loop = loop
        self.swept = {}

    cdef int add(self, Flushable owner) except -1:
        """Looks at `owner` until discard()."""
        self.swept[owner] = None
        if self.handle is None:
            self.handle = self.loop.call_later(SWEEP_S, self._sweep)
        return 0

    cdef int discard(self, Flushable owner) except -1:
        """Looks at `owner` no more. Idempotent."""
        self.swept.pop(owner, None)
        if not self.swept and self.handle is not None:
            self.handle.cancel()
            self.handle = None
        return 0

    def _sweep(self):
        self.handle = None
        for owner in list(self.swept):
            try:
                (<Flushable> owner).sweep()
            except Exception:
                logger.exception("looking for dropped streams failed")
        if self.swept and self.handle is None:
            self.handle = self.loop.call_later(SWEEP_S, self._sweep)
