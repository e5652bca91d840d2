"""Who may connect: asks the connection gater, and holds the limits on connections.

Comes in: each connection at five points of its setup, and its end. Goes out: GaterRefused, or LimitExceeded
with the name of the limit. A limit is hard (go-libp2p's watermarks are soft: W20). The swarm checks it when
it takes a connection over, and before any handshake if the address is enough to decide.

Limits for each subnet count only inbound connections. They do not count relayed connections and, by default,
private networks, because many peers share such an address (go-libp2p counts them all: W17).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from p2pcore import limits as bounds, options
from p2pcore._fast.loop.blocks import Blocks
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.codes import Direction
from p2pcore.errors import GaterRefused, P2PError
from p2pcore.interfaces import Gater, Refusal
from p2pcore.late import Late
from p2pcore.resources.options import UNLIMITED
from p2pcore.resources.places import Place, Places
from p2pcore.resources.refusals import Refusals, exceeded
from p2pcore.resources.report import LimitUse
from p2pcore.swarm.conns import ConnTable
from p2pcore.swarm.gater import BasicGater, Both

if TYPE_CHECKING:
    from p2pcore.interfaces import RawConn
    from p2pcore.resources.options import Limits
    from p2pcore.swarm import events
    from p2pcore.swarm.conn import Conn
    from p2pcore.swarm.news import News
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId
else:
    events = Late("p2pcore.swarm.events")

logger = logging.getLogger("p2pcore.admission")

Full = tuple[str, int, int, object | None]
"""A limit that is reached: the field of Limits, how much is used, how much may be used, and by whom."""

_HOOKS = {
    "peer dial": "intercept_peer_dial",
    "addr dial": "intercept_addr_dial",
    "accept": "intercept_accept",
    "secured": "intercept_secured",
    "upgraded": "intercept_upgraded",
}
"""The method of a gater for each point."""

_INBOUND = Direction.INBOUND  # a member of an enum costs more to look up
_OF_BLOCKS = ("max_conns_per_subnet", "max_conns_per_site")


class Admission:
    """The gater and the limits on connections of one swarm. The defaults admit everybody.

    Args:
        gater: see interfaces.Gater. If a method raises, that means no. It is logged once for each question.
            If a method waits, the check returns an awaitable, which ends or raises as the check does.
        limits: without AUTO.
        clock: seconds, from any start; None: `time.monotonic`.

    Raises:
        TypeError: the gater lacks a method of interfaces.Gater.

    Attributes:
        limits: the limits in force. refusals: what they have refused.
        has_gater: whether there is a gater to be asked.
        waits_at_accept: whether `admits_later` has to be asked as well.
        news: hears of each refusal. conns: the connections of the swarm. The swarm sets both.
    """

    __slots__ = (
        *("_basic_gaters", "_blocker", "_blocks", "_clock", "_complaints", "_gater", "_placed", "_places"),
        *("_watcher", "conns", "has_gater", "is_trivial", "limits", "news", "refusals", "waits_at_accept"),
    )

    def __init__(
        self,
        gater: Gater | None = None,
        limits: Limits = UNLIMITED,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if gater is not None:
            options.satisfies("gater", gater, Gater, may_wait=True)
        self._gater = gater
        self.has_gater = gater is not None
        self._watcher: Callable[[PeerId | None], None] | None = None
        self._blocker = gater if type(gater) is BasicGater else None
        self._basic_gaters: tuple[BasicGater, ...] = (gater,) if isinstance(gater, BasicGater) else ()
        self.waits_at_accept = gater is not None and iscoroutinefunction(gater.intercept_accept)
        self._clock = clock
        self._complaints = Complaints(logger)
        self.refusals = Refusals(clock or time.monotonic)
        self.news: News | None = None
        self.conns: ConnTable = ConnTable()
        self._blocks = Blocks(limits)
        self._apply(limits)

    def set_limits(self, limits: Limits) -> None:
        """New limits from now on. Connections that are open stay, even if they are too many now.

        Args:
            limits: without AUTO.
        """
        self._blocks.set_limits(limits)
        self._apply(limits)

    def _apply(self, limits: Limits) -> None:
        self.limits = limits
        self._places = Places(limits.reserved)
        self._placed: dict[Conn, Place] = {}
        has_limits = limits.max_conns is not None or limits.max_conns_per_peer is not None
        has_blocks = self._blocks.are_counted or limits.conn_rate_per_subnet is not None
        self.is_trivial = self._gater is None and not has_limits and not has_blocks
        for conn in self.conns.all():
            if conn._kind.direction is _INBOUND:
                self._blocks.add(conn.remote_multiaddr)

    # -- the five points -----------------------------------------------------------------------

    def check_peer_dial(self, peer: PeerId | None) -> Awaitable[None] | None:
        """Is called before any address of `peer` is dialled. Raises GaterRefused, LimitExceeded."""
        full = None if self.is_trivial else self._full(None, peer)
        if full is not None and self._place(full, None, peer) is None:
            self._refused(full, peer, None)
            raise exceeded(*full)
        if self._gater is None or peer is None:
            return None
        return self._ask("peer dial", peer, None, peer)

    def check_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> Awaitable[None] | None:
        """Is called before `addr` is dialled. Raises GaterRefused."""
        return None if self._gater is None else self._ask("addr dial", peer, addr, peer, addr)

    def admits(self, conn: RawConn) -> bool:
        """Whether an accepted connection may be read from. Looks only at addresses and counts.

        If a limit refuses it, aborting it resets it, so that the peer knows at once.
        """
        if self.is_trivial:
            return True
        if self._gater is not None and not self.waits_at_accept and not self._gater_admits(conn):
            return False
        sockaddr = getattr(conn, "remote_sockaddr", None)  # making a multiaddr takes microseconds
        where = conn.remote_multiaddr if sockaddr is None else sockaddr[0]
        now = None if self._clock is None else self._clock()
        num_conns = self.conns.num_conns - len(self._placed)
        return self._blocks.accept(where, num_conns, now) or self._has_place(conn, where, now)

    def _gater_admits(self, conn: RawConn) -> bool:
        remote = conn.remote_multiaddr
        try:
            return self._ask("accept", None, remote, conn.local_multiaddr, remote) is None
        except GaterRefused:
            return False

    async def admits_later(self, conn: RawConn) -> bool:
        """As `admits`, where the gater waits: whether it lets an accepted connection be read from."""
        remote = conn.remote_multiaddr
        try:
            asked = self._ask("accept", None, remote, conn.local_multiaddr, remote)
            if asked is not None:
                await asked
        except GaterRefused:
            return False
        return True

    def _has_place(self, conn: RawConn, where: Multiaddr | str | None, now: float | None) -> bool:
        """Whether an accepted connection may go on although a limit is reached. If not, it is reported."""
        full = self._full(where, None) or self._blocks.take(where, now)
        if full is None or self._place(full, where, None) is not None:
            return True
        self._refused(full, None, conn)
        return False

    def check_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> Awaitable[None] | None:
        """Is called when the peer has proved its id. Raises GaterRefused."""
        if self._gater is None:
            return None
        return self._ask("secured", peer, remote, direction, peer, local, remote)

    def check_upgraded(self, conn: Conn) -> Awaitable[None] | None:
        """Is called before the swarm takes `conn` over. Raises GaterRefused. `admit` follows."""
        if self._gater is None:
            return None
        return self._ask("upgraded", conn.remote_peer, conn.remote_multiaddr, conn)

    def admit(self, conn: Conn) -> None:
        """Is called when the swarm takes `conn` over, and counts it. Raises LimitExceeded."""
        if self.is_trivial:
            return
        peer = conn.remote_peer
        where = conn.remote_multiaddr if conn._kind.direction is _INBOUND else None
        num_conns = self.conns.num_conns - len(self._placed)
        if not self._blocks.enter(where, num_conns, self.conns.count(peer)):
            self._take_place(conn, where)

    def _take_place(self, conn: Conn, where: Multiaddr | None) -> None:
        """Counts `conn` although a limit is reached. Raises LimitExceeded: no place is reserved for it."""
        full = self._full(where, conn.remote_peer)
        if full is not None:
            place = self._place(full, where, conn.remote_peer)
            if place is None:
                self._refused(full, conn.remote_peer, conn)
                raise exceeded(*full)
            place.used += 1
            self._placed[conn] = place
        self._blocks.add(where)

    # -- counting ------------------------------------------------------------------------------

    def left(self, conn: Conn) -> None:
        """Stops counting `conn`, which has ended. Called once for each connection that was admitted."""
        if self._placed:
            place = self._placed.pop(conn, None)
            if place is not None:
                place.used -= 1
        if conn._kind.direction is _INBOUND:
            self._blocks.remove(conn.remote_multiaddr)

    @property
    def is_full(self) -> bool:
        """Whether there are so many connections that an inbound one is refused from wherever it comes."""
        return self._full(None, None) is not None and not self._places.are_free

    def keeps_waiting(self) -> None:
        """Reports that the node is full and that new connections wait, unaccepted."""
        full = self._full(None, None)
        if full is not None:
            self.refusals.add(full[0], lambda: f"{exceeded(*full)}; new connections wait", 0)

    def _full(self, where: Multiaddr | str | None, peer: PeerId | None) -> Full | None:
        """The first limit that one more connection would exceed."""
        limits = self.limits
        most = limits.max_conns
        if most is not None and self.conns.num_conns - len(self._placed) >= most:
            return "max_conns", self.conns.num_conns, most, None
        most = limits.max_conns_per_peer
        if most is not None and peer is not None and (count := self.conns.count(peer)) >= most:
            return "max_conns_per_peer", count, most, str(peer)
        return self._blocks.full(where)

    def _place(self, full: Full, where: Multiaddr | str | None, peer: PeerId | None) -> Place | None:
        """The reserved place that lets a connection in although `full`; None: there is none."""
        return None if full[0] == "max_conns_per_peer" else self._places.find(where, peer)

    def uses(self) -> list[LimitUse]:
        """How much of each limit on connections is used, without what was refused."""
        limits, most, peaks = self.limits, self._blocks.most, self._blocks.peaks
        return [
            LimitUse("max_conns", self.conns.num_conns, self.conns.peak, limits.max_conns),
            LimitUse("max_conns_per_peer", self.conns.most(), None, limits.max_conns_per_peer),
            *(LimitUse(limit, most[limit], peaks[limit], getattr(limits, limit)) for limit in _OF_BLOCKS),
            LimitUse("subnets", most["subnets"], peaks["subnets"], None),
            LimitUse("conn_rate_per_subnet", None, None, limits.conn_burst_per_subnet),
            LimitUse("reserved", self._places.used, None, self._places.maximum),
        ]

    # -- refusing ------------------------------------------------------------------------------

    def _ask(
        self,
        point: str,
        peer: PeerId | None,
        addr: Multiaddr | None,
        *args: object,
    ) -> Awaitable[None] | None:
        """Asks the gater. Returns None: yes; an awaitable: it waits. Raises GaterRefused."""
        verdict: Any = False
        try:
            verdict = getattr(self._gater, _HOOKS[point])(*args)
            if point == "accept" and not self.waits_at_accept and isawaitable(verdict):
                getattr(verdict, "close", _nothing)()
                verdict = False
                raise TypeError("intercept_accept returned an awaitable: declare it with `async def`")
        except RAISED:
            self._complaints.raised(f"the connection gater ({point})")
        if verdict is True:
            return None
        if isawaitable(verdict):
            return self._wait(point, peer, addr, verdict)
        raise self._denied(point, peer, addr, verdict)

    async def _wait(
        self, point: str, peer: PeerId | None, addr: Multiaddr | None, answer: Awaitable[object]
    ) -> None:
        """Waits for a gater that does not answer at once. Raises GaterRefused."""
        verdict: object = False
        try:
            async with asyncio.timeout(bounds.GATER_TIMEOUT_S) as timeout:
                verdict = await answer
        except Exception:
            if timeout.expired():
                verdict = Refusal(f"no answer within {bounds.GATER_TIMEOUT_S:g} s")
            else:
                self._complaints.raised(f"the connection gater ({point})")
        if verdict is not True:
            raise self._denied(point, peer, addr, verdict)

    def _denied(
        self, point: str, peer: PeerId | None, addr: Multiaddr | None, verdict: object
    ) -> GaterRefused:
        """Reports a refusal by the gater. Returns: its error."""
        why = verdict if isinstance(verdict, Refusal) else Refusal()
        error = GaterRefused(point, addr or peer or "a connection", why.reason, why.code)
        self._tell(peer, lambda: addr, lambda: error)
        return error

    # -- blocking ------------------------------------------------------------------------------

    def watch_blocks(self, blocked: Callable[[PeerId | None], None]) -> None:
        """See BasicGater.watch."""
        self._watcher = blocked
        for gater in self._basic_gaters:
            gater.watch(blocked)

    def stop_watching(self, blocked: Callable[[PeerId | None], None]) -> None:
        """See BasicGater.unwatch."""
        self._watcher = None
        for gater in self._basic_gaters:
            gater.unwatch(blocked)

    def blocks(self, peer: PeerId, addr: Multiaddr | None) -> bool:
        """Whether a connection to `peer` at `addr` is blocked now."""
        return any(gater.blocks(peer, addr) for gater in self._basic_gaters)

    @property
    def blocker(self) -> BasicGater:
        """The gater that blocks peers: the program's, if it is a BasicGater, else one that is asked first.

        A subclass may answer as it likes, so it is no blocker.
        """
        if self._blocker is None:
            self._blocker = BasicGater()
            self._basic_gaters += (self._blocker,)
            if self._watcher is not None:
                self._blocker.watch(self._watcher)
            self._gater = self._blocker if self._gater is None else Both(self._blocker, self._gater)
            self.has_gater = True
            self.is_trivial = False
        return self._blocker

    def _refused(self, full: Full, peer: PeerId | None, conn: Conn | RawConn | None) -> None:
        """Reports a refusal. Under attack there are very many, so nothing is made that nobody reads."""
        self.refusals.add(full[0], lambda: exceeded(*full))
        self._tell(peer, lambda: None if conn is None else conn.remote_multiaddr, lambda: exceeded(*full))

    def _tell(
        self, peer: PeerId | None, addr: Callable[[], Multiaddr | None], error: Callable[[], P2PError]
    ) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("refused %s at %s: %s", peer, addr(), error())
        if self.news is not None:
            self.news.refused(lambda: events.Refused(peer, addr(), error()))


def _nothing() -> None:
    """An awaitable that is no coroutine needs no close."""
