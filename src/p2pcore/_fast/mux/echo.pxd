# See echo.pyx.
from cpython.object cimport PyObject

from p2pcore._fast.chain.layer cimport Layer


cdef class _Echo(Layer):
    cdef PyObject *source       # the stream that has it for a sink: borrowed, because nobody else calls it
