# The bottom of a chain: an asyncio BufferedProtocol on a connected socket.
# Comes in: what the kernel has received, into the loop's one receive buffer. Goes out: bytes by send(2)
# on the socket itself while the transport has nothing queued, else by transport.write.
# Never keeps a buffer of its own; never reads while throttled.
from libc.stdint cimport uint8_t

from p2pcore._fast.chain.bottom cimport Bottom


cdef class Wire(Bottom):
    cdef object transport       # uvloop's (or asyncio's); None before connection_made and after the end
    cdef int fd                 # of its socket, -1 when closed
    cdef bint queued            # the transport holds bytes the kernel did not take
    cdef Py_ssize_t over        # bytes sent while `queued`: control frames, bounded
    cdef Py_ssize_t unread      # bytes the peer had not taken when that was last looked at
    cdef bint throttled         # an upper layer wants nothing read for now
    cdef bint resting           # a whole bufferful was read: the tasks it woke run first
    cdef bint fin_sent
    cdef object closed_waiters  # list of futures waiting for the end; None

    cdef int _maybe_read(self) except -1
    cdef int _queue(self, const uint8_t* data, Py_ssize_t n) except -1
    cdef Py_ssize_t _unread(self) except -1
