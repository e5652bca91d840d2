"""The rows of the benchmark: each has a figure of a work, a unit, and targets for p2pcore.

Goes out: `ROWS`, in groups. The project chose the targets. A row that misses a target stays in the table.
"""

from __future__ import annotations

from dataclasses import dataclass

OURS = "python"
LIMIT = "limit"
"""What this machine can do at all: bench/limit."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target of a row.

    Attributes:
        bound: of the ratio to `of`, or of the value itself.
        at_least: False if `bound` is a maximum.
        of_ratio: False if `bound` is for the value.
        slack: how much the measurement may add, if `bound` is a count.
        of: the contender that the ratio compares with; None: the baseline of the row.
    """

    bound: float
    at_least: bool
    of_ratio: bool
    slack: float = 0.0
    of: str | None = None

    def is_met(self, value: float, ratio: float | None) -> bool:
        """Whether a row with this value, and this ratio to the contender it is about, reaches it."""
        found = ratio if self.of_ratio else value
        if found is None:
            return False
        return found >= self.bound - self.slack if self.at_least else found <= self.bound + self.slack


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        key: its name in notes.toml and in tests.
        title, unit: as printed; the unit is that of the figure times `scale`.
        work, figure: where the figure comes from (works.py).
        higher: True if more is better.
        target: None for a row without one. more: further targets, beside other contenders.
        baseline: the contender that the ratio compares with.
    """

    key: str
    title: str
    unit: str
    work: str
    figure: str
    higher: bool
    target: Target | None = None
    baseline: str | None = "go"
    scale: float = 1.0
    more: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them."""
        return ((self.target,) if self.target else ()) + self.more


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that share a section and a plot."""

    key: str
    title: str
    text: str
    rows: tuple[Row, ...]


def times(bound: float) -> Target:
    """At least this many times the baseline."""
    return Target(bound, at_least=True, of_ratio=True)


def share(bound: float, of: str | None = None) -> Target:
    """At most this share of the baseline, or of the contender `of`."""
    return Target(bound, at_least=False, of_ratio=True, of=of)


def up_to(bound: float, slack: float = 0.0) -> Target:
    """A value of at most this."""
    return Target(bound, at_least=False, of_ratio=False, slack=slack)


def from_(bound: float) -> Target:
    """A value of at least this."""
    return Target(bound, at_least=True, of_ratio=False)


GROUPS: tuple[Group, ...] = (
    Group(
        "bulk",
        "One stream, as fast as it goes",
        "One connection and one stream carry 1 GiB in writes of 64 KiB. Up: the dialer writes; down: the "
        "listener writes. For writes of 1 KiB it is 128 MiB.",
        (
            Row("up", "bulk up", "MB/s", "up", "MB_s", True, times(1.5)),
            Row("down", "bulk down", "MB/s", "down", "MB_s", True, times(1.5)),
            Row("small", "writes of 1 KiB", "MB/s", "small", "MB_s", True, times(3)),
            Row(
                "up_dialer",
                "bulk up, CPU of the dialer for each MB",
                "µs",
                "up",
                "dialer_us",
                False,
                share(1.35, LIMIT),
            ),
            Row(
                "up_listener",
                "bulk up, CPU of the listener for each MB",
                "µs",
                "up",
                "listener_us",
                False,
                share(1.35, LIMIT),
            ),
            Row("up_tls", "bulk up over TLS", "MB/s", "up_tls", "MB_s", True, times(1.4)),
            Row("down_tls", "bulk down over TLS", "MB/s", "down_tls", "MB_s", True, times(1.4)),
            Row("up_ws", "bulk up over WebSocket", "MB/s", "up_ws", "MB_s", True, times(1)),
            Row("down_ws", "bulk down over WebSocket", "MB/s", "down_ws", "MB_s", True, times(1)),
        ),
    ),
    Group(
        "connections",
        "Connections of a peer that comes back",
        "Each connection is dialed, secured, multiplexed and closed again, always by the same dialer: a peer "
        "that comes back, not a new one. "
        "p2pcore verifies the dialer's proof of identity once and keeps it (docs/decisions/0006), which "
        "saves each side 43 µs. Over Noise, go-libp2p makes a new proof for each connection. In the last "
        "row, every listener has the same dialer (go-libp2p). Only the listener differs.",
        (
            Row(
                "conn16_rate",
                "a peer that comes back, 16 connections at a time",
                "/s",
                "conn16",
                "per_s",
                True,
                times(1.7),
            ),
            Row(
                "conn16_tls_rate",
                "a peer that comes back over TLS, 16 connections at a time",
                "/s",
                "conn16_tls",
                "per_s",
                True,
                times(1.2),
            ),
            Row(
                "conn16_dialer",
                "a peer that comes back, 16 connections at a time, CPU of the dialer",
                "µs",
                "conn16",
                "dialer_us",
                False,
                share(0.55),
            ),
            Row(
                "conn16_listener",
                "a peer that comes back, 16 connections at a time, CPU of the listener",
                "µs",
                "conn16",
                "listener_us",
                False,
                share(0.35),
            ),
            Row(
                "conn1_p50",
                "a peer that comes back, one connection after another, p50",
                "µs",
                "conn1",
                "p50_us",
                False,
                share(0.5),
            ),
            Row(
                "go_dials",
                "go-libp2p comes back, 16 connections at a time, CPU of the listener",
                "µs",
                "go_dials",
                "listener_us",
                False,
                share(0.55),
            ),
        ),
    ),
    Group(
        "streams",
        "Many small streams and messages",
        "On one connection: open a stream, send 32 bytes to an echo, read them back, close; or send and read "
        "32 bytes on streams that stay open.",
        (
            Row("stream64", "open, echo, close, 64 at a time", "/s", "stream64", "per_s", True, times(1.7)),
            Row(
                "stream1",
                "open, echo, close, one at a time, p50",
                "µs",
                "stream1",
                "p50_us",
                False,
                share(0.7),
            ),
            Row(
                "pingpong1",
                "ping-pong on an open stream, p50",
                "µs",
                "pingpong1",
                "p50_us",
                False,
                share(0.6),
            ),
            Row("pingpong64", "ping-pong on 64 streams", "/s", "pingpong64", "per_s", True, times(1.0)),
        ),
    ),
    Group(
        "crowd",
        "Many peers",
        "All listeners have the same dialer (p2pcore, bench/crowd.py), so only the listener differs. The "
        "limit dials itself. A new peer has an identity that the listener has never seen, and tells an "
        "address in a signed record. Both sides identify each other, 32 bytes go there and back on a stream, "
        "and the peer closes. Then 1,000 connections of 64 hosts with a stream each: on all of them at once, "
        "32 bytes go there and back, again and again. p2pcore's own echo wakes no task for a message "
        "(docs/decisions/0044); one row has an async handler in its place, as a program writes it. "
        "The dialer costs little: one in ten of its connections is timed, and the others send back what "
        "comes. A delay ends when the echo is read, so it has the "
        "dialer's time too. At last, 200 new peers come each second, at a lower "
        "priority, while an honest peer pings 100 times each second. A delay counts from the moment at which "
        "the ping was due.",
        (
            Row(
                "strangers",
                "a new peer, CPU of the listener",
                "µs",
                "strangers",
                "listener_us",
                False,
                share(0.5),
                more=(share(0.65, "rust"),),
            ),
            Row(
                "strangers_tls",
                "a new peer over TLS, CPU of the listener",
                "µs",
                "strangers_tls",
                "listener_us",
                False,
                share(0.8),
            ),
            Row(
                "busy",
                "a message on one of 1,000 connections, CPU of the listener",
                "µs",
                "busy",
                "listener_us",
                False,
                share(0.58),
                more=(share(0.65, "rust"),),
            ),
            Row(
                "busy_handler",
                "the same, answered by an async handler",
                "µs",
                "busy_handler",
                "listener_us",
                False,
            ),
            Row(
                "busy_p50",
                "a message on each of 1,000 connections at once, p50",
                "ms",
                "busy",
                "p50_us",
                False,
                share(0.5),
                scale=1e-3,
            ),
            Row(
                "busy_p99",
                "a message on each of 1,000 connections at once, p99",
                "ms",
                "busy",
                "p99_us",
                False,
                share(1),
                scale=1e-3,
                more=(share(1, "rust"),),
            ),
            Row(
                "honest_p50",
                "ping while 200 new peers a second connect, p50",
                "ms",
                "honest",
                "p50_us",
                False,
                scale=1e-3,
            ),
            Row(
                "honest_p99",
                "ping while 200 new peers a second connect, p99",
                "ms",
                "honest",
                "p99_us",
                False,
                scale=1e-3,
            ),
        ),
    ),
    Group(
        "broadcast",
        "One message to 2,000 connections",
        "A server sends 100 bytes to 2,000 connections, 20 times. Beside p2pcore: the package `websockets`, "
        "which encrypts nothing. The limit is a loop of `send` on bare sockets, and encrypts nothing either.",
        (
            Row(
                "broadcast",
                "a broadcast message, CPU of the server",
                "µs",
                "broadcast",
                "cpu_us",
                False,
                share(0.9),
                "websockets",
            ),
            Row(
                "broadcast_last",
                "a broadcast, until the last of 2,000 has it",
                "ms",
                "broadcast",
                "last_ms",
                False,
                share(1),
                "websockets",
            ),
        ),
    ),
    Group(
        "idle",
        "Idle connections",
        "What each connection adds at the listener, measured between 500 and 2,500 connections (js-libp2p: "
        "250 and 1,250), after garbage collection and a rest. Tasks are asyncio tasks, goroutines or tokio "
        "tasks; js-libp2p counts none. A timer shows as a wake-up if it fires within the one second of this "
        "measurement. All these connections are of one peer, except where a row says otherwise: then each is "
        "of a new peer (bench/crowd.py), identified both ways, and it is measured between 200 and 1,000.",
        (
            Row(
                "idle_bytes",
                "idle connection, memory (RSS)",
                "kB",
                "idle",
                "bytes",
                False,
                up_to(5.0),
                scale=1e-3,
            ),
            Row(
                "idle_peers_bytes",
                "idle connection, each of a peer of its own, memory (RSS)",
                "kB",
                "idle_peers",
                "bytes",
                False,
                scale=1e-3,
            ),
            Row(
                "idle_tls_bytes",
                "idle connection over TLS, each of a peer of its own, memory (RSS)",
                "kB",
                "idle_tls",
                "bytes",
                False,
                up_to(20.0),
                scale=1e-3,
            ),
            Row("idle_tasks", "idle connection, tasks", "", "idle", "tasks", False, up_to(0.0, 0.005)),
            Row(
                "idle_wakeups",
                "idle connection, wake-ups",
                "/s",
                "idle",
                "wakeups_s",
                False,
                up_to(0.0, 0.005),
            ),
        ),
    ),
    Group(
        "delay",
        "Over a path with a round trip of 60 ms",
        "A proxy holds every byte for 30 ms each way and limits nothing else. The time to the first byte "
        "starts with the dial of a new connection and includes the TCP handshake. Bulk is 512 MiB on one "
        "stream.",
        (
            Row(
                "first_byte",
                "60 ms path, first byte of an echo",
                "round trips",
                "first_byte",
                "round_trips",
                False,
                up_to(3.0, 0.25),
            ),
            Row("delayed_up", "60 ms path, bulk up", "MB/s", "delayed_up", "MB_s", True, from_(200.0)),
            Row(
                "delayed_peak",
                "60 ms path, bulk up, rise of the listener's memory",
                "MB",
                "delayed_up",
                "peak_bytes",
                False,
                scale=1e-6,
            ),
        ),
    ),
    Group(
        "local",
        "In one process",
        "`import p2pcore` in a fresh interpreter; the import that a node needs (`from p2pcore import Host`); "
        "an address converted from text to bytes and back to text.",
        (
            Row("import", "import p2pcore", "ms", "import", "ms", False, up_to(60.0), None),
            Row(
                "import_opened",
                "sockets and files it leaves open",
                "",
                "import",
                "opened",
                False,
                up_to(0.0),
                None,
            ),
            Row("import_host", "import of a whole node", "ms", "import", "host_ms", False, None, None),
            Row(
                "multiaddr",
                "multiaddr there and back",
                "µs",
                "multiaddr",
                "us",
                False,
                share(1 / 30),
                "multiaddr",
            ),
        ),
    ),
)

ROWS: tuple[Row, ...] = tuple(row for group in GROUPS for row in group.rows)
