"""A deadline for what a peer has begun: records and frames of which only a part has come.

Comes in: layers that hold such a part. Goes out: never_ended(), where two looks in a row find no progress. What
arrives whole is never seen here.
"""

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.looks cimport Looks


@cython.final
cdef class Unfinished(Looks):
    """The layers of one loop that hold a part of a record or frame, or did at the last look.

    Each with its progress at the last look, and whether there was none since the one before.
    """

    def __cinit__(self, loop):
        self.every = limits.UNFINISHED_LOOK_S

    cdef int add(self, Flushable layer) except -1:
        """Looks at `layer` until it is whole, or discard(). It must not be here yet."""
        self.table[layer] = (0, False)
        return self.look_soon()

    cdef int look_at(self, Flushable layer) except -1:
        """A second look: the rest may be here unread if this process stood still."""
        seen, was_silent = self.table[layer]
        now = layer.progress()
        if now == 0 or (now == seen and was_silent):
            del self.table[layer]
            return layer.never_ended(now == 0)
        self.table[layer] = (now, now == seen)
        return 0
