"""What happens to a node, as a stream of values: `async for event in host.events(...)`.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from p2pcore import limits
from p2pcore.errors import LimitExceeded, P2PError

if TYPE_CHECKING:
    from p2pcore.codes import Direction
    from p2pcore.interfaces import Conn
    from p2pcore.swarm.conns import Connectedness
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class Event:
    """Root of all events."""


@dataclass(frozen=True, slots=True)
class ListenerOpened(Event):
    """Something listens on `addr`, with its real port."""

    addr: Multiaddr


@dataclass(frozen=True, slots=True)
class ListenerRetrying(Event):
    """The listener on `addr` pauses or binds again because of `error`. It continues to try."""

    addr: Multiaddr
    error: BaseException


@dataclass(frozen=True, slots=True)
class ListenerRecovered(Event):
    """The listener on `addr` takes connections again."""

    addr: Multiaddr


@dataclass(frozen=True, slots=True)
class ListenerEnded(Event):
    """The listener on `addr` has ended. `error` is the reason, or None if somebody closed it."""

    addr: Multiaddr
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class ConnOpened(Event):
    """The swarm has taken `conn` over."""

    conn: Conn


@dataclass(frozen=True, slots=True)
class ConnClosed(Event):
    """`conn` has ended.

    Attributes:
        conn: the connection. Only its description can be used now.
        error: the reason: a GoAway, a ConnectionClosed or another error. None: unknown.
        code: the code of the go-away (see p2pcore.codes). None: there was no go-away.
        by_peer: True if the peer sent the go-away.
    """

    conn: Conn
    error: BaseException | None
    code: int | None
    by_peer: bool


@dataclass(frozen=True, slots=True)
class ConnTrimmed(Event):
    """The connection manager closes `conn`. A ConnClosed follows.

    Attributes:
        conn: the connection.
        reason: "marks": there were too many connections. "crowd": too many of them from its block or its
            peer. "room": something has run short. "idle": it had no stream for too long. "memory": it held
            too much.
        value: the sum of the tags of its peer.
    """

    conn: Conn
    reason: str
    value: float


@dataclass(frozen=True, slots=True)
class KeepLost(Event):
    """A peer that is kept (see ConnManager.keep) is not connected any more, or cannot be reached at first.

    It is dialled until a KeepRestored. `error`: why it was lost; None: unknown.
    """

    peer: PeerId
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class KeepRestored(Event):
    """A peer that is kept is connected again, by `conn`."""

    peer: PeerId
    conn: Conn


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """This node has begun to drain: it is not ready for new peers any more.

    Attributes:
        delay_s: seconds until its listeners close.
        timeout_s: seconds that streams may go on after that.
    """

    delay_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PeerDraining(Event):
    """The peer of `conn` is draining. Streams on `conn` go on; new streams take another connection."""

    conn: Conn


@dataclass(frozen=True, slots=True)
class UpgradeFailed(Event):
    """A raw connection was made, but the upgrade (security and multiplexer) failed.

    Attributes:
        direction: who dialled. stage: the step that failed, or another reason ("timeout").
        error: the error. local, remote: our address (of the listener, if inbound), and the peer's.
    """

    direction: Direction
    stage: str
    error: BaseException
    local: Multiaddr | None
    remote: Multiaddr | None


@dataclass(frozen=True, slots=True)
class DialFailed(Event):
    """No address worked in a dial. `peer`: None if any peer would do. `error` is usually a DialError."""

    peer: PeerId | None
    error: BaseException


@dataclass(frozen=True, slots=True)
class AddrsChanged(Event):
    """The addresses we listen on have changed. In `addrs`, interface addresses replace a wildcard."""

    addrs: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class ConnectednessChanged(Event):
    """The connectedness of `peer` has changed. `connectedness` is the new one."""

    peer: PeerId
    connectedness: Connectedness


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The gater or a cap has refused a connection.

    Attributes:
        peer, addr: None if not known at that moment.
        error: GaterRefused with its `point`, or LimitExceeded with its `limit`.
    """

    peer: PeerId | None
    addr: Multiaddr | None
    error: P2PError


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """`count` events before the next one were dropped, because the subscriber did not read them in time."""

    count: int


class Subscription:
    """An async iterator of events for one reader. As a context manager, it closes itself at the end."""

    __slots__ = ("__weakref__", "_events", "_is_closed", "_kinds", "_num_missed", "_queue", "_reader")

    def __init__(self, events: Events, kinds: tuple[type[Event], ...], length: int) -> None:
        self._events = events
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
        self._events.remove(self)
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
            return Missed(missed)
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
        wanted = tuple(kinds) or (Event,)
        for kind in wanted:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
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
