"""Makes docs/attacks.md from results/attacks.json.

Comes in: what __main__.py has measured. Goes out: Markdown. The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attacks.rows import ROWS, Bound, Row
from attacks.twins import BOUNDS, TWINS

Found = Mapping[str, Any]

HEAD = """\
# Attacks

`make attacks` writes this page from `bench/results/attacks.json`. [bench/README.md](../bench/README.md)
tells how a row is measured, and how to measure one.

Each row is one attack on a node with default options. Peers made by hand attack it: they keep the rules of
Noise, and of yamux only those that they need. An honest client beside them does two things. *Held* is an
echo of 32 bytes on a connection that it keeps, 50 times a second. *Fresh* is a new connection with an echo,
10 times a second, each from another address than the attacker's. Times are the 99th percentiles in ms, at
rest and then under attack, in the same run. They count from the moment at which something was due, so a
node that stands still for a second shows in everything that it delays. Memory is the resident memory of the
node in MB: at the start, at its peak, and 5 s after the end of the attack.

A node of go-libp2p has its default resource manager and connection manager, and meets the same attacks. It
has one core, as p2pcore has. Where a cell is empty, it lacks the subject.
"""

TWINS_HEAD = """\
## Honest twins

What defends a node must not hurt an honest client that is as busy as an attacker. Each work is done in
turns at a node with default limits and at one without any. "Slower" is the median of the ratios of time.
"""


def page(whole: Mapping[str, Any]) -> str:
    """The text of docs/attacks.md."""
    found = {(each["row"], each["node"]): each for each in whole["rows"]}
    machine = "; ".join(f"{name}: {text}" for name, text in sorted(whole["machine"].items()))
    commits = ", ".join(sorted({each["commit"] for each in found.values() if each["node"] == "p2pcore"}))
    last = max(each["when"] for each in found.values())
    parts = [HEAD, f"Commit {commits}; last row of {last}. {machine}.\n", "## Rows\n", _rows(found)]
    parts += ["## What must hold\n", _bounds(found), TWINS_HEAD, _twins(found)]
    return "\n".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = list(head)
    lines = [cells, ["---"] + ["---:"] * (len(cells) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _rows(found: Mapping[tuple[str, str], Found]) -> str:
    head = (
        "attack",
        "held",
        "fresh",
        "failed of held, fresh",
        "memory",
        "go: held",
        "fresh",
        "failed",
        "memory",
    )
    return _table(head, (_cells(row, found) for row in ROWS if (row.name, "p2pcore") in found))


def _cells(row: Row, found: Mapping[tuple[str, str], Found]) -> Iterable[str]:
    yield f"{row.title} (`{row.name}`)"
    for node in ("p2pcore", "go"):
        yield from _side(found.get((row.name, node)))


def _side(found: Found | None) -> Iterable[str]:
    if found is None:
        return ("", "", "", "")
    if not found["figures"]:
        return ("it ended", "", "", "")
    figures = found["figures"]
    return (
        _two(figures, "held rest p99", "held p99"),
        _two(figures, "fresh rest p99", "fresh p99"),
        f"{_of(figures, 'held')}, {_of(figures, 'fresh')}",
        f"{figures['memory start']:.0f}, {figures['memory peak']:.0f}, {figures['memory after']:.0f}",
    )


def _two(figures: Mapping[str, float], first: str, second: str) -> str:
    return " → ".join(f"{figures[name]:,.3g}" if name in figures else "?" for name in (first, second))


def _of(figures: Mapping[str, float], kind: str) -> str:
    if f"{kind} failed" not in figures:
        return "?"
    failed = int(figures[f"{kind} failed"])
    return f"{failed}" if not failed else f"{failed} of {failed + int(figures[f'{kind} done'])}"


def _bounds(found: Mapping[tuple[str, str], Found]) -> str:
    def lines() -> Iterable[Iterable[str]]:
        for row in ROWS:
            if (row.name, "p2pcore") in found:
                figures = found[row.name, "p2pcore"]["figures"]
                for bound in row.bounds:
                    yield (f"`{row.name}`", str(bound), *_verdict(bound, figures))

    return _table(("row", "bound", "seen", "holds"), lines())


def _verdict(bound: Bound, figures: Mapping[str, float]) -> tuple[str, str]:
    seen = figures.get(bound.figure)
    return ("nothing" if seen is None else f"{seen:,.4g}", "yes" if bound.holds(figures) else "**no**")


def _twins(found: Mapping[tuple[str, str], Found]) -> str:
    def lines() -> Iterable[Iterable[str]]:
        for twin in TWINS:
            each = found.get((f"twin-{twin.name}", "p2pcore"))
            if each is not None:
                figures = each["figures"]
                holds = all(bound.holds(figures) for bound in BOUNDS)
                slower = figures.get("default / free")
                yield (
                    twin.title,
                    f"{figures['failed']:g}",
                    "?" if slower is None else f"{slower:.3f}×",
                    "yes" if holds else "**no**",
                )

    return _table(("work", "refused or failed", "slower", "holds"), lines())
