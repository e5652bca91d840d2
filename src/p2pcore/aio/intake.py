"""Which accepted connections may begin their handshake, so that no address keeps the others out.

Comes in: items (connections), each with the block of addresses it comes from, and their ends. Goes out: a
task for each item whose turn it is. While many run, an item whose peer is silent has no task until the first
byte comes; after a while it counts as slow. A bounded number of items is quick. An item that takes long
waits for its peer, not for us: it is slow, gives its slot back, and goes on. The others wait here for a slot;
blocks take turns. If there are too many items, the block with the most of them loses one. It closes nothing
itself.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from p2pcore.aio.descriptors import descriptors_of
from p2pcore.aio.first_bytes import FirstBytes
from p2pcore.aio.shares import Shares
from p2pcore.aio.threshold import Threshold
from p2pcore.limits import BEGUN_PER_TURN, EAGER_UPGRADES, OVERDUE_PER_TURN

T = TypeVar("T")


class Why(enum.StrEnum):
    """Why an Intake gives an item up, or does not take it."""

    TOO_MANY_SLOW = "too many slow upgrades"
    TOO_MANY_OF_BLOCK = "too many from one address"
    NO_DESCRIPTOR = "no descriptor left"
    TIMEOUT = "timeout"


class Silent(Protocol):
    """An item whose peer may be silent; others begin at once."""

    def wait_first(self, first: FirstBytes[Any]) -> bool:
        """Has `first` call when the peer has sent something, or has gone. False: it will not call."""


_SUSPECT_PART = 4
"""A block is suspect if it has more than a fourth of all slow places ..."""
_SUSPECT_FAILURES = 0.5
"""... or if most items fail, and it has the most waiting ones."""
_QUICK_PER_SLOW = 8
"""See Intake.burden."""
_LAST_ITEM = 1 / 128
"""The weight of the last item in that part of failures."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of an Intake.

    Attributes:
        maximum: items that are quick at the same time. While one block has most of them, items of others may
            begin above this number: for each, one of that block counts as slow at once.
        slow_after: seconds after which an item is slow.
        max_slow: slow items at the same time; 0: no item ever counts as slow.
        max_waiting: items that wait for a slot; 0: `wait` holds back.
        max_silence: seconds for which an item's peer may be silent; 0: nobody waits for its first byte.
    """

    maximum: int
    slow_after: float
    max_slow: int
    max_waiting: int
    max_silence: float = 0.0


class Intake(Generic[T]):
    """Create it inside a running event loop.

    Args:
        work: makes the coroutine that handles an item; its second argument is the time of `offer`. It calls
            `release` before it ends, unless it is cancelled.
        drop: called with an item that has to go, and why. Its task is cancelled, and it counts no longer.
        bounds: see Bounds.
        queue: while it is full, nothing begins; call `go_on` after each of its releases.
    """

    def __init__(
        self,
        work: Callable[[T, float], Coroutine[Any, Any, None]],
        drop: Callable[[T, Why], None],
        bounds: Bounds,
        queue: Threshold,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._drop = drop
        self._maximum = bounds.maximum
        self._slow_after = bounds.slow_after
        self._max_slow = bounds.max_slow
        self._max_waiting = bounds.max_waiting
        self._max_silence = bounds.max_silence if bounds.max_slow else 0.0
        self._queue = queue
        self._waiting: Shares[T] = Shares()
        self._quick: Shares[T] = Shares()
        self._slow: Shares[T] = Shares()
        self._tasks: dict[T, asyncio.Task[None]] = {}
        # Silent items, oldest first: those not yet slow, each with its block and time, and those that are.
        self._unheard: dict[T, tuple[Hashable, float]] = {}
        self._silent: dict[T, None] = {}
        self._first: FirstBytes[T] = FirstBytes(self._heard)
        self._silence: asyncio.TimerHandle | None = None
        self._failing = 0.0  # the part of the last items that have failed
        self._is_due = False
        self._changes: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        descriptors_of(self._loop).add(self)

    @property
    def num_running(self) -> int:
        """Items that have begun or are silent, and have not been released."""
        return len(self._tasks) + len(self._unheard) + len(self._silent)

    @property
    def num_waiting(self) -> int:
        """Items that wait for a slot."""
        return len(self._waiting.places)

    # -- items come and go ---------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """True while `wait` may wait."""
        return len(self._waiting.places) >= self._max_waiting

    async def wait(self) -> None:
        """Returns when `offer` may be called.

        It holds back only while all places are taken and every item comes from one block that seems honest:
        a client with very many connections. Else it returns at once: the next item may be from another block,
        and what comes from a block above its share is refused.
        """
        while self.is_full and self._holds_back():
            self._set_timer()
            await self._change()

    def offer(self, item: T, block: Hashable) -> bool:
        """Begins `item`, or lets it wait for its peer or its turn.

        Returns: False: its block has its share of the places, and there is none left. The caller still owns
            `item`.
        """
        now = self._loop.time()
        if self._unheard:
            self._put_silent_aside(now)
            if len(self._unheard) >= self._maximum and self._has_many_slow(block):
                return False
        if self._max_silence and self.num_running >= EAGER_UPGRADES and self._is_silent(item):
            self._unheard[item] = (block, now)
            self._watch_silence()
            return True
        return self._enter(item, block, now, now)

    def _enter(self, item: T, block: Hashable, since: float, now: float) -> bool:
        """Begins `item`, or lets it wait for its turn; see `offer`."""
        num_waiting = self._waiting.count(block) if self._waiting.places else 0
        if not num_waiting and not self._queue.is_full and (self._has_slot or self._make_room_for(block)):
            self._begin(item, block, since, now)
            return True
        if num_waiting >= self._maximum and self._is_suspect(block):
            return False
        if len(self._waiting.places) >= self._max_waiting and not self._displace_for(block):
            return False
        self._waiting.add(item, block, since)
        self._set_timer()
        return True

    def release(self, item: T, has_worked: bool) -> None:
        """Frees the place of an item that has ended. Idempotent."""
        if self._tasks.pop(item, None) is None:
            return
        (self._quick if item in self._quick.places else self._slow).remove(item)
        self._failing -= (self._failing if has_worked else self._failing - 1) * _LAST_ITEM
        if self._waiting.places or self._changes:
            self.go_on()

    def go_on(self) -> None:
        """Begins what may begin, from the loop's next turn on."""
        if self._waiting.places and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._begin_waiting)
        if self._changes:
            self._wake()

    def _begin_waiting(self) -> None:
        """Begins some items, so that the turn stays short. Blocks take turns."""
        self._is_due = False
        now = self._loop.time()
        for _ in range(BEGUN_PER_TURN):
            if not self._waiting.places or not self._has_slot or self._queue.is_full:
                break
            block = next(iter(self._waiting.blocks))
            item = self._waiting.oldest(block)
            since = self._waiting.since(item)
            self._waiting.remove(item)
            if block in self._waiting.blocks:
                self._waiting.send_back(block)
            self._begin(item, block, since, now)
        else:
            self.go_on()
        if self._waiting.places:
            self._set_timer()

    async def wait_empty(self) -> None:
        """Returns when no item is left."""
        while self.num_running or self._waiting.places:
            await self._change()

    def close(self) -> tuple[list[T], list[asyncio.Task[None]]]:
        """Cancels everything. Returns: all items, which the caller closes, and the tasks that end now."""
        items = [*self._tasks, *self._unheard, *self._silent, *self._waiting.places]
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        self._tasks, self._unheard, self._silent = {}, {}, {}
        self._waiting, self._quick, self._slow = Shares(), Shares(), Shares()
        self._first.close()
        for timer in (self._timer, self._silence):
            if timer is not None:
                timer.cancel()
        self._timer = self._silence = None
        self._wake()
        return items, tasks

    # -- shares --------------------------------------------------------------------------------

    @property
    def _has_slot(self) -> bool:
        return len(self._quick.places) < self._maximum

    def _begin(self, item: T, block: Hashable, since: float, now: float) -> None:
        self._quick.add(item, block, now)
        self._tasks[item] = self._loop.create_task(self._work(item, since))

    def _make_room_for(self, block: Hashable) -> bool:
        """Whether a slot is free now: an item has become slow, or the largest block gives a slot."""
        if not self._max_slow:
            return False
        self._put_overdue_aside()
        if self._has_slot:
            return True
        if self._quick.most < self._quick.count(block) + 2:
            return False
        self._put_aside(self._quick.oldest(self._quick.largest()))
        return True

    def _put_overdue_aside(self) -> None:
        overdue = self._loop.time() - self._slow_after
        while self._quick.places:
            oldest = next(iter(self._quick.places))
            if self._quick.since(oldest) > overdue:
                return
            self._put_aside(oldest)

    def _put_aside(self, item: T) -> None:
        since = self._quick.since(item)
        self._add_slow(item, self._quick.remove(item), since)

    def _add_slow(self, item: T, block: Hashable, since: float) -> None:
        self._slow.add(item, block, since)
        if len(self._slow.places) > self._max_slow:
            self._end(self._slow, self._slow.oldest(self._slow.largest()), Why.TOO_MANY_SLOW)

    def _displace_for(self, block: Hashable) -> bool:
        """Drops the newest waiting item of the largest block, if `block` has fewer."""
        if self._waiting.most < self._waiting.count(block) + 2:
            return False
        self._end(self._waiting, self._waiting.newest(self._waiting.largest()), Why.TOO_MANY_OF_BLOCK)
        return True

    def _end(self, items: Shares[T], item: T, why: Why) -> None:
        items.remove(item)
        self._silent.pop(item, None)
        task = self._tasks.pop(item, None)
        if task is not None:
            task.cancel()
        self._given_up(item, why)

    def _given_up(self, item: T, why: Why) -> None:
        self._failing -= (self._failing - 1) * _LAST_ITEM
        self._drop(item, why)

    # -- silent peers --------------------------------------------------------------------------

    def _is_silent(self, item: T) -> bool:
        wait_first: Callable[[FirstBytes[T]], bool] | None = getattr(item, "wait_first", None)  # see Silent
        return wait_first is not None and wait_first(self._first)

    def _heard(self, item: T) -> None:
        """The peer of `item` has sent something, or has gone."""
        found = self._unheard.pop(item, None)
        if found is None:
            del self._silent[item]
            since = self._slow.since(item)
            found = self._slow.remove(item), since
        if not self._enter(item, *found, self._loop.time()):
            self._given_up(item, Why.TOO_MANY_OF_BLOCK)
        if self._changes:
            self._wake()

    def _put_silent_aside(self, now: float, after: float | None = None) -> None:
        """Some that have been silent for long count as slow; so do the first of too many silent ones.

        Args:
            after: seconds of silence that are long; None: the usual number.
        """
        overdue = now - (min(self._slow_after, self._max_silence) if after is None else after)
        for _ in range(OVERDUE_PER_TURN):
            item = next(iter(self._unheard), None)
            if item is None:
                return
            block, since = self._unheard[item]
            if since > overdue and len(self._unheard) < self._max_slow:
                return
            del self._unheard[item]
            self._silent[item] = None
            self._add_slow(item, block, since)

    def _watch_silence(self) -> None:
        """One timer for all: the oldest one is due first."""
        if self._silence is None and (self._silent or self._unheard):
            if self._silent:
                since = self._slow.since(next(iter(self._silent)))
            else:
                _, since = next(iter(self._unheard.values()))
            self._silence = self._loop.call_at(since + self._max_silence, self._end_silence)

    def _end_silence(self) -> None:
        self._silence = None
        now = self._loop.time()
        self._put_silent_aside(now)
        for _ in range(OVERDUE_PER_TURN):
            item = next(iter(self._silent), None)
            if item is None or self._slow.since(item) > now - self._max_silence:
                break
            self._end(self._slow, item, Why.TIMEOUT)
        self._watch_silence()
        if self._changes:
            self._wake()

    # -- shortage of descriptors, see aio/descriptors.py -----------------------------------------

    @property
    def burden(self) -> int:
        """How many unfinished items the largest block has here. Quick ones count an eighth: they end soon.

        Silent ones count as slow at once: each holds a descriptor, and nothing says that it will end.
        """
        if self._max_slow:
            self._put_overdue_aside()
            self._put_silent_aside(self._loop.time(), 0.0)
        return max(self._slow.most, self._waiting.most, self._quick.most // _QUICK_PER_SLOW)

    def evict(self) -> bool:
        """Drops an item of the largest block. False: there is none, or only few quick ones."""
        items = self._slow if self._slow.most >= self._waiting.most else self._waiting
        if self.burden > max(self._slow.most, self._waiting.most):
            items = self._quick
        if not items.places:
            return False
        self._end(items, items.oldest(items.largest()), Why.NO_DESCRIPTOR)
        return True

    # -- waiting -------------------------------------------------------------------------------

    def _holds_back(self) -> bool:
        if self._max_slow:
            self._put_overdue_aside()
        if self._has_slot and not self._queue.is_full:
            return False
        blocks: set[Hashable] = set()
        for items in (self._waiting, self._quick, self._slow):
            if len(items.blocks) > 1:
                return False
            blocks.update(items.blocks)
        return len(blocks) <= 1 and not any(map(self._is_suspect, blocks))

    def _has_many_slow(self, block: Hashable) -> bool:
        return self._slow.count(block) > max(self._max_slow // _SUSPECT_PART, self._maximum)

    def _is_suspect(self, block: Hashable) -> bool:
        if self._has_many_slow(block):
            return True
        return self._failing > _SUSPECT_FAILURES and self._waiting.count(block) == self._waiting.most

    def _set_timer(self) -> None:
        """While somebody waits, looks again when the oldest quick item is slow."""
        if self._timer is None and self._max_slow and self._quick.places:
            at = self._quick.since(next(iter(self._quick.places))) + self._slow_after
            self._timer = self._loop.call_at(at, self._slot_due)

    def _slot_due(self) -> None:
        self._timer = None
        self._put_overdue_aside()
        self.go_on()

    async def _change(self) -> None:
        waiter = self._loop.create_future()
        self._changes.add(waiter)
        try:
            await waiter
        finally:
            self._changes.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._changes:
            if not waiter.done():
                waiter.set_result(None)
