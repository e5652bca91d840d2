"""A set of IP networks that answers at once whether an address is in one of them.

Comes in: networks of the standard library, packed addresses. Goes out: yes or no, after one look-up for each
length of a prefix that occurs, however many networks there are. Never parses text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network


class Networks:
    """A set of networks; `packed in networks` asks about an address of 4 or 16 bytes."""

    __slots__ = ("_all", "_tables")

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._all: set[Network] = set()
        # By the bytes of an address, then by the bits behind the prefix: the prefixes.
        self._tables: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for network in networks:
            self.add(network)

    def add(self, network: Network) -> None:
        """Adds `network`. If it is there already, nothing happens."""
        self._all.add(network)
        size, behind, prefix = _place(network)
        self._tables[size].setdefault(behind, set()).add(prefix)

    def discard(self, network: Network) -> None:
        """Removes `network`. If it is not there, nothing happens."""
        if network not in self._all:
            return
        self._all.discard(network)
        size, behind, prefix = _place(network)
        prefixes = self._tables[size][behind]
        prefixes.discard(prefix)
        if not prefixes:
            del self._tables[size][behind]

    def __contains__(self, packed: bytes) -> bool:
        table = self._tables.get(len(packed))
        if not table:
            return False
        number = int.from_bytes(packed, "big")
        for behind, prefixes in table.items():  # noqa: SIM110  (a generator costs as much as they do)
            if number >> behind in prefixes:
                return True
        return False

    def __iter__(self) -> Iterator[Network]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _place(network: Network) -> tuple[int, int, int]:
    """The bytes of an address, the bits behind the prefix, the prefix."""
    behind = network.max_prefixlen - network.prefixlen
    return network.max_prefixlen // 8, behind, int(network.network_address) >> behind
