"""Limits: what a node may use, as one value.

Comes in: numbers, or nothing. Goes out: a checked `Limits`; `resolved` replaces AUTO by what the machine
allows. It says nothing about single connections and handshakes: see YamuxOptions and ListenerOptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from p2pcore import limits, options
from p2pcore.errors import IdentityError
from p2pcore.resources.machine import Machine
from p2pcore.values.peer_id import PeerId


class _Auto(int):
    """A number that is not known before the machine is: its type fits every field."""

    def __repr__(self) -> str:
        return "AUTO"

    def __reduce__(self) -> str:
        return "AUTO"


AUTO: Final = _Auto(-1)
"""As much as this machine allows."""

PRIVATE_NETWORKS: Final = (
    *("127.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)
"""Networks whose addresses the internet does not route: many honest peers may share one of them."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Places for connections that are taken even if the node is full.

    They are for a network, for a peer, or, with both, for that peer from that network.

    Attributes:
        places: connections that may be taken beyond `max_conns`, `max_conns_per_subnet` and its rate.
        network: an address or a network, as "203.0.113.0/24".
        peer: a peer id. A node that is full finishes handshakes to find this peer.

    Raises:
        TypeError, ValueError: a field has a wrong type or value, or neither network nor peer is given.
    """

    places: int
    network: str | None = None
    peer: PeerId | str | None = None

    def __post_init__(self) -> None:
        options.whole("places", self.places, 1)
        if self.network is None and self.peer is None:
            raise ValueError("network must be given, or peer, or both")
        if self.network is not None:
            _network("network", self.network)
        if self.peer is not None:
            options.instance("peer", self.peer, PeerId, str)
            try:
                PeerId(self.peer)
            except IdentityError as error:
                raise ValueError(f"peer must be a peer id, not {self.peer!r}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a node may use. None: no limit. AUTO: as much as this machine allows.

    Most nodes need none of these, or one of `max_conns`, `max_streams` and `memory`: docs/limits.md.

    Attributes:
        memory: bytes for received data that nobody has read, data that waits to be sent, and what each
            connection and stream costs. AUTO: half of what the process may have.
        max_conns: connections, in both directions. AUTO: what `memory` and the descriptors allow.
        max_streams: streams in both directions, and handlers that run. AUTO: half of `memory`, 4 KiB each.
        max_conns_per_peer: connections with one peer. AUTO: 256, at most half of `max_conns`.
        max_conns_per_subnet: inbound connections from one IPv4 address or IPv6 /56. AUTO: 512, at most half
            of `max_conns`.
        max_conns_per_site: inbound connections from one IPv6 /48. AUTO: 2,048, at most half of `max_conns`.
        conn_rate_per_subnet: new inbound connections in a second from one IPv4 address or IPv6 /56, for
            ever. Each has a handshake, so this limits handshakes too. An IPv6 /48 has four times as much.
        conn_burst_per_subnet: how many of them may come at once.
        max_streams_per_conn: streams that a peer may have open on one connection. The multiplexer's own limit
            holds too: see YamuxOptions.
        max_streams_per_peer: the same on all connections with one peer.
        max_handlers_per_peer: stream handlers that run for one peer. A handler may outlive its stream.
        reserved_descriptors: descriptors that connections leave free, for files and sockets of the program.
        reserved: see Reserved.
        exempt: networks, as "10.0.0.0/8", without limits for each subnet.
        subnets: networks, each with a number of connections, which all its addresses share. It replaces the
            limits of each subnet, and there is no rate. Of several networks, the narrowest counts.

    Raises:
        TypeError, ValueError: a field has a wrong type or value, or two contradict each other. The message
            names them.
    """

    memory: int | None = AUTO
    max_conns: int | None = AUTO
    max_streams: int | None = AUTO
    max_conns_per_peer: int | None = AUTO
    max_conns_per_subnet: int | None = AUTO
    max_conns_per_site: int | None = AUTO
    conn_rate_per_subnet: float | None = limits.CONN_RATE_PER_SUBNET
    conn_burst_per_subnet: int = limits.CONN_BURST_PER_SUBNET
    max_streams_per_conn: int | None = limits.MAX_STREAMS_PER_CONN
    max_streams_per_peer: int | None = limits.MAX_STREAMS_PER_PEER
    max_handlers_per_peer: int | None = limits.MAX_HANDLERS_PER_PEER
    reserved_descriptors: int = limits.RESERVED_DESCRIPTORS
    reserved: Sequence[Reserved] = ()
    exempt: Sequence[str] = PRIVATE_NETWORKS
    subnets: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value is not AUTO:
                options.whole(name, value, 1)
        if self.memory is not None and self.memory is not AUTO:
            options.whole("memory", self.memory, limits.MIN_MEMORY_BYTES, limits.MAX_SIZE_BYTES)
        if self.conn_rate_per_subnet is not None:
            options.rate("conn_rate_per_subnet", self.conn_rate_per_subnet)
        options.whole("conn_burst_per_subnet", self.conn_burst_per_subnet, 1)
        options.whole("reserved_descriptors", self.reserved_descriptors)
        options.items("reserved", self.reserved, "Reserved", Reserved)
        options.items("exempt", self.exempt, "networks", str)
        for network in self.exempt:
            _network("each item of exempt", network)
        options.instance("subnets", self.subnets, Mapping)
        for network, most in self.subnets.items():
            _network("each key of subnets", network)
            options.whole(f"subnets[{network!r}]", most, 1)
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        site, subnet = self.max_conns_per_site, self.max_conns_per_subnet
        if site is not None and site is not AUTO and subnet is not None and site < subnet:
            raise ValueError(
                f"max_conns_per_site must be at least max_conns_per_subnet ({subnet}), not {site}"
            )
        places = sum(each.places for each in self.reserved)
        if self.max_conns is not None and self.max_conns is not AUTO and places >= self.max_conns:
            raise ValueError(
                f"reserved must be fewer places than max_conns ({self.max_conns}), not {places} places"
            )

    def resolved(self, machine: Machine | None = None, workers: int = 1) -> Limits:
        """These limits with numbers in the place of AUTO, divided among `workers` processes.

        `max_conns`, `max_streams`, `memory` are divided. Limits of peers and subnets hold in each process.

        Args:
            machine: what the process may use; None: reads it now.
        """
        machine = machine or Machine.read()
        memory = int(machine.memory * limits.MEMORY_SHARE) if self.memory is AUTO else self.memory
        memory = None if memory is None else max(limits.MIN_MEMORY_BYTES, memory // workers)
        conns = (
            self._conns(memory, machine.descriptors)
            if self.max_conns is AUTO
            else _part(self.max_conns, workers)
        )
        streams = _streams(memory) if self.max_streams is AUTO else _part(self.max_streams, workers)
        peer, subnet = self.max_conns_per_peer, self.max_conns_per_subnet
        if peer is AUTO:
            peer = _at_most_half(limits.MAX_CONNS_PER_PEER, conns)
        if subnet is AUTO:
            subnet = _at_most_half(limits.MAX_CONNS_PER_SUBNET, conns)
        site = self.max_conns_per_site
        if site is AUTO:
            site = None if subnet is None else max(subnet, _at_most_half(limits.MAX_CONNS_PER_SITE, conns))
        return replace(
            self,
            memory=memory,
            max_conns=conns,
            max_streams=streams,
            max_conns_per_peer=peer,
            max_conns_per_subnet=subnet,
            max_conns_per_site=site,
        )

    def _conns(self, memory: int | None, descriptors: int) -> int:
        places = sum(each.places for each in self.reserved)
        by_descriptors = descriptors - self.reserved_descriptors - places
        by_memory = limits.MAX_COUNT if memory is None else memory // limits.CONN_SHARE_BYTES
        return max(1 + places, min(by_descriptors, by_memory))


_COUNTS = (
    *("max_conns", "max_streams", "max_conns_per_peer", "max_conns_per_subnet", "max_conns_per_site"),
    *("max_streams_per_conn", "max_streams_per_peer", "max_handlers_per_peer"),
)


def _part(whole: int | None, workers: int) -> int | None:
    return None if whole is None else max(1, whole // workers)


def _streams(memory: int | None) -> int | None:
    return None if memory is None else min(limits.MAX_COUNT, memory // 2 // limits.STREAM_SHARE_BYTES)


def _at_most_half(most: int, conns: int | None) -> int:
    return most if conns is None else max(1, min(most, conns // 2))


def _network(name: str, value: object) -> None:
    options.instance(name, value, str)
    try:
        options.parsed_network(str(value))
    except ValueError as error:
        raise ValueError(
            f"{name} must be an address or a network as 10.0.0.0/8, not {value!r}: {error}"
        ) from None


UNLIMITED: Final = Limits(
    memory=None,
    max_conns=None,
    max_streams=None,
    max_conns_per_peer=None,
    max_conns_per_subnet=None,
    max_conns_per_site=None,
    conn_rate_per_subnet=None,
    max_streams_per_conn=None,
    max_streams_per_peer=None,
    max_handlers_per_peer=None,
)
"""No limit at all: the operating system decides."""
