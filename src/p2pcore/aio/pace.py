"""How much each of many keys may use in a time: one token bucket for each key, without a timer.

Comes in: keys, costs, the time. Goes out: whether a key has room. A bucket is one number: the time when it
is full again. A bounded number of keys is remembered; the key that was used longest ago is forgotten first.
Never reads a clock.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from p2pcore import limits

K = TypeVar("K")

_ROUNDING = 1e-9
"""A bucket that was filled and emptied in parts must still take its whole size."""


class Pace(Generic[K]):
    """A bucket of `size` for each key. An empty bucket is full again after `period_s`.

    Args:
        size: what a key may use at once, in any unit.
        period_s: seconds until an empty bucket is full.
        max_keys: keys that are remembered.
    """

    __slots__ = ("_full_at", "_max_keys", "_period_s", "_size")

    def __init__(self, size: float, period_s: float, max_keys: int = limits.MAX_PACED_KEYS) -> None:
        self._size = size
        self._period_s = period_s
        self._max_keys = max_keys
        self._full_at: dict[K, float] = {}  # used longest ago first

    def __len__(self) -> int:
        return len(self._full_at)

    def has_room(self, key: K, now: float, cost: float = 1.0) -> bool:
        """Whether `key` may use `cost` now."""
        used_s = max(0.0, self._full_at.get(key, now) - now)
        return used_s + self._time_of(cost) <= self._period_s * (1 + _ROUNDING)

    def spend(self, key: K, now: float, cost: float = 1.0) -> None:
        """Takes `cost` from the bucket of `key`, even if it has less."""
        full_at = max(now, self._full_at.pop(key, now)) + self._time_of(cost)
        if len(self._full_at) >= self._max_keys:
            del self._full_at[next(iter(self._full_at))]
        self._full_at[key] = full_at

    def give_back(self, key: K, cost: float) -> None:
        """Puts back what `spend` took and `key` did not use."""
        if key in self._full_at:
            self._full_at[key] -= self._time_of(cost)

    def _time_of(self, cost: float) -> float:
        return cost / self._size * self._period_s
