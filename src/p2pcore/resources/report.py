"""A report about limits: for each, how much is used, how much was, how much may be, and what was refused.

Comes in: numbers. Goes out: LimitUse values, and a table of them for people.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = ("limit", "used", "peak", "maximum", "refused")
_BYTES = frozenset({"memory"})


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One line of Host.limits_report.

    Attributes:
        limit: a field of Limits.
        used: how much is used now; of a limit for each peer or subnet: by the one that uses most.
        peak: the most that was used so far. None: not counted.
        maximum: the limit; None: there is none.
        refused: how often it has refused something.
    """

    limit: str
    used: int
    peak: int | None
    maximum: int | None
    refused: int


def table(uses: Iterable[LimitUse]) -> list[str]:
    """The lines of a table with a head. Memory is in MiB."""
    rows = [_HEAD, *map(_row, uses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _row(use: LimitUse) -> tuple[str, ...]:
    numbers = (use.used, use.peak, use.maximum)
    return (use.limit, *(_shown(use.limit, number) for number in numbers), str(use.refused))


def _shown(limit: str, number: int | None) -> str:
    if number is None:
        return "-"
    return f"{number / 2**20:.1f} MiB" if limit in _BYTES else str(number)


def _line(row: Iterable[str], widths: list[int]) -> str:
    name, *numbers = row
    right = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
    return "  ".join((name.ljust(widths[0]), *right))
