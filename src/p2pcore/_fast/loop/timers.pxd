# See timers.pyx.
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.looks cimport Looks


cdef class Timers(Looks):
    cdef int watch(self, Flushable layer, double seconds) except -1
    cdef int unwatch(self, Flushable layer) except -1
