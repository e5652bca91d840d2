# See multistream.pyx.
from libc.stdint cimport uint8_t

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.loop.flush cimport Flushable

cdef bytes MSS_HEADER           # the first message of either side, whole


cdef class Answer(Flushable):
    cdef object protocol            # what was proposed
    cdef object step                # what the negotiation is for, as errors name it
    cdef bytes hoped                # the header and the echo of the proposal
    cdef Py_ssize_t at              # bytes of it that have come
    cdef bytearray instead          # what has come, once that is not as hoped; None before
    cdef bint is_settled            # agreed or failed
    cdef object error               # why it failed; None while it has not

    cdef int begin(self, bytes hoped, object protocol, object step) except -1
    cdef Py_ssize_t take(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int ended(self) except -1
    cdef int fail(self, object error) except -1
    cdef Py_ssize_t _judge(self, const uint8_t *data, Py_ssize_t n) except -1


cdef bytes take_opening(ByteQueue queue)
