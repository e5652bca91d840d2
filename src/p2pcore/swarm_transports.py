"""The transports of a swarm, and which of them takes an address.

Comes in: transports, in order of preference. Goes out: the one to listen or to dial with. The choice is the
same every time: a proxy where any component is its, else the first that can (go-libp2p's is random: W42).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.interfaces import Transport
    from p2pcore.multiaddr import Multiaddr


class Transports:
    """An ordered list, no two for the same protocol."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[Transport] = []

    def add(self, transport: Transport) -> None:
        """Puts `transport` behind the others. Raises ValueError: see Swarm.add_transport."""
        if not transport.protocols:
            raise ValueError(f"{type(transport).__name__} handles no protocol")
        taken = {name for other in self._items for name in other.protocols}
        if both := taken.intersection(transport.protocols):
            raise ValueError(f"there is a transport for {', '.join(sorted(both))} already")
        self._items.append(transport)

    def for_listening(self, addr: Multiaddr) -> Transport | None:
        """The transport of the last component of `addr`; where any belongs to a proxy, the last proxy."""
        names = [protocol.name for protocol in addr.protocols()]
        if not names:
            return None
        found = self._by_protocol(names[-1])
        for name in names:
            transport = self._by_protocol(name)
            if transport is not None and transport.is_proxy:
                found = transport
        return found

    def for_dialing(self, addr: Multiaddr) -> Transport | None:
        """The first that can dial `addr`, a trailing /p2p/ID aside; a proxy where any component is its."""
        for protocol in addr.protocols():
            transport = self._by_protocol(protocol.name)
            if transport is not None and transport.is_proxy:
                return transport
        target = addr.without_p2p()
        return next((each for each in self._items if each.can_dial(target)), None)

    def _by_protocol(self, name: str) -> Transport | None:
        return next((each for each in self._items if name in each.protocols), None)
