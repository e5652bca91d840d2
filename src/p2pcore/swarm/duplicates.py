"""Closes a second connection to a peer, if a host wants at most one (`duplicates="dedup"`).

Comes in: each new connection. Goes out: a close with CONN_SUPPLANTED for each superfluous connection. Both
ends make the same choice: they keep what the lower peer id has dialled. If one side has dialled several, only
that side knows their order: it keeps the oldest (go-libp2p keeps all: W25). A superfluous connection with
streams is not given to users any more. It is closed once it has no stream. One timer runs while there is such
a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from p2pcore import codes, limits
from p2pcore.codes import Direction

if TYPE_CHECKING:
    from p2pcore.swarm.conn import Conn
    from p2pcore.values.peer_id import PeerId

POLICIES = ("keep", "dedup")


class _Rivals:
    """The connections to one peer without limits that are open, each oldest first, by who has dialled them.

    One is kept: the oldest that the lower id has dialled, else the oldest of all.
    """

    __slots__ = ("_ours_first", "by_higher", "by_lower", "kept_by_lower")

    def __init__(self, we_are_lower: bool) -> None:
        self._ours_first = we_are_lower
        self.by_lower: dict[Conn, None] = {}
        self.by_higher: dict[Conn, None] = {}
        self.kept_by_lower = False  # who has dialled the connection that was kept last

    def of(self, conn: Conn) -> dict[Conn, None]:
        """The list where `conn` belongs."""
        return self.by_lower if _is_ours(conn) is self._ours_first else self.by_higher

    def kept(self) -> Conn | None:
        """The connection that stays. Forgets connections at the head of the lists that have ended."""
        for conns in (self.by_lower, self.by_higher):
            while conns:
                conn = next(iter(conns))
                if not conn.is_closed:
                    return conn
                del conns[conn]
        return None


class Duplicates:
    """The superfluous connections of a swarm. `conn in duplicates` says whether `conn` is superfluous.

    A connection that comes or goes costs the same however many its peer has. Only if the lower id dials its
    first connection, or loses its last one, all connections of the peer are looked at.
    """

    __slots__ = ("_closing", "_peers", "_superfluous", "_timer")

    def __init__(self) -> None:
        self._peers: dict[PeerId, _Rivals] = {}
        self._superfluous: dict[Conn, None] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, conn: object) -> bool:
        return conn in self._superfluous

    def joined(self, conn: Conn) -> None:
        """Marks what is superfluous now that `conn` has come: other connections, or `conn` itself."""
        if conn.is_limited:
            return
        rivals = self._peers.get(conn.remote_peer)
        if rivals is None:
            rivals = self._peers[conn.remote_peer] = _Rivals(conn.local_peer < conn.remote_peer)
        rivals.of(conn)[conn] = None
        self._mark(rivals, conn)
        self._look_later()

    def left(self, conn: Any) -> None:
        """Forgets `conn`, one of the swarm's, which has ended or leaves."""
        self._superfluous.pop(conn, None)
        rivals = self._peers.get(conn.remote_peer)
        if rivals is None or conn.is_limited:
            return
        rivals.of(conn).pop(conn, None)
        if rivals.by_lower or rivals.by_higher:
            self._mark(rivals)
        else:
            del self._peers[conn.remote_peer]

    def _mark(self, rivals: _Rivals, joined: Conn | None = None) -> None:
        kept = rivals.kept()
        if kept is None:
            return
        by_lower = kept in rivals.by_lower
        changed: Iterable[Conn] = (kept,) if joined is None else (joined, kept)
        if by_lower is not rivals.kept_by_lower:
            rivals.kept_by_lower = by_lower
            changed = [*rivals.by_lower, *rivals.by_higher]
        for conn in changed:
            if conn is not kept and (rivals.of(conn) is not rivals.of(kept) or _is_ours(conn)):
                self._superfluous[conn] = None
            else:
                self._superfluous.pop(conn, None)

    def _look_later(self) -> None:
        if self._timer is None and self._superfluous:
            self._timer = asyncio.get_running_loop().call_later(limits.DUPLICATE_LOOK_S, self._look)

    def _look(self) -> None:
        """Closes superfluous connections without a stream, if another connection stays."""
        self._timer = None
        for conn in list(self._superfluous):
            rivals = self._peers.get(conn.remote_peer)
            if rivals is None:  # all have ended
                continue
            self._mark(rivals)  # the one that was kept may just have ended
            if conn in self._superfluous and not conn.is_closed and not conn.num_streams and rivals.kept():
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
