"""The bottom of a chain without a socket: two ends in one process.

Comes in: bytes sent at the other end. Goes out: the same, fed from the event loop out of the loop's receive
buffer, a bufferful a turn. It keeps the promises of a Wire: bounded, half-closed, ended and lost as that is.
Never feeds from within a send.
"""

cimport cython
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.chain.layer cimport Layer, Mailbox
from p2pcore._fast.loop.loop_state cimport loop_state, monotonic

cdef Py_ssize_t PIPE_BYTES = limits.MEMORY_PIPE_BYTES
cdef double STALL_S = limits.WRITE_STALL_TIMEOUT_S
cdef double STALL_LOOK_S = STALL_S / limits.WRITE_STALL_LOOKS
cdef double DRAIN_S = limits.CLOSE_DRAIN_TIMEOUT_S
cdef Py_ssize_t MAX_QUEUED = limits.MAX_QUEUED_CONTROL_BYTES


@cython.final
cdef class MemoryWire(Bottom):
    """One end; made in pairs by `memory_pair`. It has a Mailbox on top, for the negotiation to come."""

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
        if self.inbox.size or (self.fin_got and not self.ended) or self.gone:
            self.scheduled = True
            self.state.loop.call_soon(self._deliver)
        return 0

    def _deliver(self):
        self.scheduled = False
        if self.is_closed or self.throttled:
            return
        self.feeding = True
        try:
            if self.inbox.size:
                self._feed()
            elif self.fin_got and not self.ended:
                self._feed_end()
        except Exception as error:
            self.refuse(error)
        finally:
            self.feeding = False
        if self.ended and self.gone:
            self.fail(errors.ConnectionClosed("the other end closed the connection"))
        if self.error is not None or self.shutting:
            self.finish()
        self._wake()

    cdef int _feed(self) except -1:
        n = self.inbox.take_into(self.state.receive.data, self.state.receive.size)
        if not self.fin_sent:  # draining: what the other end still sends is dropped
            self.above.feed(self.state.receive.data, n)
        if not self.inbox.size and self.peer is not None:
            self.peer._taken()
        return 0

    cdef int _feed_end(self) except -1:
        self.ended = True
        return self.above.feed_eof()

    # -- down ----------------------------------------------------------------------------------

    cdef int send(self, const uint8_t* data, Py_ssize_t n) except -1:
        if self.is_closed or self.shutting or self.error is not None:
            return 0  # ending already: whoever sends learns it from lost()
        if self.gone:
            return self.fail(errors.ConnectionClosed("the other end closed the connection"))
        if self.queued:
            self.over += n
            if self.over > MAX_QUEUED:
                return self.fail(
                    errors.LimitExceeded("bytes queued for a peer that does not read", self.over, MAX_QUEUED))
        self.peer.inbox.push(data, n)
        self.peer._wake()
        if not self.queued and self.peer.inbox.size >= PIPE_BYTES:
            self.queued = True
            self.over = 0
            self.moved_at = monotonic()
            self.unread = self.peer.inbox.size
            self.state.watch(self, STALL_LOOK_S)
            self.above.pause()
        return 0

    cdef int _taken(self) except -1:
        """The other end has been fed all that was sent."""
        if not self.queued:
            return 0
        self.queued = False
        self.state.unwatch(self)
        if self.shutting:
            return self.finish()
        if not self.is_closed:
            self.above.resume()
        return 0

    cdef int throttle(self, bint on) except -1:
        self.throttled = on
        return self._wake()

    cdef bint is_paused(self) except -1:
        return self.queued or self.is_closed

    # -- the end -------------------------------------------------------------------------------

    cdef int overdue(self) except -1:
        """The other end took nothing for too long, or did not end its half after our end."""
        if self.fin_sent or self.peer is None:
            return self.fail(errors.ConnectionClosed("the connection was closed here"))
        if self.peer.inbox.size < self.unread:
            self.unread = self.peer.inbox.size
            self.moved_at = monotonic()
        if monotonic() - self.moved_at < STALL_S:
            return self.state.watch(self, STALL_LOOK_S)
        return self.fail(errors.ConnectionClosed(f"the peer took no byte for {STALL_S:g} s"))

    cdef int finish(self) except -1:
        """Does what was put off while feeding: the end at once, or in order as soon as nothing is queued."""
        if self.is_closed:
            return 0
        if self.error is not None:
            return self._close()
        if not self.queued and not self.fin_sent:
            self.fin_sent = True
            self.throttled = False
            self.state.watch(self, DRAIN_S)
            if self.peer is not None:
                self.peer.fin_got = True
                self.peer._wake()
            self._wake()
        if self.fin_sent and self.ended:
            return self._close()
        return 0

    cdef int _close(self) except -1:
        cdef MemoryWire peer = self.peer
        self.is_closed = True
        self.peer = None
        self.state.unwatch(self)
        self.inbox.clear()
        if peer is not None:
            peer.peer = None
            peer.gone = peer.fin_got = True
            if peer.queued:  # what it has sent will never be taken
                peer.fail(errors.ConnectionClosed("the other end closed the connection"))
            peer._wake()
        self.state.loop.call_soon(self._lost)
        return 0

    def _lost(self):
        cdef Layer above = self.above
        self.above = None
        if above is not None:
            above.lost(self.error or errors.ConnectionClosed("the connection is closed"))
        self.error = None


def memory_pair(loop):
    """Two ends of one connection."""
    cdef MemoryWire one = MemoryWire.__new__(MemoryWire, loop)
    cdef MemoryWire two = MemoryWire.__new__(MemoryWire, loop)
    one.peer = two
    two.peer = one
    return one, two
