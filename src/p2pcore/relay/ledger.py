"""Who has a reservation at a relay, how many circuits there are, and who gets one more.

Comes in: requests of one process, or of all processes that are one relay together; each is a *holder*. Goes
out: permission, or NotPermitted. It knows no connections: the holder that keeps a peer's connection says when
the reservation ends, and the one that opened a circuit when that does. Limits of go-libp2p.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from p2pcore.relay.messages import Status
from p2pcore.relay.rates import Rates

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream
    from p2pcore.relay.options import RelayOptions
    from p2pcore.values.peer_id import PeerId

_KEPT_FREE = 4
"""Of a target's circuits, at most one in this many stays free for addresses that have fewer there."""


class NotPermitted(Exception):
    """Raised to answer a request with `status`."""

    def __init__(self, status: Status, reason: object) -> None:
        super().__init__(f"{status.name}: {reason}")
        self.status = status
        self.reason = str(reason)


@dataclass(slots=True)
class _Slot:
    """A reservation: when it expires (unix seconds), the subnet it counts for, and who has a connection."""

    expire: float
    ip: str
    holders: dict[Hashable, None] = field(default_factory=dict)  # the newest last


@dataclass(frozen=True, slots=True)
class _Circuit:
    source: PeerId
    ip: str
    target: PeerId


class Ledger:
    """The accounts of one relay. Call it inside the event loop.

    Args:
        options: the limits. now: unix seconds.
    """

    def __init__(self, options: RelayOptions, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._slots: dict[PeerId, _Slot] = {}
        self._ips: Counter[str] = Counter()
        self._circuits: dict[tuple[Hashable, int], _Circuit] = {}
        self._ends: Counter[PeerId] = Counter()
        self._sources: Counter[str] = Counter()
        self._to_target: Counter[tuple[str, PeerId]] = Counter()
        self.set_options(options)

    def set_options(self, options: RelayOptions) -> None:
        """New limits from now on. What is reserved and open stays; the rates begin anew."""
        self.options = options
        self._rates = Rates(options)

    @property
    def num_reservations(self) -> int:
        """Reservations that have not ended."""
        return len(self._slots)

    @property
    def num_circuits(self) -> int:
        """Circuits that are open, or being opened."""
        return len(self._circuits)

    # -- reservations --------------------------------------------------------------------------

    def reserve(self, holder: Hashable, peer: PeerId, ip: str, expire: float) -> None:
        """`peer` reserves or renews on a connection of `holder`. NotPermitted: an earlier one stays."""
        if reason := self._rates.reserve(peer, ip):
            raise NotPermitted(Status.RESERVATION_REFUSED, reason)
        self._drop_expired()
        old = self._slots.get(peer)
        others = len(self._slots) - (old is not None)
        same_ip = self._ips[ip] - (old is not None and old.ip == ip)
        if others >= self.options.max_reservations:
            raise NotPermitted(Status.RESERVATION_REFUSED, "no more reservations")
        if same_ip >= self.options.max_reservations_per_ip:
            raise NotPermitted(Status.RESERVATION_REFUSED, f"no more reservations from {ip}")
        if old is not None:
            _count(self._ips, old.ip, -1)
        slot = self._slots[peer] = _Slot(expire, ip, old.holders if old is not None else {})
        slot.holders.pop(holder, None)
        slot.holders[holder] = None
        self._ips[ip] += 1

    def release(self, holder: Hashable, peer: PeerId) -> None:
        """`holder` has no connection to `peer` any more. The reservation ends with its last holder."""
        slot = self._slots.get(peer)
        if slot is not None:
            slot.holders.pop(holder, None)
            if not slot.holders:
                self._drop(peer)

    def _drop(self, peer: PeerId) -> None:
        _count(self._ips, self._slots.pop(peer).ip, -1)

    def _drop_expired(self) -> None:
        now = self._now()
        for peer in [peer for peer, slot in self._slots.items() if slot.expire <= now]:
            self._drop(peer)

    # -- circuits ------------------------------------------------------------------------------

    def open(self, holder: Hashable, number: int, source: PeerId, ip: str, target: PeerId) -> Hashable:
        """Counts a circuit that `holder` opens, until `closed`. Returns: who holds the target's connection.

        Args:
            number: names the circuit among those of `holder`.

        Raises: NotPermitted.
        """
        self._drop_expired()
        slot = self._slots.get(target)
        if slot is None:
            raise NotPermitted(Status.NO_RESERVATION, target)
        self._check_room(source, ip, target)
        if reason := self._rates.open(source, ip, target):
            raise NotPermitted(Status.RESOURCE_LIMIT_EXCEEDED, reason)
        circuit = self._circuits[holder, number] = _Circuit(source, ip, target)
        self._count_circuit(circuit, 1)
        return next(reversed(slot.holders))

    def _check_room(self, source: PeerId, ip: str, target: PeerId) -> None:
        most = self.options.max_circuits_per_peer
        for peer in (source, target):
            if self._ends[peer] >= most:
                raise NotPermitted(Status.RESOURCE_LIMIT_EXCEEDED, f"too many circuits of {peer}")
        if most - self._ends[target] <= min(self._to_target[ip, target], most // _KEPT_FREE):
            raise NotPermitted(Status.RESOURCE_LIMIT_EXCEEDED, f"too many circuits from {ip} to {target}")
        if self._sources[ip] >= self.options.max_circuits_per_ip:
            raise NotPermitted(Status.RESOURCE_LIMIT_EXCEEDED, f"too many circuits from {ip}")

    def _count_circuit(self, circuit: _Circuit, by: int) -> None:
        _count(self._ends, circuit.source, by)
        _count(self._ends, circuit.target, by)
        _count(self._sources, circuit.ip, by)
        _count(self._to_target, (circuit.ip, circuit.target), by)

    def closed(self, holder: Hashable, number: int, num_bytes: int) -> None:
        """A circuit has ended, and has passed `num_bytes` in both directions. Idempotent."""
        circuit = self._circuits.pop((holder, number), None)
        if circuit is not None:
            self._count_circuit(circuit, -1)
            self._rates.ended(circuit.source, circuit.ip, num_bytes)

    def left(self, holder: Hashable) -> None:
        """`holder` has died, and all that it had with it. What its circuits have passed, nobody knows."""
        for peer in [peer for peer, slot in self._slots.items() if holder in slot.holders]:
            self.release(holder, peer)
        for key in [key for key in self._circuits if key[0] == holder]:
            self._count_circuit(self._circuits.pop(key), -1)


def _count(counter: Counter[Any], key: Hashable, by: int) -> None:
    """Adds, and keeps no zeros."""
    counter[key] += by
    if not counter[key]:
        del counter[key]


class Board(Protocol):
    """Where a relay asks: a ledger of its own, or the one of several processes that are one relay."""

    async def reserve(self, peer: PeerId, ip: str, expire: float) -> None:
        """See Ledger.reserve. If it is cancelled, the reservation may be counted: call `release`."""

    def release(self, peer: PeerId) -> None:
        """See Ledger.release."""

    async def open(self, number: int, source: PeerId, ip: str, target: PeerId) -> Hashable:
        """See Ledger.open. Returns: None if this process holds the connection. Call `closed` if it fails."""

    def closed(self, number: int, num_bytes: int) -> None:
        """See Ledger.closed."""

    async def open_stop(self, holder: Hashable, source: PeerId, target: PeerId) -> Stream:
        """A stream to the circuit's target through `holder`, which has accepted it. Raises NotPermitted."""


class OwnBoard:
    """The board of a relay that is one process."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def reserve(self, peer: PeerId, ip: str, expire: float) -> None:
        self.ledger.reserve(None, peer, ip, expire)

    def release(self, peer: PeerId) -> None:
        self.ledger.release(None, peer)

    async def open(self, number: int, source: PeerId, ip: str, target: PeerId) -> Hashable:
        return self.ledger.open(None, number, source, ip, target)

    def closed(self, number: int, num_bytes: int) -> None:
        self.ledger.closed(None, number, num_bytes)

    async def open_stop(self, holder: Hashable, source: PeerId, target: PeerId) -> Stream:
        raise AssertionError("this process holds all connections")
