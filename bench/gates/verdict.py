"""Figures against a baseline: what is worse, what is better, what cannot be compared.

Comes in: rows of figures, a baseline, the environment of each. Goes out: one Verdict a row. Never measures.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TOLERANCE = 0.05
"""How far over its baseline a figure may be; the issue that asked for the gates chose it."""

COMPARABLE = ("python", "arch", "system")
"""Where one of these differs, figures say nothing about the change: rows are shown and skipped."""
INTERPRETER = ("optimization",)
"""Rows of instructions need the same of these too: how the interpreter was built."""
PRIMITIVES = ("simd",)
"""Rows of libsodium and OpenSSL need the same of these: they choose their code by processor."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row as measured.

    Attributes:
        name: unique; begins with its group. value: less is better. unit: of it.
        slack: what may come on top of the tolerance, in the unit; for rows whose baseline is 0 or nearly so.
        needs: keys of the environment, besides COMPARABLE, that must be as in the baseline.
    """

    name: str
    value: float
    unit: str
    slack: float = 0.0
    needs: tuple[str, ...] = ()


class Outcome(enum.Enum):
    """What became of a row."""

    OK = "ok"
    WORSE = "WORSE"
    BETTER = "better"
    NEW = "new"
    SKIPPED = "skipped"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A row compared; `baseline` or `value` is None where there is none, `reason` says why it was skipped."""

    name: str
    outcome: Outcome
    value: float | None
    baseline: float | None
    unit: str
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure over its baseline; None where there is no such number."""
        if self.value is None or not self.baseline:
            return None
        return self.value / self.baseline

    @property
    def is_failure(self) -> bool:
        """Whether the gates fail for it: it is worse, or it was not measured any more."""
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
    """The first of `keys` that differs, in words; "" where none does."""
    for key in keys:
        if here.get(key) != there.get(key):
            return f"{key} is {here.get(key)}, of the baseline {there.get(key)}"
    return ""


def _judge(figure: Figure, baseline: float | None, differs: str) -> Verdict:
    outcome, reason = Outcome.OK, ""
    if baseline is None:
        outcome = Outcome.NEW
    elif differs:
        outcome, reason = Outcome.SKIPPED, differs
    elif figure.value > baseline * (1 + TOLERANCE) + figure.slack:
        outcome = Outcome.WORSE
    elif figure.value < baseline * (1 - TOLERANCE) - figure.slack:
        outcome = Outcome.BETTER
    return Verdict(figure.name, outcome, figure.value, baseline, figure.unit, reason)
