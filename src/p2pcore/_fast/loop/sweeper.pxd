# See sweeper.pyx.
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.looks cimport Looks


cdef class Sweeper(Looks):
    cdef int add(self, Flushable owner) except -1
