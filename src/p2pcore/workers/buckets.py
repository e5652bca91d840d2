"""A bucket of a hub: a table of small values that all workers of a supervisor share, in memory.

Comes in: entries to write, keys to look for. Goes out: entries, and what has changed, also by expiry. It
knows no sockets; the hub tells the watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pcore import limits
from p2pcore.aio.table import ExpiryTimer, Table
from p2pcore.errors import LimitExceeded
from p2pcore.workers.frames import Entries

Changed = Callable[[dict[str, "bytes | None"]], None]


class Bucket:
    """One bucket. Call it inside the event loop.

    Args:
        changed: called with what has changed, at each change; None as value: the entry is gone.
    """

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._table = Table(asyncio.get_running_loop().time)
        self._timer = ExpiryTimer(self._table, self._expire)

    def set_expiry(self, expiry_s: float | None) -> None:
        """Seconds after which an entry goes that was not put again; None: never."""
        self._table.expiry_s = expiry_s
        self._expire()

    def put(self, entries: Entries) -> None:
        """Writes entries. Raises LimitExceeded: the bucket is full; those before it are written."""
        changed: dict[str, bytes | None] = {}
        try:
            for key, value in entries:
                is_new = self._table.put(key, value)
                if len(self._table) > limits.HUB_MAX_ENTRIES:
                    self._table.put(key, None)
                    raise LimitExceeded("HUB_MAX_ENTRIES", len(self._table) + 1, limits.HUB_MAX_ENTRIES)
                if is_new:
                    changed[key] = value
        finally:
            if changed:
                self._changed(changed)
            self._timer.set()

    def get(self, key: str) -> dict[str, bytes]:
        """The entry of `key`, and those whose keys begin with `key` and a dot."""
        return self._table.get(key)

    def close(self) -> None:
        """Forgets everything. Idempotent."""
        self._table.clear()
        self._timer.stop()

    def _expire(self) -> None:
        gone = self._table.expire()
        if gone:
            self._changed(dict.fromkeys(gone))
        self._timer.set()
