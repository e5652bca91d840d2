"""What peers are told about where we listen: other addresses than ours, or further ones (NAT, containers).

Comes in: the addresses of the listeners and of relays where we have a place. Goes out: the addresses that
identify, our signed record and `Host.addrs` tell. Never changes where the node listens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from p2pcore import limits, options
from p2pcore.errors import AddressError, LimitExceeded
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.scope import ip_of

if TYPE_CHECKING:
    from p2pcore.values.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class AnnounceOptions:
    """What peers are told in place of, or besides, the addresses that a host listens on.

    Attributes:
        replace: told in place of them. Addresses at relays where we have a place are still told.
        add: told besides.
        hide: IP networks ("172.17.0.0/16") or addresses that are not told, though we listen there.

    Raises:
        TypeError, ValueError: a field has a wrong type, or a network is malformed.
        AddressError: an address is malformed, or peers cannot dial it (a wildcard, port 0).
        LimitExceeded: there are more than limits.MAX_RECORD_ADDRS addresses.
    """

    replace: Sequence[Multiaddr | str] = ()
    add: Sequence[Multiaddr | str] = ()
    hide: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("replace", "add"):
            given = getattr(self, name)
            options.items(name, given, "addresses", Multiaddr, str)
            object.__setattr__(self, name, tuple(_dialable(name, Multiaddr(addr)) for addr in given))
        options.items("hide", self.hide, "networks", str)
        for subnet in self.hide:
            options.network("hide", subnet)
        num = len(self.replace) + len(self.add)
        if num > limits.MAX_RECORD_ADDRS:
            raise LimitExceeded("MAX_RECORD_ADDRS", num, limits.MAX_RECORD_ADDRS, what="announced addresses")


def _dialable(name: str, addr: Multiaddr) -> Multiaddr:
    if addr.is_unspecified or "0" in (addr.get("tcp"), addr.get("udp")):
        raise AddressError(f"{name} has {addr}, which nobody can dial: give an address and a port")
    return addr


class Announcement:
    """The options of one host, ready to be applied. Raises AddressError: an address leads to another peer."""

    __slots__ = ("_add", "_hidden", "_replace")

    def __init__(self, given: AnnounceOptions, local_peer: PeerId) -> None:
        self._replace = [_ours(addr, local_peer) for addr in given.replace]
        self._add = [_ours(addr, local_peer) for addr in given.add]
        self._hidden = [ip_network(subnet) for subnet in given.hide]

    def applied(self, addrs: Iterable[Multiaddr]) -> list[Multiaddr]:
        """The addresses to tell, where we listen on `addrs`; each once."""
        if self._replace:
            addrs = [*self._replace, *(addr for addr in addrs if addr.is_relayed)]
        elif self._hidden:
            addrs = [addr for addr in addrs if not self._hides(addr)]
        return list(dict.fromkeys([*addrs, *self._add]))

    def _hides(self, addr: Multiaddr) -> bool:
        ip = None if addr.is_relayed else ip_of(addr)
        return ip is not None and any(ip in subnet for subnet in self._hidden)


def _ours(given: Multiaddr | str, local_peer: PeerId) -> Multiaddr:
    addr = Multiaddr(given)
    if addr.peer_id not in (None, local_peer):
        raise AddressError(f"{addr} leads to another peer, not to this host ({local_peer})")
    return addr.without_p2p()
