# See splice.pyx.
from libc.stdint cimport int64_t, uint8_t, uint64_t

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.loop_state cimport LoopState
from p2pcore._fast.mux.stream cimport Stream


cdef class SpliceHalf(Layer):
    cdef Splice whole
    cdef SpliceHalf other       # the way back
    cdef Stream source
    cdef Stream target
    cdef int64_t left           # bytes that may still pass; negative: no limit
    cdef uint64_t passed        # bytes that have

    cdef int go_on(self) except -1


cdef class Splice(Flushable):
    cdef LoopState state
    cdef SpliceHalf there
    cdef SpliceHalf back
    cdef double seconds         # until it is cut; 0: never
    cdef object ended           # called once with the reason, from the event loop; None afterwards
    cdef readonly bint is_closed

    cdef int drop(self, object error) except -1
    cdef int drop_if_ended(self) except -1
