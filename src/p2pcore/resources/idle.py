"""Finds connections that have had no stream for a given time.

Comes in: connections when they open and end, their own record of when a stream was last used. Goes out: a
call for each one that is idle. It exists only where an idle time is set. Each connection is in one of about
IDLE_SLOTS time slots; when a slot is due, its connections are looked at, so streams that open and end do
nothing here. One timer runs for all of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from p2pcore import limits

if TYPE_CHECKING:
    from p2pcore.resources.held import HeldConn


class IdleWatch:
    """The connections of one node by the time at which each may be idle.

    Args:
        idle_s: seconds without a stream. A connection is found at most a sixty-fourth of it later.
        active_at: gives the event loop's time at which a stream of a connection was last used.
        found: called with each connection that is idle. If it stays open, it is found again `idle_s` later.
    """

    __slots__ = ("_active_at", "_found", "_idle_s", "_slot_of", "_slots", "_tick_s", "_timer")

    def __init__(
        self,
        idle_s: float,
        active_at: Callable[[HeldConn], float],
        found: Callable[[HeldConn], None],
    ) -> None:
        self._active_at = active_at
        self._idle_s = idle_s
        self._found = found
        self._tick_s = idle_s / limits.IDLE_SLOTS
        self._slot_of: dict[HeldConn, int] = {}
        self._slots: dict[int, dict[HeldConn, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def joined(self, conn: HeldConn) -> None:
        """`conn` is open: it is idle from now on, unless a stream comes."""
        self._put(conn, self._active_at(conn) + self._idle_s)
        self._wait()

    def left(self, conn: HeldConn) -> None:
        """`conn` has ended."""
        slot = self._slot_of.pop(conn, None)
        if slot is not None:
            mine = self._slots[slot]
            del mine[conn]
            if not mine:
                del self._slots[slot]

    def stop(self) -> None:
        """Looks at nothing any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._slot_of.clear()
        self._slots.clear()

    def _put(self, conn: HeldConn, due: float) -> None:
        slot = math.ceil(due / self._tick_s)
        self._slot_of[conn] = slot
        self._slots.setdefault(slot, {})[conn] = None

    def _wait(self) -> None:
        if self._timer is None and self._slots:
            at = min(self._slots) * self._tick_s
            self._timer = asyncio.get_running_loop().call_at(at, self._look)

    def _look(self) -> None:
        """Looks at some of the connections that are due; `_wait` comes back at once if there are more."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        if self._slots and (slot := min(self._slots)) * self._tick_s <= now:
            for conn in list(islice(self._slots[slot], limits.TRIM_CLOSINGS)):
                self.left(conn)
                self._judge(conn, now)
        self._wait()

    def _judge(self, conn: HeldConn, now: float) -> None:
        due = now + self._idle_s
        if conn.num_streams == 0 and not conn.is_closed:
            due = self._active_at(conn) + self._idle_s
            if due <= now:
                self._found(conn)
                due = now + self._idle_s
        self._put(conn, due)
