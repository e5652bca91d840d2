"""Makes docs/benchmarks.md from results.

Comes in: `Results`, notes.toml. Goes out: Markdown, and a table for the terminal. The same results
give the same bytes. A row without a figure says why; a missed target says so.
"""

from __future__ import annotations

import statistics
import tomllib
from pathlib import Path

from rich.table import Table

from quiet import QUIET_CORES
from results import Results, title
from rows import GROUPS, LIMIT, OURS, ROWS, Group, Row, Target

NOTES = Path(__file__).with_name("notes.toml")
NOT_THERE = "not there yet"
PARTIAL = ("multiaddr", "websockets", LIMIT)
"""Contenders of a few rows only: they have no column of their own beside libp2p's."""

HOW = """\
`make bench` writes this page from `bench/results/sidebyside.json`. [bench/README.md](../bench/README.md)
tells how the figures are measured.

Each row compares two stacks in one run on one machine. Absolute figures differ from machine to machine;
the ratio differs far less. Both sides of a connection run the same stack, with Noise, yamux and default
options, unless the row says otherwise. In each round the stacks take turns. Listener and dialer each have
their own core. The amount of work is fixed. A figure is the median over the rounds. The range is the
range of the ratios of single rounds. CPU is user and system time, as each side reports it."""

LIMIT_TEXT = """\
The limit is what this machine can do at all: a C program (`bench/limit`) that moves the same bytes through
bare sockets and the same ciphers, and does nothing else: `epoll`, `recv`, open, seal, `send`, and the curve
operations that a handshake cannot do without. No library can reach it: it has no streams, no windows and no
bounds, and believes its peer. A share is the limit's cost divided by that of a stack, or a stack's rate
divided by the limit's; 100 % is the limit."""

QUIET_TEXT = f"""\
Other work is what the machine did besides the measured processes, in the worst sample of the row. A row is
quiet if it took at most {QUIET_CORES:.0%} of a core. The spread is the greatest sample minus the least,
divided by the median."""


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if abs(value) < 0.0995:
        return f"{value:.1g}" if abs(value) >= 0.001 else "0"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def with_unit(value: float, unit: str) -> str:
    """A value as it is printed in a cell."""
    return f"{number(value)}{'' if unit.startswith('/') else ' '}{unit}".strip()


def targets_text(row: Row) -> str:
    """The targets of a row, short enough for a cell."""
    return ", ".join(target_text(target, row.unit) for target in row.targets)


def target_text(target: Target, unit: str) -> str:
    """One of them."""
    of = f" {title(target.of)}" if target.of else ""
    sign = "≥" if target.at_least else "≤"
    if not target.of_ratio:
        return f"{sign} {target.bound:g}{'' if unit.startswith('/') else ' '}{unit}".strip()
    if target.bound < 0.1:
        return f"{sign} 1/{1 / target.bound:.0f}{of}"
    return f"{sign} {target.bound:g}×{of}"


def share_text(ratio: float) -> str:
    """A ratio; a small one as a fraction."""
    return f"1/{1 / ratio:,.0f}" if 0 < ratio < 0.0995 else f"{number(ratio)}×"


def missing_text(results: Results, row: Row, contender: str) -> str:
    """Says why there is no figure."""
    if contender in results.absent.get(row.work, {}):
        return NOT_THERE if contender == OURS else "has none"
    if any(each["work"] == row.work and each["contender"] == contender for each in results.failures):
        return "failed"
    return ""


def value_text(results: Results, row: Row, contender: str) -> str:
    """The median of a contender, or why there is none."""
    value = results.median(row, contender)
    return missing_text(results, row, contender) if value is None else with_unit(value, row.unit)


def is_reached(results: Results, row: Row) -> bool | None:
    """Whether we reach all targets; None if there is none, or nothing to compare with one of them."""
    met = [results.meets(row, target) for target in row.targets]
    if False in met:
        return False
    return None if None in met or not met else True


def reached_text(results: Results, row: Row) -> str:
    """Whether the row reaches its targets, in a cell."""
    if not row.targets:
        return ""
    reached = is_reached(results, row)
    if reached is None:
        return missing_text(results, row, OURS) or "not measured"
    return "yes" if reached else "**no**"


def ratio_text(results: Results, row: Row) -> str:
    """The ratio of the medians, and its range over the rounds."""
    ratio, spread = results.ratio(row), results.ratio_range(row)
    if ratio is None:
        return ""
    near = f" ({share_text(spread[0])}–{share_text(spread[1])})" if spread and results.rounds > 1 else ""
    return f"{share_text(ratio)}{near}"


def _others(results: Results) -> list[str]:
    """The contenders with their own column, except p2pcore and go-libp2p."""
    return [name for name in results.contenders() if name not in (OURS, "go", *PARTIAL)]


def limit_text(results: Results, row: Row) -> str:
    """The limit, and p2pcore's share of it."""
    share = results.share(row, OURS)
    return f"{value_text(results, row, LIMIT)} ({share:.0%})" if share else value_text(results, row, LIMIT)


def _cells(results: Results, row: Row) -> list[str]:
    baseline = row.baseline or ""
    theirs = value_text(results, row, baseline) if baseline else ""
    if baseline in PARTIAL and theirs:
        theirs += f" (`{baseline}`)"
    ratio = ratio_text(results, row)
    target = targets_text(row)
    others = [value_text(results, row, name) for name in _others(results)]
    if LIMIT in results.contenders():
        others.append(limit_text(results, row))
    return [
        row.title,
        value_text(results, row, OURS),
        theirs,
        ratio,
        target,
        reached_text(results, row),
        *others,
    ]


def _headings(results: Results) -> list[str]:
    first = ["row", title(OURS), title("go"), "ratio (range)", "target", "reached"]
    last = ["the limit (our share)"] if LIMIT in results.contenders() else []
    return first + [title(name) for name in _others(results)] + last


def _markdown_table(headings: list[str], lines: list[list[str]]) -> str:
    rule = "|".join(["---", *["---:"] * (len(headings) - 1)])
    return "\n".join(
        [f"| {' | '.join(headings)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def table(results: Results) -> Table:
    """The rows that were measured, for a terminal."""
    made = Table(box=None, pad_edge=False)
    for place, heading in enumerate(_headings(results)):
        made.add_column(heading, justify="left" if place == 0 else "right")
    for row in ROWS:
        if row.work in results.samples or row.work in results.absent:
            made.add_row(*(cell.replace("*", "") for cell in _cells(results, row)))
    return made


def _cpu_table(results: Results, group: Group) -> str:
    """CPU of listener and dialer for each work of a group that has it; "" if none has."""
    lines, seen = [], set()
    names = [name for name in results.contenders() if name not in ("multiaddr", "websockets")]
    for row in group.rows:
        if row.work in seen or not _has_cpu(results, row.work):
            continue
        seen.add(row.work)
        per = "MB" if row.unit == "MB/s" else "one"
        lines.append(
            [f"{_work_title(row)}, µs for each {per}", *(_cpu_pair(results, row, name) for name in names)]
        )
    return _markdown_table(["CPU, dialer / listener", *map(title, names)], lines) if lines else ""


def _work_title(row: Row) -> str:
    return row.title.split(", CPU")[0].split(", p50")[0]


def _has_cpu(results: Results, work: str) -> bool:
    samples = results.samples.get(work, {}).values()
    return any("dialer_us" in figures for each in samples for figures in each)


def _cpu_pair(results: Results, row: Row, name: str) -> str:
    pair = []
    for figure in ("dialer_us", "listener_us"):
        value = results.median(Row("", "", "", row.work, figure, False), name)
        pair.append("–" if value is None else number(value))
    return " / ".join(pair)


def _missed(results: Results) -> str:
    """The rows that miss their target, each with the known reason."""
    notes = load_notes()
    lines = []
    for row in ROWS:
        for target in row.targets:
            if not results.meets(row, target):
                state = _state(results, row, target) or reached_text(results, row)
                note = f" {notes[row.key]}" if row.key in notes else ""
                lines.append(f"- **{row.title}**: {state}, target {target_text(target, row.unit)}.{note}")
    return "\n".join(lines) or "None."


def _state(results: Results, row: Row, target: Target) -> str:
    """How far a row is from a target; "" if nobody knows."""
    if target.of is None:
        return ratio_text(results, row) if target.of_ratio else value_text(results, row, OURS)
    ratio = results.ratio(row, of=target.of)
    return "" if ratio is None else share_text(ratio)


def _beside_the_limit(results: Results) -> str:
    """What the stacks reach of the limit; "" where it was not measured."""
    names = [OURS, "go", *_others(results)]
    lines = [
        [row.title, value_text(results, row, LIMIT), *(_percent(results.share(row, name)) for name in names)]
        for row in ROWS
        if results.share(row, OURS)
    ]
    if not lines:
        return ""
    made = _markdown_table(["row", "the limit", *map(title, names)], lines)
    return f"## Beside the limit\n\n{LIMIT_TEXT}\n\n{made}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _quiet(results: Results) -> str:
    """How quiet the machine was, and how far the samples lie apart."""
    lines = []
    for row in ROWS:
        if results.median(row, OURS) is None:
            continue
        others = results.others(row.work)
        spreads = [_percent(results.spread(row, name)) for name in (OURS, row.baseline or "")]
        said = "not known" if others is None else f"{others:.2f} cores"
        lines.append([row.title, "yes" if results.is_quiet(row.work) else "**no**", said, *spreads])
    if not lines:
        return ""
    made = _markdown_table(["row", "quiet", "other work", "spread, p2pcore", "spread, beside it"], lines)
    return f"## How quiet the machine was\n\n{QUIET_TEXT}\n\n{made}"


def load_notes() -> dict[str, str]:
    """What the profile says about a row, by the key of the row."""
    with NOTES.open("rb") as file:
        found: dict[str, str] = tomllib.load(file)
    return {key: " ".join(text.split()) for key, text in found.items()}


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def _section(results: Results, group: Group) -> str:
    lines = [_cells(results, row) for row in group.rows]
    parts = [f"## {group.title}", group.text, f"![{group.title}](benchmarks/{group.key}.svg)"]
    parts += [_markdown_table(_headings(results), lines), _cpu_table(results, group)]
    if group.key == "local" and results.imports:
        slowest = "The modules of a node that take longest to import, without their own imports:"
        parts += [slowest, _list(results.imports)]
    return "\n\n".join(part for part in parts if part)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _troubles(results: Results) -> str:
    lines = [f"{each['work']}, {title(each['contender'])}: {each['what']}" for each in results.failures]
    return f"## Measurements that failed\n\n{_list(lines)}" if lines else ""


def _lead(results: Results) -> str:
    """The first thing the page says: how much of the limit p2pcore reaches; "" where it was not measured."""
    shares = [share for row in ROWS if (share := results.share(row, OURS))]
    if not shares:
        return ""
    least, most, middle = min(shares), max(shares), statistics.median(shares)
    return (
        f"p2pcore reaches {least:.0%} to {most:.0%} of what the machine can do at all, {middle:.0%} in the "
        f"median of {len(shares)} rows: see [beside the limit](#beside-the-limit)."
    )


def _summary(results: Results) -> str:
    """When, where and what: one paragraph."""
    met = [is_reached(results, row) for row in ROWS if row.targets]
    quiet = [results.is_quiet(row.work) for row in ROWS if results.median(row, OURS) is not None]
    about = f"{results.when}, commit {results.commit}, {results.rounds} round{'s' * (results.rounds != 1)}"
    on = f"on {results.machine.get('processor', 'an unknown processor')}"
    was_quiet = f"The machine was quiet for {quiet.count(True)} of {len(quiet)} rows."
    return f"{about}, {on}: {met.count(True)} of {len(met)} rows reach all their targets. {was_quiet}"


def document(results: Results) -> str:
    """The whole page."""
    parts = [
        "# Benchmarks",
        _lead(results),
        _summary(results),
        HOW,
        _beside_the_limit(results),
        "## All rows",
    ]
    parts += [_markdown_table(_headings(results), [_cells(results, row) for row in ROWS])]
    parts += ["## Missed targets", _missed(results)]
    parts += [_section(results, group) for group in GROUPS]
    parts += [_quiet(results)]
    parts += ["## Machine and versions", _facts(results.machine | results.versions), _troubles(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: Results, docs: Path) -> None:
    """Writes benchmarks.md into `docs`; its plots are those of plots.py."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text(document(results))
