"""The buckets of one hub: tables of small values that all workers of a supervisor share, in memory.

Comes in: entries to write, keys to look for, the time. Goes out: what changed. An entry goes when it has not
been put for the bucket's time. It knows no sockets; the hub tells the watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from p2pcore import limits
from p2pcore.errors import LimitExceeded
from p2pcore.workers.frames import Entries

Changed = Callable[[dict[str, bytes | None]], None]


@dataclass(slots=True)
class _Entry:
    value: bytes
    expires_at: float  # of the loop's time; without meaning if the bucket keeps entries for ever


class Bucket:
    """One bucket. Call it inside the event loop.

    Args:
        expiry_s: seconds after which an entry goes that was not put again; None: never.
        changed: called with what has changed, at each change; None as value: the entry is gone.
    """

    def __init__(self, expiry_s: float | None, changed: Changed) -> None:
        self.expiry_s = expiry_s
        self._changed = changed
        self._entries: dict[str, _Entry] = {}  # in the order of their last put, so the first one expires first
        self._below: dict[str, dict[str, None]] = {}  # for each first word: the longer keys that begin with it
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entries: Entries) -> None:
        """Writes entries. Raises LimitExceeded: the bucket is full; those before it are written."""
        changed: dict[str, bytes | None] = {}
        now = asyncio.get_running_loop().time()
        try:
            for key, value in entries:
                if self._put_one(key, value, now):
                    changed[key] = value
        finally:
            if changed:
                self._changed(changed)
            self._expire_later()

    def _put_one(self, key: str, value: bytes | None, now: float) -> bool:
        """Returns: whether anything changed."""
        old = self._entries.pop(key, None)  # a put moves it to the end
        if value is None:
            if old is not None:
                self._left(key)
            return old is not None
        if old is None:
            if len(self._entries) >= limits.HUB_MAX_ENTRIES:
                raise LimitExceeded("HUB_MAX_ENTRIES", len(self._entries) + 1, limits.HUB_MAX_ENTRIES)
            first, dot, _ = key.partition(".")
            if dot:
                self._below.setdefault(first, {})[key] = None
        self._entries[key] = _Entry(value, now + (self.expiry_s or 0.0))
        return old is None or old.value != value

    def _left(self, key: str) -> None:
        first, dot, _ = key.partition(".")
        if dot:
            below = self._below[first]
            del below[key]
            if not below:
                del self._below[first]

    def get(self, key: str) -> Iterator[tuple[str, bytes | None]]:
        """The entry of `key`, and those whose keys begin with `key` and a dot."""
        if key in self._entries:
            yield key, self._entries[key].value
        start = f"{key}."
        for each in self._below.get(key.partition(".")[0], ()):
            if each.startswith(start):
                yield each, self._entries[each].value

    def value(self, key: str) -> bytes | None:
        """The value of one entry; None: there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def close(self) -> None:
        """Forgets everything. Idempotent."""
        self._entries.clear()
        self._below.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire_later(self) -> None:
        """Sets the timer, if there is none. One that is too early finds nothing, and is set again."""
        if self._timer is None and self.expiry_s is not None and self._entries:
            first = next(iter(self._entries.values()))
            self._timer = asyncio.get_running_loop().call_at(first.expires_at, self._expire)

    def _expire(self) -> None:
        """Drops what has expired. Looks at nothing else, because the oldest entries come first."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        gone: dict[str, bytes | None] = {}
        for key, entry in self._entries.items():
            if entry.expires_at > now or len(gone) == limits.HUB_BATCH_ENTRIES:
                break
            gone[key] = None
        for key in gone:
            del self._entries[key]
            self._left(key)
        if gone:
            self._changed(gone)
        self._expire_later()
