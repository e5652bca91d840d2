"""The rows: which attack meets which node, and what must hold.

Comes in: nothing. Goes out: ROWS. A bound names a figure of measure.py. `twin` rows have a busy honest client
in place of the attacker: it is never refused, and nobody is slower by more than the bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must be."""

    figure: str
    least: float | None = None
    most: float | None = None

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether `figures` keep it; a figure that is missing keeps nothing."""
        value = figures.get(self.figure)
        if value is None:
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        least = "" if self.least is None else f" >= {self.least:g}"
        most = "" if self.most is None else f" <= {self.most:g}"
        return f"{self.figure}{least}{most}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        name: short, for the command line. title: for people.
        attack: the name in attacker.py. settings: its numbers.
        processes: how many attackers there are; each has `settings`, and its own sources.
        op: what the node is, "listen" or "relay".
        node: options of node.py. nofile: soft and hard limit of descriptors of the node.
        cli: arguments of `p2pcore listen`, with nobody who reads its output, in place of node.py.
        slow: honest handshakes over a path that takes 4.5 s. behind: fresh connections go through the node.
        dead: peers with 100 dead addresses each that the honest client dials at the same time.
        stops_worker: whether an operator stops (SIGSTOP) one of the node's workers.
        seconds: how long it takes, if not as long as the command line says.
        go: the options of the go peer for the same; None: it has not the subject.
    """

    name: str
    title: str
    attack: str
    bounds: tuple[Bound, ...]
    settings: Mapping[str, float] = field(default_factory=dict)
    processes: int = 1
    op: str = "listen"
    node: tuple[str, ...] = ()
    nofile: tuple[int, int] = (20_000, 20_000)
    cli: tuple[str, ...] | None = None
    slow: int = 0
    dead: int = 0
    behind: bool = False
    stops_worker: bool = False
    seconds: float | None = None
    go: tuple[str, ...] | None = ()


NONE_REFUSED = (Bound("held failed", most=0), Bound("fresh failed", most=0))
BACK = Bound("memory after / start", most=1.2)
BUDGET = (*NONE_REFUSED, Bound("memory peak over start", most=512), BACK)
"""Of rows with a budget of 256 MB: allocators may keep as much again as it counts (limits.MEMORY_SHARE)."""
FLOOD = (*NONE_REFUSED, Bound("held p99 over rest", most=40), BACK)
QUIET = (*NONE_REFUSED, Bound("held p99 over rest", most=20), BACK)


def _floods(name: str, title: str, attack: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"{name}-{conns}",
            f"{title}, {conns} connection{'s'[: conns > 1]}, 3 MB/s",
            attack,
            FLOOD,
            {"conns": conns, "sources": conns, "identities": conns},
        )
        for conns in (1, 8, 16)
    )


def _silent(rate: int, bounds: tuple[Bound, ...], processes: int = 1) -> tuple[Row, ...]:
    settings = {"rate": rate / processes, "sources": 4}
    row = Row(f"silent-{rate}", f"{rate:,} silent connects a second", "silent", bounds, settings, processes)
    shared = Row(
        f"shared-{rate}",
        f"{rate:,} silent connects a second on a shared port",
        "silent",
        bounds,
        settings,
        processes,
        node=("-share",),
        go=("-share",),
    )
    return row, shared


ROWS: tuple[Row, ...] = (
    Row(
        "silent-85",
        "85 silent connects a second, soft limit of 1,024 descriptors",
        "silent",
        (*NONE_REFUSED, Bound("fresh done / rest", least=0.95), BACK),
        {"rate": 85},
        nofile=(1024, 20_000),
        seconds=25,
    ),
    Row(
        "silent-85-hard",
        "the same with a hard limit of 1,024 descriptors",
        "silent",
        (*NONE_REFUSED, Bound("fresh done / rest", least=0.95), BACK),
        {"rate": 85},
        nofile=(1024, 1024),
        seconds=25,
    ),
    Row(
        "silent-1200",
        "1,200 silent connects a second, honest handshakes that take 4.5 s",
        "silent",
        (*NONE_REFUSED, Bound("slow done", least=20), BACK),
        {"rate": 1200},
        slow=20,
        seconds=10,
    ),
    *_silent(1500, (*NONE_REFUSED, Bound("fresh p99 over rest", most=250), BACK)),
    *_silent(21_000, (*NONE_REFUSED, BACK), 2),
    *_floods("syn-fin", "streams opened with SYN and FIN", "syn and fin"),
    *_floods("bad-proposals", "streams with 63 bad proposals each", "bad proposals"),
    Row(
        "idle-streams",
        "257 connections with 1,024 idle echo streams each, one address, one identity",
        "idle streams",
        (*NONE_REFUSED, Bound("memory peak", most=512), BACK),
        {"conns": 257, "streams": 1024},
        seconds=25,
    ),
    Row(
        "syns",
        "the same with SYNs only against a bare host, 0.3 MB/s",
        "syns",
        (*NONE_REFUSED, Bound("fresh p99 over rest", most=50), BACK),
        {"conns": 257, "streams": 1024, "bytes per s": 3e5},
        seconds=20,
        node=("-bare",),
        go=("-bare",),
    ),
    Row(
        "cut-streams",
        "16 connections with 500 idle streams each end at once, over and over",
        "cut streams",
        FLOOD,
        {"conns": 16, "streams": 500, "sources": 16, "identities": 16},
    ),
    Row(
        "unread",
        "1,024 streams on each of 8 connections, filled and never read, a budget of 256 MB",
        "unread",
        BUDGET,
        {"conns": 8, "streams": 1024, "sources": 8, "identities": 8},
        node=("-memory", "256000000"),
    ),
    Row(
        "grown-windows",
        "windows grown by late pongs, then filled and never read, 2 connections, a budget of 256 MB",
        "grown windows",
        BUDGET,
        {"conns": 2, "streams": 64, "sources": 2, "identities": 2},
        node=("-memory", "256000000"),
    ),
    Row(
        "identity",
        "one identity finishes connections until 2,048 descriptors are gone",
        "finished",
        QUIET,
        {"conns": 2100},
        nofile=(2048, 2048),
        seconds=20,
    ),
    Row(
        "block",
        "2,100 identities of one address do the same",
        "finished",
        QUIET,
        {"conns": 2100, "identities": 2100},
        nofile=(2048, 2048),
        seconds=20,
    ),
    Row(
        "handshakes",
        "handshakes without a pause, 32 at a time, from one address",
        "handshakes",
        FLOOD,
        {"identities": 64},
    ),
    Row(
        "half-of-it",
        "64 connections that each begin a record or a frame and never end it",
        "half of it",
        (*QUIET, Bound("attacker held at the end", most=0)),
        {"conns": 64, "identities": 64, "sources": 40},
        seconds=95,
        go=None,
    ),
    Row(
        "identify",
        "identify with 27,000 addresses of one byte, pushed 20 times a second",
        "identify",
        QUIET,
        {"every": 0.05},
    ),
    Row(
        "identify-100",
        "identify with 27,000 addresses of one byte, 100 connections together",
        "identify",
        QUIET,
        {"conns": 100, "identities": 100, "sources": 40, "every": 2},
    ),
    Row(
        "identify-kept",
        "identify with 7,400 valid addresses, 100 connections together",
        "identify",
        (*QUIET, Bound("memory peak over start", most=1.6 + 4)),
        {"conns": 100, "identities": 100, "sources": 40, "every": 2, "valid": 1},
    ),
    Row(
        "circuits",
        "circuits opened and reset through a relay, to a target that others use",
        "circuits",
        (*FLOOD, Bound("attacker granted", most=1500)),
        {"conns": 2, "sources": 2, "identities": 2},
        op="relay",
        behind=True,
    ),
    Row(
        "renewals",
        "a reservation at a relay, renewed without a pause",
        "renewals",
        (*QUIET, Bound("attacker granted", most=130)),
        {"conns": 1},
        op="relay",
        behind=True,
    ),
    Row(
        "circuit-data",
        "circuits filled to their limit of bytes and opened again",
        "much data",
        (*QUIET, Bound("attacker relayed bytes a second", most=1e6)),
        {"conns": 1, "identities": 2},
        op="relay",
        behind=True,
    ),
    Row(
        "dedup",
        '4,000 connections of one peer with duplicates="dedup"',
        "one peer",
        (Bound("attacker last / first", most=2), *QUIET),
        {"conns": 4000},
        node=("-dedup",),
        seconds=25,
        go=None,
    ),
    Row(
        "dead-addresses",
        "25 peers with 100 dead addresses each are dialled, beside honest dials",
        "nothing",
        (*NONE_REFUSED, Bound("fresh p99 over rest", most=250)),
        dead=25,
        go=None,
    ),
    Row(
        "unread-log",
        "`listen -v` into a pipe that nobody reads; connections come and go",
        "handshakes",
        QUIET,
        {"identities": 64, "at once": 4},
        cli=("-v",),
        go=None,
    ),
    Row(
        "stopped-worker",
        "one of two workers is stopped (SIGSTOP)",
        "nothing",
        (Bound("replaced after s", most=12), Bound("fresh done / rest", least=0.4)),
        cli=("--workers", "2"),
        seconds=25,
        stops_worker=True,
        go=None,
    ),
)
