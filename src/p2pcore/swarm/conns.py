"""The connections of a swarm, by peer: lists, the best connection, and waits for a direct connection.

Comes in: connections, when the swarm takes them over and when they end. Goes out: lists, the best connection,
and a wake-up when a direct connection comes. Never opens or closes a connection, never reports anything.
A connection costs one entry of a dict.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Collection, Container
from typing import TYPE_CHECKING, Any

from p2pcore.codes import Direction
from p2pcore.errors import ConnectionClosed, P2PError

if TYPE_CHECKING:
    from p2pcore.swarm.conn import Conn
    from p2pcore.values.peer_id import PeerId


class Connectedness(enum.Enum):
    """Whether there is a connection to a peer. LIMITED: a relay limits each of them."""

    NOT_CONNECTED = "not connected"
    CONNECTED = "connected"
    LIMITED = "limited"


class ConnTable:
    """All connections. The connections to one peer are in order, oldest first.

    Args:
        superfluous: connections that are used only if there is no other.

    Attributes:
        num_conns: the number of connections. peak: the most there were at a time.
        leaving: those that their peer is about to end.
    """

    __slots__ = ("_by_peer", "_superfluous", "_waiting", "leaving", "num_conns", "peak")

    def __init__(self, superfluous: Container[Conn] = ()) -> None:
        self._by_peer: dict[PeerId, Conn | dict[Conn, None]] = {}
        self.leaving: set[Conn] = set()
        self._superfluous = superfluous
        self._waiting: dict[PeerId, set[asyncio.Future[None]]] = {}
        self.num_conns = 0
        self.peak = 0

    def attach(self, peer: PeerId, conn: Conn) -> None:
        """Adds `conn` after the others of `peer`. Most peers have one connection; that needs no dict."""
        others = self._by_peer.get(peer)
        if others is None:
            self._by_peer[peer] = conn
        elif isinstance(others, dict):
            others[conn] = None
        else:
            self._by_peer[peer] = {others: None, conn: None}
        self.num_conns += 1
        if self.num_conns > self.peak:
            self.peak = self.num_conns
        if self._waiting and not conn.is_limited and not conn.is_closed:
            self._wake(peer, None)

    def detach(self, conn: Conn) -> bool:
        """Removes `conn`. Returns: whether it was there."""
        peer = conn.remote_peer
        mine = self._by_peer.get(peer)
        if mine is conn:
            del self._by_peer[peer]
        elif isinstance(mine, dict) and conn in mine:
            del mine[conn]
            if not mine:
                del self._by_peer[peer]
        else:
            return False
        self.num_conns -= 1
        self.leaving.discard(conn)
        if self._waiting and peer not in self._by_peer:
            self._wake(peer, ConnectionClosed(f"the last connection to {peer} has ended"))
        if not self.num_conns:  # an empty dict keeps its memory until it is cleared
            self._by_peer.clear()
        return True

    def rows(self) -> list[Conn | dict[Conn, None]]:
        """The connections of each peer: one, or a dict with several. Making the list takes microseconds."""
        return list(self._by_peer.values())

    def all(self) -> list[Conn]:
        """Every connection."""
        return [conn for peer in self._by_peer for conn in self.of(peer)]

    def peers(self) -> list[PeerId]:
        """The peers that we are connected to."""
        return list(self._by_peer)

    def of(self, peer: PeerId) -> list[Conn]:
        """The connections to `peer`, oldest first."""
        mine = self._by_peer.get(peer, ())
        return list(mine) if isinstance(mine, (dict, tuple)) else [mine]

    def count(self, peer: PeerId) -> int:
        """The number of connections to `peer`."""
        mine = self._by_peer.get(peer)
        return 0 if mine is None else len(mine) if isinstance(mine, dict) else 1

    def most(self) -> int:
        """The number of connections of the peer that has most. Looks at every peer."""
        return max(map(self.count, self._by_peer), default=0)

    @staticmethod
    def active_at(conn: Conn) -> float:
        """The event loop's time at which the peer last used a stream, or a stream ended; at first: it opened.

        Pings of the multiplexer do not count.
        """
        return max(conn.session.active_at, conn._since)

    @staticmethod
    def standing(conn: Conn) -> tuple[bool, int, bool, float, int]:
        """How useful `conn` looks: of two, the connection manager closes first the one with the smaller
        value.

        Returns: whether it has streams, the second in which it was active last, whether we have dialled it,
        minus the time at which it opened, and a number that no other connection has, greater for later ones.
        """
        session, since = conn.session, conn._since
        active = int(max(session.active_at, since))
        is_ours = conn._kind.direction is Direction.OUTBOUND
        return session.num_streams > 0, active, is_ours, -since, conn._ordinal

    def with_id(self, conn_id: str) -> Conn | None:
        """The connection whose `Conn.id` is `conn_id`. Looks at every connection."""
        return next((conn for conn in self.all() if conn.id == conn_id), None)

    def open(self, peer: PeerId) -> list[Conn]:
        """The connections to `peer` that have not ended, oldest first."""
        return [conn for conn in self.of(peer) if not conn.is_closed]

    def give_out_no_more(self, conn: Any) -> bool:
        """The peer is about to end `conn`: it is not given out any more. Returns: False if that was known."""
        if conn in self.leaving or conn not in self.of(conn.remote_peer):
            return False
        self.leaving.add(conn)
        return True

    def ranked(self, peer: PeerId) -> list[Conn]:
        """The connections to `peer` that open streams, best first, without those that it is about to end.

        Superfluous connections come last. Among the others: not limited before limited, direct before
        relayed, more streams before fewer, newer before older.
        """
        alive = [conn for conn in self.of(peer) if conn.session.can_open]
        if self.leaving:
            alive = [conn for conn in alive if conn not in self.leaving]
        if len(alive) > 1:
            alive.sort(key=self._merit, reverse=True)
        return alive

    def _merit(self, conn: Conn) -> tuple[bool, bool, bool, int, int]:
        kept = conn not in self._superfluous
        return kept, not conn.is_limited, conn.is_direct, conn.num_streams, conn._ordinal

    def best(self, peer: PeerId) -> Conn | None:
        """The first of `ranked`, or None."""
        ranked = self.ranked(peer)
        return ranked[0] if ranked else None

    def state(self, peer: PeerId) -> Connectedness:
        """The connectedness by this table. A connection counts until it is removed, even if it is ending."""
        mine = self._by_peer.get(peer)
        return connectedness_of(mine if mine is None or isinstance(mine, dict) else (mine,))

    # -- waiting for a direct connection -------------------------------------------------------

    async def wait_direct(self, peer: PeerId) -> None:
        """Returns when a connection to `peer` comes that is not limited.

        Raises:
            ConnectionClosed: the last connection to `peer` has ended.
            P2PError: the error that `fail` was given.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(peer, set())
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiting.get(peer) is waiters:
                del self._waiting[peer]

    def fail(self, error: P2PError) -> None:
        """All calls that wait in `wait_direct` raise `error`."""
        for peer in list(self._waiting):
            self._wake(peer, error)

    def _wake(self, peer: PeerId, error: P2PError | None) -> None:
        for waiter in self._waiting.pop(peer, ()):
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def connectedness_of(conns: Collection[Conn] | None) -> Connectedness:
    """The connectedness of a peer whose connections are `conns`."""
    if not conns:
        return Connectedness.NOT_CONNECTED
    if all(conn.is_limited for conn in conns):
        return Connectedness.LIMITED
    return Connectedness.CONNECTED
