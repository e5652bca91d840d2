# See flush.pyx.
from libc.stdint cimport uint8_t, uint64_t


cdef class Flushable:
    cdef bint flush_due         # already on the list
    cdef uint8_t is_timed       # Unfinished looks at it
    cdef uint8_t has_moved      # something has come since it looked last
    cdef uint8_t num_moves      # looks that found something, to tell them apart
    cdef int flush(self) except -1
    cdef int overdue(self) except -1
    cdef int sweep(self) except -1
    cdef uint64_t progress(self) except? 0
    cdef int never_ended(self, bint is_whole) except -1
    cdef int go_on(self) except -1


cdef class Flusher:
    cdef object loop
    cdef list due               # Flushables to flush at the end of this iteration
    cdef bint is_scheduled      # _at_end is due
    cdef bint is_held           # it becomes due at release()
    cdef Py_ssize_t num_woken   # Ops whose future is done and whose task has not run yet
    cdef Py_ssize_t num_resumed # those that have run since the last flush

    cdef int flush_soon(self, Flushable layer) except -1
    cdef int _schedule(self) except -1
    cdef int release(self) except -1
    cdef int relieve(self) except -1
    cdef int flush_now(self) except -1
    cdef int _flush_round(self) except -1
