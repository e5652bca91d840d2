"""Makes docs/benchmarks.md from results.

Comes in: `Results`, notes.toml. Goes out: Markdown, and a table for the terminal. The same results
give the same bytes. A row without a figure says why; a missed target says so.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from rich.table import Table

from results import Results, title
from rows import GROUPS, OURS, ROWS, Group, Row, Target

NOTES = Path(__file__).with_name("notes.toml")
NOT_THERE = "not there yet"

HOW = """\
`make bench` writes this page from `bench/results/sidebyside.json`. [bench/README.md](../bench/README.md)
tells how the figures are measured.

Each row compares two stacks in one run on one machine. Absolute figures differ from machine to machine;
the ratio differs far less. Both sides of a connection run the same stack, with Noise, yamux and default
options, unless the row says otherwise. In each round the stacks take turns. Listener and dialer each have
their own core. The amount of work is fixed. A figure is the median over the rounds. The range is the
range of the ratios of single rounds. CPU is user and system time, as each side reports it."""


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if abs(value) < 0.0995:
        return f"{value:.1g}" if abs(value) >= 0.001 else "0"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def with_unit(value: float, unit: str) -> str:
    """A value as it is printed in a cell."""
    return f"{number(value)}{'' if unit.startswith('/') else ' '}{unit}".strip()


def target_text(target: Target | None, unit: str) -> str:
    """The target of a row, short enough for a cell."""
    if target is None:
        return ""
    sign = "≥" if target.at_least else "≤"
    if not target.of_ratio:
        return f"{sign} {target.bound:g}{'' if unit.startswith('/') else ' '}{unit}".strip()
    if target.bound < 0.1:
        return f"{sign} 1/{1 / target.bound:.0f}"
    return f"{sign} {target.bound:g}×"


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
    """Whether we reach the target; None if there is none, or nothing to compare."""
    value, ratio = results.median(row, OURS), results.ratio(row)
    if row.target is None or value is None or (row.target.of_ratio and ratio is None):
        return None
    return row.target.is_met(value, ratio)


def reached_text(results: Results, row: Row) -> str:
    """The last cell of a row."""
    if row.target is None:
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
    return [name for name in results.contenders() if name not in (OURS, "go", "multiaddr")]


def _cells(results: Results, row: Row) -> list[str]:
    baseline = row.baseline or ""
    theirs = value_text(results, row, baseline) if baseline else ""
    if baseline == "multiaddr" and theirs:
        theirs += " (`multiaddr`)"
    ratio = ratio_text(results, row)
    target = target_text(row.target, row.unit)
    others = [value_text(results, row, name) for name in _others(results)]
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
    return first + [title(name) for name in _others(results)]


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
    names = [name for name in results.contenders() if name != "multiaddr"]
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
    return any("listener_us" in figures for each in samples for figures in each)


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
        if row.target is None or is_reached(results, row):
            continue
        state = ratio_text(results, row) if row.target.of_ratio else value_text(results, row, OURS)
        note = f" {notes[row.key]}" if row.key in notes else ""
        found = state or reached_text(results, row)
        lines.append(f"- **{row.title}**: {found}, target {target_text(row.target, row.unit)}.{note}")
    return "\n".join(lines) or "None."


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


def document(results: Results) -> str:
    """The whole page."""
    met = [is_reached(results, row) for row in ROWS if row.target]
    about = f"{results.when}, commit {results.commit}, {results.rounds} round{'s' * (results.rounds != 1)}"
    summary = f"{about}: {met.count(True)} of {len(met)} targets reached."
    parts = ["# Benchmarks", HOW, summary, "## All rows"]
    parts += [_markdown_table(_headings(results), [_cells(results, row) for row in ROWS])]
    parts += ["## Missed targets", _missed(results)]
    parts += [_section(results, group) for group in GROUPS]
    parts += ["## Machine and versions", _facts(results.machine | results.versions), _troubles(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: Results, docs: Path) -> None:
    """Writes benchmarks.md into `docs`; its plots are those of plots.py."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text(document(results))
