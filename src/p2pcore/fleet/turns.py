"""The turns of a fleet: a bucket of the bus where each turn has one entry.

Comes in: names of turns. Goes out: cells for aio/turn.py. Nothing is asked before a turn is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.aio.turn import Cell
    from p2pcore.fleet.bus import Bucket, Bus


class Turns:
    """See above.

    Args: bus: of the fleet. bucket: the name of the bucket. It does not expire: each holder says for how long
        it has a turn, and entries are few and outlive the engine.
    """

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus = bus
        self._name = bucket
        self._bucket: Bucket | None = None

    def cell(self, name: str) -> Cell:
        """The cell of the turn `name`, one word."""
        return _Entry(self, name)

    async def bucket(self) -> Bucket:
        """Raises BusDown."""
        if self._bucket is None:
            self._bucket = await self._bus.bucket(self._name)
        return self._bucket


class _Entry:
    """See `Cell`."""

    def __init__(self, turns: Turns, key: str) -> None:
        self._turns = turns
        self._key = key

    async def get(self) -> bytes | None:
        """See `Cell`."""
        return (await (await self._turns.bucket()).get(self._key)).get(self._key)

    async def swap(self, expected: bytes | None, value: bytes) -> bool:
        """See `Cell`."""
        return await (await self._turns.bucket()).swap(self._key, expected, value)
