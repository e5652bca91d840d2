"""The bottom of a chain without a socket: two ends in one process.

Comes in: bytes that the other end sends. Goes out: the same bytes, fed from the event loop through the loop's
receive buffer, one bufferful in each turn. It keeps the promises of a Wire about bounds and ends. Never feeds
while it sends.
"""

cimport cython
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.bottom cimport Bottom, count_out
from p2pcore._fast.chain.layer cimport Mailbox
from p2pcore._fast.loop.loop_state cimport loop_state

cdef Py_ssize_t PIPE_BYTES = limits.MEMORY_PIPE_BYTES


@cython.final
cdef class MemoryWire(Bottom):
    """One end of a pair that `memory_pair` makes. A new one has a Mailbox on top, for the negotiation."""

    def __cinit__(self, loop):
        self.state = loop_state(loop)
        self.inbox = ByteQueue.__new__(ByteQueue)
        cdef Mailbox top = Mailbox.__new__(Mailbox)
        top.seat(self)

    def start(self):
        """Begins to feed what the other end sends."""
        self.started = True
        self._wake()

    # -- up ------------------------------------------------------------------------------------

    cdef int _wake(self) except -1:
        """Feeds from the event loop, if there is anything to feed."""
        if self.scheduled or not self.started or self.throttled or self.is_closed:
            return 0
        if self.inbox.size or (self.fin_got and not self.eof_fed) or self.gone:
            self.scheduled = True
            self.state.loop.call_soon(self._deliver)
        return 0

    def _deliver(self):
        self.scheduled = False
        if self.is_closed or self.throttled:
            return
        if self.inbox.size:
            self._feed()
        elif self.fin_got and not self.eof_fed:
            self.eof_fed = True
            self.feed_eof_up()
        if self.eof_fed and self.gone:
            self.drop(errors.ConnectionClosed("the other end closed the connection"))
        self._wake()

    cdef int _feed(self) except -1:
        n = self.inbox.take_into(self.state.receive.data, self.state.receive.size)
        if self.peer is not None:
            self.peer.tally(0, -n)
        if not self.fin_sent:  # draining: what the other end still sends is dropped
            self.feed_up(self.state.receive.data, n)
        if not self.inbox.size and self.peer is not None:
            self.peer.resume_above()
        return 0

    # -- down ----------------------------------------------------------------------------------

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        if self.ending:
            return 0  # whoever sends learns it from lost()
        if self.gone:
            if self.inbox.size:
                return 0  # what has come is fed first; then the end follows
            return self.drop(errors.ConnectionClosed("the other end closed the connection"))
        if not self.may_queue(n):
            return 0
        count_out(self, n)
        self.peer.inbox.push(data, n)
        self.tally(0, n)
        self.peer._wake()
        return self.pause_above() if self.peer.inbox.size >= PIPE_BYTES else 0

    cdef int throttle(self, bint on) except -1:
        self.throttled = on
        return self._wake()

    cdef Py_ssize_t num_unsent(self) except -1:
        return 0 if self.peer is None else self.peer.inbox.size

    # -- the end -------------------------------------------------------------------------------

    cdef int send_fin(self) except -1:
        if self.peer is not None:
            self.peer.fin_got = True
            self.peer._wake()
        return self._wake()

    cdef bint both_ended(self) except -1:
        return self.eof_fed

    cdef int break_off(self) except -1:
        cdef MemoryWire peer = self.peer
        self.peer = None
        self.inbox.clear()
        self.lose_soon()
        if peer is not None:
            peer.peer = None
            peer.gone = peer.fin_got = True
            peer._wake()
        return 0


def memory_pair(loop):
    """Two ends of one connection."""
    cdef MemoryWire one = MemoryWire.__new__(MemoryWire, loop)
    cdef MemoryWire two = MemoryWire.__new__(MemoryWire, loop)
    one.peer = two
    two.peer = one
    return one, two
