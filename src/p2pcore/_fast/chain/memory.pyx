"""The bottom of a chain without a socket: two ends in one process.

Comes in: bytes that the other end sends. Goes out: the same bytes, fed from the event loop through the loop's
receive buffer, one bufferful in each turn. A link may carry them there, late (p2pcore.testing). It keeps the
promises of a Wire about bounds and ends. Never feeds while it sends.
"""

import errno

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.bottom cimport Bottom, closed_by, count_out
from p2pcore._fast.chain.layer cimport Mailbox
from p2pcore._fast.loop.loop_state cimport loop_state

cdef Py_ssize_t PIPE_BYTES = limits.MEMORY_PIPE_BYTES
cdef Py_ssize_t LINK_BYTES = limits.MEMORY_LINK_BYTES


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
        if self.peer is not None and self.peer._has_room():
            self.peer.resume_above()
        return 0

    # -- what a link has carried ---------------------------------------------------------------

    def _arrived(self, bytes data):
        """The other end has sent `data`."""
        if self.is_closed:
            return
        if self.peer is not None:
            self.peer.under_way -= len(data)
        self.inbox.push(<const uint8_t *> <const char *> data, len(data))
        self._wake()

    def _fin_arrived(self, _):
        """The other end sends no more."""
        self.fin_got = True
        self._wake()

    def _gone_arrived(self, _):
        """The other end is lost."""
        self.gone = self.fin_got = True
        self._wake()

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
        if self.link is not None:
            return self._carry(data, n)
        self.peer.inbox.push(data, n)
        self.tally(0, n)
        self.peer._wake()
        return self.pause_above() if self._is_full() else 0

    cdef int _carry(self, const uint8_t *data, Py_ssize_t n) except -1:
        if self.peer is None:
            return 0  # it is gone, which is under way
        self.under_way += n
        self.tally(0, n)
        self.link.carry(PyBytes_FromStringAndSize(<const char *> data, n), self.peer._arrived)
        return self.pause_above() if self._is_full() else 0

    cdef bint _is_full(self) noexcept:
        """Whether who writes waits."""
        if self.link is None:
            return self.peer.inbox.size >= PIPE_BYTES
        return self.under_way + self.peer.inbox.size >= LINK_BYTES

    cdef bint _has_room(self) except -1:
        """Whether who waited may write again."""
        return self.num_unsent() <= (0 if self.link is None else LINK_BYTES // 2)

    cdef int throttle(self, bint on) except -1:
        self.throttled = on
        return self._wake()

    cdef Py_ssize_t num_unsent(self) except -1:
        return 0 if self.peer is None else self.peer.inbox.size + self.under_way

    # -- the end -------------------------------------------------------------------------------

    cdef int send_fin(self) except -1:
        if self.peer is not None and self.link is not None:
            self.link.carry(b"", self.peer._fin_arrived)
        elif self.peer is not None:
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
        if peer is None:
            return 0
        peer.peer = None
        if self.link is not None:
            self.link.carry(b"", peer._gone_arrived)
            self.link = None
        else:
            peer.gone = peer.fin_got = True
            peer._wake()
        return 0

    def cut(self):
        """Both ends are lost at once, as when the network between them breaks. Idempotent."""
        cdef MemoryWire peer = self.peer
        for end in (self, peer):
            if end is not None:
                (<MemoryWire> end).drop(closed_by(ConnectionResetError(errno.ECONNRESET, "connection reset by peer")))


def memory_pair(loop, links=None):
    """Two ends of one connection.

    Args:
        links: one for what each end sends; without them it is there at once. `carry(data, arrive)` of a link
            calls `arrive(data)` from the event loop, some time later, in the order of the calls.
    """
    cdef MemoryWire one = MemoryWire.__new__(MemoryWire, loop)
    cdef MemoryWire two = MemoryWire.__new__(MemoryWire, loop)
    one.peer = two
    two.peer = one
    if links is not None:
        one.link, two.link = links
    return one, two
