"""Who hears what happens to a node: the subscriptions behind `host.events(...)`.

Comes in: events, from the event loop. Goes out: a bounded queue for each subscriber. Adding an event never
waits and never fails. If a subscriber is slow, its oldest events are dropped; a Missed event comes first and
says how many. Without a subscriber no event is made, so a connection pays nothing.

A subscription ends with `close`, with its last reference, or with the host. Queued events still come.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from p2pcore import limits
from p2pcore.errors import LimitExceeded
from p2pcore.late import Late

if TYPE_CHECKING:
    from p2pcore.swarm import events
    from p2pcore.swarm.events import Event
else:
    events = Late("p2pcore.swarm.events")


class Subscription:
    """An async iterator of events for one reader. As a context manager, it closes itself at the end."""

    __slots__ = ("__weakref__", "_is_closed", "_kinds", "_num_missed", "_owner", "_queue", "_reader")

    def __init__(self, owner: Events, kinds: tuple[type[Event], ...], length: int) -> None:
        self._owner = owner
        self._kinds = kinds
        self._queue: deque[Event] = deque(maxlen=length)
        self._num_missed = 0
        self._reader: asyncio.Future[None] | None = None
        self._is_closed = False

    def wants(self, kind: type[Event]) -> bool:
        """Whether this subscription takes events of `kind`."""
        return issubclass(kind, self._kinds)

    def put(self, event: Event) -> None:
        """Adds an event. If the queue is full, the oldest event is dropped."""
        if len(self._queue) == self._queue.maxlen:
            self._num_missed += 1
        self._queue.append(event)
        self._wake()

    def close(self) -> None:
        """Takes no more events. Queued events still come, then the iteration ends. Idempotent."""
        self._is_closed = True
        self._owner.remove(self)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event, or a Missed. If cancelled, it has taken no event."""
        while not self._queue:
            if self._is_closed:
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("another task is waiting for an event of this subscription")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._num_missed:
            missed, self._num_missed = self._num_missed, 0
            return events.Missed(missed)
        return self._queue.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Events:
    """The subscriptions of one node.

    Attributes:
        is_wanted: True while there is a subscription. Look at it before you make an event.
    """

    __slots__ = ("_is_closed", "_subscriptions", "is_wanted")

    def __init__(self) -> None:
        self._subscriptions: list[weakref.ref[Subscription]] = []
        self._is_closed = False
        self.is_wanted = False

    def subscribe(
        self, kinds: Iterable[type[Event]] = (), length: int = limits.EVENT_QUEUE_LENGTH
    ) -> Subscription:
        """A subscription to events of `kinds` from now on. Without kinds: to all events.

        Raises:
            ValueError: `length` is not 1 to MAX_EVENT_QUEUE_LENGTH. TypeError: a kind is not an event class.
            LimitExceeded: there are MAX_EVENT_SUBSCRIBERS subscriptions already.
        """
        wanted = tuple(kinds) or (events.Event,)
        for kind in wanted:
            if not (isinstance(kind, type) and issubclass(kind, events.Event)):
                raise TypeError(f"a kind must be a class of p2pcore.swarm.events, not {kind!r}")
        if not 1 <= length <= limits.MAX_EVENT_QUEUE_LENGTH:
            raise ValueError(
                f"the queue must hold from 1 to {limits.MAX_EVENT_QUEUE_LENGTH} events, not {length}"
            )
        if len(self._subscriptions) >= limits.MAX_EVENT_SUBSCRIBERS:
            num = len(self._subscriptions) + 1
            raise LimitExceeded("MAX_EVENT_SUBSCRIBERS", num, limits.MAX_EVENT_SUBSCRIBERS)
        subscription = Subscription(self, wanted, length)
        if self._is_closed:
            subscription.close()
        else:
            self._subscriptions.append(weakref.ref(subscription, self._forget))
            self.is_wanted = True
        return subscription

    def wants(self, kind: type[Event]) -> bool:
        """Whether a subscription takes events of `kind`."""
        return self.is_wanted and any(each.wants(kind) for each in self._living())

    def emit(self, event: Event) -> None:
        """Adds `event` to the queue of each subscription that takes it. Never waits, never raises."""
        for subscription in self._living():
            if subscription.wants(type(event)):
                subscription.put(event)

    def remove(self, subscription: Subscription) -> None:
        """Removes a subscription. If it has been removed already, nothing happens."""
        for ref in self._subscriptions:
            if ref() is subscription:
                self._forget(ref)
                return

    def close(self) -> None:
        """Ends every subscription once its queued events have been read. Later subscriptions end at once."""
        self._is_closed = True
        for subscription in self._living():
            subscription.close()

    def _living(self) -> list[Subscription]:
        return [found for ref in self._subscriptions if (found := ref()) is not None]

    def _forget(self, ref: weakref.ref[Subscription]) -> None:
        if ref in self._subscriptions:
            self._subscriptions.remove(ref)
        self.is_wanted = bool(self._subscriptions)
