"""Closes a second connection to a peer, if a host wants at most one (`duplicates="dedup"`).

Comes in: each new connection. Goes out: a close with CONN_SUPPLANTED for each superfluous connection. Both
ends make the same choice: they keep what the lower peer id has dialled. If one side has dialled several, only
that side knows their order: it keeps the oldest (go-libp2p keeps all: W25). A superfluous connection with
streams is not given to users any more. It is closed once it has no stream. One timer runs while there is such
a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pcore import codes, limits
from p2pcore.codes import Direction

if TYPE_CHECKING:
    from p2pcore.swarm.conn import Conn

POLICIES = ("keep", "dedup")


class Duplicates:
    """The superfluous connections of a swarm. `conn in duplicates` says whether `conn` is superfluous."""

    __slots__ = ("_closing", "_conns_to", "_superfluous", "_timer")

    def __init__(self, conns_to: Callable[[Conn], list[Conn]]) -> None:
        """`conns_to(conn)` gives all connections to the peer of `conn`, oldest first."""
        self._conns_to = conns_to
        self._superfluous: dict[Conn, None] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, conn: object) -> bool:
        return conn in self._superfluous

    def joined(self, conn: Conn) -> None:
        """Marks what is superfluous now that `conn` has come: other connections, or `conn` itself."""
        rivals = [each for each in self._conns_to(conn) if not each.is_limited and not each.is_closed]
        if conn.is_limited or len(rivals) < 2:
            return
        kept = min(rivals, key=_claim)
        for each in rivals:
            if each is not kept and (_claim(each)[0] != _claim(kept)[0] or _is_ours(each)):
                self._superfluous[each] = None
            else:
                self._superfluous.pop(each, None)
        self._look_later()

    def _look_later(self) -> None:
        if self._timer is None and self._superfluous:
            self._timer = asyncio.get_running_loop().call_later(limits.DUPLICATE_LOOK_S, self._look)

    def _look(self) -> None:
        """Closes connections without a stream. Forgets a connection that has ended or is the last one."""
        self._timer = None
        for conn in list(self._superfluous):
            others = [each for each in self._conns_to(conn) if each not in self._superfluous]
            if conn.is_closed or not any(not each.is_closed for each in others):
                del self._superfluous[conn]
            elif conn.num_streams == 0:
                del self._superfluous[conn]
                task = asyncio.get_running_loop().create_task(conn.close(codes.CONN_SUPPLANTED))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._look_later()

    async def close(self) -> None:
        """Stops the timer, and waits until the connections that are being closed have closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._superfluous.clear()
        if self._closing:
            await asyncio.wait(self._closing)


def _is_ours(conn: Conn) -> bool:
    return conn.direction is Direction.OUTBOUND


def _claim(conn: Conn) -> tuple[bool, int]:
    """A key for sorting; the smallest stays. Dialled by the lower id comes first, then the oldest."""
    we_are_lower = conn.local_peer < conn.remote_peer
    return _is_ours(conn) is not we_are_lower, conn._ordinal
