"""The metrics of one host: reads, at each scrape, what its parts count and hold.

Comes in: a host's swarm, news, recorder, relay. Goes out: families, Prometheus text. It does not look at
single connections and streams, so a scrape costs as much with a hundred thousand of them as with none. It may
be called in another thread than the host's: it copies each table before it looks at it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

from p2pcore.interfaces import ListenerState
from p2pcore.metrics import text
from p2pcore.metrics.family import Buckets, Family, Labels, Value, family
from p2pcore.metrics.lag import LoopLag
from p2pcore.metrics.names import IN, OUT
from p2pcore.metrics.process import process_families
from p2pcore.metrics.recorder import KEY_TYPES, MANY_DIALS
from p2pcore.values.version import __version__

if TYPE_CHECKING:
    from p2pcore._fast.loop.metrics import ConnRow, Histogram, Traffic
    from p2pcore.metrics.recorder import Recorder
    from p2pcore.swarm.news import News
    from p2pcore.swarm.swarm import Swarm

_OF_STREAMS = frozenset(
    (
        *("max_streams", "max_streams_per_conn", "max_streams_per_peer", "max_handlers_per_peer", "memory"),
        *("max_inbound_streams", "max_unaccepted_streams"),
    )
)
"""The limits that refuse streams; the others refuse connections."""
_IDENTIFY, _PUSH = "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"
_SYSTEM = "system"
"""go-libp2p's scope for a whole node."""


class HostMetrics:
    """See above.

    Args:
        swarm, news: of the host. recorder: what is counted only for metrics; None: nothing is.
        relay: gives the numbers of the relay of this node; None: there is none.

    Attributes:
        lag: how late timers are, from the first scrape on.
    """

    def __init__(
        self,
        swarm: Swarm,
        news: News,
        recorder: Recorder | None,
        relay: Callable[[], Relayed | None] = lambda: None,
    ) -> None:
        self._swarm = swarm
        self._news = news
        self._recorder = recorder
        self._relay = relay
        self._more: list[Callable[[], Iterable[Family]]] = []
        self.lag = LoopLag()

    def add(self, more: Callable[[], Iterable[Family]]) -> None:
        """Also shows the families that `more` gives at each scrape, until `remove`."""
        self._more.append(more)

    def remove(self, more: Callable[[], Iterable[Family]]) -> None:
        """Ends `add`. Idempotent."""
        if more in self._more:
            self._more.remove(more)

    @property
    def is_counting(self) -> bool:
        """False: the host was made with `metrics=False`, and only has what its parts count anyway."""
        return self._recorder is not None

    @property
    def streams_opened(self) -> int:
        """Streams whose protocol was agreed so far, both ways. 0: nothing is counted."""
        if self._recorder is None:
            return 0
        rows = [*self._recorder.inbound.by_name().values(), *self._recorder.outbound.by_name().values()]
        return sum(row.opened for row in rows)

    def pinged(self, rtt_s: float) -> None:
        """A ping of ours was answered after `rtt_s` seconds."""
        if self._recorder is not None:
            self._recorder.rtts.observe(rtt_s)

    def listeners_down(self) -> str | None:
        """The addresses that should take connections and do not; None: there are none."""
        if self._recorder is not None:
            down = [addr for addr, is_up in self._recorder.listeners.copy().items() if not is_up]
        else:
            down = [str(each.multiaddr) for each in self._swarm.listeners if not is_listening(each)]
        return f"down: {', '.join(down)}" if down else None

    def text(self, openmetrics: bool = False) -> str:
        """All metrics as Prometheus text.

        Args:
            openmetrics: the format of OpenMetrics 1.0; otherwise the format 0.0.4.
        """
        return text.render(self.families(), openmetrics)

    def families(self) -> list[Family]:
        """All metrics, those without a sample too. The first call starts to measure the loop's lag."""
        return [*self.own_families(), *process_families()]

    def own_families(self) -> list[Family]:
        """The metrics of the host alone, without those of its process."""
        self.lag.begin()
        families = [*self._of_swarm(), *self._of_limits(), *self._of_relay(), _build_info()]
        if self._recorder is not None:
            families += _recorded(self._recorder, self._swarm)
        families.append(family("p2pcore_loop_lag_seconds", _buckets(self.lag.seconds)))
        for more in list(self._more):
            families += more()
        return families

    # -- what is counted anyway ----------------------------------------------------------------

    def _of_swarm(self) -> Iterator[Family]:
        swarm, ledger = self._swarm, self._swarm.ledger
        counts = self._news.counters()
        upgrading = sum(getattr(each, "num_upgrading", 0) for each in swarm.listeners)
        pending = {(IN,): upgrading, (OUT,): swarm.dialer.num_dialling}
        yield family("p2pcore_connections_pending", pending)
        yield family("p2pcore_trimmed_total", _named(counts, "connections trimmed: "))
        pauses = swarm.pauses()
        yield family("p2pcore_accept_pauses_total", _named(pauses, "accepting paused: "))
        paused_ms = _named(pauses, "milliseconds paused: ")
        yield family("p2pcore_accept_paused_seconds_total", {key: ms / 1000 for key, ms in paused_ms.items()})
        yield family("p2pcore_stream_handlers", swarm.num_handlers_running)
        yield family("p2pcore_draining", int(swarm.is_draining))
        yield family("p2pcore_memory_used_bytes", ledger.used)
        yield family("p2pcore_buffer_bytes", {("unread",): ledger.unread, ("unsent",): ledger.unsent})
        yield family("p2pcore_connection_bytes_total", {("in",): ledger.bytes_in, ("out",): ledger.bytes_out})
        yield family("libp2p_rcmgr_memory", {(_SYSTEM, ""): ledger.used})
        yield from self._black_holes()

    def _black_holes(self) -> Iterator[Family]:
        counters = {kind: self._swarm.dialer.black_holes.counter(kind) for kind in ("UDP", "IPv6")}
        prefix = "libp2p_swarm_black_hole_filter_"
        state = {(kind,): 2 if one.is_blocked else int(not one.is_probing) for kind, one in counters.items()}
        yield family(f"{prefix}state", state)
        fractions = {(kind,): one.success_fraction for kind, one in counters.items()}
        yield family(f"{prefix}success_fraction", fractions)
        allowed = {(kind,): one.num_until_allowed for kind, one in counters.items()}
        yield family(f"{prefix}next_request_allowed_after", allowed)

    def _of_limits(self) -> Iterator[Family]:
        swarm = self._swarm
        limits, ledger = swarm.limits, swarm.ledger
        used = {"max_conns": swarm.num_conns, "max_streams": ledger.num_streams, "memory": ledger.used}
        most = {name: getattr(limits, name) for name in used}
        yield family("p2pcore_limit_used", {(name,): value for name, value in used.items()})
        in_force = {name: value for name, value in most.items() if value is not None}
        yield family("p2pcore_limit_maximum", {(name,): value for name, value in in_force.items()})
        yield family("p2pcore_refused_total", self._refused())

    def _refused(self) -> Mapping[tuple[str, str], int]:
        """What limits have refused, and the gater: of all refused connections those without a limit."""
        refused: Counter[tuple[str, str]] = Counter()
        for counts in (self._swarm.admission.refusals.counts.copy(), self._swarm.ledger.refused):
            for limit, count in counts.items():
                name = limit.partition(" of /")[0]  # of one protocol: its name would make many series
                refused[name, "stream" if name in _OF_STREAMS else "connection"] += count
        conns = sum(count for (_, stage), count in refused.items() if stage == "connection")
        refused["gater", "connection"] = max(0, self._news.counters()["connections refused"] - conns)
        return refused

    def _of_relay(self) -> Iterator[Family]:
        relay = self._relay()
        if relay is None:
            yield family("libp2p_relaysvc_status", 0)
            return
        yield family("libp2p_relaysvc_status", 1)
        yield family("libp2p_relaysvc_data_transferred_bytes_total", relay.num_bytes)
        yield family("p2pcore_relay_reservations", relay.num_reservations)
        yield family("p2pcore_relay_circuits", relay.num_circuits)
        refused = {(name,): count for name, count in list(relay.refused.items())}
        yield family("p2pcore_relay_refused_total", refused)


class Relayed(Protocol):
    """What is read of the relay of a node; see relay.service.RelayService."""

    @property
    def num_bytes(self) -> int: ...
    @property
    def num_reservations(self) -> int: ...
    @property
    def num_circuits(self) -> int: ...
    @property
    def refused(self) -> Mapping[str, int]: ...


# -- what is recorded --------------------------------------------------------------------------


def _recorded(recorder: Recorder, swarm: Swarm) -> Iterator[Family]:
    yield from _conns(list(recorder.conn_rows.values()))
    yield from _dials(recorder)
    yield from _streams(recorder)
    for name, counts in (
        ("libp2p_swarm_dial_errors_total", recorder.dial_errors),
        ("p2pcore_handshake_failures_total", recorder.upgrades_failed),
        ("p2pcore_accept_errors_total", recorder.accept_errors),
    ):
        yield family(name, counts.copy())
    yield family("p2pcore_ping_rtt_seconds", _buckets(recorder.rtts))
    yield from _listeners(recorder, swarm)


def _conns(rows: Sequence[ConnRow]) -> Iterator[Family]:
    yield family("libp2p_swarm_connections_opened_total", {row.labels: row.opened for row in rows})
    yield family("libp2p_swarm_connections_closed_total", {row.labels: row.closed for row in rows})
    durations = {row.labels: _buckets(row.durations) for row in rows}
    yield family("libp2p_swarm_connection_duration_seconds", durations)
    handshakes = {row.labels[1:]: _buckets(row.handshakes) for row in rows if row.handshakes is not None}
    yield family("libp2p_swarm_handshake_latency_seconds", handshakes)
    key_types: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for name, count in zip(KEY_TYPES, row.key_types, strict=True):
            if count:
                key_types[row.labels[0], name] += count
    yield family("libp2p_swarm_key_types_total", key_types)
    open_now: dict[str, int] = {IN: 0, OUT: 0}
    for row in rows:
        open_now[row.labels[0]] += row.opened - row.closed
    yield family("p2pcore_connections", {(name,): count for name, count in open_now.items()})
    yield family("libp2p_rcmgr_connections", {(name, _SYSTEM): count for name, count in open_now.items()})


def _dials(recorder: Recorder) -> Iterator[Family]:
    latencies: dict[Labels, Buckets] = {}
    for (has_worked, num), histogram in recorder.peer_dials.copy().items():
        labels = ("success" if has_worked else "failed", str(num) if num < MANY_DIALS else f">={num}")
        latencies[labels] = _buckets(histogram)
    yield family("libp2p_swarm_dial_latency_seconds", latencies)
    counts = {labels: sum(each.counts) for labels, each in latencies.items()}
    yield family("libp2p_swarm_dials_per_peer_total", counts)
    yield family("libp2p_swarm_dial_ranking_delay_seconds", _buckets(recorder.ranking_delays))


def _streams(recorder: Recorder) -> Iterator[Family]:
    inbound, outbound = recorder.inbound.by_name(), recorder.outbound.by_name()
    rows: list[Traffic] = [*inbound.values(), *outbound.values()]
    yield family("p2pcore_streams", {row.labels: row.open for row in rows})
    yield family("p2pcore_streams_opened_total", {row.labels: row.opened for row in rows})
    carried: dict[Labels, Value] = {}
    for way, count in (("in", lambda row: row.received), ("out", lambda row: row.sent)):
        for protocol in {**inbound, **outbound}:
            found = [rows[protocol] for rows in (inbound, outbound) if protocol in rows]
            carried[way, protocol] = sum(map(count, found))
    yield family("p2pcore_stream_bytes_total", carried)
    errors = {(row.labels[1],): row.errors for row in inbound.values()}
    yield family("p2pcore_handler_errors_total", errors)
    yield family("libp2p_rcmgr_streams", _by_scope(inbound, outbound))
    for name, protocol in (("libp2p_identify_total", _IDENTIFY), ("libp2p_identify_push_total", _PUSH)):
        yield family(name, _messages(inbound, outbound, protocol))


def _by_scope(inbound: Mapping[str, Traffic], outbound: Mapping[str, Traffic]) -> dict[Labels, Value]:
    """As go-libp2p's resource manager shows streams: those of the system, then those of each protocol."""
    open_now: dict[Labels, Value] = {}
    for way, rows in ((IN, inbound), (OUT, outbound)):
        open_now[way, _SYSTEM, ""] = sum(row.open for row in rows.values())
        open_now |= {(way, "protocol", protocol): row.open for protocol, row in rows.items()}
    return open_now


def _messages(
    inbound: Mapping[str, Traffic], outbound: Mapping[str, Traffic], protocol: str
) -> dict[Labels, Value]:
    """Who opens a stream of identify receives; who opens one of push sends."""
    opened = {
        way: rows[protocol].opened if protocol in rows else 0
        for way, rows in ((IN, inbound), (OUT, outbound))
    }
    if protocol == _IDENTIFY:
        return {(IN,): opened[OUT], (OUT,): opened[IN]}
    return {(way,): count for way, count in opened.items()}


def _listeners(recorder: Recorder, swarm: Swarm) -> Iterator[Family]:
    accepted = recorder.accepted.copy()
    for listener in swarm.listeners:
        num = getattr(listener, "num_accepted", 0)
        accepted[(recorder.listener_label(listener.multiaddr),)] += num
    yield family("p2pcore_accept_total", accepted)
    yield family("p2pcore_listener_up", {(addr,): int(up) for addr, up in recorder.listeners.copy().items()})


def is_listening(listener: object) -> bool:
    """Whether `listener` takes connections; one that does not say so does."""
    return getattr(listener, "state", ListenerState.LISTENING) is ListenerState.LISTENING


# -- values ------------------------------------------------------------------------------------


def _named(counts: Mapping[str, int], prefix: str) -> dict[Labels, int]:
    """The counters whose name begins with `prefix`, by the rest of it."""
    return {(name.removeprefix(prefix),): count for name, count in counts.items() if name.startswith(prefix)}


def _buckets(histogram: Histogram) -> Buckets:
    counts, total = histogram.read()
    return Buckets(histogram.bounds, tuple(counts), total)


@cache
def _build_info() -> Family:
    import platform  # here, because a node without scrapes needs none of these

    import uvloop
    from cryptography.hazmat.backends.openssl import backend

    loop_version = getattr(uvloop, "__version__", "unknown")
    labels = (__version__, platform.python_version(), loop_version, backend.openssl_version_text())
    return family("p2pcore_build_info", {labels: 1})
