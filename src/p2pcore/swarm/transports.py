"""The transports of a swarm, and the choice of one for an address.

Comes in: transports, in order of preference. Goes out: the transport to listen or to dial with. A proxy comes
first if the address has one of its protocols. The choice is the same every time (go-libp2p's is random: W42).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.interfaces import Transport
    from p2pcore.values.multiaddr import Multiaddr


class Transports:
    """An ordered list of transports. No two handle the same protocol."""

    __slots__ = ("_by_name", "_items", "_proxies")

    def __init__(self) -> None:
        self._items: list[Transport] = []
        self._by_name: dict[str, Transport] = {}
        self._proxies: dict[str, Transport] = {}

    def add(self, transport: Transport) -> None:
        """Adds `transport` after the others. Raises ValueError: see Swarm.add_transport."""
        if not transport.protocols:
            raise ValueError(f"{type(transport).__name__} handles no protocol")
        if both := self._by_name.keys() & set(transport.protocols):
            raise ValueError(f"another transport handles {', '.join(sorted(both))} already")
        self._items.append(transport)
        names = dict.fromkeys(transport.protocols, transport)
        self._by_name.update(names)
        if transport.is_proxy:
            self._proxies.update(names)

    def for_listening(self, addr: Multiaddr) -> Transport | None:
        """The transport of the last component of `addr`. If components belong to proxies: the last proxy."""
        names = [name for name, _ in addr.components()]
        proxy = next((self._proxies[name] for name in reversed(names) if name in self._proxies), None)
        return proxy or (self._by_name.get(names[-1]) if names else None)

    def for_dialing(self, addr: Multiaddr) -> Transport | None:
        """The first transport that can dial `addr` without its /p2p/ID. A proxy in `addr` comes first."""
        for name, proxy in self._proxies.items():
            if name in addr:
                return proxy
        target = addr.without_p2p()
        return next((each for each in self._items if each.can_dial(target)), None)
