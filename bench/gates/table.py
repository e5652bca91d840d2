"""The verdicts as a table, and advice on what to do.

Comes in: verdicts, the environments. Goes out: lines of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gates.verdict import TOLERANCE, Outcome, Verdict


def lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """One line a row: name, figure, baseline, ratio, unit, verdict."""
    width = max((len(each.name) for each in verdicts), default=0)
    yield f"{'row':{width}} {'now':>12} {'baseline':>12} {'ratio':>7}  unit"
    for each in verdicts:
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        mark = "" if each.outcome is Outcome.OK else f"  {each.outcome.value}"
        yield (
            f"{each.name:{width}} {_number(each.value):>12} {_number(each.baseline):>12} {ratio:>7}"
            f"  {each.unit}{mark}"
        )


def conclusions(
    verdicts: Sequence[Verdict], here: Mapping[str, str], there: Mapping[str, str]
) -> Iterator[str]:
    """What follows from the table: failures by name, hints, what was skipped and why."""
    for reason in dict.fromkeys(each.reason for each in verdicts if each.reason):
        count = sum(each.reason == reason for each in verdicts)
        yield f"{count} rows skipped: {reason}"
    better = [each.name for each in verdicts if each.outcome is Outcome.BETTER]
    if better:
        yield f"{len(better)} rows are more than {TOLERANCE:.0%} better: keep that with `make gates-baseline`"
    if any(each.outcome is Outcome.NEW for each in verdicts):
        yield "there are new rows: `make gates-baseline` takes them in"
    failures = [each for each in verdicts if each.is_failure]
    for each in failures:
        yield "FAILED " + _failure(each)
    if failures:
        yield from _differences(here, there)


def _failure(verdict: Verdict) -> str:
    if verdict.outcome is Outcome.MISSING:
        return f"{verdict.name}: in the baseline, and not measured any more"
    ratio = "" if verdict.ratio is None else f", {verdict.ratio:.3f} times as much"
    figures = f"{_number(verdict.value)} {verdict.unit}, baseline {_number(verdict.baseline)}{ratio}"
    return f"{verdict.name}: {figures} ({TOLERANCE:.0%} more is allowed)"


def _differences(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[str]:
    """Names versions that differ from the baseline's, because they may be the cause of a failure."""
    for key in sorted(set(here) | set(there)):
        if here.get(key) != there.get(key):
            yield f"  note: {key} is {here.get(key)}, of the baseline {there.get(key)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
