"""A deadline for what a peer has begun: records and frames of which only a part has come.

Comes in: layers that hold such a part. Goes out: never_ended(), where two looks in a row find no progress. One timer
for all, which runs only while something is unfinished. What arrives whole is never seen here.
"""

import logging

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.flush cimport Flushable

logger = logging.getLogger("p2pcore.loop")

cdef double LOOK_S = limits.UNFINISHED_LOOK_S


@cython.final
cdef class Unfinished:
    """The layers of one loop that hold a part of a record or frame, or did at the last look."""

    def __cinit__(self, loop):
        self.loop = loop
        self.begun = {}

    cdef int add(self, Flushable layer) except -1:
        """Looks at `layer` until it is whole, or discard(). It must not be here yet."""
        self.begun[layer] = (0, False)
        if self.handle is None:
            self.handle = self.loop.call_later(LOOK_S, self._look)
        return 0

    cdef int discard(self, Flushable layer) except -1:
        """Looks at `layer` no more. Idempotent."""
        self.begun.pop(layer, None)
        if not self.begun and self.handle is not None:
            self.handle.cancel()
            self.handle = None
        return 0

    def _look(self):
        self.handle = None
        for layer, (seen, was_silent) in list(self.begun.items()):
            try:
                self._look_at(<Flushable> layer, seen, was_silent)
            except Exception:
                logger.exception("looking at an unfinished record failed")
        if self.begun and self.handle is None:
            self.handle = self.loop.call_later(LOOK_S, self._look)

    cdef int _look_at(self, Flushable layer, object seen, bint was_silent) except -1:
        """A second look: the rest may be here unread if this process stood still."""
        now = layer.progress()
        if now == 0 or (now == seen and was_silent):
            self.begun.pop(layer, None)
            return layer.never_ended(now == 0)
        self.begun[layer] = (now, now == seen)
        return 0
