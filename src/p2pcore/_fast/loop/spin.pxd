# See spin.pyx.
cdef class Spin:
    cdef object loop
    cdef double seconds         # how long it looks for an answer without sleeping; 0: never
    cdef double said_at         # monotonic second at which a short message left that nothing has followed yet; 0
    cdef double until           # it looks for the answer without sleeping until then; 0 while the loop may sleep
    cdef int num_quick          # short answers in a row that came soon
    cdef bint is_scheduled      # _look is due
    cdef object look            # _look: a bound method, kept only here

    cdef int set_seconds(self, double value) except -1
    cdef int said(self, Py_ssize_t n) except -1
    cdef int heard(self, Py_ssize_t n) noexcept
