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
        node: options of node.py. nofile: soft and hard limit of descriptors of the node.
        slow: honest handshakes over a path that takes 4.5 s. behind: fresh connections go through the node.
        seconds: how long it takes, if not as long as the command line says.
        go: the options of the go peer for the same; None: it has not the subject.
    """

    name: str
    title: str
    attack: str
    bounds: tuple[Bound, ...]
    settings: Mapping[str, float] = field(default_factory=dict)
    processes: int = 1
    node: tuple[str, ...] = ()
    nofile: tuple[int, int] = (20_000, 20_000)
    slow: int = 0
    behind: bool = False
    seconds: float | None = None
    go: tuple[str, ...] | None = ()


NONE_REFUSED = (Bound("held failed", most=0), Bound("fresh failed", most=0))
BACK = Bound("memory after / start", most=1.2)
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
        ("-share",),
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
        "unread",
        "1,024 streams on each of 2 connections, filled and never read",
        "unread",
        (*NONE_REFUSED, Bound("memory peak", most=512), BACK),
        {"conns": 2, "streams": 1024, "sources": 2, "identities": 2},
    ),
    Row(
        "grown-windows",
        "windows grown by late pongs, then filled and never read, 2 connections",
        "grown windows",
        (*NONE_REFUSED, Bound("memory peak", most=512), BACK),
        {"conns": 2, "streams": 64, "sources": 2, "identities": 2},
    ),
)
