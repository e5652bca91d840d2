"""Why the listeners of a swarm take no connections, how often that was so, and for how long.

Comes in: reasons as they begin and end. Goes out: whether there is one now, and counters. It pauses
nothing itself.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable


class Pauses:
    """The reasons of one swarm.

    Args:
        now: seconds of any clock that never goes back.
    """

    __slots__ = ("_counts", "_now", "_seconds", "_since")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def is_paused(self) -> bool:
        """Whether there is a reason now."""
        return bool(self._since)

    def pause(self, why: str) -> None:
        """`why` is a reason from now on. Idempotent."""
        if why not in self._since:
            self._since[why] = self._now()
            self._counts[why] += 1

    def resume(self, why: str) -> None:
        """`why` is no reason any more. Idempotent."""
        since = self._since.pop(why, None)
        if since is not None:
            self._seconds[why] += self._now() - since

    def counters(self) -> dict[str, int]:
        """For each reason the number of pauses, and their milliseconds, up to now if one goes on."""
        counts: dict[str, int] = {}
        for why, count in self._counts.items():
            seconds = self._seconds[why]
            if why in self._since:
                seconds += self._now() - self._since[why]
            counts[f"accepting paused: {why}"] = count
            counts[f"milliseconds paused: {why}"] = int(1000 * seconds)
        return counts
