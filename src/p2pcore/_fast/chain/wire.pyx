"""The bottom of a chain: an asyncio BufferedProtocol on a connected socket.

Comes in: what the kernel has received, into the loop's one receive buffer. Goes out: bytes by
send(2) on the socket itself while the transport has nothing queued, else by transport.write. Never
keeps a buffer of its own; never reads while throttled; closes only when the outermost feed is done.
"""

import logging
import socket
import struct
import sys
import termios
from asyncio import Future
from fcntl import ioctl

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t

from os import strerror

from p2pcore import errors

from p2pcore._fast.chain.bottom cimport Bottom, closed_by, count_in, count_out
from p2pcore._fast.chain.layer cimport Layer, Mailbox
from p2pcore._fast.loop.loop_state cimport loop_state


logger = logging.getLogger("p2pcore.wire")
cdef bytes NO_LINGER = struct.pack("ii", 0, 0)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_send "send"(int fd, const void *data, size_t n, int flags)
    ssize_t c_recv "recv"(int fd, void *data, size_t n, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL


@cython.final
cdef class Wire(Bottom):
    """The socket end of a connection; give `lambda: wire` to loop.create_connection and the like.

    A new wire has a Mailbox on top, for the negotiation to come.

    Args:
        loop: its event loop.
        fd: of the socket, if it is known. Else uvloop is asked, which makes an object for the answer and keeps it.
    """

    def __cinit__(self, loop, int fd=-1):
        self.state = loop_state(loop)
        self.fd = fd
        cdef Mailbox top = Mailbox.__new__(Mailbox)
        top.seat(self)

    def close(self):
        """Ends in order: sends what is queued, then FIN, and reads until the peer's end, for a second at most.

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
        if self.ending:
            self.go_on_ending()

    @property
    def get_buffer(self):
        """The loop's own: uvloop keeps what this returns, and a bound method of the wire would cost memory."""
        return self.state.lend

    def buffer_updated(self, Py_ssize_t n):
        if self.is_closed or self.fin_sent:
            return  # draining: what a peer still sends after our FIN is dropped
        self.state.spin.heard(n)
        if self.feed_up(self.state.receive.data, n) and n == self.state.receive.size and not self.throttled:
            # libuv would read up to 32 times before any task runs. The bytes would pile up in fresh memory, and
            # other connections would wait. So: one bufferful a turn (docs/decisions/0004).
            self.resting = True
            self.transport.pause_reading()
            self.state.loop.call_soon(self._rested)
        self.state.flusher.relieve()

    def _rested(self):
        self.resting = False
        self._maybe_read()

    def eof_received(self):
        if self.is_closed or self.above is None:
            return False
        self.feed_eof_up()
        # True keeps our half open. The layer that is done with it calls shut().
        return not self.fin_sent and not self.is_closed

    def pause_writing(self):
        self.pause_above()

    def resume_writing(self):
        self.resume_above()

    def connection_lost(self, exc):
        if self.broke or (exc is not None and not self.ending):
            self._read_rest()
        self.fd = -1
        self.transport = None
        self.lose(closed_by(exc))
        if self.closed_waiters is not None:
            for waiter in self.closed_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.closed_waiters = None

    cdef int _read_rest(self) except -1:
        """Feeds what the kernel still holds of a connection that broke while we wrote: it came before."""
        cdef ssize_t n
        while self.above is not None and self.fd >= 0 and not self.throttled and not self.fin_sent:
            n = c_recv(self.fd, self.state.receive.data, self.state.receive.size, MSG_DONTWAIT)
            if n < 0:
                break
            self.feeding = True
            count_in(self, n)
            try:
                if n == 0:
                    self.above.feed_eof()
                    break
                self.above.feed(self.state.receive.data, n)
            except errors.P2PError as error:
                logger.debug("after a connection broke: %s", error)
                break
            finally:
                self.feeding = False
        return 0

    # -- the chain -----------------------------------------------------------------------------

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        cdef ssize_t sent
        if self.ending:
            return 0  # whoever sends learns it from lost()
        if self.transport is None:
            raise errors.ConnectionClosed("the connection has not been made")
        count_out(self, n)
        if not self.queued:
            while True:
                sent = c_send(self.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                if sent == n:
                    return self.state.spin.said(n)
                if sent >= 0:
                    data += sent
                    n -= sent
                    break
                if errno != EINTR:
                    break
            if sent < 0 and errno != EAGAIN:
                self.broke = True
                return self.drop(closed_by(OSError(errno, strerror(errno))))
        return self._queue(data, n)

    cdef int _queue(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Gives the transport what the kernel did not take."""
        if self.may_queue(n):
            self.transport.write(PyBytes_FromStringAndSize(<const char *> data, n))
            if self.queued:
                self.tally(0, n)
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

    cdef Py_ssize_t num_unsent(self) except -1:
        """Bytes the peer has not acknowledged: in the transport, and in the kernel if the socket can tell.

        The kernel reports room only when a third of its buffer is free. A slow peer would look dead without this.
        """
        n = self.transport.get_write_buffer_size()
        try:
            n += int.from_bytes(ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            pass
        return n

    # -- the end -------------------------------------------------------------------------------

    cdef int go_on_ending(self) except -1:
        return 0 if self.transport is None else Bottom.go_on_ending(self)

    cdef int send_fin(self) except -1:
        self.transport.write_eof()
        self.resting = False
        self.transport.resume_reading()
        return 0

    cdef int _leave_rest_to_kernel(self) except -1:
        """Has the kernel send what it holds after an orderly end, where SO_LINGER is 0 too."""
        try:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        except OSError as error:
            logger.debug("SO_LINGER: %s", error)
        return 0

    cdef int break_off(self) except -1:
        self.is_closed = True
        if self.fin_sent and self.num_unsent() > 1:
            self._leave_rest_to_kernel()
        self.transport.abort()
        return 0
