"""A connection gater that blocks peers, addresses and subnets: BasicGater satisfies interfaces.Gater.

Comes in: what to block, and the five questions of a swarm. Goes out: yes or no. It does not close connections
that are open already, and it saves nothing to disk. Source: go-libp2p's conngater.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from p2pcore.interfaces import Conn, Direction
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    Subnet = IPv4Network | IPv6Network


class BasicGater:
    """Lets everybody connect except those it was told to block.

    Args:
        peers: ids to block. subnets: IP networks ("10.0.0.0/8") or single IP addresses to block.

    Raises:
        IdentityError: a peer id is malformed. ValueError: a subnet is malformed.
    """

    def __init__(self, peers: Iterable[PeerId | str] = (), subnets: Iterable[str] = ()) -> None:
        self._peers = {PeerId(peer) for peer in peers}
        self._subnets: set[Subnet] = {ip_network(subnet) for subnet in subnets}

    @property
    def blocked_peers(self) -> frozenset[PeerId]:
        """The peers that are blocked now."""
        return frozenset(self._peers)

    @property
    def blocked_subnets(self) -> frozenset[str]:
        """The networks that are blocked now. A single address ends with /32 or /128."""
        return frozenset(map(str, self._subnets))

    def block_peer(self, peer: PeerId | str) -> None:
        """Blocks a peer at every address, in both directions. Raises IdentityError."""
        self._peers.add(PeerId(peer))

    def unblock_peer(self, peer: PeerId | str) -> None:
        """Ends `block_peer`. Raises IdentityError."""
        self._peers.discard(PeerId(peer))

    def block_subnet(self, subnet: str) -> None:
        """Blocks an IP network or address, in both directions. Raises ValueError: it is neither."""
        self._subnets.add(ip_network(subnet))

    def unblock_subnet(self, subnet: str) -> None:
        """Ends `block_subnet` of the same network. Raises ValueError: it is not an IP network or address."""
        self._subnets.discard(ip_network(subnet))

    def _is_open(self, addr: Multiaddr | None) -> bool:
        """Whether the IP address at the start of `addr` is in no blocked network."""
        text = None if addr is None else addr.get("ip4") or addr.get("ip6")
        if text is None or not self._subnets:
            return True
        ip = ip_address(text)
        mapped = getattr(ip, "ipv4_mapped", None)
        return not any((mapped or ip) in subnet or ip in subnet for subnet in self._subnets)

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
