"""Goes through a table now and then, a part in each turn of the loop.

Comes in: entries of a table. Goes out: look_at() for each of them that is due, OVERDUE_PER_TURN in a turn, so that very
many never hold the loop up together. The timer runs only while the table has entries.
"""

import logging

from p2pcore import limits

from p2pcore._fast.loop.flush cimport Flushable

logger = logging.getLogger("p2pcore.loop")

cdef Py_ssize_t OVERDUE_PER_TURN = limits.OVERDUE_PER_TURN


cdef class Looks:
    """Base of Timers, Sweeper and Unfinished."""

    def __cinit__(self, loop):
        self.loop = loop
        self.table = {}

    cdef list due(self):
        """What a look goes through."""
        return list(self.table)

    cdef int look_at(self, Flushable layer) except -1:
        """`layer` was due when the look began, and is in the table."""
        raise NotImplementedError

    cdef int look_soon(self) except -1:
        """There is an entry: sees to it that there will be a look."""
        if self.handle is None and self.found is None:
            self.handle = self.loop.call_later(self.every, self._look)
        return 0

    cdef int discard(self, Flushable layer) except -1:
        """Forgets `layer`. Idempotent."""
        self.table.pop(layer, None)
        if not self.table and self.handle is not None:
            self.handle.cancel()
            self.handle = None
        return 0

    def _look(self):
        self.handle = None
        self.found = self.due()
        self.at = 0
        self._look_at_some()

    def _look_at_some(self):
        """A turn's part."""
        for layer in self.found[self.at : self.at + OVERDUE_PER_TURN]:
            if layer in self.table:
                try:
                    self.look_at(<Flushable> layer)
                except Exception:
                    logger.exception("a look at what is overdue failed")
        self.at += OVERDUE_PER_TURN
        if self.at < len(self.found):
            self.loop.call_soon(self._look_at_some)
            return
        self.found = None
        if self.table:
            self.look_soon()
