"""Items grouped by the block they come from, and the block that has the most of them.

Comes in: items, each with its block (see interfaces.RawConn.block) and a time. Goes out: counts, the largest
block, the oldest and the newest item of a block. A call takes the same time, however many items there are.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shares(Generic[T]):
    """A collection of distinct items.

    Attributes:
        places: each item with its block and its time, oldest first. blocks: the items of each block, oldest
            first; `send_back` moves a block to the end. Only read them.
    """

    __slots__ = ("_ranks", "blocks", "places")

    def __init__(self) -> None:
        self.places: dict[T, tuple[Hashable, float]] = {}
        self.blocks: dict[Hashable, dict[T, None]] = {}
        self._ranks: list[dict[Hashable, None]] = [
            {}
        ]  # [n]: the blocks that have n items; the last is not empty

    @property
    def most(self) -> int:
        """The number of items that the largest block has; 0 if there is no item."""
        return len(self._ranks) - 1

    def count(self, block: Hashable) -> int:
        """The number of items of `block`."""
        items = self.blocks.get(block)
        return 0 if items is None else len(items)

    def largest(self) -> Hashable:
        """The block with the most items; of several, the one that has had so many for the longest time.

        Raises: StopIteration: there is no item.
        """
        return next(iter(self._ranks[-1]))

    def oldest(self, block: Hashable) -> T:
        """The oldest item of `block`, which has at least one."""
        return next(iter(self.blocks[block]))

    def newest(self, block: Hashable) -> T:
        """The newest item of `block`, which has at least one."""
        return next(reversed(self.blocks[block]))

    def since(self, item: T) -> float:
        """The time that was given with `item`."""
        return self.places[item][1]

    def add(self, item: T, block: Hashable, since: float) -> None:
        """Adds `item`, which must not be there."""
        self.places[item] = (block, since)
        items = self.blocks.get(block)
        if items is None:
            items = self.blocks[block] = {}
        items[item] = None
        count = len(items)
        if count == len(self._ranks):
            self._ranks.append({})
        self._ranks[count][block] = None
        if count > 1:
            del self._ranks[count - 1][block]

    def remove(self, item: T) -> Hashable:
        """Removes `item`. Returns: its block. Raises: KeyError: it is not there."""
        block, _ = self.places.pop(item)
        items = self.blocks[block]
        count = len(items)
        del items[item], self._ranks[count][block]
        if count == 1:
            del self.blocks[block]
        else:
            self._ranks[count - 1][block] = None
        if count == self.most and not self._ranks[count]:
            del self._ranks[count]
        return block

    def send_back(self, block: Hashable) -> None:
        """Makes `block` the last one of `blocks`."""
        self.blocks[block] = self.blocks.pop(block)
