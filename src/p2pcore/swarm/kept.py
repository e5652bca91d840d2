"""The handle of a peer that a program keeps: `async with host.keep(peer, addrs) as kept`.

Comes in: the manager that keeps the peer. Goes out: whether it is connected, and an end. It dials nothing
itself. Several handles of one peer share its dials; with the last one the peer is let go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from p2pcore.errors import ConnectionClosed

if TYPE_CHECKING:
    from p2pcore.resources.conn_manager import ConnManager
    from p2pcore.resources.keeper import Keeper
    from p2pcore.swarm.conn import Conn
    from p2pcore.swarm.conns import ConnTable
    from p2pcore.values.peer_id import PeerId


class Kept:
    """See Host.keep, which makes it. A context manager: it lets the peer go at the end of the block."""

    __slots__ = ("_conns", "_is_closed", "_keeper", "_manager")

    def __init__(self, keeper: Keeper, manager: ConnManager, conns: ConnTable) -> None:
        self._keeper = keeper
        self._manager = manager
        self._conns = conns
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "lost" if self.conn is None else "connected"
        return f"<Kept {self.peer} {state}>"

    @property
    def peer(self) -> PeerId:
        """The peer that is kept."""
        return self._keeper.peer

    @property
    def conn(self) -> Conn | None:
        """The best connection to the peer now. None: there is none, and it is being dialled."""
        return self._conns.best(self.peer)

    @property
    def is_closed(self) -> bool:
        """True once it keeps the peer no more: it was closed, the peer was blocked, or the host closed."""
        return self._is_closed or not self._manager.holds(self._keeper)

    async def connected(self) -> Conn:
        """Waits for a connection to the peer, for as long as that takes. Give it a time with asyncio.timeout.

        Raises: ConnectionClosed: the peer is not kept any more.
        """
        while True:
            conn = self.conn
            if conn is not None:
                return conn
            if self.is_closed:
                raise ConnectionClosed(f"{self.peer} is not kept any more")
            await self._keeper.wait_joined()  # also while the last connection is only about to end

    def close(self) -> None:
        """Lets the peer go: it is not dialled or protected any more. A connection stays open. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._manager.release(self._keeper)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
