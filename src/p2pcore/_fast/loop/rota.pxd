# See rota.pyx.
from p2pcore._fast.loop.flush cimport Flushable


cdef class Rota:
    cdef object loop
    cdef Py_ssize_t room        # work left in this turn
    cdef list line              # Flushables that have more to do, in turn
    cdef bint is_due            # _turn is scheduled

    cdef int line_up(self, Flushable who) except -1
    cdef int renew_soon(self) except -1
    cdef Py_ssize_t least(self) noexcept
    cdef int _round(self) except -1
