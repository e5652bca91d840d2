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
from p2pcore._fast.loop.metrics import ConnRow, ConnRows, Histogram, Protocols
from p2pcore.metrics.names import DIALS_S, DURATIONS_S, HANDSHAKES_S, IN, OTHER, OUT, RTTS_S

if TYPE_CHECKING:
    from p2pcore.codes import Direction
    from p2pcore.interfaces import ConnKind
    from p2pcore.values.multiaddr import Multiaddr

_IP_VERSIONS: Final = ("ip4", "ip6", "unknown")
_TRANSPORTS: Final = {"ws": "websocket", "wss": "websocket"}
"""What a connection calls the transport of an address, where it is not the name of a component."""
KEY_TYPES: Final = ("RSA", "Ed25519", "Secp256k1", "ECDSA", OTHER)
"""By the number of a key protobuf."""
MANY_DIALS: Final = 6
"""From here on the label is ">=6", as in go-libp2p."""


class Recorder:
    """The counts of one host.

    Attributes:
        conns: the rows of connections. conn_rows: the same, by label values.
        inbound, outbound: streams by protocol.
        dial_errors, upgrades_failed, accepted, accept_errors: counts by label values.
        peer_dials: how long dials of peers took, by whether they worked and the number of addresses dialled.
        ranking_delays, rtts: histograms.
        listeners: whether the listener of each address is up.
    """

    def __init__(self) -> None:
        self.conns = ConnRows(self._conn_row, HANDSHAKES_S, limits.MAX_METRIC_ROWS)
        self.conn_rows: dict[tuple[str, ...], ConnRow] = {}
        self.inbound = Protocols(IN, limits.MAX_METRIC_PROTOCOLS, OTHER)
        self.outbound = Protocols(OUT, limits.MAX_METRIC_PROTOCOLS, OTHER)
        self.dial_errors: Counter[tuple[str, ...]] = Counter()
        self.upgrades_failed: Counter[tuple[str, ...]] = Counter()
        self.accepted: Counter[tuple[str, ...]] = Counter()
        self.accept_errors: Counter[tuple[str, ...]] = Counter()
        self.peer_dials: dict[tuple[bool, int], Histogram] = {}
        self.ranking_delays = Histogram(DIALS_S)
        self.rtts = Histogram(RTTS_S)
        self.listeners: dict[str, bool] = {}
        self._addrs: set[str] = set()

    def _conn_row(self, kind: ConnKind, version: int) -> ConnRow:
        """The row of a kind of connection. Kinds with the same labels share it."""
        state = kind.state
        early = "true" if state.early_muxer else "false"
        how = (state.transport, state.security, state.muxer, early, _IP_VERSIONS[version])
        labels = (kind.direction.value, *how)
        row = self.conn_rows.get(labels)
        if row is None:
            row = self.conn_rows[labels] = ConnRow(labels, DURATIONS_S)
        return row

    # -- dials ---------------------------------------------------------------------------------

    def addr_failed(self, addr: Multiaddr, error: BaseException, is_late: bool = False) -> None:
        """A dial of one address has failed. `is_late`: it was cancelled because another address worked."""
        text = "canceled: concurrent dial successful" if is_late else _dial_error(error)
        self.dial_errors[_transport(addr), text, _ip_version(addr)] += 1

    def peer_dialled(self, has_worked: bool, num_dials: int, seconds: float) -> None:
        """A dial of a peer has ended, after dials of `num_dials` addresses."""
        key = (has_worked, min(num_dials, MANY_DIALS))
        found = self.peer_dials.get(key)
        if found is None:
            found = self.peer_dials[key] = Histogram(DIALS_S)
        found.observe(seconds)

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


# -- labels ------------------------------------------------------------------------------------


def _ip_version(addr: Multiaddr) -> str:
    return next((name for name in _IP_VERSIONS if name in addr), _IP_VERSIONS[-1])


def _transport(addr: Multiaddr) -> str:
    name = addr.protocols()[-1].name
    if addr.is_relayed:
        return "p2p-circuit"
    return _TRANSPORTS.get(name, name)


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
