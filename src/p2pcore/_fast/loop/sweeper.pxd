# See sweeper.pyx.
from p2pcore._fast.loop.flush cimport Flushable


cdef class Sweeper:
    cdef object loop
    cdef dict swept             # Flushables to look at; a dict keeps their order
    cdef object handle          # of the next look; None while there are none

    cdef int add(self, Flushable owner) except -1
    cdef int discard(self, Flushable owner) except -1
