"""Circuit relay v2, the service: makes peers reachable that nobody can dial.

Comes in: hop streams. Goes out: reservations with vouchers, circuits. A circuit needs no task. It has limits
of bytes and time, and ends with its streams or with the target's reservation. One coarse timer runs while
there are reservations. Never dials, never relays for a peer that came through a relay itself.
Specification: libp2p relay/circuit-v2; limits of go-libp2p.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from p2pcore import limits
from p2pcore._fast.mux.splice import Splice
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.aio.log_fields import of_conn
from p2pcore.errors import (
    ConnectionClosed,
    IncompleteRead,
    LimitExceeded,
    P2PError,
    RemoteProtocolError,
)
from p2pcore.relay.conn import came_relayed
from p2pcore.relay.messages import (
    HOP,
    STOP,
    Hop,
    HopType,
    Reservation,
    Status,
    Stop,
    StopType,
    read_body,
    seal_voucher,
)
from p2pcore.relay.options import RelayOptions
from p2pcore.relay.rates import Rates
from p2pcore.values.scope import Scope, scope_of, subnet_of, told_to

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, Network, Stream
    from p2pcore.values.keys import PrivateKey
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.relay")

_MESSAGE_BYTES = 64
"""Bytes of a hop message with a reservation, without its voucher and its addresses."""
_KEPT_FREE = 4
"""Of a target's circuits, at most one in this many stays free for addresses that have fewer there."""
_RESERVATION_TAG, _CIRCUIT_TAG = "relay-reservation", "relay-circuit"
"""What a peer is worth to the relay, for the connection manager."""
_ADDR_BYTES = 3
"""Bytes for each address there, besides the address itself: its field number and its length."""


class _Refused(Exception):
    """Raised to answer a request with `status`."""

    def __init__(self, status: Status, reason: object) -> None:
        super().__init__(f"{status.name}: {reason}")
        self.status = status


@dataclass(slots=True)
class _Slot:
    """A reservation: when it expires (unix seconds), and the subnet it counts for."""

    expire: float
    ip: str


class RelayService:
    """The relay of one swarm, and a notifiee of it. A swarm has at most one.

    Args:
        network: the swarm whose peers are served.
        key: signs the vouchers.
        options: see RelayOptions.
        now: unix seconds.

    Attributes:
        refused: refused requests, by the name of the status; num_bytes: relayed by circuits that have ended.
    """

    def __init__(
        self,
        network: Network,
        key: PrivateKey,
        options: RelayOptions,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._network = network
        self._key = key
        self._options = options
        self._now = now
        self._complaints = Complaints(logger)
        self._reserved: dict[PeerId, _Slot] = {}
        self._ips: Counter[str] = Counter()
        self._circuits: dict[Splice, PeerId] = {}
        self._ends: Counter[PeerId] = Counter()
        self._sources: Counter[str] = Counter()
        self._to_target: Counter[tuple[str, PeerId]] = Counter()
        self._rates = Rates(options)
        self._sweep: asyncio.TimerHandle | None = None
        self.refused: Counter[str] = Counter()
        self.num_bytes = 0

    @property
    def num_reservations(self) -> int:
        """Reservations that have not ended."""
        return len(self._reserved)

    @property
    def num_circuits(self) -> int:
        """Circuits that are open."""
        return len(self._circuits)

    def start(self) -> None:
        """Serves hop streams from now on."""
        self._network.set_stream_handler(HOP, self.serve)
        self._network.notify(self)

    def close(self) -> None:
        """Stops serving, ends reservations, aborts circuits. Idempotent."""
        self._network.remove_stream_handler(HOP)
        self._network.stop_notify(self)
        for peer in list(self._reserved):
            self._abort(peer, "the relay closes")
        for circuit in list(self._circuits):
            circuit.abort(ConnectionClosed("the relay closes"))
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    # -- requests ------------------------------------------------------------------------------

    async def serve(self, stream: Stream) -> Stream | None:
        """The stream handler of the hop protocol. Returns: `stream` if it has become a circuit."""
        conn = stream.conn
        stream.set_deadline(limits.RELAY_STREAM_TIMEOUT_S)
        try:
            request = await _read_request(stream)
            if request.type is HopType.CONNECT:
                return await self._connect(stream, conn, request)
            answer = self._reserve(conn)
        except _Refused as refused:
            self.refused[refused.status.name] += 1
            logger.debug("%s: refused: %s", conn, refused, extra=of_conn(conn))
            answer = Hop(HopType.STATUS, status=refused.status)
        await stream.write(answer.encode())
        return None

    # -- reservations --------------------------------------------------------------------------

    def _reserve(self, conn: Conn) -> Hop:
        peer, addr, options = conn.remote_peer, conn.remote_multiaddr, self._options
        if came_relayed(conn):
            raise _Refused(Status.PERMISSION_DENIED, "a reservation over a relayed connection")
        if not self._grants("may_reserve", options.may_reserve, peer, addr):
            raise _Refused(Status.PERMISSION_DENIED, "not allowed to reserve")
        slot = _Slot(self._now() + options.reservation_ttl_s, subnet_of(addr) or "")
        if reason := self._rates.reserve(peer, slot.ip):
            raise _Refused(Status.RESERVATION_REFUSED, reason)
        self._drop_expired()
        self._take_slot(peer, slot)
        expire = int(slot.expire)
        voucher = seal_voucher(self._key, peer, expire)
        room = limits.MAX_CIRCUIT_MESSAGE_BYTES - len(voucher) - _MESSAGE_BYTES
        reservation = Reservation(expire, tuple(self._told_addrs(scope_of(addr), room)), voucher)
        return Hop(HopType.STATUS, reservation=reservation, limit=options.limit, status=Status.OK)

    def _take_slot(self, peer: PeerId, slot: _Slot) -> None:
        """Replaces an earlier slot of `peer` by `slot`; if it raises, the earlier one stays."""
        old = self._reserved.get(peer)
        others = len(self._reserved) - (old is not None)
        same_ip = self._ips[slot.ip] - (old is not None and old.ip == slot.ip)
        if others >= self._options.max_reservations:
            raise _Refused(Status.RESERVATION_REFUSED, "no more reservations")
        if same_ip >= self._options.max_reservations_per_ip:
            raise _Refused(Status.RESERVATION_REFUSED, f"no more reservations from {slot.ip}")
        if old is not None:
            self._uncount(old)
        self._reserved[peer] = slot
        self._network.conn_manager.tag(peer, _RESERVATION_TAG, limits.RELAY_RESERVATION_VALUE)
        self._ips[slot.ip] += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(limits.RELAY_SWEEP_S, self._swept)

    def _told_addrs(self, scope: Scope, room: int) -> Iterator[Multiaddr]:
        """Our addresses that reach at least as far as `scope`, with our id, as many as fit in `room`."""
        direct = (addr for addr in self._network.interface_listen_addresses() if not addr.is_relayed)
        for addr in told_to(scope, direct)[: limits.MAX_RESERVATION_ADDRS]:
            with_id = addr.with_p2p(self._network.local_peer)
            room -= len(with_id.to_bytes()) + _ADDR_BYTES
            if room >= 0:
                yield with_id

    def _uncount(self, slot: _Slot) -> None:
        self._ips[slot.ip] -= 1
        if not self._ips[slot.ip]:
            del self._ips[slot.ip]

    def _abort(self, peer: PeerId, reason: str) -> None:
        """Drops the reservation of `peer`, and aborts the circuits to it."""
        slot = self._reserved.pop(peer, None)
        if slot is not None:
            self._uncount(slot)
            self._network.conn_manager.untag(peer, _RESERVATION_TAG)
        for circuit, target in list(self._circuits.items()):
            if target == peer:
                circuit.abort(ConnectionClosed(reason))

    def _drop_expired(self) -> None:
        now = self._now()
        for peer in [peer for peer, slot in self._reserved.items() if slot.expire <= now]:
            self._abort(peer, "the reservation has expired")

    def _swept(self) -> None:
        self._drop_expired()
        self._sweep = None
        if self._reserved:
            self._sweep = asyncio.get_running_loop().call_later(limits.RELAY_SWEEP_S, self._swept)

    # -- circuits ------------------------------------------------------------------------------

    async def _connect(self, stream: Stream, conn: Conn, request: Hop) -> Stream:
        source, target = conn.remote_peer, self._admitted(conn, request)
        counted = self._counted(source, subnet_of(conn.remote_multiaddr) or "", target)
        with counted as release:
            stop = await self._open_stop(source, target)
            try:
                answer = Hop(HopType.STATUS, limit=self._options.limit, status=Status.OK)
                await stream.write(answer.encode())
                stream.set_deadline(None)
                stop.set_deadline(None)
                self._splice(stream, stop, target, release)
            except BaseException:
                stop.reset()
                raise
        return stream

    def _admitted(self, conn: Conn, request: Hop) -> PeerId:
        """The target, if `conn` may have a circuit to it. The checks are in go-libp2p's order."""
        source, target = conn.remote_peer, request.peer
        if came_relayed(conn):
            raise _Refused(Status.PERMISSION_DENIED, "a circuit over a relayed connection")
        if target is None:
            raise _Refused(Status.MALFORMED_MESSAGE, "CONNECT without a peer")
        if target in (source, self._network.local_peer):
            raise _Refused(Status.PERMISSION_DENIED, "a circuit to the source or to the relay")
        addr = conn.remote_multiaddr
        if not self._grants("may_connect", self._options.may_connect, source, addr, target):
            raise _Refused(Status.PERMISSION_DENIED, "not allowed to connect")
        self._drop_expired()
        if target not in self._reserved:
            raise _Refused(Status.NO_RESERVATION, target)
        return target

    def _grants(self, name: str, callback: Callable[..., bool] | None, *args: object) -> bool:
        """The result of the application's callback; False if it raises."""
        try:
            return callback is None or callback(*args)
        except RAISED:
            self._complaints.raised(name)
            return False

    @contextmanager
    def _counted(self, source: PeerId, ip: str, target: PeerId) -> Iterator[Callable[[int], None]]:
        """Counts a circuit until the yielded function is called with its bytes, or until the block fails."""
        options = self._options
        for peer in (source, target):
            if self._ends[peer] >= options.max_circuits_per_peer:
                raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED, f"too many circuits of {peer}")
        free = options.max_circuits_per_peer - self._ends[target]
        if free <= min(self._to_target[ip, target], options.max_circuits_per_peer // _KEPT_FREE):
            raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED, f"too many circuits from {ip} to {target}")
        if self._sources[ip] >= options.max_circuits_per_ip:
            raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED, f"too many circuits from {ip}")
        if reason := self._rates.open(source, ip, target):
            raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED, reason)
        counted: list[tuple[Counter[Any], object]] = [
            (self._ends, source),
            (self._ends, target),
            (self._sources, ip),
            (self._to_target, (ip, target)),
        ]
        for counter, key in counted:
            counter[key] += 1
        for peer in (source, target):
            self._network.conn_manager.tag(peer, _CIRCUIT_TAG, limits.RELAY_CIRCUIT_VALUE)

        def release(num_bytes: int) -> None:
            self._rates.ended(source, ip, num_bytes)
            for counter, key in counted:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]
            for peer in (source, target):
                if peer not in self._ends:
                    self._network.conn_manager.untag(peer, _CIRCUIT_TAG)

        try:
            yield release
        except BaseException:
            release(0)
            raise

    async def _open_stop(self, source: PeerId, target: PeerId) -> Stream:
        """A stream to `target`, which has accepted the circuit on it."""
        try:
            async with asyncio.timeout(limits.RELAY_STOP_CONNECT_TIMEOUT_S):
                stop = await self._network.new_stream(target, STOP)
        except (P2PError, OSError) as error:
            raise _Refused(Status.CONNECTION_FAILED, error) from error
        try:
            stop.set_deadline(limits.RELAY_STOP_HANDSHAKE_TIMEOUT_S)
            await stop.write(Stop(StopType.CONNECT, peer=source, limit=self._options.limit).encode())
            answer = Stop.parse(await read_body(stop))
            if answer.type is not StopType.STATUS or answer.status is not Status.OK:
                raise RemoteProtocolError(f"the target answers {answer.type.name} {answer.status!r}")
        except (P2PError, OSError) as error:
            stop.reset()
            raise _Refused(Status.CONNECTION_FAILED, error) from error
        except BaseException:
            stop.reset()
            raise
        return stop

    def _splice(self, stream: Stream, stop: Stream, target: PeerId, release: Callable[[int], None]) -> None:
        options = self._options

        def ended(error: BaseException | None) -> None:
            logger.debug("a circuit to %s has ended: %s", target, error)
            num_bytes = sum(circuit.passed)
            self.num_bytes += num_bytes
            self._circuits.pop(circuit, None)
            release(num_bytes)

        one, other = cast("Any", stream), cast("Any", stop)
        circuit = Splice(one, other, options.circuit_bytes or -1, options.circuit_s, ended)
        circuit.start()
        self._circuits[circuit] = target

    # -- notifiee ------------------------------------------------------------------------------

    def connected(self, network: Network, conn: Conn) -> None: ...

    def disconnected(self, network: Network, conn: Conn) -> None:
        """Ends the peer's reservation with its last direct connection."""
        peer = conn.remote_peer
        if peer in self._reserved and all(map(came_relayed, self._network.conns_to_peer(peer))):
            self._abort(peer, "the peer has gone")

    def listen(self, network: Network, addr: Multiaddr) -> None: ...
    def listen_close(self, network: Network, addr: Multiaddr) -> None: ...


async def _read_request(stream: Stream) -> Hop:
    try:
        request = Hop.parse(await read_body(stream))
    except (RemoteProtocolError, LimitExceeded, IncompleteRead) as error:
        raise _Refused(Status.MALFORMED_MESSAGE, error) from error
    if request.type is HopType.STATUS:
        raise _Refused(Status.UNEXPECTED_MESSAGE, "a client must not send STATUS")
    return request
