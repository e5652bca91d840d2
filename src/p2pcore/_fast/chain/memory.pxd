# See memory.pyx.
from libc.stdint cimport uint8_t

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.bottom cimport Bottom


cdef class MemoryWire(Bottom):
    cdef MemoryWire peer        # the other end; None once that, or this, is lost
    cdef ByteQueue inbox        # what the other end has sent and nobody has been fed
    cdef bint started           # somebody reads
    cdef bint scheduled         # _deliver is due
    cdef bint fin_got           # the other end sends no more, behind what is in `inbox`
    cdef bint eof_fed           # ... and the chain has been told
    cdef bint gone              # the other end is lost
    cdef object link            # carries what is sent here to the other end; None: it is there at once
    cdef Py_ssize_t under_way   # bytes that `link` carries

    cdef int _wake(self) except -1
    cdef int _feed(self) except -1
    cdef int _carry(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef bint _is_full(self) noexcept
    cdef bint _has_room(self) except -1
