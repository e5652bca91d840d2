# See deadline.pyx.
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.loop_state cimport LoopState


cdef class Deadline(Flushable):
    cdef LoopState state
    cdef double at              # second of the loop's clock
    cdef object task            # the one inside; None outside
    cdef Py_ssize_t cancelling  # cancellations it had on entering
    cdef bint expired
