"""How far a multiaddr reaches: this machine, a private network, or the internet; and its IP and subnet.

Comes in: multiaddrs. Goes out: a Scope, an IP address, a subnet. Never resolves a name or touches a socket.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.values.multiaddr import Multiaddr

IP6_SUBNET_BITS = 56
"""The subnet of one subscriber of a provider (RFC 6177); its addresses are counted together."""

_IP = frozenset({"ip4", "ip6", "ip6zone", "dns", "dns4", "dns6", "dnsaddr"})
LOCAL_TRANSPORTS = frozenset({"unix", "memory"})
"""First components of addresses that work only on this machine."""


class Scope(enum.IntEnum):
    """How far an address reaches; a greater value reaches farther."""

    LOOPBACK = 0
    PRIVATE = 1
    PUBLIC = 2


def is_local(addr: Multiaddr) -> bool:
    """True for addresses of transports that never leave the machine; a remote peer cannot use them."""
    first = next(iter(addr.protocols()), None)
    return first is not None and first.name in LOCAL_TRANSPORTS


def is_ip(addr: Multiaddr) -> bool:
    """True for addresses that begin with an IP address, or with a host name that leads to one."""
    first = next(iter(addr.protocols()), None)
    return first is not None and first.name in _IP


def told_to(scope: Scope, addrs: Iterable[Multiaddr]) -> list[Multiaddr]:
    """Those of our `addrs` that a peer at distance `scope` may be able to use.

    Each reaches at least as far as the peer, and none has a zone: a zone names an interface of this machine.
    """
    return [addr for addr in addrs if scope_of(addr) >= scope and "ip6zone" not in addr]


def scope_of(addr: Multiaddr | None) -> Scope:
    """How far `addr` reaches. None, a socket without an address, reaches this machine only."""
    if addr is None or addr.is_loopback:
        return Scope.LOOPBACK
    if addr.is_public:
        return Scope.PUBLIC
    return Scope.LOOPBACK if is_local(addr) else Scope.PRIVATE


def ip_of(addr: Multiaddr | None) -> IPv4Address | IPv6Address | None:
    """The IP address of `addr`, or None if it has none; a mapped IPv4 address comes out as IPv4."""
    packed = packed_ip_of(addr)
    return ip_address(packed) if packed else None


def packed_ip_of(addr: Multiaddr | None) -> bytes:
    """The same in 4 or 16 bytes; b"" if there is none. It costs a tenth."""
    return b"" if addr is None else addr._packed_ip()


def subnet_of(addr: Multiaddr | None) -> str | None:
    """The subnet that `addr` counts for: its IPv4 address or its IPv6 /56; None without an IP address."""
    packed = packed_ip_of(addr)
    if len(packed) != 16:
        return str(IPv4Address(packed)) if packed else None
    num_bytes = IP6_SUBNET_BITS // 8
    return f"{IPv6Address(packed[:num_bytes] + bytes(16 - num_bytes))}/{IP6_SUBNET_BITS}"
