"""Who may connect: asks the connection gater, and holds the limits on connections.

Comes in: each connection at five points of its setup, and its end. Goes out: GaterRefused, or LimitExceeded
with the name of the limit. A limit is hard (go-libp2p's watermarks are soft: W20). The swarm checks it when
it takes a connection over, and before any handshake if the address is enough to decide.

Limits for each subnet count only inbound connections. They do not count relayed connections and, by default,
private networks, because many peers share such an address (go-libp2p counts them all: W17).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pcore import options
from p2pcore._fast.loop.blocks import Blocks
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.codes import Direction
from p2pcore.errors import GaterRefused, P2PError
from p2pcore.interfaces import Gater
from p2pcore.resources.options import UNLIMITED
from p2pcore.resources.places import Place, Places
from p2pcore.resources.refusals import Refusals, exceeded
from p2pcore.resources.report import LimitUse
from p2pcore.swarm.conns import ConnTable
from p2pcore.swarm.events import Refused

if TYPE_CHECKING:
    from p2pcore.interfaces import RawConn
    from p2pcore.resources.options import Limits
    from p2pcore.swarm.conn import Conn
    from p2pcore.swarm.news import News
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.admission")

Full = tuple[str, int, int, str | None]
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
        limits: without AUTO.
        clock: seconds, from any start; None: `time.monotonic`.

    Raises:
        TypeError: the gater lacks a method of interfaces.Gater.

    Attributes:
        limits: the limits in force. refusals: what they have refused.
        news: hears of each refusal. conns: the connections of the swarm. The swarm sets both.
    """

    __slots__ = (
        *("_blocks", "_clock", "_complaints", "_gater", "_placed", "_places"),
        *("conns", "is_trivial", "limits", "news", "refusals"),
    )

    def __init__(
        self,
        gater: Gater | None = None,
        limits: Limits = UNLIMITED,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if gater is not None:
            options.satisfies("gater", gater, Gater)
        self._gater = gater
        self._clock = clock
        self._complaints = Complaints(logger)
        self.refusals = Refusals(clock or time.monotonic)
        self.news: News | None = None
        self.conns: ConnTable = ConnTable()
        self._blocks = Blocks(limits)
        self.set_limits(limits)

    def set_limits(self, limits: Limits) -> None:
        """New limits from now on. Connections that are open stay, even if they are too many now.

        Args:
            limits: without AUTO.
        """
        self.limits = limits
        self._places = Places(limits.reserved)
        self._placed: dict[Conn, Place] = {}
        self._blocks.set_limits(limits)
        has_limits = limits.max_conns is not None or limits.max_conns_per_peer is not None
        has_blocks = self._blocks.are_counted or limits.conn_rate_per_subnet is not None
        self.is_trivial = self._gater is None and not has_limits and not has_blocks
        for conn in self.conns.all():
            if conn._kind.direction is _INBOUND:
                self._blocks.add(conn.remote_multiaddr)

    # -- the five points -----------------------------------------------------------------------

    def check_peer_dial(self, peer: PeerId | None) -> None:
        """Is called before any address of `peer` is dialled. Raises GaterRefused, LimitExceeded."""
        if self._gater is not None and peer is not None:
            self._ask("peer dial", peer, None, peer)
        full = None if self.is_trivial else self._full(None, peer)
        if full is not None and self._place(full, None, peer) is None:
            self._refused(full, peer, None)
            raise exceeded(*full)

    def check_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> None:
        """Is called before `addr` is dialled. Raises GaterRefused."""
        if self._gater is not None:
            self._ask("addr dial", peer, addr, peer, addr)

    def admits(self, conn: RawConn) -> bool:
        """Whether an accepted connection may be read from. Looks only at addresses and counts.

        If a limit refuses it, aborting it resets it, so that the peer knows at once.
        """
        if self.is_trivial:
            return True
        if self._gater is not None and not self._gater_admits(conn):
            return False
        sockaddr = getattr(conn, "remote_sockaddr", None)  # making a multiaddr takes microseconds
        where = conn.remote_multiaddr if sockaddr is None else sockaddr[0]
        now = None if self._clock is None else self._clock()
        num_conns = self.conns.num_conns - len(self._placed)
        return self._blocks.accept(where, num_conns, now) or self._has_place(conn, where, now)

    def _gater_admits(self, conn: RawConn) -> bool:
        remote = conn.remote_multiaddr
        try:
            self._ask("accept", None, remote, conn.local_multiaddr, remote)
        except GaterRefused:
            return False
        return True

    def _has_place(self, conn: RawConn, where: Multiaddr | str | None, now: float | None) -> bool:
        """Whether an accepted connection may go on although a limit is reached. If not, it is reported."""
        full = self._full(where, None) or self._blocks.take(where, now)
        if full is None or self._place(full, where, None) is not None:
            return True
        self._refused(full, None, conn)
        getattr(conn, "set_linger", _ignore)(0)
        return False

    def check_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> None:
        """Is called when the peer has proved its id. Raises GaterRefused."""
        if self._gater is not None:
            self._ask("secured", peer, remote, direction, peer, local, remote)

    def admit(self, conn: Conn) -> None:
        """Is called before the swarm takes `conn` over, and counts it. Raises GaterRefused, LimitExceeded."""
        if self.is_trivial:
            return
        peer = conn.remote_peer
        if self._gater is not None:
            self._ask("upgraded", peer, conn.remote_multiaddr, conn)
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
    ) -> None:
        try:
            if getattr(self._gater, _HOOKS[point])(*args) is True:
                return
        except RAISED:
            self._complaints.raised(f"the connection gater ({point})")
        error = GaterRefused(point, addr or peer or "a connection")
        self._tell(peer, lambda: addr, lambda: error)
        raise error

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
            self.news.refused(lambda: Refused(peer, addr(), error()))


def _ignore(_: int) -> None:
    """A raw connection that has no SO_LINGER."""
