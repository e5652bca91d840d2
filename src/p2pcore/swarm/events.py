"""What happens to a node, as a stream of values: `async for event in host.events(...)`.

Comes in: events, from the event loop. Goes out: a bounded queue for each subscriber. Putting an event in
never waits and never fails: where a subscriber is slow its oldest events are dropped, and counted in a Missed
that comes first. Nobody who subscribes costs anything to a connection: events are made only for somebody.

A subscription ends with `close`, with its last reference, or with the host; what is queued then still comes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from p2pcore import limits
from p2pcore.codes import Direction
from p2pcore.errors import LimitExceeded, P2PError
from p2pcore.upgrade.listener import ListenerState

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn
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
    """The listener on `addr` pauses, or binds anew, because of `error`; it goes on trying."""

    addr: Multiaddr
    error: BaseException


@dataclass(frozen=True, slots=True)
class ListenerRecovered(Event):
    """The listener on `addr` takes connections again."""

    addr: Multiaddr


@dataclass(frozen=True, slots=True)
class ListenerEnded(Event):
    """Nothing listens on `addr` any more; `error` says why where nobody asked for it, else it is None."""

    addr: Multiaddr
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class ConnOpened(Event):
    """The swarm has taken `conn` over."""

    conn: CapableConn


@dataclass(frozen=True, slots=True)
class ConnClosed(Event):
    """`conn` has ended.

    Attributes:
        conn: of no use any more but to say what it was.
        error: how: a GoAway, a ConnectionClosed, whatever broke it; None: unknown.
        code: of the go-away, see p2pcore.codes; None where there was none.
        by_peer: True if the go-away was the peer's.
    """

    conn: CapableConn
    error: BaseException | None
    code: int | None
    by_peer: bool


@dataclass(frozen=True, slots=True)
class UpgradeFailed(Event):
    """A connection was made, and then not secured or multiplexed.

    Attributes:
        direction: who dialled. stage: the step that failed, or what else ended it ("timeout").
        error: why. local, remote: our end (the listener's address for inbound ones), and the peer's.
    """

    direction: Direction
    stage: str
    error: BaseException
    local: Multiaddr | None
    remote: Multiaddr | None


@dataclass(frozen=True, slots=True)
class DialFailed(Event):
    """No address of `peer` (None: any peer) could be reached; `error`, a DialError as a rule, lists them."""

    peer: PeerId | None
    error: BaseException


@dataclass(frozen=True, slots=True)
class AddrsChanged(Event):
    """Where we listen, wildcards replaced by the addresses of the interfaces."""

    addrs: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class ConnectednessChanged(Event):
    """Whether there is a connection to `peer`, and of what kind."""

    peer: PeerId
    connectedness: Connectedness


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The gater or a cap kept a connection from being made.

    Attributes:
        peer, addr: as far as they were known then.
        error: GaterRefused with its `point`, or LimitExceeded with its `limit`.
    """

    peer: PeerId | None
    addr: Multiaddr | None
    error: P2PError


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """`count` events before the next one were dropped, because they were not read in time."""

    count: int


class Subscription:
    """An async iterator of events, for one reader; also a context manager that closes it."""

    __slots__ = ("__weakref__", "_events", "_is_closed", "_kinds", "_num_missed", "_queue", "_reader")

    def __init__(self, events: Events, kinds: tuple[type[Event], ...], length: int) -> None:
        self._events = events
        self._kinds = kinds
        self._queue: deque[Event] = deque(maxlen=length)
        self._num_missed = 0
        self._reader: asyncio.Future[None] | None = None
        self._is_closed = False

    def wants(self, kind: type[Event]) -> bool:
        """Whether events of `kind` are put in."""
        return issubclass(kind, self._kinds)

    def put(self, event: Event) -> None:
        """Adds an event; the oldest makes room where the queue is full."""
        if len(self._queue) == self._queue.maxlen:
            self._num_missed += 1
        self._queue.append(event)
        self._wake()

    def close(self) -> None:
        """Takes no more events; what is queued is still given out, then the iteration ends. Idempotent."""
        self._is_closed = True
        self._events.remove(self)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event, or a Missed. Cancelled, it has taken none."""
        while not self._queue:
            if self._is_closed:
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("somebody else is waiting for an event of this subscription")
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
        is_wanted: True while there is any: look at it before making an event.
    """

    __slots__ = ("_is_closed", "_subscriptions", "is_wanted")

    def __init__(self) -> None:
        self._subscriptions: list[weakref.ref[Subscription]] = []
        self._is_closed = False
        self.is_wanted = False

    def subscribe(
        self, kinds: Iterable[type[Event]] = (), length: int = limits.EVENT_QUEUE_LENGTH
    ) -> Subscription:
        """A subscription to events of `kinds`, all without any, from now on.

        Raises:
            ValueError: `length` is not 1 to MAX_EVENT_QUEUE_LENGTH. TypeError: a kind is no class of events.
            LimitExceeded: there are MAX_EVENT_SUBSCRIBERS.
        """
        wanted = tuple(kinds) or (Event,)
        for kind in wanted:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"a class of p2pcore.swarm.events expected, not {kind!r}")
        if not 1 <= length <= limits.MAX_EVENT_QUEUE_LENGTH:
            raise ValueError(f"a queue of 1 to {limits.MAX_EVENT_QUEUE_LENGTH} events expected, not {length}")
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
        """Whether anybody wants events of `kind`."""
        return self.is_wanted and any(each.wants(kind) for each in self._living())

    def emit(self, event: Event) -> None:
        """Puts `event` into the queue of each that wants it. Never waits, never raises."""
        for subscription in self._living():
            if subscription.wants(type(event)):
                subscription.put(event)

    def remove(self, subscription: Subscription) -> None:
        """Ends a subscription; one that has ended is ignored."""
        for ref in self._subscriptions:
            if ref() is subscription:
                self._forget(ref)
                return

    def close(self) -> None:
        """Ends every subscription, and those to come, once what they hold has been read."""
        self._is_closed = True
        for subscription in self._living():
            subscription.close()

    # -- observers that others call ------------------------------------------------------------

    def refused(self, peer: PeerId | None, addr: Multiaddr | None, error: P2PError) -> None:
        """For Admission.on_refused."""
        if self.is_wanted:
            self.emit(Refused(peer, addr, error))

    def upgrade_failed(
        self, reason: str, remote: Multiaddr | None, error: BaseException, listener: Multiaddr
    ) -> None:
        """For ListenerHooks.on_upgrade_failed."""
        if self.is_wanted:
            self.emit(UpgradeFailed(Direction.INBOUND, str(reason), error, listener, remote))

    def listener_changed(
        self, state: ListenerState, error: BaseException | None, listener: Multiaddr
    ) -> None:
        """For ListenerHooks.on_state_changed; the end of a listener is told by its swarm."""
        if not self.is_wanted:
            return
        if state is ListenerState.RETRYING and error is not None:
            self.emit(ListenerRetrying(listener, error))
        elif state is ListenerState.LISTENING:
            self.emit(ListenerRecovered(listener))

    def _living(self) -> list[Subscription]:
        return [found for ref in self._subscriptions if (found := ref()) is not None]

    def _forget(self, ref: weakref.ref[Subscription]) -> None:
        if ref in self._subscriptions:
            self._subscriptions.remove(ref)
        self.is_wanted = bool(self._subscriptions)
