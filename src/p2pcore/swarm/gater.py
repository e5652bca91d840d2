"""A connection gater that blocks peers, addresses and subnets: BasicGater satisfies interfaces.Gater.

Comes in: what to block, and the five questions of a swarm. Goes out: yes or no; and to the swarms that it
serves: what has just been blocked, so that they close it. It saves nothing to disk. Source: go-libp2p's
conngater.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network

from p2pcore import options
from p2pcore.interfaces import Conn, Direction, Gater, Verdict
from p2pcore.values.multiaddr import MAPPED, Multiaddr
from p2pcore.values.networks import Network, Networks
from p2pcore.values.peer_id import PeerId
from p2pcore.values.scope import packed_ip_of

Blocked = Callable[[PeerId | None], None]
"""Called with a peer that has just been blocked; None: it was a network, so look at every connection."""


class BasicGater:
    """Lets everybody connect except those it was told to block. To block somebody closes what is open.

    Args:
        peers: ids to block. subnets: IP networks ("10.0.0.0/8") or single IP addresses to block.

    Raises:
        TypeError: an argument is no list, or a subnet no text. IdentityError: a peer id is malformed.
        ValueError: a subnet is malformed.
    """

    def __init__(self, peers: Iterable[PeerId | str] = (), subnets: Iterable[str] = ()) -> None:
        self._peers = {PeerId(peer) for peer in options.listed("peers", peers, "peer ids", str, PeerId)}
        self._subnets = Networks(map(_network, options.listed("subnets", subnets, "networks", str)))
        self._watchers: list[Blocked] = []

    def watch(self, blocked: Blocked) -> None:
        """Calls `blocked` for whatever is blocked from now on. A swarm closes the connections then."""
        self._watchers.append(blocked)

    def unwatch(self, blocked: Blocked) -> None:
        """Ends `watch`. Idempotent."""
        if blocked in self._watchers:
            self._watchers.remove(blocked)

    def _tell(self, peer: PeerId | None) -> None:
        for blocked in tuple(self._watchers):
            blocked(peer)

    def blocks(self, peer: PeerId, addr: Multiaddr | None) -> bool:
        """Whether a connection to `peer` at `addr` is blocked now."""
        return peer in self._peers or not self._is_open(addr)

    @property
    def blocked_peers(self) -> frozenset[PeerId]:
        """The peers that are blocked now."""
        return frozenset(self._peers)

    @property
    def blocked_subnets(self) -> frozenset[str]:
        """The networks that are blocked now. A single address ends with /32 or /128."""
        return frozenset(map(str, self._subnets))

    def block_peer(self, peer: PeerId | str) -> None:
        """Blocks a peer at every address, in both directions, and closes its connections.

        Raises: IdentityError.
        """
        peer = PeerId(peer)
        self._peers.add(peer)
        self._tell(peer)

    def unblock_peer(self, peer: PeerId | str) -> None:
        """Ends `block_peer`. Raises IdentityError."""
        self._peers.discard(PeerId(peer))

    def block_subnet(self, subnet: str) -> None:
        """Blocks an IP network or address, in both directions, and closes the connections with it.

        Raises: ValueError: it is neither.
        """
        self._subnets.add(_network(subnet))
        self._tell(None)

    def unblock_subnet(self, subnet: str) -> None:
        """Ends `block_subnet` of the same network. Raises ValueError: it is not an IP network or address."""
        self._subnets.discard(_network(subnet))

    def _is_open(self, addr: Multiaddr | None) -> bool:
        """Whether the IP address at the start of `addr` is in no blocked network."""
        if addr is None or not self._subnets:
            return True
        packed = packed_ip_of(addr)
        if packed in self._subnets:
            return False
        return len(packed) != 4 or "ip6" not in addr or MAPPED + packed not in self._subnets

    # -- the five questions --------------------------------------------------------------------

    def intercept_peer_dial(self, peer: PeerId) -> bool:
        """See interfaces.Gater."""
        return peer not in self._peers

    def intercept_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> bool:
        """See interfaces.Gater."""
        return self._is_open(addr)

    def intercept_accept(self, local: Multiaddr, remote: Multiaddr | None) -> bool:
        """See interfaces.Gater."""
        return self._is_open(remote)

    def intercept_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> bool:
        """See interfaces.Gater."""
        return peer not in self._peers

    def intercept_upgraded(self, conn: Conn) -> bool:
        """See interfaces.Gater."""
        return True


class Both:
    """Two gaters as one: both have to admit. Satisfies interfaces.Gater.

    Args:
        first: is asked first; it never waits. second: is asked if `first` admits.
    """

    __slots__ = ("_first", "_second")

    def __init__(self, first: BasicGater, second: Gater) -> None:
        self._first = first
        self._second = second

    def intercept_peer_dial(self, peer: PeerId) -> Verdict:
        """See interfaces.Gater."""
        return self._first.intercept_peer_dial(peer) and self._second.intercept_peer_dial(peer)

    def intercept_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> Verdict:
        """See interfaces.Gater."""
        return self._first.intercept_addr_dial(peer, addr) and self._second.intercept_addr_dial(peer, addr)

    def intercept_accept(self, local: Multiaddr, remote: Multiaddr | None) -> Verdict:
        """See interfaces.Gater."""
        return self._first.intercept_accept(local, remote) and self._second.intercept_accept(local, remote)

    def intercept_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> Verdict:
        """See interfaces.Gater."""
        return self._first.intercept_secured(
            direction, peer, local, remote
        ) and self._second.intercept_secured(direction, peer, local, remote)

    def intercept_upgraded(self, conn: Conn) -> Verdict:
        """See interfaces.Gater."""
        return self._first.intercept_upgraded(conn) and self._second.intercept_upgraded(conn)


def _network(subnet: object) -> Network:
    options.network("subnet", subnet)
    return ip_network(subnet)  # type: ignore[arg-type]
