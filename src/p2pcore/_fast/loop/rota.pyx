"""Whose turn it is: shares the work of one turn of the loop among its connections.

Comes in: what was done, in units of limits.TURN_WORK, and who has more to do. Goes out: calls of go_on(), in turn, and
no more than one turn's work. It does nothing while the connections stay within a turn's work. See docs/decisions/0022.
"""

import logging

cimport cython

from p2pcore import limits

from p2pcore._fast.loop.flush cimport Flushable

logger = logging.getLogger("p2pcore.loop")

cdef Py_ssize_t TURN_WORK = limits.TURN_WORK
cdef Py_ssize_t SHARE = limits.TURN_SHARE
# What waits takes at most half a turn. The rest is for connections that have just received something.
cdef Py_ssize_t RESERVED = TURN_WORK // 2


@cython.final
cdef class Rota:
    """The work left in this turn of one loop, and the line of those that wait for the next one.

    Attributes:
        room: work left. It is renewed in the loop's next turn, once half of it is gone.
    """

    def __cinit__(self, loop):
        self.loop = loop
        self.room = TURN_WORK
        self.line = []

    cdef int line_up(self, Flushable who) except -1:
        """Calls who.go_on() once, in a later turn. To be called at most once until then."""
        self.line.append(who)
        return self.renew_soon()

    cdef int renew_soon(self) except -1:
        """The next turn has its full work again."""
        if not self.is_due:
            self.is_due = True
            self.loop.call_soon(self._turn)
        return 0

    cdef Py_ssize_t least(self) noexcept:
        """Until `room` is down to this, go_on() may work."""
        return max(self.room - SHARE, 0)

    def _turn(self):
        self.is_due = False
        self.room = TURN_WORK
        while self.line and self.room > RESERVED:
            self._round()
        if self.line:
            self.renew_soon()

    cdef int _round(self) except -1:
        """Each one in line has a share, as long as there is room."""
        cdef Py_ssize_t i
        cdef list line = self.line
        self.line = []
        for i in range(len(line)):
            if self.room <= RESERVED:
                self.line = line[i:] + self.line
                break
            try:
                (<Flushable> line[i]).go_on()
            except Exception:
                logger.exception("work that waited failed")
        return 0
