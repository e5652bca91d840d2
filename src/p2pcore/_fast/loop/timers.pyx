"""One coarse timer for all deadlines of a loop's connections.

Comes in: layers, and how long each may take. Goes out: one call of overdue() for each that took longer, up to
SWEEP_S late.
"""

cimport cython

from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.looks cimport Looks

cdef double SWEEP_S = 0.25


@cython.final
cdef class Timers(Looks):
    """The layers of one loop that have a deadline: each with the monotonic second at which it is overdue."""

    def __cinit__(self, loop):
        self.every = SWEEP_S

    cdef int watch(self, Flushable layer, double seconds) except -1:
        """Calls layer.overdue() once, `seconds` from now. A later watch() or unwatch() replaces this one."""
        self.table[layer] = monotonic() + seconds
        return self.look_soon()

    cdef int unwatch(self, Flushable layer) except -1:
        self.table.pop(layer, None)  # the timer goes on: a deadline is set and met very often
        return 0

    cdef list due(self):
        cdef double now = monotonic()
        return [layer for layer, at in self.table.items() if at <= now]

    cdef int look_at(self, Flushable layer) except -1:
        if self.table[layer] <= monotonic():  # it has not been given more time meanwhile
            del self.table[layer]
            layer.overdue()
        return 0
