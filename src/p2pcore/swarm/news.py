"""What happens to a node: all parts report it here, and all observers hear it from here.

Comes in: reports of the swarm, its listeners, dials, admission and streams, from the event loop. Goes out:
events for subscriptions, then calls of notifiees, and counts. Without a subscription a report costs only its
count. Never raises and never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2pcore.codes import Direction
from p2pcore.errors import GoAway
from p2pcore.interfaces import ListenerState
from p2pcore.late import Late
from p2pcore.swarm.notify import Notifiees
from p2pcore.swarm.subscriptions import Events
from p2pcore.upgrade.listener import REFUSED, errno_name

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn, Conn as AnyConn
    from p2pcore.metrics.access_log import AccessLog
    from p2pcore.metrics.recorder import Recorder
    from p2pcore.metrics.traces import Traces
    from p2pcore.swarm import events
    from p2pcore.swarm.conn import Conn
    from p2pcore.swarm.conns import Connectedness
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId
else:
    events = Late("p2pcore.swarm.events")

COUNTERS = (
    "connections opened",
    "connections closed",
    "connections refused",
    "dials worked",
    "dials failed",
    "streams refused",
)
"""The counters that exist from the start. Failed upgrades and errors of accept(2) add others later."""


class News:
    """The reports of one node. Satisfies interfaces.ListenerNews.

    Attributes:
        events: the subscriptions. notifiees: the objects that are called. Both may change at any time.
        metrics: counts what is counted only for metrics; None: nobody does. access: the access log, or None.
        traces: makes spans; None: nobody does.
    """

    __slots__ = ("_counts", "access", "events", "metrics", "notifiees", "traces")

    def __init__(self) -> None:
        self._counts: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.events = Events()
        self.notifiees = Notifiees()
        self.metrics: Recorder | None = None
        self.access: AccessLog | None = None
        self.traces: Traces | None = None

    def counters(self) -> dict[str, int]:
        """How often each thing has happened since the start, by name. No number ever falls."""
        return dict(self._counts)

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1

    # -- connections ---------------------------------------------------------------------------

    def conn_opened(self, conn: Conn, change: Connectedness | None) -> None:
        """`conn` is registered. `change` is the new connectedness of its peer; None: it has not changed."""
        self._counts["connections opened"] += 1
        if self.metrics is not None:
            self.metrics.conns.add(conn, conn._kind)
        if self.events.is_wanted:
            self.events.emit(events.ConnOpened(conn))
            self._connectedness(conn, change)
        self.notifiees.connected(conn)

    def conn_closed(self, conn: Conn, error: BaseException | None, change: Connectedness | None) -> None:
        """`conn` has ended with `error` and is no longer registered. `change`: as for `conn_opened`."""
        self._counts["connections closed"] += 1
        if self.metrics is not None:
            self.metrics.conns.left(conn, conn._kind, conn._since)
        if self.access is not None:
            self.access.conn_closed(conn, error, asyncio.get_running_loop().time() - conn._since)
        if self.events.is_wanted:
            self._connectedness(conn, change)
            away = error if isinstance(error, GoAway) else None
            code, by_peer = (None, False) if away is None else (away.code, away.remote)
            self.events.emit(events.ConnClosed(conn, error, code, by_peer))
        self.notifiees.disconnected(conn)

    def _connectedness(self, conn: Conn, change: Connectedness | None) -> None:
        if change is not None:
            self.events.emit(events.ConnectednessChanged(conn.remote_peer, change))

    def draining(self, delay_s: float, timeout_s: float) -> None:
        """This node begins to drain."""
        if self.events.is_wanted:
            self.events.emit(events.Draining(delay_s, timeout_s))

    def peer_draining(self, conn: AnyConn) -> None:
        """The peer of `conn` has said that it is draining."""
        if self.events.is_wanted:
            self.events.emit(events.PeerDraining(conn))

    def conn_trimmed(self, conn: Any, reason: str, value: float) -> None:
        """See resources.conn_manager.Reports."""
        self._count(f"connections trimmed: {reason}")
        if self.events.is_wanted:
            self.events.emit(events.ConnTrimmed(conn, reason, value))

    def keep_lost(self, peer: PeerId, error: BaseException | None) -> None:
        """See resources.keeper.KeepReports."""
        if self.events.is_wanted:
            self.events.emit(events.KeepLost(peer, error))

    def keep_restored(self, peer: PeerId, conn: Any) -> None:
        """See resources.keeper.KeepReports."""
        if self.events.is_wanted:
            self.events.emit(events.KeepRestored(peer, conn))

    def refused(self, event: Callable[[], events.Refused]) -> None:
        """The gater or a limit has refused a connection. `event` is only made for a subscription."""
        self._counts["connections refused"] += 1
        if self.events.is_wanted:
            self.events.emit(event())
        if self.access is not None:
            self.access.refused(event)

    def stream_refused(self) -> None:
        """A stream was reset because too many handlers run."""
        self._counts["streams refused"] += 1

    def streams_refused(self, count: int) -> None:
        """A connection that has ended had reset so many streams because its peer had too many."""
        self._counts["streams refused"] += count

    # -- dials ---------------------------------------------------------------------------------

    def addr_dialled(self, has_worked: bool) -> None:
        """A dial of one address has worked or failed. A cancelled dial is not reported."""
        self._counts["dials worked" if has_worked else "dials failed"] += 1

    def addr_upgraded(self, made: CapableConn, since: float) -> None:
        """A dial of one address has made a connection. `since`: the monotonic second in which it began."""
        if self.metrics is not None:
            self.metrics.conns.dialled(made, since)
        if self.traces is not None:
            self.traces.addr_worked(made)

    def addr_failed(self, addr: Multiaddr, error: BaseException, is_late: bool = False) -> None:
        """A dial of one address has failed or was cancelled. `is_late`: another address worked meanwhile."""
        if self.metrics is not None:
            self.metrics.addr_failed(addr, error, is_late)
        if self.traces is not None:
            self.traces.addr_failed(addr, error)

    def peer_dialled(self, has_worked: bool, num_dials: int, seconds: float, delay_s: float = 0.0) -> None:
        """A dial of a peer has ended. `delay_s`: how long the address that worked had to wait for others."""
        if self.metrics is not None:
            self.metrics.peer_dialled(has_worked, num_dials, seconds)
            if has_worked:
                self.metrics.ranking_delays.observe(delay_s)

    def dial_failed(self, peer: PeerId | None, error: BaseException) -> None:
        """No address of `peer` could be reached."""
        if self.events.is_wanted:
            self.events.emit(events.DialFailed(peer, error))

    def upgrade_failed(
        self,
        direction: Direction,
        stage: str,
        error: BaseException,
        local: Multiaddr | None,
        remote: Multiaddr | None,
    ) -> None:
        """See interfaces.ListenerNews. If we dialled, only "dials failed" counts it."""
        if direction is Direction.INBOUND:
            self._count(f"upgrades failed: {stage}")
        if self.metrics is not None:
            self.metrics.upgrade_failed(direction, str(stage))
        if self.access is not None and direction is Direction.INBOUND:
            self.access.failed(str(stage), error, remote)
        if self.events.is_wanted:
            self.events.emit(events.UpgradeFailed(direction, str(stage), error, local, remote))

    # -- listeners -----------------------------------------------------------------------------

    def listener_opened(self, addr: Multiaddr) -> None:
        """A listener on `addr` has opened."""
        if self.metrics is not None:
            self.metrics.listener_is(addr, True)
        if self.events.is_wanted:
            self.events.emit(events.ListenerOpened(addr))
        self.notifiees.listen(addr)

    def accept_refused(self, addr: Multiaddr, reason: str) -> None:
        """See interfaces.ListenerNews; `refused` makes the event of a refusal by the admission."""
        self._count(f"upgrades failed: {reason}")
        if self.metrics is not None and reason != REFUSED:
            self.metrics.upgrade_failed(Direction.INBOUND, str(reason))

    def request_answered(self, addr: Multiaddr) -> None:
        """See interfaces.ListenerNews."""
        self._count("HTTP requests answered")

    def accept_failed(self, addr: Multiaddr, error: OSError) -> None:
        """See interfaces.ListenerNews."""
        self._count(f"accept errors: {errno_name(error)}")
        if self.metrics is not None:
            self.metrics.accept_failed(addr, errno_name(error))

    def listener_changed(self, addr: Multiaddr, state: ListenerState, error: BaseException | None) -> None:
        """See interfaces.ListenerNews. The swarm reports the end of a listener."""
        if self.metrics is not None and state is not ListenerState.CLOSED:
            self.metrics.listener_is(addr, state is ListenerState.LISTENING)
        if not self.events.is_wanted:
            return
        if state is ListenerState.RETRYING and error is not None:
            self.events.emit(events.ListenerRetrying(addr, error))
        elif state is ListenerState.LISTENING:
            self.events.emit(events.ListenerRecovered(addr))

    def listener_ended(self, addr: Multiaddr, error: BaseException | None, num_accepted: int = 0) -> None:
        """The listener on `addr` has ended. `error` is the reason, or None if somebody closed it.

        `num_accepted`: raw connections that it has accepted.
        """
        if self.metrics is not None:
            self.metrics.listener_accepted(addr, num_accepted)
            if error is None:
                self.metrics.listener_closed(addr)
            else:
                self.metrics.listener_is(addr, False)
        if self.events.is_wanted:
            self.events.emit(events.ListenerEnded(addr, error))
        self.notifiees.listen_close(addr)

    def addrs_changed(self, addrs: tuple[Multiaddr, ...]) -> None:
        """We listen on `addrs` now. To find them takes time, so look at `wants_addrs` first."""
        self.events.emit(events.AddrsChanged(addrs))

    @property
    def wants_addrs(self) -> bool:
        """Whether a subscription takes AddrsChanged."""
        return self.events.is_wanted and self.events.wants(events.AddrsChanged)
