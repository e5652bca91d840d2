# See memory.pyx.
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

    cdef int _wake(self) except -1
    cdef int _feed(self) except -1
