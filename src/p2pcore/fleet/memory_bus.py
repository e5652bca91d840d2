"""A bus in the memory of one process: for a service of one process, and for tests.

Comes in: subjects, keys and bytes, in one event loop. Goes out: the same, at all buses of the same engine. A
delivery never happens inside the call that causes it, and each publisher waits for its delivery: so no more
waits than there are publishers. A test stops and starts the engine, as others are.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from p2pcore import options
from p2pcore.aio.table import ExpiryTimer, Table, is_under
from p2pcore.errors import BusDown, NobodyListens
from p2pcore.fleet import names
from p2pcore.fleet.bus import Bucket, BusMessage, Subscription
from p2pcore.fleet.callback import Callback, checked


class _Call(Callback):
    """A callback, and the places of the engine that have it until it is closed."""

    __slots__ = ("_places",)

    def __init__(self, subject: str, function: Callable[..., None], *places: dict[_Call, None]) -> None:
        super().__init__(subject, function)
        self._places = places
        for place in places:
            place[self] = None

    def close(self) -> None:
        """See `Callback`."""
        super().close()
        for place in self._places:
            place.pop(self, None)

    def soon(self, *args: Any) -> None:
        """Calls the function in the loop's next turn, unless it is closed by then."""
        asyncio.get_running_loop().call_soon(self, *args)


class _Subscriber(_Call):
    """A subscription among those of its subject, which the engine forgets with the last one."""

    __slots__ = ("_subjects",)

    def __init__(self, subject: str, function: Callable[..., None], bus: MemoryBus) -> None:
        self._subjects = bus._engine._subscribers
        super().__init__(subject, function, bus._calls, self._subjects.setdefault(subject, {}))

    def close(self) -> None:
        """See `Callback`."""
        super().close()
        if not self._subjects.get(self.subject, True):
            del self._subjects[self.subject]


class _Entries:
    """A bucket as the engine has it: a table, who watches it, and one timer for the next that expires."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = Table(lambda: asyncio.get_running_loop().time())
        self.watches: dict[_Call, None] = {}
        self.timer = ExpiryTimer(self.table, self.expire)

    def put(self, entries: Mapping[str, bytes | None]) -> None:
        for key, value in entries.items():
            if self.table.put(key, value):
                self._tell(key, value)
        self.timer.set()

    def expire(self) -> None:
        """Deletes what is over, as much as one turn does, tells it, and sets the timer for the rest."""
        for key in self.table.expire():
            self._tell(key, None)
        self.timer.set()

    def forget(self) -> None:
        for key in self.table.clear():
            self._tell(key, None)

    def _tell(self, key: str, value: bytes | None) -> None:
        for watch in self.watches:
            if is_under(key, watch.subject):
                watch.soon(key, value)


class MemoryEngine:
    """What all `MemoryBus` objects of one process share.

    Attributes:
        is_up: whether it is there. Tests change it with `stop` and `start`.
    """

    def __init__(self) -> None:
        self.is_up = True
        self._subscribers: dict[str, dict[_Call, None]] = {}
        self._buckets: dict[str, _Entries] = {}
        self._states: dict[_Call, None] = {}
        self._requests: dict[Future[bytes], None] = {}

    def stop(self) -> None:
        """The engine goes away: what is asked of it fails with BusDown, what waits for an answer too."""
        if not self.is_up:
            return
        self.is_up = False
        for request in self._requests:
            _fail(request, "went away before the answer")
        for entries in self._buckets.values():
            entries.timer.stop()
        self._tell_state()

    def start(self, *, forget: bool = False) -> None:
        """It is back. Subscriptions and watches hold. `forget`: it has lost all entries."""
        if self.is_up:
            return
        self.is_up = True
        for entries in self._buckets.values():
            if forget:
                entries.forget()
            entries.expire()
        self._tell_state()

    def _tell_state(self) -> None:
        for state in self._states:
            state.soon(self.is_up)

    def _listeners(self, subject: str) -> list[_Call]:
        head, _, _ = subject.rpartition(".")
        return [*self._subscribers.get(subject, ()), *self._subscribers.get(f"{head}.*", ())]


class MemoryBus:
    """A `Bus` in this process. All that is called belongs to one event loop.

    Args:
        engine: what it shares with other buses; None: an engine of its own.
    """

    def __init__(self, engine: MemoryEngine | None = None) -> None:
        self._engine = options.given("engine", engine, MemoryEngine)
        self._calls: dict[_Call, None] = {}
        self._requests: dict[Future[bytes], None] = {}
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """Whether the engine is there and this bus is not closed."""
        return self._engine.is_up and not self._is_closed

    @property
    def num_dropped(self) -> int:
        """See `Bus`. Nothing is ever dropped: who publishes waits."""
        return 0

    def on_state(self, changed: Callable[[bool], None]) -> Subscription:
        """See `Bus`."""
        options.function("changed", changed)
        return _Call("state", changed, self._calls, self._engine._states)

    async def publish(self, subject: str, data: bytes) -> None:
        """See `Bus`."""
        names.subject(subject)
        names.message(data)
        self._need()
        for call in self._engine._listeners(subject):
            call.soon(BusMessage(subject, data))
        await asyncio.sleep(0)

    async def subscribe(self, subject: str, deliver: Callable[[BusMessage], None]) -> Subscription:
        """See `Bus`."""
        names.subjects(subject)
        options.function("deliver", deliver)
        self._need()
        return _Subscriber(subject, deliver, self)

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """See `Bus`."""
        names.subject(subject)
        names.message(data)
        options.seconds("timeout_s", timeout_s)
        self._need()
        listeners = self._engine._listeners(subject)
        if not listeners:
            raise NobodyListens(f"nobody subscribed to {subject!r}")
        waiter: Future[bytes] = asyncio.get_running_loop().create_future()
        for call in listeners:
            call.soon(BusMessage(subject, data, checked(partial(_answer, waiter))))
        self._requests[waiter] = self._engine._requests[waiter] = None
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise TimeoutError(f"nobody answered on {subject!r} within {timeout_s:g} s") from None
        finally:
            del self._requests[waiter], self._engine._requests[waiter]

    async def bucket(self, name: str, *, expiry_s: float | None = None) -> Bucket:
        """See `Bus`. The last one who says an expiry sets it for all."""
        names.word("name", name)
        names.expiry(expiry_s)
        self._need()
        entries = self._engine._buckets.setdefault(name, _Entries(name))
        entries.table.expiry_s = expiry_s
        entries.expire()
        return MemoryBucket(self, entries)

    async def close(self) -> None:
        """See `Bus`. The engine goes on for its other buses."""
        self._is_closed = True
        for call in list(self._calls):
            call.close()
        for request in self._requests:
            _fail(request, "was closed before the answer")

    def _need(self) -> None:
        if self._is_closed:
            raise BusDown("the bus is closed")
        if not self._engine.is_up:
            raise BusDown("the engine in memory is stopped")


class MemoryBucket:
    """A `Bucket` of a `MemoryBus`, which makes it."""

    def __init__(self, bus: MemoryBus, entries: _Entries) -> None:
        self._bus = bus
        self._entries = entries

    async def put(self, entries: Mapping[str, bytes | None]) -> None:
        """See `Bucket`."""
        names.entries(entries)
        self._bus._need()
        self._entries.put(entries)
        await asyncio.sleep(0)

    async def swap(self, key: str, expected: bytes | None, value: bytes | None) -> bool:
        """See `Bucket`."""
        names.swap(key, expected, value)
        self._bus._need()
        is_expected = self._entries.table.get(key).get(key) == expected
        if is_expected:
            self._entries.put({key: value})
        await asyncio.sleep(0)
        return is_expected

    async def get(self, key: str) -> dict[str, bytes]:
        """See `Bucket`."""
        names.key(key)
        self._bus._need()
        return self._entries.table.get(key)

    async def watch(self, key: str, changed: Callable[[str, bytes | None], None]) -> Subscription:
        """See `Bucket`."""
        names.key(key)
        options.function("changed", changed)
        self._bus._need()
        found = self._entries.table.get(key)
        call = _Call(key, changed, self._bus._calls, self._entries.watches)
        for name, value in found.items():
            call.soon(name, value)
        await asyncio.sleep(0)
        return call


def _fail(request: Future[bytes], why: str) -> None:
    if not request.done():
        request.set_exception(BusDown(f"the bus {why}"))


def _answer(request: Future[bytes], data: bytes) -> None:
    if not request.done():
        request.set_result(data)
