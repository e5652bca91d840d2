"""Looking for a quick answer before the loop sleeps; see docs/decisions/0009.

Comes in: how many bytes left the process, and how many came. Goes out: a loop that does not sleep for a short
time after it has sent a short message, where the last answers came quickly.
"""

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.clock cimport monotonic

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef double SPIN_S = limits.SPIN_S
cdef double MAX_SPIN_S = limits.MAX_SPIN_S
cdef double QUICK_S = limits.QUICK_ANSWER_S
cdef int SPIN_AFTER = limits.SPIN_AFTER_ANSWERS
cdef Py_ssize_t SHORT_BYTES = limits.SPIN_MESSAGE_BYTES


@cython.final
cdef class Spin:
    """When one loop may go to sleep."""

    def __cinit__(self, loop):
        self.loop = loop
        self.seconds = SPIN_S
        self.look = self._look

    cdef int set_seconds(self, double value) except -1:
        if not 0 <= value <= MAX_SPIN_S:
            raise ValueError(f"spin_s must be from 0 to {MAX_SPIN_S:g} seconds, not {value:g}")
        self.seconds = value
        self.num_quick = 0
        self.said_at = self.until = 0
        return 0

    cdef int said(self, Py_ssize_t n) except -1:
        """`n` bytes have left. If answers have been quick lately, the loop does not sleep before the next one."""
        if n > SHORT_BYTES:
            self.said_at = 0
            return 0
        if self.seconds == 0:
            return 0
        self.said_at = monotonic()
        if self.num_quick >= SPIN_AFTER:
            self.until = self.said_at + self.seconds
            if not self.is_scheduled:
                self.is_scheduled = True
                self.loop.call_soon(self.look)
        return 0

    cdef int heard(self, Py_ssize_t n) noexcept:
        """`n` bytes have come."""
        if self.said_at == 0:
            return 0
        if n > SHORT_BYTES or monotonic() - self.said_at > QUICK_S:
            self.num_quick = 0
        elif self.num_quick < SPIN_AFTER:
            self.num_quick += 1
        self.said_at = self.until = 0
        return 0

    def _look(self):
        """Keeps the loop awake for one more look at its sockets."""
        self.is_scheduled = False
        if self.until == 0:
            return
        if monotonic() >= self.until:
            self.until = 0
            self.num_quick = 0
            return
        sched_yield()
        self.is_scheduled = True
        self.loop.call_soon(self.look)
