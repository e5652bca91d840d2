"""How far an address reaches: this machine, a private network, or the internet.

Comes in: multiaddrs. Goes out: a Scope, IP addresses. Never resolves a name, never touches a socket.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.multiaddr import Multiaddr

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCAL_TRANSPORTS = frozenset({"unix", "memory"})
"""First components that never leave the machine."""


class Scope(enum.IntEnum):
    """Ordered by reach."""

    LOOPBACK = 0
    PRIVATE = 1
    PUBLIC = 2


def ip_of(addr: Multiaddr) -> IPAddress | None:
    """The IP address `addr` begins with, or None."""
    protocols = addr.protocols()
    if not protocols or protocols[0].name not in ("ip4", "ip6"):
        return None
    return ipaddress.ip_address(addr.value_for_protocol(protocols[0].name))


def scope_of(addr: Multiaddr | None) -> Scope:
    """How far `addr` reaches; a name counts as public, and None (a socket without a name) as loopback."""
    if addr is None:
        return Scope.LOOPBACK
    ip = ip_of(addr)
    if ip is None:
        protocols = addr.protocols()
        return Scope.LOOPBACK if protocols and protocols[0].name in LOCAL_TRANSPORTS else Scope.PUBLIC
    if ip.is_loopback:
        return Scope.LOOPBACK
    return Scope.PRIVATE if ip.is_private or ip.is_link_local else Scope.PUBLIC
