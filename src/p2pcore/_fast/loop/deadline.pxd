# A deadline of whatever runs inside a `with`, for the price of an entry in a table: the loop's one coarse
# timer finds it. Comes in: a loop, a second of its clock. Goes out: TimeoutError, up to a quarter of a second late.
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.loop_state cimport LoopState


cdef class Deadline(Flushable):
    cdef LoopState state
    cdef double at              # second of the loop's clock
    cdef object task            # the one inside; None outside
    cdef Py_ssize_t cancelling  # cancellations it had on entering
    cdef bint expired
