"""A look now and then at who holds what the program may have dropped.

Comes in: sessions that have streams. Goes out: one call of each one's sweep() each STREAM_SWEEP_S. An idle connection
without a stream wakes nobody.
"""

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.looks cimport Looks


@cython.final
cdef class Sweeper(Looks):
    """The sessions of one loop that have streams."""

    def __cinit__(self, loop):
        self.every = limits.STREAM_SWEEP_S

    cdef int add(self, Flushable owner) except -1:
        """Looks at `owner` until discard()."""
        self.table[owner] = None
        return self.look_soon()

    cdef int look_at(self, Flushable owner) except -1:
        return owner.sweep()
