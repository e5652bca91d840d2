"""Blocks of addresses: how many connections each has, and how fast new ones come.

Comes in: the number of an IP address (`number_of`), the time. Goes out: the limit that is reached, or
nothing. A block with connections takes one dict entry. Never resolves a name, never reads a clock.

A block is an IPv4 address, an IPv6 /56 and /48, or a network of Limits.subnets. An address of Limits.exempt
has none. Rates are token buckets, kept as the time at which the bucket will be full again (GCRA).
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from p2pcore.limits import MAX_RATED_SUBNETS, SITE_FACTOR

if TYPE_CHECKING:
    from p2pcore.resources.options import Limits
    from p2pcore.values.multiaddr import Multiaddr

_V6 = 1 << 128  # added to the number of an IPv6 address
_MAPPED = _V6 | 0xFFFF << 32  # ::ffff:0:0/96
_SUBNET_BITS = 128 - 56
_SITE_BITS = 128 - 48
_SITE_LIMIT = "max_conns_per_site"
_FORGOTTEN_AT_ONCE = 2  # more than one, so that the table shrinks


class Full(NamedTuple):
    """A limit that has been reached.

    Attributes:
        limit: the field of Limits. used, maximum: how much of it. who: the block, as text.
    """

    limit: str
    used: int
    maximum: int
    who: str | None = None


class _Kind(NamedTuple):
    """What all blocks of one kind share."""

    limit: str
    maximum: int | None
    factor: int  # of the rate; 0: no rate
    bits: int  # the free bits of an address


def number_of(host: str) -> int:
    """The number of a numeric IP address, with or without a zone. Mapped addresses count as IPv4."""
    if ":" not in host:
        return int.from_bytes(socket.inet_aton(host))
    return _number6(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))


def number_in(addr: Multiaddr | None) -> int | None:
    """The number of the IP address at the start of `addr`; None: there is none, or the address is relayed."""
    if addr is None or addr.is_relayed:
        return None
    raw = bytes(addr)
    if raw[:1] == b"\x04":
        return int.from_bytes(raw[1:5])
    if raw[:1] == b"\x2a":  # ip6zone: a length and a name come first
        raw = raw[2 + raw[1] :]
    return _number6(raw[1:17]) if raw[:1] == b"\x29" else None


def _number6(packed: bytes) -> int:
    number = int.from_bytes(packed) | _V6
    return number & 0xFFFFFFFF if number >> 32 == _MAPPED >> 32 else number


class Networks:
    """Networks, each with a value. The narrowest network that has an address counts.

    Args:
        entries: texts as "10.0.0.0/8", each with its value.
    """

    __slots__ = ("_tables",)

    def __init__(self, entries: Iterable[tuple[str, Any]]) -> None:
        tables: tuple[dict[int, dict[int, Any]], ...] = ({}, {})
        for text, value in entries:
            number = number_of(str(ip_network(text, strict=False).network_address))
            bits = _width(text)
            tables[number >> 128].setdefault(bits, {})[number >> bits] = value
        self._tables = tuple(sorted(table.items()) for table in tables)

    def get(self, number: int) -> Any:
        """The value of the narrowest network with this address; None: there is none."""
        for bits, values in self._tables[number >> 128]:
            found = values.get(number >> bits)
            if found is not None:
                return found
        return None


class Blocks:
    """The blocks of one node.

    Args:
        limits: without AUTO.

    Attributes:
        counts: connections of each block that has any.
        peaks: the most that a block has had, by its limit.
        are_counted: whether any block has a limit.
    """

    __slots__ = (
        *("_burst", "_interval_s", "_ip4", "_networks", "_site", "_subnet", "_times"),
        *("are_counted", "counts", "peaks"),
    )

    def __init__(self, limits: Limits) -> None:
        self.counts: dict[int, int] = {}
        self.peaks = dict.fromkeys(("max_conns_per_subnet", _SITE_LIMIT, "subnets"), 0)
        self._times: OrderedDict[int, float] = OrderedDict()
        self.set_limits(limits)

    def set_limits(self, limits: Limits) -> None:
        """New limits from now on. Forgets the counts, since blocks change: count all connections again."""
        rate, most = limits.conn_rate_per_subnet, limits.max_conns_per_subnet
        self._interval_s = None if rate is None else 1 / rate
        self._burst = limits.conn_burst_per_subnet
        self.are_counted = most is not None or limits.max_conns_per_site is not None or bool(limits.subnets)
        self._ip4 = _Kind("max_conns_per_subnet", most, 1, 0)
        self._subnet = _Kind("max_conns_per_subnet", most, 1, _SUBNET_BITS)
        self._site = _Kind(_SITE_LIMIT, limits.max_conns_per_site, SITE_FACTOR, _SITE_BITS)
        exempt = [(text, ()) for text in limits.exempt]
        own = [
            (text, ((-1 - index, _Kind("subnets", most, 0, _width(text))),))
            for index, (text, most) in enumerate(limits.subnets.items())
        ]
        self._networks = Networks([*exempt, *own])
        self.counts.clear()

    @property
    def num_rated(self) -> int:
        """Blocks whose last new connections are remembered."""
        return len(self._times)

    # -- counts --------------------------------------------------------------------------------

    def full(self, number: int) -> Full | None:
        """The block of this address that has as many connections as it may; None: there is none."""
        for key, kind in self._blocks(number):
            count = self.counts.get(key, 0)
            if kind.maximum is not None and count >= kind.maximum:
                return Full(kind.limit, count, kind.maximum, _text(number, kind))
        return None

    def add(self, number: int) -> None:
        """Counts a connection from this address."""
        for key, kind in self._blocks(number):
            count = self.counts[key] = self.counts.get(key, 0) + 1
            if count > self.peaks[kind.limit]:
                self.peaks[kind.limit] = count

    def remove(self, number: int) -> None:
        """Stops counting a connection that was added."""
        for key, _ in self._blocks(number):
            count = self.counts[key] - 1
            if count:
                self.counts[key] = count
            else:
                del self.counts[key]

    def most(self) -> dict[str, int]:
        """The connections of the block that has most, by limit. Looks at every block."""
        most = dict.fromkeys(self.peaks, 0)
        for key, count in self.counts.items():
            limit = "subnets" if key < 0 else _SITE_LIMIT if key >> 48 == 1 else "max_conns_per_subnet"
            most[limit] = max(most[limit], count)
        return most

    # -- rates ---------------------------------------------------------------------------------

    def take(self, number: int, now: float) -> Full | None:
        """A new connection comes from this address. Returns: the block that has too many new ones.

        If one block refuses, the others have lost nothing.
        """
        interval = self._interval_s
        if interval is None:
            return None
        blocks = self._blocks(number)
        for key, kind in blocks:
            most = self._burst * kind.factor
            if most and self._times.get(key, now) - now > (most - 1) * interval / kind.factor:
                return Full("conn_rate_per_subnet", most, most, _text(number, kind))
        for key, kind in blocks:
            if kind.factor:
                start = max(now, self._times.get(key, now))
                self._times[key] = start + interval / kind.factor
                self._times.move_to_end(key)
        self._forget(now)
        return None

    def _forget(self, now: float) -> None:
        """Drops the least recent blocks if their buckets are full, or if there are too many."""
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not self._times:
                return
            key = next(iter(self._times))
            if self._times[key] > now and len(self._times) <= MAX_RATED_SUBNETS:
                return
            del self._times[key]

    # -- blocks --------------------------------------------------------------------------------

    def _blocks(self, number: int) -> tuple[tuple[int, _Kind], ...]:
        """The keys and kinds of the blocks of an address, the narrowest first."""
        found: tuple[tuple[int, _Kind], ...] | None = self._networks.get(number)
        if found is not None:
            return found
        if number < _V6:
            return ((number, self._ip4),)
        return ((number >> _SUBNET_BITS, self._subnet), (number >> _SITE_BITS, self._site))


def _width(text: str) -> int:
    """The free bits of the network `text`."""
    net = ip_network(text, strict=False)
    return net.max_prefixlen - net.prefixlen


def _text(number: int, kind: _Kind) -> str:
    """The block of this address, for people."""
    first = number >> kind.bits << kind.bits
    if number < _V6:
        return str(IPv4Network((first, 32 - kind.bits))) if kind.bits else str(IPv4Address(first))
    return str(IPv6Network((first - _V6, 128 - kind.bits)))
