"""The limits of a relay, as a program sets them.

Comes in: numbers, and functions that decide who is served. Goes out: checked options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from p2pcore import limits, options
from p2pcore.relay.messages import Limit

if TYPE_CHECKING:
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

MayReserve = Callable[["PeerId", "Multiaddr | None"], bool]
"""Called with the peer that wants a reservation, and its address. True grants it; an exception refuses it."""
MayConnect = Callable[["PeerId", "Multiaddr | None", "PeerId"], bool]
"""Called with the peer that wants a circuit, its address, the target. True grants it; exceptions refuse."""


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """The limits of a relay.

    Attributes:
        max_reservations, max_reservations_per_ip: at one time; one IPv6 /56 counts as one IP.
        reservation_ttl_s: seconds after which a reservation ends if it is not renewed.
        reservations_per_min_per_peer, reservations_per_min_per_ip: reservations and renewals, also at once.
        max_circuits_per_peer: open circuits with a peer at an end; max_circuits_per_ip: dialled from one IP.
        circuits_per_min_per_peer, circuits_per_min_per_ip: circuits that a source may open, also at once.
        circuit_s: seconds after which a circuit ends; circuit_bytes: its bytes in each direction. 0: no such
            limit. If both are 0, peers do not treat the connection as limited. A source that opens one
            circuit after another passes no more bytes in circuit_s than max_circuits_per_peer circuits may,
            and no more from one IP than max_circuits_per_ip may.
        may_reserve, may_connect: decide who is served; None: everybody. They must be fast, and not raise.

    Raises:
        TypeError, ValueError: a field has a wrong type or value.
    """

    max_reservations: int = limits.RELAY_MAX_RESERVATIONS
    max_reservations_per_ip: int = limits.RELAY_MAX_RESERVATIONS_PER_IP
    reservation_ttl_s: int = limits.RELAY_RESERVATION_TTL_S
    reservations_per_min_per_peer: int = limits.RELAY_RESERVATIONS_PER_MIN_PER_PEER
    reservations_per_min_per_ip: int = limits.RELAY_RESERVATIONS_PER_MIN_PER_IP
    max_circuits_per_peer: int = limits.RELAY_MAX_CIRCUITS_PER_PEER
    max_circuits_per_ip: int = limits.RELAY_MAX_CIRCUITS_PER_IP
    circuits_per_min_per_peer: int = limits.RELAY_CIRCUITS_PER_MIN_PER_PEER
    circuits_per_min_per_ip: int = limits.RELAY_CIRCUITS_PER_MIN_PER_IP
    circuit_s: int = limits.RELAY_CIRCUIT_S
    circuit_bytes: int = limits.RELAY_CIRCUIT_BYTES
    may_reserve: MayReserve | None = None
    may_connect: MayConnect | None = None

    def __post_init__(self) -> None:
        options.whole("max_reservations", self.max_reservations)
        options.whole("max_reservations_per_ip", self.max_reservations_per_ip)
        options.whole("reservation_ttl_s", self.reservation_ttl_s, 1)
        options.whole("reservations_per_min_per_peer", self.reservations_per_min_per_peer, 1)
        options.whole("reservations_per_min_per_ip", self.reservations_per_min_per_ip, 1)
        options.whole("max_circuits_per_peer", self.max_circuits_per_peer)
        options.whole("max_circuits_per_ip", self.max_circuits_per_ip)
        options.whole("circuits_per_min_per_peer", self.circuits_per_min_per_peer, 1)
        options.whole("circuits_per_min_per_ip", self.circuits_per_min_per_ip, 1)
        options.whole("circuit_s", self.circuit_s)
        options.whole("circuit_bytes", self.circuit_bytes, most=limits.MAX_SIZE_BYTES)
        for name, may in (("may_reserve", self.may_reserve), ("may_connect", self.may_connect)):
            if may is not None:
                options.function(name, may)

    @property
    def numbers(self) -> dict[str, int]:
        """The limits without the functions: what processes that are one relay together agree on."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.default is not None}

    @property
    def limit(self) -> Limit | None:
        """The limits that peers are told; None: there are none."""
        return Limit(self.circuit_s, self.circuit_bytes) if self.circuit_s or self.circuit_bytes else None
