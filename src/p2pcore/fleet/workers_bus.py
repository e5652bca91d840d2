"""A bus between the workers of one supervisor: no server to run, and nothing leaves the machine.

Comes in: a worker. Goes out: a `Bus`; its engine is the supervisor, which keeps the buckets in its memory.
When the supervisor has ended, the workers drain, and the bus is down for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from p2pcore import options
from p2pcore.errors import BusDown, NobodyListens
from p2pcore.fleet import names
from p2pcore.fleet.bus import Bucket, BusMessage, Subscription
from p2pcore.fleet.callback import Callback, checked

if TYPE_CHECKING:
    from p2pcore.workers.hub_client import Group, Handle, HubClient
    from p2pcore.workers.worker import Worker


class _Call(Callback):
    """A callback of one bus, and what ends it at the hub."""

    __slots__ = ("_calls", "handle")

    def __init__(self, subject: str, function: Callable[..., None], calls: dict[_Call, None]) -> None:
        super().__init__(subject, function)
        self._calls = calls
        self.handle: Handle | None = None
        calls[self] = None

    async def begin(self, work: Coroutine[Any, Any, Handle]) -> _Call:
        """Waits until the hub knows of it."""
        try:
            self.handle = await work
        except BaseException:
            self.close()
            raise
        if self.is_closed:  # meanwhile
            self.handle.close()
        return self

    def close(self) -> None:
        """See `Callback`."""
        super().close()
        self._calls.pop(self, None)
        if self.handle is not None:
            self.handle.close()


class WorkersBus:
    """A `Bus` between the workers of one supervisor; a worker may have several. Made inside the event loop.

    Args:
        worker: what the factory of the supervisor was given.

    Attributes:
        worker: the same.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._hub: HubClient = worker.hub
        self._calls: dict[_Call, None] = {}
        self._group: Group = set()
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """Whether the supervisor is there and this bus is not closed."""
        return self._hub.is_up and not self._is_closed

    @property
    def num_dropped(self) -> int:
        """See `Bus`: answers of this worker. The supervisor counts what it could not pass on to a worker."""
        return self._hub.dropped

    def on_state(self, changed: Callable[[bool], None]) -> Subscription:
        """See `Bus`. It is called at most once, with False."""
        options.function("changed", changed)
        call = _Call("state", changed, self._calls)
        call.handle = self._hub.on_down(lambda: call(False))
        return call

    async def publish(self, subject: str, data: bytes) -> None:
        """See `Bus`. It waits while the supervisor does not read what this worker sends."""
        names.subject(subject)
        names.message(data)
        self._need()
        await self._hub.publish(subject, data)

    async def subscribe(self, subject: str, deliver: Callable[[BusMessage], None]) -> Subscription:
        """See `Bus`. Messages are lost while limits.HUB_QUEUE_BYTES wait for this worker.

        Raises: also LimitExceeded, if the worker has limits.HUB_MAX_SUBSCRIPTIONS.
        """
        names.subjects(subject)
        options.function("deliver", deliver)
        self._need()
        call = _Call(subject, deliver, self._calls)

        def message(subject: str, data: bytes, answer: Callable[[bytes], None] | None) -> None:
            call(BusMessage(subject, data, answer and checked(answer)))

        return await call.begin(self._hub.subscribe(subject, message, self._group))

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """See `Bus`. Raises: also LimitExceeded, if limits.HUB_MAX_ASKING requests of this worker wait."""
        names.subject(subject)
        names.message(data)
        options.seconds("timeout_s", timeout_s)
        self._need()
        at = asyncio.get_running_loop().time() + timeout_s
        try:
            _, answer = await self._hub.ask("request", data, self._group, at, subject=subject)
        except NobodyListens:
            raise NobodyListens(f"nobody subscribed to {subject!r}") from None
        except TimeoutError:
            raise TimeoutError(f"nobody answered on {subject!r} within {timeout_s:g} s") from None
        return answer

    async def bucket(self, name: str, *, expiry_s: float | None = None) -> Bucket:
        """See `Bus`. The last one who says an expiry sets it for all. Raises: also LimitExceeded."""
        names.word("name", name)
        names.expiry(expiry_s)
        self._need()
        await self._hub.ask("bucket", group=self._group, name=name, expiry_s=expiry_s)
        return WorkersBucket(self, name)

    async def close(self) -> None:
        """See `Bus`. Other buses of this worker go on."""
        self._is_closed = True
        for call in list(self._calls):
            call.close()
        for answer in self._group:
            if not answer.done():
                answer.set_exception(BusDown("the bus was closed before the answer"))

    def _need(self) -> None:
        if self._is_closed:
            raise BusDown("the bus is closed")


class WorkersBucket:
    """A `Bucket` of a `WorkersBus`, which makes it. It holds up to limits.HUB_MAX_ENTRIES entries."""

    def __init__(self, bus: WorkersBus, name: str) -> None:
        self._bus = bus
        self._name = name

    async def put(self, entries: Mapping[str, bytes | None]) -> None:
        """See `Bucket`. Raises: also LimitExceeded, if the bucket is full."""
        names.entries(entries)
        self._bus._need()
        await self._bus._hub.put(self._name, list(entries.items()), self._bus._group)

    async def swap(self, key: str, expected: bytes | None, value: bytes | None) -> bool:
        """See `Bucket`. Raises: also LimitExceeded, if the bucket is full."""
        names.swap(key, expected, value)
        self._bus._need()
        return await self._bus._hub.swap(self._name, key, expected, value, self._bus._group)

    async def get(self, key: str) -> dict[str, bytes]:
        """See `Bucket`."""
        names.key(key)
        self._bus._need()
        return await self._bus._hub.get(self._name, key, self._bus._group)

    async def watch(self, key: str, changed: Callable[[str, bytes | None], None]) -> Subscription:
        """See `Bucket`."""
        names.key(key)
        options.function("changed", changed)
        self._bus._need()
        call = _Call(key, changed, self._bus._calls)
        return await call.begin(self._bus._hub.watch(self._name, key, call, self._bus._group))
