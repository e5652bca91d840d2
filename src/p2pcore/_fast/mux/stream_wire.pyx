"""The bottom of a chain that runs through a stream of another connection, as Wire is on a socket.

Comes in: what the stream receives, without a copy. Goes out: data of the stream, with its back-pressure. It has no
task, and is watched by the loop's timer only while bytes or a close wait. An error in the chain never harms the
connection that carries the stream: it ends the chain and resets the stream.
"""

cimport cython
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.chain.bottom cimport Bottom, count_out
from p2pcore._fast.chain.layer cimport Mailbox
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.mux.stream cimport Stream

cdef double FLUSH_S = limits.CLOSE_FLUSH_TIMEOUT_S


@cython.final
cdef class _Late(Flushable):
    """A stream whose peer was to end its half by now."""

    cdef Stream stream

    cdef int overdue(self) except -1:
        self.stream.reset(0)
        return 0


@cython.final
cdef class StreamWire(Bottom):
    """A stream as the wire of an inner connection. A new one has a Mailbox on top.

    Args:
        stream: negotiated, and nobody reads it. From now on only this wire reads and writes it.
    """

    def __cinit__(self, Stream stream not None):
        self.state = stream.state
        self.stream = stream
        cdef Mailbox top = Mailbox.__new__(Mailbox)
        top.seat(self)

    def start(self):
        """Begins to read the stream, first what it holds. Raises: what the stream failed with."""
        if self.is_closed:
            raise errors.ConnectionClosed("the connection was closed before it was started")
        self.stream.attach(self)
        self.started = True
        self.stream.pour()

    # -- what the stream tells -----------------------------------------------------------------

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        if not self.is_closed and not self.fin_sent:  # draining: what the peer still sends is dropped
            self.feed_up(data, n)
        return 0

    cdef int feed_eof(self) except -1:
        if self.fin_sent:
            return self.go_on_ending()
        if not self.is_closed:
            self.feed_eof_up()
        return 0

    cdef int lost(self, object error) except -1:
        """The stream was reset, or its connection is gone."""
        closed = errors.ConnectionClosed(f"the stream that carried the connection ended: {error}")
        closed.__cause__ = error
        return self.drop(closed)

    cdef int resume(self) except -1:
        """All that waited has been sent."""
        return self.resume_above()

    # -- the chain -----------------------------------------------------------------------------

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        if self.ending:
            return 0  # whoever sends learns it from lost()
        count_out(self, n)
        if self.may_queue(n) and self.stream.put(data, n):
            self.pause_above()
        return 0

    cdef int throttle(self, bint on) except -1:
        self.stream.hold(on)
        if not on:
            self.state.loop.call_soon(self._pour)
        return 0

    def _pour(self):
        if not self.is_closed:
            self.stream.pour()

    cdef Py_ssize_t num_unsent(self) except -1:
        return self.stream.num_waiting()

    # -- the end -------------------------------------------------------------------------------

    cdef int send_fin(self) except -1:
        self.is_orderly = True
        self.stream.hold(False)
        self.stream.close_write()
        if self.started:
            self.state.loop.call_soon(self._pour)
        return 0

    cdef bint both_ended(self) except -1:
        return self.stream.has_ended()

    cdef int break_off(self) except -1:
        cdef _Late late
        self.stream.detach()
        if self.is_orderly and not self.stream.has_ended():
            # A reset now could overtake what the peer has not read yet.
            self.stream.close_read()
            late = _Late.__new__(_Late)
            late.stream = self.stream
            self.state.timers.watch(late, FLUSH_S)
        else:
            self.stream.reset(0)
        return self.lose_soon()
