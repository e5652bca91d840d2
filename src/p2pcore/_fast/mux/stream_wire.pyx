"""The bottom of a chain that runs through a stream of another connection, as Wire is on a socket.

Comes in: what the stream receives, without a copy. Goes out: the stream's data, with its
back-pressure. Never has a task; a timer of the loop's only while bytes wait, or a close does. Never
lets what it carries harm the connection that carries it: errors end this chain and reset the stream.
"""

cimport cython
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.chain.layer cimport Layer, Mailbox
from p2pcore._fast.mux.sink cimport attach, pour, put
from p2pcore._fast.mux.stream cimport Stream, WriteOp
from p2pcore._fast.loop.loop_state cimport monotonic

cdef double STALL_S = limits.WRITE_STALL_TIMEOUT_S
cdef double STALL_LOOK_S = STALL_S / limits.WRITE_STALL_LOOKS
cdef double DRAIN_S = limits.CLOSE_DRAIN_TIMEOUT_S
cdef Py_ssize_t MAX_QUEUED = limits.MAX_QUEUED_CONTROL_BYTES


@cython.final
cdef class StreamWire(Bottom):
    """A stream as the wire of a connection within it; a new one has a Mailbox on top.

    Args:
        stream: negotiated, without a reader; owned from now on, and not to be read or written otherwise.
    """

    def __cinit__(self, Stream stream not None):
        self.state = stream.state
        self.stream = stream
        cdef Mailbox top = Mailbox.__new__(Mailbox)
        top.seat(self)

    def start(self):
        """Begins to read the stream, what it holds first. Raises: what the stream failed with."""
        if self.is_closed:
            raise errors.ConnectionClosed("the connection was closed before it was started")
        attach(self.stream, self)
        self.started = True
        pour(self.stream)

    # -- what the stream tells -----------------------------------------------------------------

    cdef int feed(self, uint8_t* data, Py_ssize_t n) except -1:
        if self.is_closed or self.fin_due:
            return 0  # draining: what a peer still sends after our end is dropped
        self.feeding = True
        try:
            self.above.feed(data, n)
        except Exception as error:
            self.refuse(error)
        finally:
            self.feeding = False
        return self._fed()

    cdef int feed_eof(self) except -1:
        if self.is_closed:
            return 0
        self.feeding = True
        try:
            if not self.fin_due:
                self.above.feed_eof()
        except Exception as error:
            self.refuse(error)
        finally:
            self.feeding = False
        self._fed()
        return self._maybe_end()

    cdef int lost(self, object error) except -1:
        """The stream was reset, or its connection is gone."""
        if not self.is_closed:
            if self.error is None:
                self.error = errors.ConnectionClosed(f"the stream that carried the connection ended: {error}")
                self.error.__cause__ = error
            self._end()
        return 0

    cdef int resume(self) except -1:
        """All that waited has been sent."""
        self.queued = False
        self.state.unwatch(self)
        if self.fin_due:
            self._maybe_end()
            return 0 if self.is_closed else self.state.watch(self, DRAIN_S)
        return 0 if self.is_closed else self.above.resume()

    # -- the chain -----------------------------------------------------------------------------

    cdef int send(self, const uint8_t* data, Py_ssize_t n) except -1:
        if self.is_closed or self.shutting or self.error is not None:
            return 0  # ending already: whoever sends learns it from lost()
        if self.queued:
            self.over += n
            if self.over > MAX_QUEUED:
                return self.fail(
                    errors.LimitExceeded("bytes queued for a peer that does not read", self.over, MAX_QUEUED))
        if put(self.stream, data, n) and not self.queued:
            self.queued = True
            self.over = 0
            self.moved_at = monotonic()
            self.unsent = self._waiting()
            self.state.watch(self, STALL_LOOK_S)
            self.above.pause()
        return 0

    cdef int throttle(self, bint on) except -1:
        self.stream.holding = on
        if not on:
            self.state.loop.call_soon(self._pour)
        return 0

    def _pour(self):
        if not self.is_closed:
            pour(self.stream)

    cdef bint is_paused(self) except -1:
        return self.queued or self.is_closed

    cdef int overdue(self) except -1:
        """The peer took nothing for too long, or did not end its half after our end."""
        cdef Py_ssize_t unsent = self._waiting()
        if self.fin_due and not self.queued:
            return self.fail(errors.ConnectionClosed("the connection was closed here"))
        if unsent < self.unsent:
            self.unsent = unsent
            self.moved_at = monotonic()
        if monotonic() - self.moved_at < STALL_S:
            return self.state.watch(self, STALL_LOOK_S)
        return self.fail(errors.ConnectionClosed(f"the connection broke: the peer took no byte for {STALL_S:g} s"))

    # -- inside --------------------------------------------------------------------------------

    cdef Py_ssize_t _waiting(self) except -1:
        """Bytes the stream could not send yet."""
        cdef Py_ssize_t n = 0
        for op in self.stream.writers or ():
            n += (<WriteOp> op).size - (<WriteOp> op).at
        return n

    cdef int _fed(self) except -1:
        """Does what was put off while feeding."""
        if self.error is not None or self.shutting:
            self.finish()
        return 0

    cdef int finish(self) except -1:
        """Ends at once where there is an error, else with the end of our data behind what waits."""
        if self.is_closed:
            return 0
        if self.error is not None:
            return self._end()
        if not self.fin_due:
            self.fin_due = True
            self.stream.holding = False
            self.stream.close_write()
            if not self.queued:
                self.state.watch(self, DRAIN_S)
            if self.started:
                self.state.loop.call_soon(self._pour)
            return self._maybe_end()
        return 0

    cdef int _maybe_end(self) except -1:
        """Ends where both halves of the stream have."""
        return self._end() if self.fin_due and self.stream.has_ended() else 0

    cdef int _end(self) except -1:
        if not self.is_closed:
            self.is_closed = True
            self.state.unwatch(self)
            if self.error is None:
                self.error = errors.ConnectionClosed("the connection is closed")
            self.stream.sink = None
            self.stream.reset(0)
            self.state.loop.call_soon(self._lose)
        return 0

    def _lose(self):
        above, self.above = self.above, None
        if above is not None:
            (<Layer> above).lost(self.error)
        self.error = None
