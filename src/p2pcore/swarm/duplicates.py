"""What becomes of a second connection to a peer, where a host asks for one at most (`duplicates="dedup"`).

Comes in: each connection taken over. Goes out: closes of superfluous ones, with CONN_SUPPLANTED. Both ends
choose the same: those dialled by the lower peer id stay; of several with one dialler, which alone knows their
order, the dialler keeps the oldest (go-libp2p keeps all: W25). Never ends a connection that carries a stream:
it is given out no more, and closed once it has none. One timer while there is such a connection, else none.
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
    """The superfluous connections of a swarm; `in` tells whether one is."""

    __slots__ = ("_closing", "_conns_to", "_superfluous", "_timer")

    def __init__(self, conns_to: Callable[[Conn], list[Conn]]) -> None:
        """`conns_to` gives the connections to the peer of one, oldest first."""
        self._conns_to = conns_to
        self._superfluous: dict[Conn, None] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, conn: object) -> bool:
        return conn in self._superfluous

    def joined(self, conn: Conn) -> None:
        """Marks what `conn`, just taken over, makes superfluous: others, or itself."""
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
        """Closes what has no stream any more; forgets what has ended, or is the last one by now."""
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
        """Looks no more, and waits for the closes under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._superfluous.clear()
        if self._closing:
            await asyncio.wait(self._closing)


def _is_ours(conn: Conn) -> bool:
    return conn.direction is Direction.OUTBOUND


def _claim(conn: Conn) -> tuple[bool, int]:
    """The smallest stays: dialled by the lower id first, then the oldest."""
    we_are_lower = conn.local_peer < conn.remote_peer
    return _is_ours(conn) is not we_are_lower, conn._ordinal
