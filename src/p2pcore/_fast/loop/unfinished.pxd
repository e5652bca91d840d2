# See unfinished.pyx.
from p2pcore._fast.loop.flush cimport Flushable


cdef class Unfinished:
    cdef object loop
    cdef dict begun             # Flushable -> (its progress at the last look, whether there was none since the one before)
    cdef object handle          # of the next look; None while there is nothing to look at

    cdef int add(self, Flushable layer) except -1
    cdef int discard(self, Flushable layer) except -1
    cdef int _look_at(self, Flushable layer, object seen, bint was_silent) except -1
