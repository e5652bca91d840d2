"""Deletes what processes that were killed have left in the bucket of the peers.

Comes in: news that a process has ended. Goes out: deletions, half a minute later, by the process with the
smallest id. It looks at the bucket in small parts. Never deletes an entry of a process that may come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import TYPE_CHECKING, Final

from p2pcore.errors import BusDown
from p2pcore.fleet.presence import SHARD_CHARS
from p2pcore.limits import FLEET_SWEEP_AFTER_S, FLEET_SWEEP_SHARDS, FLEET_SWEEP_STEP_S

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bucket
    from p2pcore.fleet.directory import Directory

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Sweep:
    """See above.

    Args: clock: the event loop's time.

    Attributes: num_swept: entries that this process has deleted.
    """

    __slots__ = ("_clock", "_directory", "_due_at", "_shards", "num_swept")

    def __init__(self, directory: Directory, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._due_at: float | None = None
        self._shards: Iterator[str] | None = None
        self.num_swept = 0

    def ask(self) -> None:
        """Sweeps in FLEET_SWEEP_AFTER_S, and a moment."""
        self._due_at = self._clock() + FLEET_SWEEP_AFTER_S + 1

    async def step(self, peers: Bucket, leases: Bucket) -> None:
        """Each FLEET_REFRESH_S: sweeps a part, if it is time. Raises BusDown: it begins again later."""
        if self._shards is None and not self._is_due():
            return
        if self._shards is None:
            self._shards = map("".join, product(_BASE58, repeat=SHARD_CHARS))
        until = self._clock() + FLEET_SWEEP_STEP_S
        try:
            for shard in islice(self._shards, FLEET_SWEEP_SHARDS):
                await self._sweep(shard, peers, leases)
                is_done = shard == _BASE58[-1] * SHARD_CHARS
                if is_done:
                    self._shards = None
                if self._clock() >= until:  # presence waits for this
                    break
        except BusDown:
            self._shards = None
            self.ask()
            raise

    def _is_due(self) -> bool:
        if self._due_at is None or self._clock() < self._due_at:
            return False
        self._due_at = None
        here, *others = self._directory.ids
        return all(here < other for other in others)

    async def _sweep(self, shard: str, peers: Bucket, leases: Bucket) -> None:
        gone: dict[str, bytes | None] = {}
        for key in await peers.get(shard):
            process = key.rpartition(".")[2]
            if not await self._directory.has_lease(process, leases):
                ended_for_s = self._directory.ended_for_s(process)
                if ended_for_s is not None and ended_for_s >= FLEET_SWEEP_AFTER_S:
                    gone[key] = None
        if gone:
            await peers.put(gone)
            self.num_swept += len(gone)
