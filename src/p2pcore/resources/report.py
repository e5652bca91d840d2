"""A report about limits: for each, how much is used, how much was, how much may be, and what was refused.

Comes in: numbers. Goes out: LimitUse values, and a table of them for people.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore._fast.loop.ledger import Ledger, Share
    from p2pcore.resources.options import Limits

_HEAD = ("limit", "used", "peak", "maximum", "refused")
_BYTES = frozenset({"memory"})


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One line of Host.limits_report.

    Attributes:
        limit: a field of Limits, or another limit that has refused something.
        used: how much is used now; of a limit for each peer or subnet: by the one that uses most. None: it
            is not counted.
        peak: the most that was used so far. None: it is not counted.
        maximum: the limit; None: there is none, or there are several. Of a rate: how many at once.
        refused: how often it has refused something.
    """

    limit: str
    used: int | None
    peak: int | None
    maximum: int | None
    refused: int = 0


def ledger_uses(ledger: Ledger, limits: Limits, shares: Collection[Share]) -> list[LimitUse]:
    """How much of each limit on streams and memory is used, without what was refused.

    Args:
        shares: of all peers.
    """
    streams = max((share.streams for share in shares), default=0)
    handlers = max((share.handlers for share in shares), default=0)
    return [
        LimitUse("max_streams", ledger.num_streams, ledger.peaks["num_streams"], limits.max_streams),
        LimitUse("max_streams_per_conn", None, None, limits.max_streams_per_conn),
        LimitUse("max_streams_per_peer", streams, None, limits.max_streams_per_peer),
        LimitUse("max_handlers_per_peer", handlers, None, limits.max_handlers_per_peer),
        LimitUse("memory", ledger.used, ledger.peaks["used"], limits.memory),
    ]


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
