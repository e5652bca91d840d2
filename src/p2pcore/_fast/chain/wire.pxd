# See wire.pyx.
from libc.stdint cimport uint8_t

from p2pcore._fast.chain.bottom cimport Bottom


cdef class Wire(Bottom):
    cdef object transport       # uvloop's (or asyncio's); None before connection_made and after the end
    cdef int fd                 # of its socket, -1 when closed
    cdef bint resting           # a whole bufferful was read: the tasks it woke run first
    cdef bint broke             # send(2) failed: what has come before is still to be read
    cdef object closed_waiters  # list of futures waiting for the end; None

    cdef int _maybe_read(self) except -1
    cdef int _read_rest(self) except -1
    cdef int _leave_rest_to_kernel(self) except -1
    cdef int _queue(self, const uint8_t *data, Py_ssize_t n) except -1
