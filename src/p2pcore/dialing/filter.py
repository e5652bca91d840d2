"""Which addresses of a peer are worth a dial, and why the others are not.

Comes in: numeric addresses. Goes out: the addresses to dial, without /p2p/ID at the end, and an error for
each of the others. Never dials, resolves or waits. Source: go-libp2p's swarm, `filterKnownUndialables`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from p2pcore.errors import AddressError, NoTransport
from p2pcore.interfaces import NameKeeper
from p2pcore.values.multiaddr import Multiaddr, protocol_with_name

if TYPE_CHECKING:
    from p2pcore.interfaces import Transport
    from p2pcore.values.peer_id import PeerId

Causes = dict["Multiaddr", BaseException]

_IP6 = protocol_with_name("ip6").vcode


class DialFilter:
    """Decides only by the address itself.

    Args:
        transport_for: gives the transport that dials an address, or None.
        own_addrs: gives the addresses this node listens on.
    """

    __slots__ = ("_own_addrs", "_transport_for")

    def __init__(
        self,
        transport_for: Callable[[Multiaddr], Transport | None],
        own_addrs: Callable[[], Collection[Multiaddr]],
    ) -> None:
        self._transport_for = transport_for
        self._own_addrs = own_addrs

    def transport_to(self, addr: Multiaddr) -> Transport:
        """The transport that dials `addr`. Raises NoTransport; AddressError: a dial makes no sense."""
        transport = self._transport_for(addr)
        if transport is None:
            raise NoTransport(f"no transport for {addr}")
        if addr.is_unspecified:
            raise AddressError("an unspecified address cannot be dialled")
        if _is_link_local(addr):
            raise AddressError("a link-local IPv6 address needs a zone: /ip6zone/INTERFACE in front")
        if self.is_own(addr):
            raise AddressError("this node itself listens on this address")
        return transport

    def is_own(self, addr: Multiaddr) -> bool:
        """Whether this node itself listens on `addr`."""
        return not addr.is_relayed and addr in self._own_addrs()

    def keeps_name(self, addr: Multiaddr) -> bool:
        """Whether the transport that dials `addr` (or the relay in it) lets a proxy look up its host name."""
        direct = addr.decapsulate_code("p2p-circuit")
        transport = self._transport_for(direct) if direct else None
        return isinstance(transport, NameKeeper) and transport.keeps_name(direct)

    def choose(self, peer: PeerId | None, addrs: Iterable[Multiaddr]) -> tuple[list[Multiaddr], Causes]:
        """The addresses to dial, in order and without repeats, and the errors of the others.

        If `peer` is None, the /p2p/ID at the end of an address stays: it says which peer to expect.
        """
        good: dict[Multiaddr, None] = {}
        causes: Causes = {}
        for addr in addrs:
            target = addr if peer is None else addr.without_p2p()
            try:
                if peer is not None and addr.peer_id not in (None, peer):
                    raise AddressError(f"the address names another peer than {peer}")
                self.transport_to(addr.without_p2p())
                good[target] = None
            except (AddressError, NoTransport) as error:
                causes[addr] = error
        for addr in _served_by_tcp(good):
            del good[addr]
            causes[addr] = AddressError("plain TCP at the same address is used in place of WebSocket")
        return list(good), causes


def _is_link_local(addr: Multiaddr) -> bool:
    return addr.to_bytes()[:1] == _IP6 and ip_address(addr["ip6"] or "").is_link_local


def _served_by_tcp(addrs: Iterable[Multiaddr]) -> list[Multiaddr]:
    """The WebSocket addresses in `addrs` whose host and port are also in `addrs` as plain TCP."""
    plain: set[str] = set()
    web: list[tuple[Multiaddr, str]] = []
    for addr in addrs:
        host, *_ = str(addr).partition("/tcp/")
        if addr.is_relayed or "tcp" not in addr:
            continue
        place = f"{host}/tcp/{addr['tcp']}"
        if "ws" in addr or "wss" in addr:
            web.append((addr, place))
        elif str(addr.without_p2p()) == place:
            plain.add(place)
    return [addr for addr, place in web if place in plain]
