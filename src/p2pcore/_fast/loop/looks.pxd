# See looks.pyx.
from p2pcore._fast.loop.flush cimport Flushable


cdef class Looks:
    cdef object loop
    cdef double every           # seconds between two looks
    cdef dict table             # Flushable -> what the subclass keeps; a dict keeps their order
    cdef object handle          # of the next look; None while the table is empty, or a look goes on
    cdef list found             # what the look that goes on looks at; None: none goes on
    cdef Py_ssize_t at          # how far it has come

    cdef list due(self)
    cdef int look_at(self, Flushable layer) except -1
    cdef int look_soon(self) except -1
    cdef int discard(self, Flushable layer) except -1
