"""The events that a host counts only for its metrics: what no other part counts already.

Comes in: reports of the swarm, its dials, listeners and streams, from the event loop. Goes out: rows and
counts for the scrape. A report costs some table look-ups: it formats nothing, and never waits or raises. The
number of rows has a bound: labels are our own words, the names of what this node has, or "other".
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from typing import TYPE_CHECKING, Final

from p2pcore import limits
from p2pcore._fast.loop.metrics import ConnRow, Histogram, Traffic
from p2pcore.metrics.names import DIALS_S, DURATIONS_S, HANDSHAKES_S, IN, OTHER, OUT, RTTS_S

if TYPE_CHECKING:
    from p2pcore.codes import Direction
    from p2pcore.interfaces import CapableConn, Conn, ConnKind, Stream
    from p2pcore.values.multiaddr import Multiaddr

_IP_VERSIONS: Final = {4: "ip4", 41: "ip6", 42: "ip6"}
"""By the code of the first component: ip4, ip6, ip6zone."""
_TRANSPORTS: Final = {"ws": "websocket", "wss": "websocket"}
"""What a connection calls the transport of an address, where it is not the name of a component."""
_KEY_TYPES: Final = ("RSA", "Ed25519", "Secp256k1", "ECDSA")
_MANY_DIALS: Final = 6
"""From here on the label is ">=6", as in go-libp2p."""


class Recorder:
    """The counts of one host.

    Attributes:
        conns: by label values. inbound, outbound: streams by protocol.
        key_types, dial_errors, peer_dials, upgrades_failed, accepted, accept_errors: counts by label values.
        handshakes, dial_latencies: histograms by label values. ranking_delays, rtts: histograms.
        listeners: whether the listener of each address is up.
    """

    def __init__(self) -> None:
        self.conns: dict[tuple[str, ...], ConnRow] = {}
        self.inbound: dict[str, Traffic] = {}
        self.outbound: dict[str, Traffic] = {}
        self.key_types: Counter[tuple[str, ...]] = Counter()
        self.dial_errors: Counter[tuple[str, ...]] = Counter()
        self.peer_dials: Counter[tuple[str, ...]] = Counter()
        self.upgrades_failed: Counter[tuple[str, ...]] = Counter()
        self.accepted: Counter[tuple[str, ...]] = Counter()
        self.accept_errors: Counter[tuple[str, ...]] = Counter()
        self.handshakes: dict[tuple[str, ...], Histogram] = {}
        self.dial_latencies: dict[tuple[str, ...], Histogram] = {}
        self.ranking_delays = Histogram(DIALS_S)
        self.rtts = Histogram(RTTS_S)
        self.listeners: dict[str, bool] = {}
        self._rows: dict[tuple[ConnKind, int], ConnRow] = {}  # what conns has, found without making labels
        self._addrs: set[str] = set()

    # -- connections ---------------------------------------------------------------------------

    def conn_opened(self, conn: Conn, kind: ConnKind) -> None:
        """The swarm has taken `conn` over."""
        row = self._row(conn, kind)
        row.add()
        self.key_types[row.labels[0], _key_type(conn)] += 1

    def conn_closed(self, conn: Conn, kind: ConnKind, seconds: float) -> None:
        """`conn` has ended, `seconds` after it opened."""
        self._row(conn, kind).end(seconds)

    def _row(self, conn: Conn, kind: ConnKind) -> ConnRow:
        first = _first_code(conn.remote_multiaddr)
        row = self._rows.get((kind, first))
        if row is None:
            if len(self._rows) >= limits.MAX_METRIC_ROWS:
                self._rows.clear()
            labels = (kind.direction.value, *_state_labels(kind, first))
            row = self.conns.get(labels) or ConnRow(labels, DURATIONS_S)
            self.conns[labels] = self._rows[kind, first] = row
        return row

    # -- dials ---------------------------------------------------------------------------------

    def addr_dialled(self, made: CapableConn, seconds: float) -> None:
        """A dial of one address has made a connection."""
        labels = _state_labels(made.kind, _first_code(made.remote_multiaddr))
        _observe(self.handshakes, labels, HANDSHAKES_S, seconds)

    def addr_failed(self, addr: Multiaddr, error: BaseException, is_late: bool = False) -> None:
        """A dial of one address has failed. `is_late`: it was cancelled because another address worked."""
        text = "canceled: concurrent dial successful" if is_late else _dial_error(error)
        self.dial_errors[_transport(addr), text, _ip_version(_first_code(addr))] += 1

    def peer_dialled(self, has_worked: bool, num_dials: int, seconds: float) -> None:
        """A dial of a peer has ended, after dials of `num_dials` addresses."""
        dials = str(num_dials) if num_dials < _MANY_DIALS else f">={_MANY_DIALS}"
        labels = ("success" if has_worked else "failed", dials)
        self.peer_dials[labels] += 1
        _observe(self.dial_latencies, labels, DIALS_S, seconds)

    # -- upgrades and listeners ----------------------------------------------------------------

    def upgrade_failed(self, direction: Direction, stage: str) -> None:
        """An upgrade has failed. `stage`: one of our own words."""
        self.upgrades_failed[direction.value, stage] += 1

    def accept_failed(self, addr: Multiaddr, name: str) -> None:
        """accept(2) has failed on the listener on `addr`; `name` of the errno."""
        self.accept_errors[self.listener_label(addr), name] += 1

    def listener_accepted(self, addr: Multiaddr, count: int) -> None:
        """A listener that ends has accepted so many raw connections."""
        self.accepted[(self.listener_label(addr),)] += count

    def listener_is(self, addr: Multiaddr, is_up: bool) -> None:
        """Whether the listener on `addr` takes connections from now on."""
        self.listeners[self.listener_label(addr)] = is_up

    def listener_closed(self, addr: Multiaddr) -> None:
        """The listener on `addr` was closed by the program: it is missed by nobody."""
        self.listeners.pop(self.listener_label(addr), None)

    def listener_label(self, addr: Multiaddr) -> str:
        """The label of a listener. A program that opens ever new ones does not make ever new series."""
        text = str(addr)
        if text not in self._addrs:
            if len(self._addrs) >= limits.MAX_METRIC_LISTENERS:
                return OTHER
            self._addrs.add(text)
        return text

    # -- streams -------------------------------------------------------------------------------

    def stream_accepted(self, stream: Stream, protocol: str, is_apart: bool = False) -> Traffic:
        """An inbound stream speaks `protocol`, which this node serves.

        Returns: the row that counts it, if `is_apart` one of this stream alone.
        """
        row = self.inbound.get(protocol) or self._traffic(self.inbound, IN, protocol)
        if is_apart:
            row = row.apart()
        stream.count_in(row)
        return row

    def stream_opened(self, stream: Stream, protocol: str) -> None:
        """A stream of ours proposes `protocol`, or speaks it."""
        stream.count_in(self.outbound.get(protocol) or self._traffic(self.outbound, OUT, protocol))

    def handler_failed(self, protocol: str | None) -> None:
        """The handler of `protocol` has raised an error that no peer can cause."""
        if protocol is not None:
            self._traffic(self.inbound, IN, protocol).errors += 1

    def _traffic(self, rows: dict[str, Traffic], direction: str, protocol: str) -> Traffic:
        """The row of a protocol. Beyond the bound all share one."""
        row = rows.get(protocol)
        if row is None:
            if len(rows) >= limits.MAX_METRIC_PROTOCOLS:
                protocol = OTHER
            row = rows.setdefault(protocol, Traffic((direction, protocol)))
        return row


# -- labels ------------------------------------------------------------------------------------


def _state_labels(kind: ConnKind, first: int) -> tuple[str, ...]:
    state = kind.state
    early = "true" if state.early_muxer else "false"
    return state.transport, state.security, state.muxer, early, _ip_version(first)


def _first_code(addr: Multiaddr | None) -> int:
    """The code of the first component, if it has one byte; 0 for no address."""
    return addr.to_bytes()[0] if addr else 0


def _ip_version(first: int) -> str:
    return _IP_VERSIONS.get(first, "unknown")


def _transport(addr: Multiaddr) -> str:
    name = addr.protocols()[-1].name
    if addr.is_relayed:
        return "p2p-circuit"
    return _TRANSPORTS.get(name, name)


def _key_type(conn: Conn) -> str:
    """The peer's kind of key. An id that has the key in it has the type in its fourth byte."""
    peer = conn.remote_peer.to_bytes()
    code = peer[3] if peer[0] == 0 else conn.remote_public_key.type.value
    return _KEY_TYPES[code] if 0 <= code < len(_KEY_TYPES) else OTHER


def _dial_error(error: BaseException) -> str:
    """go-libp2p's words for it."""
    if isinstance(error, asyncio.CancelledError):
        return "application canceled"
    if isinstance(error, TimeoutError):
        return "timeout"
    causes = (error, error.__cause__)
    if any(isinstance(each, OSError) and each.errno == errno.ECONNREFUSED for each in causes):
        return "connection refused"
    return "other"


def _observe(
    histograms: dict[tuple[str, ...], Histogram],
    labels: tuple[str, ...],
    bounds: tuple[float, ...],
    seconds: float,
) -> None:
    found = histograms.get(labels)
    if found is None:
        found = histograms[labels] = Histogram(bounds)
    found.observe(seconds)
