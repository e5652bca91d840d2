"""Every metric by name: its kind, its labels, and what it means.

Comes in: nothing. Goes out: SPECS. A family that is not in this table cannot be made, so the table is the
whole list. Where the meaning is that of a metric of go-libp2p, it has the name and the labels it has there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

IN: Final = "inbound"
OUT: Final = "outbound"
OTHER: Final = "other"
"""The label of what has no row of its own, because there are so many rows already."""

CONN_LABELS: Final = ("dir", "transport", "security", "muxer", "early_muxer", "ip_version")


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of a metric without any host.

    Attributes:
        kind: "counter", "gauge" or "histogram". labels: their names, in order. help: one line.
        is_each: of several workers, each has samples of its own with a label `worker`. Otherwise they are
            added.
    """

    kind: str
    labels: tuple[str, ...]
    help: str
    is_each: bool = False


def _counter(help: str, *labels: str) -> Spec:
    return Spec(COUNTER, labels, help)


def _gauge(help: str, *labels: str) -> Spec:
    return Spec(GAUGE, labels, help, True)


def _histogram(help: str, *labels: str) -> Spec:
    return Spec(HISTOGRAM, labels, help)


_DIALS = ("outcome", "num_dials")

SPECS: Final[dict[str, Spec]] = {
    # -- go-libp2p's ---------------------------------------------------------------------------
    "libp2p_swarm_connections_opened_total": _counter("Connections that the swarm took over.", *CONN_LABELS),
    "libp2p_swarm_connections_closed_total": _counter("Connections that ended.", *CONN_LABELS),
    "libp2p_swarm_key_types_total": _counter(
        "Connections opened, by the peer's kind of key.", "dir", "key_type"
    ),
    "libp2p_swarm_connection_duration_seconds": _histogram("How long connections lived.", *CONN_LABELS),
    "libp2p_swarm_handshake_latency_seconds": _histogram(
        "From the start of a dial of one address to an upgraded connection.", *CONN_LABELS[1:]
    ),
    "libp2p_swarm_dial_errors_total": _counter(
        "Dials of one address that failed.", "transport", "error", "ip_version"
    ),
    "libp2p_swarm_dials_per_peer_total": _counter("Dials of a peer, by addresses dialled.", *_DIALS),
    "libp2p_swarm_dial_latency_seconds": _histogram("How long a dial of a peer took.", *_DIALS),
    "libp2p_swarm_dial_ranking_delay_seconds": _histogram("How long the address that worked had to wait."),
    "libp2p_swarm_black_hole_filter_state": _gauge("0 probing, 1 allowed, 2 blocked.", "name"),
    "libp2p_swarm_black_hole_filter_success_fraction": _gauge("Of the last dials of this kind.", "name"),
    "libp2p_swarm_black_hole_filter_next_request_allowed_after": _gauge(
        "Dials that are refused before one is allowed again.", "name"
    ),
    "libp2p_identify_total": _counter("Messages of identify, received or sent.", "dir"),
    "libp2p_identify_push_total": _counter("Messages of identify push, received or sent.", "dir"),
    "libp2p_rcmgr_connections": _gauge("Open connections.", "dir", "scope"),
    "libp2p_rcmgr_streams": _gauge("Open streams whose protocol is agreed.", "dir", "scope", "protocol"),
    "libp2p_rcmgr_memory": _gauge("Bytes of the memory budget in use.", "scope", "protocol"),
    "libp2p_relaysvc_status": _gauge("1: this node relays connections of other peers."),
    "libp2p_relaysvc_data_transferred_bytes_total": _counter("Bytes relayed, on circuits that have ended."),
    # -- connections ---------------------------------------------------------------------------
    "p2pcore_connections": _gauge("Open connections.", "dir"),
    "p2pcore_connections_pending": _gauge("Handshakes and dials that go on.", "dir"),
    "p2pcore_connection_bytes_total": _counter(
        "Bytes of connections with what ciphers and frames add.", "dir"
    ),
    "p2pcore_accept_total": _counter("Raw connections accepted.", "listener"),
    "p2pcore_accept_errors_total": _counter("Errors of accept(2).", "listener", "errno"),
    "p2pcore_accept_pauses_total": _counter("Times in which no connection was accepted.", "reason"),
    "p2pcore_accept_paused_seconds_total": _counter("How long no connection was accepted.", "reason"),
    "p2pcore_listener_up": _gauge("1: this address takes connections. 0: it is down.", "addr"),
    "p2pcore_handshake_failures_total": _counter("Upgrades that failed.", "dir", "stage"),
    "p2pcore_refused_total": _counter("What a limit or the gater refused.", "reason", "stage"),
    "p2pcore_trimmed_total": _counter("Connections that the connection manager closed.", "reason"),
    "p2pcore_ping_rtt_seconds": _histogram("Round-trip times that Host.ping measured."),
    # -- streams -------------------------------------------------------------------------------
    "p2pcore_streams": _gauge("Open streams whose protocol is agreed.", "dir", "protocol"),
    "p2pcore_streams_opened_total": _counter("Streams whose protocol was agreed.", "dir", "protocol"),
    "p2pcore_stream_bytes_total": _counter("Bytes of streams, without negotiation.", "dir", "protocol"),
    "p2pcore_stream_handlers": _gauge("Handlers that run, and streams that are negotiated."),
    "p2pcore_handler_errors_total": _counter("Handlers that raised an unexpected error.", "protocol"),
    # -- memory, loop, process -----------------------------------------------------------------
    "p2pcore_memory_used_bytes": _gauge("Bytes of the memory budget in use."),
    "p2pcore_buffer_bytes": _gauge("Bytes received and not read, or written and not sent.", "kind"),
    "p2pcore_limit_used": _gauge("How much of a limit is in use.", "limit"),
    "p2pcore_limit_maximum": _gauge("A limit in force. A limit that is off has no sample.", "limit"),
    "p2pcore_relay_reservations": _gauge("Places that peers have reserved at this relay."),
    "p2pcore_relay_circuits": _gauge("Circuits through this relay."),
    "p2pcore_relay_refused_total": _counter("Requests that this relay refused.", "reason"),
    "p2pcore_fleet_up": _gauge("1: this process is in its fleet. 0: the engine of the bus is away."),
    "p2pcore_fleet_bus_dropped_total": _counter(
        "Messages of the bus that this process lost: it took them too slowly, or they could not leave."
    ),
    "p2pcore_fleet_processes": _gauge("Processes of the fleet, as this one knows them."),
    "p2pcore_fleet_presence_entries": _gauge("Peers of this process that the fleet can find."),
    "p2pcore_fleet_requests_total": _counter("Messages to one peer that were asked for here.", "outcome"),
    "p2pcore_fleet_served_total": _counter("Messages that other processes had sent here.", "outcome"),
    "p2pcore_fleet_bus_streams": _gauge("Streams over the bus, opened here or for other processes."),
    "p2pcore_fleet_subscribers": _gauge("Subscriptions of streams to topics."),
    "p2pcore_fleet_topic_messages_total": _counter("Messages of topics that streams have taken."),
    "p2pcore_fleet_topic_dropped_total": _counter("Messages of topics that were dropped.", "reason"),
    "p2pcore_fleet_capped_total": _counter("Connections closed because the fleet had too many.", "cap"),
    "p2pcore_draining": _gauge("1: this node drains and takes no new work."),
    "p2pcore_build_info": _gauge("Always 1.", "version", "python", "uvloop", "openssl"),
    "p2pcore_loop_lag_seconds": Spec(
        HISTOGRAM, (), "How late a timer of the event loop was, measured each second.", True
    ),
    "p2pcore_worker_up": _gauge("1: this worker answered. 0: it did not."),
    "p2pcore_worker_starts_total": _counter("Workers that began to serve."),
    "p2pcore_worker_messages_dropped_total": _counter("Messages that a worker lost because it did not read."),
    "process_cpu_seconds_total": _counter("User and system CPU time."),
    "process_resident_memory_bytes": _gauge("Resident memory."),
    "process_virtual_memory_bytes": _gauge("Virtual memory."),
    "process_open_fds": _gauge("Open file descriptors."),
    "process_max_fds": _gauge("File descriptors that the process may open."),
    "process_start_time_seconds": _gauge("When the process began, in seconds since 1970."),
}
"""Each metric by its full name. A sum over workers has the label `worker` if `is_each`."""


def rising(first: float, factor: float, count: int) -> tuple[float, ...]:
    """`count` bounds, each `factor` times the one before: computed as Prometheus computes them."""
    bounds = []
    for _ in range(count):
        bounds.append(first)
        first *= factor
    return tuple(bounds)


DURATIONS_S: Final = rising(1 / 16, 2, 25)
HANDSHAKES_S: Final = rising(0.001, 1.3, 35)
DIALS_S: Final = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0)
LAGS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RTTS_S: Final = rising(0.0001, 2, 18)
"""Upper ends of buckets. The first three are go-libp2p's."""
