"""Entries that are found by the first words of their keys, for a bus that keeps them itself.

Comes in: keys, values and the time. Goes out: values, and which keys are gone. A table has no timer: who
keeps one asks it for what has expired, when an ExpiryTimer says so. Of very many entries that expire at the
same moment, each turn of the loop deletes some; no look-up finds the others meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from p2pcore.limits import TABLE_MAX_EXPIRED


class Table:
    """Entries by key. A look-up takes as long as its key has words, and then as there are entries.

    Attributes:
        expiry_s: an entry goes so long after it was last put; None: never. May be changed.
    """

    __slots__ = ("_now", "_put_at", "_tree", "expiry_s")

    def __init__(self, now: Callable[[], float], expiry_s: float | None = None) -> None:
        self._now = now
        self.expiry_s = expiry_s
        self._tree: dict[str, Any] = {}  # by word; what has no further word is under ""
        self._put_at: dict[str, float] = {}  # in the order of time

    def __len__(self) -> int:
        return len(self._put_at)

    def put(self, key: str, value: bytes | None) -> bool:
        """Writes an entry; None deletes it. Returns: whether that changed it."""
        self._put_at.pop(key, None)
        if value is None:
            return self._delete(key)
        self._put_at[key] = self._now()
        node = self._tree
        for word in key.split("."):
            node = node.setdefault(word, {})
        changed: bool = node.get("") != value
        node[""] = value
        return changed

    def get(self, key: str) -> dict[str, bytes]:
        """The entry of `key`, and all whose keys begin with `key` and a dot, if their time is not over."""
        node = self._tree
        for word in key.split("."):
            if (node := node.get(word)) is None:  # type: ignore[assignment]
                return {}
        found: dict[str, bytes] = {}
        put_after = float("-inf") if self.expiry_s is None else self._now() - self.expiry_s
        nodes = [(key, node)]
        while nodes:
            name, node = nodes.pop()
            for word, inner in node.items():
                if word:
                    nodes.append((f"{name}.{word}", inner))
                elif self._put_at[name] > put_after:
                    found[name] = inner
        return found

    def next_expiry(self) -> float | None:
        """When the next entry expires, on the clock of the table. None: none does."""
        if self.expiry_s is None or not self._put_at:
            return None
        return next(iter(self._put_at.values())) + self.expiry_s

    def expire(self) -> list[str]:
        """Deletes the entries whose time has been over for longest, TABLE_MAX_EXPIRED at most.

        Returns: their keys. While next_expiry() is not later than now, there are more.
        """
        gone: list[str] = []
        now = self._now()
        while (at := self.next_expiry()) is not None and at <= now and len(gone) < TABLE_MAX_EXPIRED:
            key = next(iter(self._put_at))
            self.put(key, None)
            gone.append(key)
        return gone

    def clear(self) -> list[str]:
        """Deletes all entries. Returns: their keys."""
        gone = list(self._put_at)
        self._put_at.clear()
        self._tree.clear()
        return gone

    def _delete(self, key: str) -> bool:
        path = [self._tree]
        words = key.split(".")
        for word in words:
            if (node := path[-1].get(word)) is None:
                return False
            path.append(node)
        if path[-1].pop("", None) is None:
            return False
        while words and not path.pop():
            del path[-1][words.pop()]
        return True


class ExpiryTimer:
    """Calls `due` in the event loop when the next entry of `table` expires. The table has its clock.

    `due` calls `Table.expire` and then `set`, which calls it again in the next turn if there are more.
    """

    __slots__ = ("_due", "_table", "_timer")

    def __init__(self, table: Table, due: Callable[[], None]) -> None:
        self._table = table
        self._due = due
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """To be called after each change. A timer that is earlier stays: when it is due, it is set again."""
        at = self._table.next_expiry()
        if at is not None and (self._timer is None or self._timer.when() > at):
            self.stop()
            self._timer = asyncio.get_running_loop().call_at(at, self._fire)

    def stop(self) -> None:
        """Nothing is due until the next `set`. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._due()


def is_under(key: str, prefix: str) -> bool:
    """Whether `key` is `prefix`, or begins with it and a dot."""
    return key.startswith(prefix) and (len(key) == len(prefix) or key[len(prefix)] == ".")
