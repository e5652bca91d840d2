# See unfinished.pyx.
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.looks cimport Looks


cdef class Unfinished(Looks):
    cdef int add(self, Flushable layer) except -1
