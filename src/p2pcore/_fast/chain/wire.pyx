"""The bottom of a chain: an asyncio BufferedProtocol on a connected socket.

Comes in: what the kernel has received, into the loop's one receive buffer. Goes out: bytes by
send(2) on the socket itself while the transport has nothing queued, else by transport.write. Never
keeps a buffer of its own; never reads while throttled; closes only when the outermost feed is done.
"""

import sys
import termios
from asyncio import Future
from fcntl import ioctl

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t

from os import strerror

from p2pcore import errors, limits

from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.chain.layer cimport Layer, Mailbox
from p2pcore._fast.loop.loop_state cimport loop_state, monotonic


cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_send "send"(int fd, const void* data, size_t n, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef double STALL_S = limits.WRITE_STALL_TIMEOUT_S
cdef double STALL_LOOK_S = STALL_S / limits.WRITE_STALL_LOOKS
cdef double DRAIN_S = limits.CLOSE_DRAIN_TIMEOUT_S
cdef Py_ssize_t MAX_QUEUED = limits.MAX_QUEUED_CONTROL_BYTES


@cython.final
cdef class Wire(Bottom):
    """The socket end of a connection; give `lambda: wire` to loop.create_connection and the like.

    A new wire has a Mailbox on top, for the negotiation to come.

    Args:
        loop: its event loop.
        fd: of the socket, where that is known: uvloop makes, and keeps, an object to tell it.
    """

    def __cinit__(self, loop, int fd=-1):
        self.state = loop_state(loop)
        self.fd = fd
        cdef Mailbox top = Mailbox.__new__(Mailbox)
        top.seat(self)

    def close(self):
        """Orderly: sends what is queued, then FIN, and reads until the peer's end, for a second at most.

        Idempotent. Followed by the chain's lost(); see wait_closed.
        """
        cdef Layer top = self
        while top.above is not None:
            top = top.above
        top.shut()

    async def wait_closed(self):
        """Returns when the socket has been closed."""
        if self.is_closed and self.transport is None:
            return
        waiter = Future(loop=self.state.loop)
        if self.closed_waiters is None:
            self.closed_waiters = []
        self.closed_waiters.append(waiter)
        await waiter

    # -- asyncio.BufferedProtocol --------------------------------------------------------------

    def connection_made(self, transport):
        self.transport = transport
        if self.fd < 0:
            self.fd = transport.get_extra_info("socket").fileno()
        # Zero, so that pause_writing means "not all was taken" and resume_writing "nothing is queued".
        transport.set_write_buffer_limits(0, 0)
        if self.error is not None or self.shutting:
            self.finish()

    @property
    def get_buffer(self):
        """The loop's: uvloop keeps what it finds here, which would be a bound method for each connection."""
        return self.state.lend

    def buffer_updated(self, Py_ssize_t n):
        if self.is_closed or self.fin_sent:
            return  # draining: what a peer still sends after our FIN is dropped
        self.state.heard(n)
        self.feeding = True
        try:
            self.above.feed(self.state.receive.data, n)
        except Exception as error:
            self.refuse(error)
        finally:
            self.feeding = False
        if self.error is not None or self.shutting:
            self.finish()
        elif n == self.state.receive.size and not self.throttled:
            # libuv would go on reading, up to 32 times, before any task could take what has come: it would
            # pile up in fresh memory, and other connections would wait. One bufferful a turn.
            self.resting = True
            self.transport.pause_reading()
            self.state.loop.call_soon(self._rested)

    def _rested(self):
        self.resting = False
        self._maybe_read()

    def eof_received(self):
        if self.is_closed or self.above is None:
            return False
        self.feeding = True
        try:
            self.above.feed_eof()
        except Exception as error:
            self.refuse(error)
        finally:
            self.feeding = False
        if self.error is not None or self.shutting:
            self.finish()
        # True keeps our half open: an upper layer that is done with it calls shut().
        return not self.fin_sent and not self.is_closed

    def pause_writing(self):
        if not self.queued:
            self.queued = True
            self.over = 0
            self.moved_at = monotonic()
            self.unread = self._unread()
            self.state.watch(self, STALL_LOOK_S)
            if self.above is not None:
                self.above.pause()

    def resume_writing(self):
        self.queued = False
        self.state.unwatch(self)
        if self.shutting:
            self.finish()
        elif self.above is not None and not self.is_closed:
            self.above.resume()

    def connection_lost(self, exc):
        cdef Layer above = self.above
        self.is_closed = True
        self.fd = -1
        self.transport = None
        self.above = None
        self.state.unwatch(self)
        if above is not None:
            above.lost(self.error or _closed_by(exc))
        self.error = None
        if self.closed_waiters is not None:
            for waiter in self.closed_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.closed_waiters = None

    # -- the chain -----------------------------------------------------------------------------

    cdef int send(self, const uint8_t* data, Py_ssize_t n) except -1:
        cdef ssize_t sent
        if self.is_closed or self.shutting or self.error is not None:
            return 0  # ending already: whoever sends learns it from lost()
        if self.transport is None:
            raise errors.ConnectionClosed("the connection has not been made")
        if not self.queued:
            while True:
                sent = c_send(self.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                if sent == n:
                    return self.state.said(n)
                if sent >= 0:
                    data += sent
                    n -= sent
                    break
                if errno != EINTR:
                    break
            if sent < 0 and errno != EAGAIN:
                return self.fail(_closed_by(OSError(errno, strerror(errno))))
        return self._queue(data, n)

    cdef int _queue(self, const uint8_t* data, Py_ssize_t n) except -1:
        """Leaves what the kernel did not take to the transport."""
        if self.queued:
            self.over += n
            if self.over > MAX_QUEUED:
                return self.fail(
                    errors.LimitExceeded("bytes queued for a peer that does not read", self.over, MAX_QUEUED))
        self.transport.write(PyBytes_FromStringAndSize(<const char*> data, n))
        return 0

    cdef int throttle(self, bint on) except -1:
        self.throttled = on
        if not on:
            return self._maybe_read()
        if self.transport is not None and not self.is_closed:
            self.transport.pause_reading()
        return 0

    cdef int _maybe_read(self) except -1:
        if self.transport is not None and not self.is_closed and not self.throttled and not self.resting:
            self.transport.resume_reading()
        return 0

    cdef bint is_paused(self) except -1:
        return self.queued or self.is_closed

    cdef int overdue(self) except -1:
        """The peer took nothing for too long, or did not end its half after our FIN."""
        if self.fin_sent and not self.queued:
            return self.fail(errors.ConnectionClosed("the connection was closed here"))
        cdef Py_ssize_t unread = self._unread()
        if unread < self.unread:
            # The kernel reports room only when a third of its buffer is free: a slow peer is no dead one.
            self.unread = unread
            self.moved_at = monotonic()
        if monotonic() - self.moved_at < STALL_S:
            return self.state.watch(self, STALL_LOOK_S)
        return self.fail(_closed_by(TimeoutError(f"the peer took no byte for {STALL_S:g} s")))

    cdef Py_ssize_t _unread(self) except -1:
        """Bytes the peer has not acknowledged, in the transport and, where it tells, in the kernel."""
        n = self.transport.get_write_buffer_size()
        try:
            n += int.from_bytes(ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            pass
        return n

    cdef int finish(self) except -1:
        """Does what was put off while feeding: abort, or FIN as soon as nothing is queued."""
        if self.is_closed or self.transport is None:
            return 0
        if self.error is not None:
            self.is_closed = True
            self.transport.abort()
        elif not self.queued and not self.fin_sent:
            self.fin_sent = True
            self.state.watch(self, DRAIN_S)
            self.transport.write_eof()
            self.throttled = self.resting = False
            self.transport.resume_reading()
        return 0


def _closed_by(exc):
    """The reason lost() carries when the transport says `exc`, None for an orderly end."""
    if exc is None:
        return errors.ConnectionClosed("the connection is closed")
    closed = errors.ConnectionClosed(f"the connection broke: {exc}")
    closed.__cause__ = exc
    return closed
