"""Circuit relay v2, the service: makes peers reachable that nobody can dial.

Comes in: hop streams. Goes out: reservations with vouchers, circuits. A circuit needs no task. It has limits
of bytes and time, and ends with its streams or with the target's reservation. One coarse timer runs while
there are reservations. Never dials, never relays for a peer that came through a relay itself.
Specification: libp2p relay/circuit-v2; limits of go-libp2p.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from p2pcore.relay.ledger import Board, Ledger, NotPermitted, OwnBoard
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
from p2pcore.values.scope import Scope, scope_of, subnet_of, told_to

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, Network, Stream
    from p2pcore.values.keys import PrivateKey
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.relay")

_MESSAGE_BYTES = 64
"""Bytes of a hop message with a reservation, without its voucher and its addresses."""
_RESERVATION_TAG, _CIRCUIT_TAG = "relay-reservation", "relay-circuit"
"""What a peer is worth to the relay, for the connection manager."""
_ADDR_BYTES = 3
"""Bytes for each address there, besides the address itself: its field number and its length."""


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
        self._board: Board = OwnBoard(Ledger(options, lambda: self._now()))
        # Reservations on connections here: when they expire, unix seconds.
        self._held: dict[PeerId, float] = {}
        self._circuits: dict[Splice, PeerId | None] = {}  # with the target, if it is connected here
        self._numbers = itertools.count(1)
        # To targets here, of circuits that other processes opened.
        self._stops: dict[PeerId, set[Stream]] = {}
        self._ends: Counter[PeerId] = Counter()  # how many circuits here each peer is an end of
        self._sweep: asyncio.TimerHandle | None = None
        self.refused: Counter[str] = Counter()
        self.num_bytes = 0

    @property
    def options(self) -> RelayOptions:
        """As they were given."""
        return self._options

    @property
    def num_reservations(self) -> int:
        """Reservations that have not ended, of peers that are connected to this process."""
        return len(self._held)

    @property
    def num_circuits(self) -> int:
        """Circuits that were opened through this process."""
        return len(self._circuits)

    def share(self, board: Board) -> None:
        """Asks `board` from now on: several processes are one relay. To be called before `Host.start`."""
        self._board = board

    def start(self) -> None:
        """Serves hop streams from now on."""
        self._network.set_stream_handler(HOP, self.serve)
        self._network.notify(self)

    def close(self) -> None:
        """Stops serving, ends reservations, aborts circuits. Idempotent."""
        self._network.remove_stream_handler(HOP)
        self._network.stop_notify(self)
        for peer in list(self._held):
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
            answer = await self._reserve(conn)
        except NotPermitted as refused:
            self.refused[refused.status.name] += 1
            logger.debug("%s: refused: %s", conn, refused, extra=of_conn(conn))
            answer = Hop(HopType.STATUS, status=refused.status)
        await stream.write(answer.encode())
        return None

    # -- reservations --------------------------------------------------------------------------

    async def _reserve(self, conn: Conn) -> Hop:
        peer, addr, options = conn.remote_peer, conn.remote_multiaddr, self._options
        if came_relayed(conn):
            raise NotPermitted(Status.PERMISSION_DENIED, "a reservation over a relayed connection")
        if not self._grants("may_reserve", options.may_reserve, peer, addr):
            raise NotPermitted(Status.PERMISSION_DENIED, "not allowed to reserve")
        self._drop_expired()
        expire = self._now() + options.reservation_ttl_s
        try:
            await self._board.reserve(peer, subnet_of(addr) or "", expire)
            self._hold(peer, expire)
        except BaseException:
            if peer not in self._held:
                self._board.release(peer)
            raise
        voucher = seal_voucher(self._key, peer, int(expire))
        room = limits.MAX_CIRCUIT_MESSAGE_BYTES - len(voucher) - _MESSAGE_BYTES
        reservation = Reservation(int(expire), tuple(self._told_addrs(scope_of(addr), room)), voucher)
        return Hop(HopType.STATUS, reservation=reservation, limit=options.limit, status=Status.OK)

    def _hold(self, peer: PeerId, expire: float) -> None:
        """The board has granted it. Raises ConnectionClosed: the peer has gone meanwhile."""
        if self._has_gone(peer):
            raise ConnectionClosed("the peer has gone")
        self._held[peer] = expire
        self._network.conn_manager.tag(peer, _RESERVATION_TAG, limits.RELAY_RESERVATION_VALUE)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(limits.RELAY_SWEEP_S, self._swept)

    def _has_gone(self, peer: PeerId) -> bool:
        """Whether there is no direct connection to `peer`."""
        return all(map(came_relayed, self._network.conns_to_peer(peer)))

    def _told_addrs(self, scope: Scope, room: int) -> Iterator[Multiaddr]:
        """Our addresses that reach at least as far as `scope`, with our id, as many as fit in `room`."""
        direct = (addr for addr in self._network.interface_listen_addresses() if not addr.is_relayed)
        for addr in told_to(scope, direct)[: limits.MAX_RESERVATION_ADDRS]:
            with_id = addr.with_p2p(self._network.local_peer)
            room -= len(with_id.to_bytes()) + _ADDR_BYTES
            if room >= 0:
                yield with_id

    def _abort(self, peer: PeerId, reason: str) -> None:
        """Drops the reservation of `peer`, and aborts the circuits to it."""
        if self._held.pop(peer, None) is not None:
            self._board.release(peer)
            self._network.conn_manager.untag(peer, _RESERVATION_TAG)
        for circuit, target in list(self._circuits.items()):
            if target == peer:
                circuit.abort(ConnectionClosed(reason))
        for stop in list(self._stops.get(peer, ())):
            stop.reset()

    def _drop_expired(self) -> None:
        now = self._now()
        for peer in [peer for peer, expire in self._held.items() if expire <= now]:
            self._abort(peer, "the reservation has expired")

    def _swept(self) -> None:
        self._drop_expired()
        self._sweep = None
        if self._held:
            self._sweep = asyncio.get_running_loop().call_later(limits.RELAY_SWEEP_S, self._swept)

    # -- circuits ------------------------------------------------------------------------------

    async def _connect(self, stream: Stream, conn: Conn, request: Hop) -> Stream:
        source, target = conn.remote_peer, self._admitted(conn, request)
        number, here = next(self._numbers), [source]  # the ends of it that are connected here
        try:
            holder = await self._board.open(number, source, subnet_of(conn.remote_multiaddr) or "", target)
            if holder is None:
                here.append(target)
            with self._counted(number, here) as release:
                if holder is None:
                    stop = await self._open_stop(source, target)
                else:
                    stop = await self._board.open_stop(holder, source, target)
                try:
                    await self._begin(stream, stop, target if holder is None else None, release)
                except BaseException:
                    stop.reset()
                    raise
        except BaseException:
            self._board.closed(number, 0)
            raise
        return stream

    async def _begin(
        self, stream: Stream, stop: Stream, target: PeerId | None, release: Callable[[int], None]
    ) -> None:
        """Tells the source that its target has accepted, and joins the streams."""
        answer = Hop(HopType.STATUS, limit=self._options.limit, status=Status.OK)
        await stream.write(answer.encode())
        stream.set_deadline(None)
        stop.set_deadline(None)
        self._splice(stream, stop, target, release)

    @contextmanager
    def _counted(self, number: int, here: list[PeerId]) -> Iterator[Callable[[int], None]]:
        """Tags the peers until the yielded function is called with a circuit's bytes, or the block fails."""

        def release(num_bytes: int) -> None:
            self._board.closed(number, num_bytes)
            for peer in here:
                self._untag(peer)

        for peer in here:
            self._tag(peer)
        try:
            yield release
        except BaseException:
            release(0)
            raise

    def _tag(self, peer: PeerId) -> None:
        """One circuit more has `peer` at an end."""
        self._ends[peer] += 1
        self._network.conn_manager.tag(peer, _CIRCUIT_TAG, limits.RELAY_CIRCUIT_VALUE)

    def _untag(self, peer: PeerId) -> None:
        self._ends[peer] -= 1
        if not self._ends[peer]:
            del self._ends[peer]
            self._network.conn_manager.untag(peer, _CIRCUIT_TAG)

    async def open_for(self, source: PeerId, target: PeerId) -> tuple[Stream, Callable[[], None]]:
        """The stream to a target that is connected here, for a circuit that another process opens.

        Returns: the stream, on which the target has accepted the circuit; and what to call when it has ended.
        Raises: NotPermitted.
        """
        self._drop_expired()
        if target not in self._held:
            raise NotPermitted(Status.NO_RESERVATION, target)
        stop = await self._open_stop(source, target)
        stop.set_deadline(None)
        self._tag(target)
        stops = self._stops.setdefault(target, set())
        stops.add(stop)

        def ended() -> None:
            self._untag(target)
            stops.discard(stop)
            if not stops and self._stops.get(target) is stops:
                del self._stops[target]

        return stop, ended

    def _admitted(self, conn: Conn, request: Hop) -> PeerId:
        """The target, if `conn` may have a circuit to it. The checks are in go-libp2p's order."""
        source, target = conn.remote_peer, request.peer
        if came_relayed(conn):
            raise NotPermitted(Status.PERMISSION_DENIED, "a circuit over a relayed connection")
        if target is None:
            raise NotPermitted(Status.MALFORMED_MESSAGE, "CONNECT without a peer")
        if target in (source, self._network.local_peer):
            raise NotPermitted(Status.PERMISSION_DENIED, "a circuit to the source or to the relay")
        addr = conn.remote_multiaddr
        if not self._grants("may_connect", self._options.may_connect, source, addr, target):
            raise NotPermitted(Status.PERMISSION_DENIED, "not allowed to connect")
        self._drop_expired()
        return target

    def _grants(self, name: str, callback: Callable[..., bool] | None, *args: object) -> bool:
        """The result of the application's callback; False if it raises."""
        try:
            return callback is None or callback(*args)
        except RAISED:
            self._complaints.raised(name)
            return False

    async def _open_stop(self, source: PeerId, target: PeerId) -> Stream:
        """A stream to `target`, which has accepted the circuit on it."""
        try:
            async with asyncio.timeout(limits.RELAY_STOP_CONNECT_TIMEOUT_S):
                stop = await self._network.new_stream(target, STOP)
        except (P2PError, OSError) as error:
            raise NotPermitted(Status.CONNECTION_FAILED, error) from error
        try:
            stop.set_deadline(limits.RELAY_STOP_HANDSHAKE_TIMEOUT_S)
            await stop.write(Stop(StopType.CONNECT, peer=source, limit=self._options.limit).encode())
            answer = Stop.parse(await read_body(stop))
            if answer.type is not StopType.STATUS or answer.status is not Status.OK:
                raise RemoteProtocolError(f"the target answers {answer.type.name} {answer.status!r}")
        except (P2PError, OSError) as error:
            stop.reset()
            raise NotPermitted(Status.CONNECTION_FAILED, error) from error
        except BaseException:
            stop.reset()
            raise
        return stop

    def _splice(
        self, stream: Stream, stop: Stream, target: PeerId | None, release: Callable[[int], None]
    ) -> None:
        options = self._options

        def ended(error: BaseException | None) -> None:
            logger.debug("a circuit of %s has ended: %s", target or "another process", error)
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
        if peer in self._held and self._has_gone(peer):
            self._abort(peer, "the peer has gone")

    def listen(self, network: Network, addr: Multiaddr) -> None: ...
    def listen_close(self, network: Network, addr: Multiaddr) -> None: ...


async def _read_request(stream: Stream) -> Hop:
    try:
        request = Hop.parse(await read_body(stream))
    except (RemoteProtocolError, LimitExceeded, IncompleteRead) as error:
        raise NotPermitted(Status.MALFORMED_MESSAGE, error) from error
    if request.type is HopType.STATUS:
        raise NotPermitted(Status.UNEXPECTED_MESSAGE, "a client must not send STATUS")
    return request
