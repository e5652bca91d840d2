"""Compares figures with a baseline: worse, better, or not comparable.

Comes in: rows of figures, a baseline, the environment of each. Goes out: one Verdict a row. Never measures.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TOLERANCE = 0.05
"""How far a figure may be over its baseline. The issue that asked for the gates chose it."""

COMPARABLE = ("python", "arch", "system")
"""If one of these differs, figures say nothing about the change: rows are shown and skipped."""
INTERPRETER = ("optimization",)
"""For rows of instructions, these must be the same too: how the interpreter was built."""
PRIMITIVES = ("simd",)
"""For rows of libsodium and OpenSSL, these must be the same: they choose their code by processor."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row as measured.

    Attributes:
        name: unique; begins with its group. value: less is better. unit: of it.
        slack: added to the tolerance, in the unit; for rows with a baseline of 0 or almost 0.
        needs: keys of the environment, besides COMPARABLE, that must equal the baseline's.
        most: above this it is worse, whatever the baseline says; None: only the baseline counts.
    """

    name: str
    value: float
    unit: str
    slack: float = 0.0
    needs: tuple[str, ...] = ()
    most: float | None = None


class Outcome(enum.Enum):
    """The result of a row."""

    OK = "ok"
    WORSE = "WORSE"
    BETTER = "better"
    NEW = "new"
    SKIPPED = "skipped"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A compared row. `baseline` and `value` may be None. `reason` says why the row was skipped."""

    name: str
    outcome: Outcome
    value: float | None
    baseline: float | None
    unit: str
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure divided by its baseline; None if there is no such number."""
        if self.value is None or not self.baseline:
            return None
        return self.value / self.baseline

    @property
    def is_failure(self) -> bool:
        """Whether the gates fail for this row: it is worse, or no longer measured."""
        return self.outcome in (Outcome.WORSE, Outcome.MISSING)


def compare(
    figures: Iterable[Figure],
    baseline: Mapping[str, float],
    environment: Mapping[str, str],
    baseline_environment: Mapping[str, str],
) -> list[Verdict]:
    """One verdict a row, in the order of `figures`; rows only the baseline has come last, as MISSING.

    Args:
        figures: what was measured now; baseline: name to value.
        environment, baseline_environment: see COMPARABLE and Figure.needs; other keys do not matter here.
    """
    measured = list(figures)
    verdicts = []
    for each in measured:
        differs = _difference(environment, baseline_environment, COMPARABLE + each.needs)
        verdicts.append(_judge(each, baseline.get(each.name), differs))
    names = {each.name for each in measured}
    missing = [name for name in baseline if name not in names]
    return verdicts + [Verdict(name, Outcome.MISSING, None, baseline[name], "") for name in missing]


def _difference(here: Mapping[str, str], there: Mapping[str, str], keys: Iterable[str]) -> str:
    """The first of `keys` that differs, in words; "" if none does."""
    for key in keys:
        if here.get(key) != there.get(key):
            return f"{key} is {here.get(key)}, of the baseline {there.get(key)}"
    return ""


def _judge(figure: Figure, baseline: float | None, differs: str) -> Verdict:
    outcome, reason = Outcome.OK, ""
    if figure.most is not None:
        outcome = Outcome.WORSE if figure.value > figure.most else Outcome.OK
        baseline = figure.most
    elif baseline is None:
        outcome = Outcome.NEW
    elif differs:
        outcome, reason = Outcome.SKIPPED, differs
    elif figure.value > baseline * (1 + TOLERANCE) + figure.slack:
        outcome = Outcome.WORSE
    elif figure.value < baseline * (1 - TOLERANCE) - figure.slack:
        outcome = Outcome.BETTER
    return Verdict(figure.name, outcome, figure.value, baseline, figure.unit, reason)
