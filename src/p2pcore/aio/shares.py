"""Items grouped by the block they come from, and the block that has the most of them.

Comes in: items, each with its block (see interfaces.RawConn.block) and a time. Goes out: counts, the largest
block, the oldest and the newest item of a block. A call takes the same time, however many items there are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Shares(Generic[T]):
    """A collection of distinct items, oldest first."""

    __slots__ = ("_blocks", "_places", "_ranks")

    def __init__(self) -> None:
        self._places: dict[T, tuple[Hashable, float]] = {}
        self._blocks: dict[Hashable, dict[T, None]] = {}
        self._ranks: list[dict[Hashable, None]] = [
            {}
        ]  # [n]: the blocks that have n items; the last is not empty

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: object) -> bool:
        return item in self._places

    def __iter__(self) -> Iterator[T]:
        return iter(self._places)

    @property
    def blocks(self) -> dict[Hashable, dict[T, None]]:
        """The items of each block, oldest first; a block moves to the end with `send_back`. Only read it."""
        return self._blocks

    @property
    def most(self) -> int:
        """The number of items that the largest block has; 0 if there is no item."""
        return len(self._ranks) - 1

    def count(self, block: Hashable) -> int:
        """The number of items of `block`."""
        items = self._blocks.get(block)
        return 0 if items is None else len(items)

    def largest(self) -> Hashable:
        """The block with the most items; of several, the one that has had so many for the longest time.

        Raises: StopIteration: there is no item.
        """
        return next(iter(self._ranks[-1]))

    def oldest(self, block: Hashable) -> T:
        """The oldest item of `block`, which has at least one."""
        return next(iter(self._blocks[block]))

    def newest(self, block: Hashable) -> T:
        """The newest item of `block`, which has at least one."""
        return next(reversed(self._blocks[block]))

    def since(self, item: T) -> float:
        """The time that was given with `item`."""
        return self._places[item][1]

    def add(self, item: T, block: Hashable, since: float) -> None:
        """Adds `item`, which must not be there."""
        self._places[item] = (block, since)
        items = self._blocks.get(block)
        if items is None:
            items = self._blocks[block] = {}
        items[item] = None
        count = len(items)
        if count == len(self._ranks):
            self._ranks.append({})
        self._ranks[count][block] = None
        if count > 1:
            del self._ranks[count - 1][block]

    def remove(self, item: T) -> Hashable:
        """Removes `item`. Returns: its block. Raises: KeyError: it is not there."""
        block, _ = self._places.pop(item)
        items = self._blocks[block]
        count = len(items)
        del items[item], self._ranks[count][block]
        if count == 1:
            del self._blocks[block]
        else:
            self._ranks[count - 1][block] = None
        if count == self.most and not self._ranks[count]:
            del self._ranks[count]
        return block

    def send_back(self, block: Hashable) -> None:
        """Makes `block` the last one of `blocks`."""
        self._blocks[block] = self._blocks.pop(block)
