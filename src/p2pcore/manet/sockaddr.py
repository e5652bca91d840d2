"""Converts TCP and UDP multiaddrs to socket addresses and back.

Comes in: /ip4|[ip6zone/Z/]ip6/…/tcp|udp/N[/p2p/ID], or results of accept(2) and getsockname(2). Goes out: an
Endpoint, or a Multiaddr. Never resolves names, never touches the network.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Any

from p2pcore.errors import AddressError, IdentityError
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.scope import IP6_SUBNET_BITS

_MAPPED = "::ffff:"
_MAX_SCOPE_ID = 2**32 - 1
_FAMILIES = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a TCP connection, or of UDP packets.

    Attributes:
        family: AF_INET or AF_INET6; host: numeric, without zone; port: 0..65535.
        zone: the interface of a link-local IPv6 address, else "".
        peer: the id after /p2p, or None.
    """

    family: socket.AddressFamily
    host: str
    port: int
    zone: str = ""
    peer: PeerId | None = None

    def sockaddr(self) -> tuple[Any, ...]:
        """The argument of bind(2), connect(2) and sendto(2), numeric, so that Python looks nothing up.

        The fourth item is the scope: without it Python uses 0, whatever the host says.

        Raises:
            OSError: there is no interface with the name in the zone.
        """
        if self.family is socket.AF_INET:
            return (self.host, self.port)
        return (self.host, self.port, 0, _scope_id(self.zone))


def _scope_id(zone: str) -> int:
    """The number of the interface `zone`, which is a name or a number. Raises OSError: it does not exist."""
    if not zone:
        return 0
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        if zone.isascii() and zone.isdecimal() and int(zone) <= _MAX_SCOPE_ID:
            return int(zone)
        raise OSError(errno.ENODEV, "this machine has no interface of that name", zone) from None


def parse_endpoint(addr: Multiaddr, protocol: str = "tcp") -> Endpoint:
    """Parses a TCP address, or a UDP address if `protocol` is "udp".

    Raises:
        AddressError: it is not /ip4|ip6/…/tcp/N[/p2p/ID].
    """
    parts = str(addr).split("/")[1:]
    zone = ""
    if len(parts) > 2 and parts[0] == "ip6zone" and parts[2] == "ip6":
        zone, parts = parts[1], parts[2:]
    if len(parts) not in (4, 6) or parts[0] not in _FAMILIES or parts[2] != protocol:
        raise AddressError(f"{addr} is not /ip4|ip6/ADDRESS/{protocol}/PORT[/p2p/ID]")
    if len(parts) == 6 and parts[4] != "p2p":
        raise AddressError(f"{addr} has something other than a peer id after its port")
    peer = _peer_id(addr, parts[5]) if len(parts) == 6 else None
    return Endpoint(_FAMILIES[parts[0]], parts[1], int(parts[3]), zone, peer)


def _peer_id(addr: Multiaddr, text: str) -> PeerId:
    try:
        return PeerId.from_text(text)
    except IdentityError as error:
        raise AddressError(f"{addr}: {error}") from error


def split_tcp(addr: Multiaddr) -> tuple[Multiaddr, str]:
    """Splits `addr` after its port: the socket's address, and the text of the rest ("/tls/ws").

    Raises:
        AddressError: `addr` does not begin with an IP address and a TCP port.
    """
    parts = str(addr).split("/")
    end = 7 if parts[1] == "ip6zone" else 5
    base = Multiaddr("/".join(parts[:end]))
    parse_endpoint(base)
    rest = "/".join(parts[end:])
    return base, f"/{rest}" if rest else ""


def to_multiaddr(sockaddr: tuple[Any, ...], protocol: str = "tcp") -> Multiaddr:
    """The multiaddr of a socket address, (host, port) or (host, port, flow, scope).

    An IPv4 address mapped into IPv6 comes out as /ip4; a scope becomes /ip6zone.
    """
    host, port = sockaddr[0], sockaddr[1]
    if len(sockaddr) == 2:
        return Multiaddr(f"/ip4/{host}/{protocol}/{port}")
    if host.startswith(_MAPPED) and "." in host:
        return Multiaddr(f"/ip4/{host[len(_MAPPED) :]}/{protocol}/{port}")
    zone = f"/ip6zone/{_zone_name(sockaddr[3])}" if sockaddr[3] else ""
    return Multiaddr(f"{zone}/ip6/{host.partition('%')[0]}/{protocol}/{port}")


def block_of(sockaddr: tuple[Any, ...]) -> str:
    """The block of a socket address: its IPv4 address, or its IPv6 /56: one subscriber (RFC 6177)."""
    host: str = sockaddr[0]
    if ":" not in host:
        return host
    if host.startswith(_MAPPED) and "." in host:
        return host[len(_MAPPED) :]
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    prefix = packed[: IP6_SUBNET_BITS // 8].ljust(len(packed), b"\0")
    return f"{socket.inet_ntop(socket.AF_INET6, prefix)}/{IP6_SUBNET_BITS}"


def _zone_name(scope_id: int) -> str:
    try:
        return socket.if_indextoname(scope_id)
    except OSError:  # the interface no longer exists
        return str(scope_id)
