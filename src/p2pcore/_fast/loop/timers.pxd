# See timers.pyx.
from p2pcore._fast.loop.flush cimport Flushable


cdef class Timers:
    cdef object loop
    cdef dict watched           # Flushable -> monotonic second at which it is overdue
    cdef object handle          # of the next sweep; None while nothing is watched

    cdef int watch(self, Flushable layer, double seconds) except -1
    cdef int unwatch(self, Flushable layer) except -1
