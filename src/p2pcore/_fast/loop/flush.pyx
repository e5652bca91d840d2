"""One flush for all that the connections of a loop write in one iteration.

Comes in: layers with gathered output. Goes out: one call of each one's flush(), when the callbacks that are
ready have run, or earlier, when the last task that was woken waits again (see Op.step and docs/decisions/0002).
"""

import logging

cimport cython
from libc.stdint cimport uint64_t

from p2pcore import limits

logger = logging.getLogger("p2pcore.loop")

# Corks of one chain: wss with Noise inside has two. Further rounds of flushing wait for the next iteration.
cdef int MAX_CORKS = 4
cdef Py_ssize_t FLUSH_AFTER_WRITES = limits.FLUSH_AFTER_WRITES


cdef class Flushable:
    """Something with output to flush, with a deadline, with what may be dropped, or with work that waits."""

    cdef int flush(self) except -1:
        """Sends what has been gathered. The Flusher calls it at the end of the iteration."""
        return 0

    cdef int overdue(self) except -1:
        """The time that was given to Timers.watch() is over."""
        return 0

    cdef int sweep(self) except -1:
        """Drops what nobody holds any more. The Sweeper calls it now and then."""
        return 0

    cdef uint64_t progress(self) except? 0:
        """A number that changes while what the peer has begun goes on; 0: nothing is unfinished. For Unfinished."""
        return 0

    cdef int never_ended(self, bint is_whole) except -1:
        """It is looked at no more: it is whole, or the peer has begun something and does not go on with it."""
        return 0

    cdef int go_on(self) except -1:
        """Does its share of what waits. The Rota calls it when it is its turn."""
        return 0


@cython.final
cdef class Flusher:
    """The layers of one loop that have output to flush."""

    def __cinit__(self, loop):
        self.loop = loop
        self.due = []

    cdef int flush_soon(self, Flushable layer) except -1:
        """Flushes `layer` when the callbacks that are ready now have run."""
        if not layer.flush_due:
            layer.flush_due = True
            self.due.append(layer)
            if not self.is_held:
                self._schedule()
        return 0

    cdef int _schedule(self) except -1:
        if not self.is_scheduled:
            self.is_scheduled = True
            self.loop.call_soon(self._at_end)
        return 0

    cdef int release(self) except -1:
        """Ends `is_held`: while it is set, tasks are started, and what is gathered leaves behind their first step."""
        self.is_held = False
        return self._schedule() if self.due else 0

    def _at_end(self):
        self.is_scheduled = False
        self.flush_now()

    cdef int relieve(self) except -1:
        """Flushes if there is much on the list. For calls of the program: no layer is in the midst of something."""
        return self.flush_now() if len(self.due) >= FLUSH_AFTER_WRITES else 0

    cdef int flush_now(self) except -1:
        """Flushes all layers on the list, and those that this adds to it: a cork below another one."""
        cdef int rounds = 0
        self.num_resumed = 0
        while self.due and rounds < MAX_CORKS:
            rounds += 1
            self._flush_round()
        return 0

    cdef int _flush_round(self) except -1:
        cdef Flushable layer
        cdef list due = self.due
        self.due = []
        for item in due:
            layer = <Flushable> item
            layer.flush_due = False
            try:
                layer.flush()
            except Exception:
                logger.exception("flushing failed")
        return 0
