"""What limits have refused: counts, and a warning in words.

Comes in: each refusal. Goes out: numbers by limit; one WARNING a limit and REFUSAL_WARNING_S. A refusal costs
one count: the text is only made for a warning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from p2pcore.errors import LimitExceeded
from p2pcore.limits import REFUSAL_WARNING_S

logger = logging.getLogger("p2pcore.limits")

_WORDS = {
    "max_conns": "connections",
    "max_conns_per_peer": "connections with",
    "max_conns_per_subnet": "connections from",
    "max_conns_per_site": "connections from",
    "subnets": "connections from",
    "conn_rate_per_subnet": "new connections at once from",
    "max_streams": "streams and handlers",
    "max_streams_per_conn": "streams on a connection with",
    "max_streams_per_peer": "streams with",
    "max_handlers_per_peer": "handlers for",
    "memory": "bytes of memory",
}
"""What each field of Limits counts. If who it counts for is named, the text is continued with that."""


def exceeded(limit: str, used: int, maximum: int, who: object | None = None) -> LimitExceeded:
    """The error of a field of Limits. Its text names `who`, if that is not None."""
    setting, name = f"Limits.{limit}", None if who is None else str(who)
    return LimitExceeded(limit, used, maximum, who=name, what=_WORDS[limit], setting=setting)


class Refusals:
    """The refusals of one node.

    Args:
        clock: seconds, from any start.

    Attributes:
        counts: refusals since the start, by limit.
    """

    __slots__ = ("_clock", "_warned", "counts")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._warned: dict[str, tuple[float, int]] = {}  # when, and the count then
        self.counts: dict[str, int] = {}

    def add(self, limit: str, why: Callable[[], object], more: int = 1) -> None:
        """`limit` has refused `more` times. `why` gives the text of the last refusal."""
        count = self.counts[limit] = self.counts.get(limit, 0) + more
        now = self._clock()
        warned_at, warned_count = self._warned.get(limit, (float("-inf"), 0))
        if now - warned_at < REFUSAL_WARNING_S:
            return
        self._warned[limit] = (now, count)
        since = " since the last warning" if warned_count else ""
        num = count - warned_count
        logger.warning("refused: %s%s", why(), f" ({num} times{since})" if num > 1 else "")
