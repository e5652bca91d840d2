# See waiting.pyx.
from p2pcore._fast.loop.loop_state cimport LoopState

cdef object PENDING     # what attempt() returns while there is nothing yet


cdef class Op:
    cdef LoopState state
    cdef object future          # what the task waits on; None while not suspended
    cdef bint is_woken          # the future is done, and its task has not run yet
    cdef object timer           # fires at the deadline; None without one

    cdef object attempt(self)
    cdef int suspended(self) except -1
    cdef int cancelled(self) except -1
    cdef double deadline(self) except -2
    cdef int wake(self) except -1
    cdef int rearm(self) except -1
    cdef int _resumed(self) except -1
    cdef object step(self, bint *is_over)
    cdef int _disarm(self) except -1


cdef object again(object error)     # for `raise`: a copy of an error that somebody keeps
cdef Op failed(object error)
cdef Op done                    # awaits to None at once; shared
