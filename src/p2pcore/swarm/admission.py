"""Who may connect: asks the connection gater, and holds the caps on connections.

Comes in: each connection at five points of its setup, and its end. Goes out: GaterRefused, or LimitExceeded
with the name of the cap. A cap is hard (go-libp2p's watermarks are soft: W20). The swarm checks it when it
takes a connection over, and before any handshake if the address is enough to decide.

The cap for each IP address counts only inbound connections. It does not count loopback, private networks and
relayed connections, because many peers share such an address (go-libp2p counts them all: W17).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from p2pcore import options
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.codes import Direction
from p2pcore.errors import GaterRefused, LimitExceeded, P2PError
from p2pcore.interfaces import Gater
from p2pcore.values.scope import Scope, scope_of, subnet_of

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, RawConn
    from p2pcore.swarm.news import News
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.admission")

K = TypeVar("K")

_HOOKS = {
    "peer dial": "intercept_peer_dial",
    "addr dial": "intercept_addr_dial",
    "accept": "intercept_accept",
    "secured": "intercept_secured",
    "upgraded": "intercept_upgraded",
}
"""The method of a gater for each point."""


class Admission:
    """The gater and the caps of one swarm. The defaults admit everybody.

    Args:
        gater: see interfaces.Gater. If a method raises, that means no. It is logged once for each question.
        max_conns: connections in both directions. max_conns_per_peer: the same for one peer.
        max_conns_per_ip: inbound connections from one public IPv4 address or IPv6 /56.

    Raises:
        ValueError: a cap is less than 1. TypeError: the gater lacks a method of interfaces.Gater.

    Attributes:
        news: hears of each refusal. The swarm sets it.
    """

    __slots__ = (
        "_by_ip",
        "_by_peer",
        "_complaints",
        "_gater",
        "_max_conns",
        "_max_per_ip",
        "_max_per_peer",
        "_num_conns",
        "is_trivial",
        "news",
    )

    def __init__(
        self,
        gater: Gater | None = None,
        max_conns: int | None = None,
        max_conns_per_peer: int | None = None,
        max_conns_per_ip: int | None = None,
    ) -> None:
        for cap in (max_conns, max_conns_per_peer, max_conns_per_ip):
            if cap is not None and cap < 1:
                raise ValueError(f"a cap on connections must be at least 1, not {cap}")
        if gater is not None:
            options.satisfies("gater", gater, Gater)
        self._gater = gater
        self._complaints = Complaints(logger)
        self._max_conns = max_conns
        self._max_per_peer = max_conns_per_peer
        self._max_per_ip = max_conns_per_ip
        self._num_conns = 0
        self._by_peer: dict[PeerId, int] = {}
        self._by_ip: dict[str, int] = {}
        self.is_trivial = gater is None and max_conns is max_conns_per_peer is max_conns_per_ip is None
        self.news: News | None = None

    # -- the five points -----------------------------------------------------------------------

    def check_peer_dial(self, peer: PeerId | None) -> None:
        """Is called before any address of `peer` is dialled. Raises GaterRefused, LimitExceeded."""
        if self._gater is not None and peer is not None:
            self._ask("peer dial", peer, None, peer)
        self._check_total(peer, None)
        if peer is not None:
            self._check_peer(peer, None)

    def check_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> None:
        """Is called before `addr` is dialled. Raises GaterRefused."""
        if self._gater is not None:
            self._ask("addr dial", peer, addr, peer, addr)

    def admits(self, conn: RawConn) -> bool:
        """Whether an accepted connection may be read from. Looks only at addresses and counts."""
        if self.is_trivial:
            return True
        remote = conn.remote_multiaddr
        try:
            if self._gater is not None:
                self._ask("accept", None, remote, conn.local_multiaddr, remote)
            self._check_total(None, remote)
            self._check_ip(None, remote)
        except (GaterRefused, LimitExceeded):
            return False
        return True

    def check_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> None:
        """Is called when the peer has proved its id. Raises GaterRefused."""
        if self._gater is not None:
            self._ask("secured", peer, remote, direction, peer, local, remote)

    def check_upgraded(self, conn: Conn) -> None:
        """Is called before the swarm takes `conn` over. Raises GaterRefused, LimitExceeded."""
        peer, remote = conn.remote_peer, conn.remote_multiaddr
        if self._gater is not None:
            self._ask("upgraded", peer, remote, conn)
        self._check_total(peer, remote)
        self._check_peer(peer, remote)
        if conn.direction is Direction.INBOUND:
            self._check_ip(peer, remote)

    # -- counting ------------------------------------------------------------------------------

    def joined(self, conn: Conn) -> None:
        """Counts `conn`, which the swarm has taken over."""
        self._count(conn, 1)

    def left(self, conn: Conn) -> None:
        """Stops counting `conn`, which has ended. Called once for each connection that has joined."""
        self._count(conn, -1)

    def _count(self, conn: Conn, by: int) -> None:
        self._num_conns += by
        if self._max_per_peer is not None:
            _add(self._by_peer, conn.remote_peer, by)
        if self._max_per_ip is not None and conn.direction is Direction.INBOUND:
            subnet = counted_under(conn.remote_multiaddr)
            if subnet is not None:
                _add(self._by_ip, subnet, by)

    def _check_total(self, peer: PeerId | None, remote: Multiaddr | None) -> None:
        self._check("max_conns", self._num_conns, self._max_conns, peer, remote)

    def _check_peer(self, peer: PeerId, remote: Multiaddr | None) -> None:
        self._check("max_conns_per_peer", self._by_peer.get(peer, 0), self._max_per_peer, peer, remote)

    def _check_ip(self, peer: PeerId | None, remote: Multiaddr | None) -> None:
        if self._max_per_ip is not None and (subnet := counted_under(remote)) is not None:
            self._check("max_conns_per_ip", self._by_ip.get(subnet, 0), self._max_per_ip, peer, remote)

    def _check(
        self, limit: str, count: int, maximum: int | None, peer: PeerId | None, remote: Multiaddr | None
    ) -> None:
        if maximum is not None and count >= maximum:
            self._refuse(peer, remote, LimitExceeded(limit, count + 1, maximum))

    # -- refusing ------------------------------------------------------------------------------

    def _ask(
        self,
        point: str,
        peer: PeerId | None,
        addr: Multiaddr | None,
        *args: object,
    ) -> None:
        try:
            if getattr(self._gater, _HOOKS[point])(*args) is True:
                return
        except RAISED:
            self._complaints.raised(f"the connection gater ({point})")
        self._refuse(peer, addr, GaterRefused(point, addr or peer or "a connection"))

    def _refuse(self, peer: PeerId | None, addr: Multiaddr | None, error: P2PError) -> None:
        logger.debug("refused %s at %s: %s", peer, addr, error)
        if self.news is not None:
            self.news.refused(peer, addr, error)
        raise error


def counted_under(addr: Multiaddr | None) -> str | None:
    """The subnet that connections from `addr` count for (see subnet_of). None: they are not counted."""
    if addr is None or addr.is_relayed or scope_of(addr) is not Scope.PUBLIC:
        return None
    return subnet_of(addr)


def _add(counts: dict[K, int], key: K, by: int) -> None:
    count = counts.get(key, 0) + by
    if count:
        counts[key] = count
    else:
        counts.pop(key, None)
