"""What all connections of one event loop share.

Comes in: layers that have something to flush, or something to wait for with a deadline. Goes out:
the loop's receive buffer, record buffers, one flush at the end of an iteration, one coarse timer
for all deadlines. Never used from another thread than the loop's.
"""

import logging
from collections import OrderedDict

from p2pcore import limits

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cimport cython
from p2pcore._fast.loop.buffer cimport Block, BlockPool

logger = logging.getLogger("p2pcore.loop")

# Overdue layers are found at most this late; one timer a loop, and only while something is watched.
cdef double SWEEP_S = 0.25
# Corks of one chain, wss with Noise within has two: more rounds of flushing are left to the next iteration.
cdef int MAX_CORKS = 4
cdef double SPIN_S = limits.SPIN_S
cdef double MAX_SPIN_S = limits.MAX_SPIN_S
cdef double QUICK_S = limits.QUICK_ANSWER_S
cdef int SPIN_AFTER = limits.SPIN_AFTER_ANSWERS
cdef Py_ssize_t SHORT_BYTES = limits.SPIN_MESSAGE_BYTES
cdef Py_ssize_t RECORD_BLOCK_BYTES = limits.MAX_NOISE_RECORD_BYTES + 2 + limits.MAX_HEADROOM_BYTES


cdef double monotonic() noexcept:
    """Seconds of the clock that asyncio's loops use too."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double> now.tv_sec + <double> now.tv_nsec * 1e-9


cdef class Flushable:
    """Something with output to flush, or with a deadline."""

    cdef int flush(self) except -1:
        """Sends what has been gathered. Called at the end of the iteration that asked for it."""
        return 0

    cdef int overdue(self) except -1:
        """What watch() was waiting for has not happened in time."""
        return 0


@cython.final
cdef class LoopState:
    """Shared by all connections of one event loop; see loop_state()."""

    def __cinit__(self, loop):
        self.loop = loop
        self.receive = Block(limits.RECEIVE_BUFFER_BYTES)
        self.records = BlockPool(RECORD_BLOCK_BYTES, limits.MAX_SPILL_BUFFERS)
        self.lend = self._lend
        self.spin_again = self._spin
        self._spin_s = SPIN_S
        self.due = []
        self.ciphered = OrderedDict()
        self.watched = {}

    def _lend(self, sizehint):
        """The get_buffer of every wire."""
        return self.receive

    @property
    def num_watched(self):
        """Layers with a deadline running."""
        return len(self.watched)

    @property
    def num_free_records(self):
        return self.records.num_free

    @property
    def spin_s(self):
        """Seconds for which the loop looks for a quick answer before it sleeps, 0 (never) to limits.MAX_SPIN_S."""
        return self._spin_s

    @spin_s.setter
    def spin_s(self, double value):
        if not 0 <= value <= MAX_SPIN_S:
            raise ValueError(f"spin_s must be from 0 to {MAX_SPIN_S:g} seconds, not {value:g}")
        self._spin_s = value
        self.num_quick = 0
        self.said_at = self.spin_until = 0

    @property
    def is_spinning(self):
        """It looks for an answer, and does not sleep."""
        return self.spin_until != 0

    cdef int said(self, Py_ssize_t n) except -1:
        """`n` bytes have left; where answers have been quick lately, the loop does not sleep before the next."""
        if n > SHORT_BYTES:
            self.said_at = 0
            return 0
        if self._spin_s == 0:
            return 0
        self.said_at = monotonic()
        if self.num_quick >= SPIN_AFTER:
            self.spin_until = self.said_at + self._spin_s
            if not self.spin_scheduled:
                self.spin_scheduled = True
                self.loop.call_soon(self.spin_again)
        return 0

    cdef int heard(self, Py_ssize_t n) noexcept:
        """`n` bytes have come."""
        if self.said_at == 0:
            return 0
        if n > SHORT_BYTES or monotonic() - self.said_at > QUICK_S:
            self.num_quick = 0
        elif self.num_quick < SPIN_AFTER:
            self.num_quick += 1
        self.said_at = self.spin_until = 0
        return 0

    def _spin(self):
        """Keeps the loop awake for one more look at its sockets."""
        self.spin_scheduled = False
        if self.spin_until == 0:
            return
        if monotonic() >= self.spin_until:
            self.spin_until = 0
            self.num_quick = 0
            return
        sched_yield()
        self.spin_scheduled = True
        self.loop.call_soon(self.spin_again)

    cdef int flush_soon(self, Flushable layer) except -1:
        """Has `layer` flushed when the callbacks that are ready now have run."""
        if not layer.flush_due:
            layer.flush_due = True
            self.due.append(layer)
            if not self.flush_scheduled:
                self.flush_scheduled = True
                self.loop.call_soon(self._flush_due)
        return 0

    def _flush_due(self):
        self.flush_scheduled = False
        self.flush_now()

    cdef int flush_now(self) except -1:
        """Flushes all that is due, and what falls due by that: a cork below another one."""
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

    cdef int watch(self, Flushable layer, double seconds) except -1:
        """Calls layer.overdue() once, `seconds` from now, unless unwatched or watched anew before."""
        self.watched[layer] = monotonic() + seconds
        if self.sweep_handle is None:
            self.sweep_handle = self.loop.call_later(SWEEP_S, self._sweep)
        return 0

    cdef int unwatch(self, Flushable layer) except -1:
        self.watched.pop(layer, None)
        return 0

    def _sweep(self):
        cdef double now = monotonic()
        self.sweep_handle = None
        late = [layer for layer, at in self.watched.items() if at <= now]
        for layer in late:
            if self.watched.pop(layer, None) is not None:
                try:
                    (<Flushable> layer).overdue()
                except Exception:
                    logger.exception("a deadline's action failed")
        if self.watched and self.sweep_handle is None:
            self.sweep_handle = self.loop.call_later(SWEEP_S, self._sweep)


cpdef LoopState loop_state(object loop):
    """The state of `loop`, made when it is first asked for; it lives and dies with the loop."""
    try:
        return <LoopState> loop._p2pcore_state
    except AttributeError:
        state = LoopState(loop)
        loop._p2pcore_state = state
        return state
