"""The client's requests to a relay: circuits, and reservations that it keeps while they are wanted.

Comes in: the address of a relay, a network to reach it. Goes out: granted reservations, streams that are
circuits. Each kept reservation has one task. It sleeps until the renewal is due or the relay's connection is
lost; then it asks again, with growing pauses. Never trusts a reservation if its voucher is wrong.
Specification: libp2p relay/circuit-v2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.errors import (
    AddressError,
    IdentityError,
    LimitExceeded,
    P2PError,
    RelayRefused,
    RemoteProtocolError,
)
from p2pcore.relay.messages import (
    CIRCUIT,
    HOP,
    Hop,
    HopType,
    Reservation,
    Route,
    Status,
    check_voucher,
    read_body,
    through,
)

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, Network, Stream
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.relay")

_TAG = "relay"  # the protection of a relay at which a reservation is kept
_EXPIRY_LOOK_S = 0.01  # a timer may fire a little before the clock reaches its time


async def reach(network: Network, route: Route, ignore_backoff: bool = False) -> Conn:
    """A connection to the relay of `route`. `ignore_backoff`: the caller makes its own pauses.

    Raises: DialError, SwarmClosed; TimeoutError: see limits.RELAY_CONNECT_TIMEOUT_S.
    """
    try:
        async with asyncio.timeout(limits.RELAY_CONNECT_TIMEOUT_S):
            # A relay cannot be reached through another relay.
            return await network.dial_peer(
                route.relay, route.addrs, ignore_backoff=ignore_backoff, force_direct=True
            )
    except TimeoutError as error:
        after = limits.RELAY_CONNECT_TIMEOUT_S
        raise TimeoutError(f"the relay {route.relay} was not reached in {after:g} s") from error


async def ask(relay: Conn, request: Hop, what: str, timeout_s: float) -> tuple[Stream, Hop]:
    """Sends `request`; returns the stream and the relay's answer, which is OK. Reads nothing after it.

    Raises: RelayRefused: any other status; RemoteProtocolError, LimitExceeded: the answer is invalid;
        StreamError, ConnectionClosed, ProtocolNotSupported: there is no answer. Then the stream is reset.
    """
    stream = await relay.new_stream(HOP)
    try:
        stream.set_deadline(timeout_s)
        await stream.write(request.encode())
        answer = Hop.parse(await read_body(stream))
        if answer.type is not HopType.STATUS:
            raise RemoteProtocolError(f"the relay answers with {answer.type.name}, expected STATUS")
        if answer.status is not Status.OK:
            status = answer.status or Status.UNUSED
            raise RelayRefused(what, status, "no known status" if answer.status is None else status.name)
        stream.set_deadline(None)
        return stream, answer
    except BaseException:
        stream.reset()
        raise


async def connect(relay: Conn, target: PeerId) -> tuple[Stream, Hop]:
    """A circuit to `target` through `relay`: its stream, and the answer with its limits. Raises as `ask`."""
    request = Hop(HopType.CONNECT, peer=target)
    return await ask(relay, request, f"a connection to {target}", limits.RELAY_DIAL_TIMEOUT_S)


async def reserve(relay: Conn, us: PeerId, now: float) -> Reservation:
    """A reservation for `us` at `relay`.

    Raises: as `ask`; RemoteProtocolError: the answer has no reservation, or one that has expired at `now`
        (unix seconds); IdentityError: its voucher is wrong.
    """
    stream, answer = await ask(relay, Hop(HopType.RESERVE), "a reservation", limits.RELAY_RESERVE_TIMEOUT_S)
    await stream.close()
    reservation = answer.reservation
    if reservation is None:
        raise RemoteProtocolError("the relay answers OK without a reservation")
    if reservation.expire <= now:
        raise RemoteProtocolError(f"the relay's reservation expired {now - reservation.expire:.0f} s ago")
    if reservation.voucher is not None:
        check_voucher(reservation.voucher, relay.remote_peer, us, now)
    return reservation


def _circuit(addr: Multiaddr, relay: PeerId) -> Multiaddr | None:
    """Our address behind `addr`, which `relay` has told; None: it is not its own, or cannot be continued."""
    try:
        if addr.peer_id != relay or addr.is_relayed:
            return None
        addr.encapsulate(CIRCUIT).with_p2p(relay)  # another id comes behind it when it is told to others
        return addr.encapsulate(CIRCUIT)
    except (AddressError, IdentityError, LimitExceeded):
        return None


class ReservationKeeper:
    """Keeps one reservation: renews it in time, asks again when the relay has gone, reports when it expires.

    Args:
        network: reaches the relay; route: the way to the relay.
        now: unix seconds.
        changed: called when `addrs` has changed.

    Attributes:
        reservation: the last one granted, or None; see `is_held`.
    """

    def __init__(
        self, network: Network, route: Route, now: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        self._network = network
        self._now = now
        self._changed = changed
        self._conn: Conn | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._has_warned = False
        self._told: list[Multiaddr] = []
        self.route = route
        self.reservation: Reservation | None = None

    @property
    def relay(self) -> PeerId:
        """The relay that grants it."""
        return self.route.relay

    @property
    def is_held(self) -> bool:
        """True while the relay is connected and the reservation has not expired."""
        return (
            self._conn is not None and self.reservation is not None and self._now() < self.reservation.expire
        )

    @property
    def addrs(self) -> list[Multiaddr]:
        """Our addresses through the relay, without our own id; empty while the reservation is not held.

        First the address by which we reached the relay, then those that the relay reported.
        """
        if self.reservation is None or not self.is_held:
            return []
        ours = [through(addr, self.relay) for addr in self.route.addrs]
        told = (_circuit(addr, self.relay) for addr in self.reservation.addrs)
        return list(dict.fromkeys([*ours, *(addr for addr in told if addr is not None)]))

    async def begin(self) -> None:
        """Reserves, and keeps that from now on. Raises as `reach` and `reserve`; then it keeps nothing."""
        await self._reserve()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def begin_somehow(self) -> None:
        """Keeps a reservation from now on, even if the first attempt fails: later attempts follow.

        Returns after the first attempt, or after RELAY_CONNECT_TIMEOUT_S. Never raises.
        """
        self._task = asyncio.get_running_loop().create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.RELAY_CONNECT_TIMEOUT_S):
                await self._tried.wait()

    def look(self) -> None:
        """Makes it check the clock again."""
        self._wake.set()

    async def close(self) -> None:
        """Stops keeping it. It expires at the relay. Idempotent."""
        task, self._task = self._task, None
        self.reservation = self._conn = None
        self._tried.set()
        self._watch_expiry()
        self._network.conn_manager.unprotect(self.relay, _TAG)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _reserve(self) -> None:
        conn = await reach(self._network, self.route, ignore_backoff=True)
        self.reservation = await reserve(conn, self._network.local_peer, self._now())
        if conn is not self._conn:
            self._conn = conn
            conn.add_close_callback(lambda error: self._lost(conn))
        left = min(self.reservation.expire - self._now(), limits.MAX_RESERVATION_S)
        early = min(limits.RELAY_REFRESH_S, left / 4)
        self._due = self._now() + max(left - early, limits.RELAY_RETRY_MIN_S)
        self._network.conn_manager.protect(self.relay, _TAG)
        self._watch_expiry()
        self._tell()

    def _watch_expiry(self) -> None:
        """Sets a timer for the end of the reservation: while renewals fail, nothing else would notice it."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.reservation is not None:
            left = min(self.reservation.expire - self._now(), limits.MAX_RESERVATION_S)
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(left, _EXPIRY_LOOK_S), self._maybe_expired)

    def _maybe_expired(self) -> None:
        self._expiry = None
        self._tell()
        if self.is_held:  # it lives longer than a day, or the clock was set back
            self._watch_expiry()

    def _lost(self, conn: Conn) -> None:
        if conn is self._conn:
            self._conn = None
            self._due = 0.0
            self._wake.set()
            self._tell()

    def _tell(self) -> None:
        if self.addrs != self._told:
            self._told = self.addrs
            self._changed()

    async def _keep(self) -> None:
        pause = 0.0
        while True:
            await self._sleep(pause or self._due - self._now(), woken=not pause)
            if not pause and self.is_held and self._now() < self._due:
                continue
            try:
                await self._reserve()
                pause = 0.0
                if self._has_warned:
                    self._has_warned = False
                    logger.info("the reservation at %s holds again", self.relay)
            except (P2PError, OSError) as error:
                pause = min(max(2 * pause, limits.RELAY_RETRY_MIN_S), limits.RELAY_RETRY_MAX_S)
                level = logging.INFO if self._has_warned else logging.WARNING
                self._has_warned = True  # once for each loss: until then nobody could reach us there
                logger.log(level, "no reservation at %s, retry in %.0f s: %s", self.relay, pause, error)
                self._tell()
            self._tried.set()

    async def _sleep(self, seconds: float, woken: bool) -> None:
        """Waits to be woken. After a failure it waits for a random part of the pause: clients must spread."""
        if not woken:
            await asyncio.sleep(seconds * random.uniform(0.5, 1.0))
            return
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
