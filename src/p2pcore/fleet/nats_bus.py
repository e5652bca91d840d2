"""A bus across machines: NATS with JetStream, through nats-py (extra `fleet`).

Comes in: servers, subjects, keys and bytes. Goes out: the same, at other processes; the state of the engine.
One task connects, puts everything back that was subscribed to, and begins again when the connection is lost.
It never waits for the engine: while it is away, everything fails at once. docs/fleet-engines.md
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from p2pcore import limits, options
from p2pcore.errors import BusDown, BusError, P2PError
from p2pcore.fleet import names
from p2pcore.fleet.bus import Bucket, BusMessage, Subscription
from p2pcore.fleet.callback import Callback, checked
from p2pcore.fleet.nats_bucket import NatsBucket
from p2pcore.fleet.nats_link import Link
from p2pcore.fleet.nats_watch import Watch

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as NatsSubscription

logger = logging.getLogger("p2pcore.fleet.nats_bus")

_OURS: Final = {
    *("servers", "error_cb", "disconnected_cb", "closed_cb", "reconnected_cb", "discovered_server_cb"),
    *("allow_reconnect", "reconnect_time_wait", "reconnect_to_server_handler", "max_reconnect_attempts"),
    *("pending_size", "flusher_queue_size", "flush_timeout", "skip_subject_validation", "no_echo", "verbose"),
}
"""Options of nats-py that the bus sets itself."""


class NatsBus:
    """A `Bus` over NATS 2.14 or newer, with JetStream; an async context manager.

        async with NatsBus(["tls://nats-0:4222", "tls://nats-1:4222"], user_credentials="fleet.creds") as bus:
            ...

    It starts although the engine is away, and goes on trying; see `is_up` and `on_state`.

    Args:
        servers: addresses of one engine. Name several of a cluster: no others are tried.
        replicas: servers of a cluster that keep each bucket, 1 to 5; an odd number.
        options: for `nats.connect`: tls, tls_hostname, tls_handshake_first, user, password, token,
            user_credentials, nkeys_seed, name, inbox_prefix, dont_randomize and others. Those that say how to
            connect again and how to buffer are not taken.

    Raises:
        ImportError: nats-py is not installed.
        TypeError, ValueError: an argument is wrong.
    """

    def __init__(
        self, servers: str | Sequence[str] = "nats://127.0.0.1:4222", *, replicas: int = 1, **options: Any
    ) -> None:
        self._servers = _servers(servers)
        _replicas(replicas)
        self._options = _options(options)
        self._replicas = replicas
        self._link: Link | None = None  # while it is up
        self._reason = "it has not started"
        self._told: set[str] = set()  # reasons in the log, since it was there
        self._is_closed = False
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._states: dict[Callback, None] = {}
        self._subscriptions: dict[_Subscribed, None] = {}
        self._watches: dict[Watch, None] = {}
        self._buckets: dict[str, NatsBucket] = {}
        self._num_dropped = 0

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connects, or has tried for up to BUS_TIMEOUT_S when it returns. Call it once.

        Raises: RuntimeError: it has started already, or is closed.
        """
        if self._runner is not None or self._is_closed:
            raise RuntimeError("this bus has started already: make a new NatsBus")
        tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run(tried))
        try:
            either: list[asyncio.Future[None]] = [tried, self._runner]
            await asyncio.wait(either, timeout=limits.BUS_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Bus`."""
        self._is_closed = True
        self._reason = "the bus is closed"
        for callback in [*self._states, *self._subscriptions, *self._watches]:
            callback.close()
        for held in (self._states, self._subscriptions, self._watches, self._buckets):
            held.clear()
        while self._runner is not None and not self._runner.done():
            self._runner.cancel()  # again and again: asyncio.wait_for of Python 3.11, in nats-py, may lose it
            await asyncio.wait({self._runner}, timeout=limits.BUS_RETRY_MIN_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_up(self) -> bool:
        """See `Bus`."""
        return self._link is not None and not self._link.lost.done()

    @property
    def num_dropped(self) -> int:
        """See `Bus`."""
        return self._num_dropped + (self._link.num_dropped if self._link is not None else 0)

    def on_state(self, changed: Callable[[bool], None]) -> Subscription:
        """See `Bus`."""
        options.function("changed", changed)
        state = _State(self._states, changed)
        if not self._is_closed:
            self._states[state] = None
        return state

    # -- messages ------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes) -> None:
        """See `Bus`."""
        names.subject(subject)
        names.message(data)
        await self.link().send(subject, data)

    async def subscribe(self, subject: str, deliver: Callable[[BusMessage], None]) -> Subscription:
        """See `Bus`. In a cluster, other servers know it a moment after this returns."""
        names.subjects(subject)
        options.function("deliver", deliver)
        link = self.link()
        subscribed = _Subscribed(self, subject, deliver)
        self._subscriptions[subscribed] = None
        try:
            await subscribed.attach(link)
            await link.echo()
        except BaseException:
            subscribed.close()
            raise
        return subscribed

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """See `Bus`."""
        names.subject(subject)
        names.message(data)
        options.seconds("timeout_s", timeout_s)
        answer = await self.link().ask(subject, data, timeout_s)
        return answer.data

    async def bucket(self, name: str, *, expiry_s: float | None = None) -> Bucket:
        """See `Bus`. The last process that says an expiry sets it for all.

        What expires is in the memory of the engine, and is gone when the engine has been away. What does not
        is in its files. Raises also: BusError: the engine refuses, for instance because it has a bucket of
        this name that does not expire.
        """
        names.word("name", name)
        names.expiry(expiry_s)
        link = self.link()
        bucket = NatsBucket(self, name, expiry_s, self._replicas)
        await bucket.ensure(link)
        self._buckets[name] = bucket
        return bucket

    # -- for buckets, watches and subscriptions ------------------------------------------------

    def link(self) -> Link:
        """The connection. Raises: BusDown: there is none."""
        if self._link is None or self._link.lost.done():
            raise BusDown(f"NATS is away: {self._reason}" if not self._is_closed else self._reason)
        return self._link

    async def add_watch(self, watch: Watch) -> None:
        """Loads a watch, and again whenever it needs that."""
        link = self.link()
        try:
            await watch.load(link)
            self.link()
        except BaseException:
            watch.close()
            await watch.end()
            raise
        self._watches[watch] = None

    def drop_watch(self, watch: Watch) -> None:
        """Ends a watch that was closed."""
        self._watches.pop(watch, None)
        self.spawn(watch.end())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does `work` in a task of the bus."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, BusError):  # those are told by the state
            logger.error("work for NATS failed", exc_info=error)

    def answer_of(self, subject: str) -> Callable[[bytes], None]:
        """Sends the answer to a request, whose answers go to `subject`."""
        return checked(partial(self._answer, subject))

    def _answer(self, subject: str, data: bytes) -> None:
        if not self.is_up:
            return
        link = self.link()
        if link.is_full or len(self._tasks) >= limits.BUS_MAX_ANSWERS:
            self._num_dropped += 1
        else:
            self.spawn(link.send(subject, data))

    # -- the connection ------------------------------------------------------------------------

    async def _run(self, tried: asyncio.Future[None]) -> None:
        pause = limits.BUS_RETRY_MIN_S
        while not self._is_closed:
            link: Link | None = None
            try:
                link = await Link.open(self._servers, self._options)
                await self._restore(link)
                pause = limits.BUS_RETRY_MIN_S
                self._is_there(link)
                _set(tried)
                await self._serve(link)
            except P2PError as error:
                self._is_away(str(error))
            except Exception as error:  # of nats-py, about an option for instance: try again, and say so
                self._is_away(f"{type(error).__name__}: {error}")
            finally:
                if link is not None:
                    self._link = None
                    self._num_dropped += link.num_dropped
                    await link.close()
            _set(tried)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, limits.BUS_RETRY_MAX_S)

    async def _restore(self, link: Link) -> None:
        for subscribed in list(self._subscriptions):
            await subscribed.attach(link)
        for bucket in list(self._buckets.values()):
            await bucket.ensure(link)
        for watch in list(self._watches):
            if not watch.is_closed:
                await watch.load(link)
        await link.echo()

    async def _serve(self, link: Link) -> None:
        """Looks after the watches until the connection is lost. Raises: BusDown, then."""
        while not link.lost.done():
            await asyncio.wait({link.lost}, timeout=limits.BUS_LOOK_S)
            link.look()
            for watch in list(self._watches):
                if watch.needs_load() and not link.lost.done():
                    await watch.load(link)
        raise BusDown(link.reason)

    def _is_there(self, link: Link) -> None:
        if self._is_closed:
            return
        self._link = link
        self._reason = ""
        self._told.clear()
        logger.info("NATS is there")
        for state in list(self._states):
            state(True)

    def _is_away(self, reason: str) -> None:
        was_up = self._link is not None
        self._link = None
        is_new = reason not in self._told and len(self._told) < limits.BUS_MAX_REASONS
        logger.log(logging.WARNING if is_new else logging.DEBUG, "NATS is away: %s", reason)
        if is_new:
            self._told.add(reason)
        self._reason = reason
        if was_up:
            for state in list(self._states):
                state(False)


class _State(Callback):
    """Who wants to know whether the engine is there."""

    __slots__ = ("_states",)

    def __init__(self, states: dict[Callback, None], changed: Callable[[bool], None]) -> None:
        super().__init__("state", changed)
        self._states = states

    def close(self) -> None:
        """See `Callback`."""
        super().close()
        self._states.pop(self, None)


class _Subscribed(Callback):
    """A subscription, over all connections of its life."""

    __slots__ = ("_bus", "_link", "_sub")

    def __init__(self, bus: NatsBus, subject: str, deliver: Callable[[BusMessage], None]) -> None:
        super().__init__(subject, deliver)
        self._bus = bus
        self._link: Link | None = None
        self._sub: NatsSubscription | None = None

    async def attach(self, link: Link) -> None:
        """Subscribes on a new connection."""
        self._link = link
        self._sub = await link.listen(self.subject, self._take)

    async def _take(self, msg: Msg) -> None:
        answer = self._bus.answer_of(msg.reply) if msg.reply else None
        self(BusMessage(msg.subject, msg.data, answer))

    def close(self) -> None:
        """See `Callback`."""
        super().close()
        self._bus._subscriptions.pop(self, None)
        if self._link is not None and self._sub is not None:
            self._bus.spawn(self._link.leave(self._sub))
            self._sub = None


def _set(tried: asyncio.Future[None]) -> None:
    if not tried.done():
        tried.set_result(None)


def _servers(servers: object) -> list[str]:
    listed = [servers] if isinstance(servers, str) else servers
    options.items("servers", listed, "addresses such as nats://127.0.0.1:4222", str)
    if not listed:
        raise ValueError("servers must name at least one server")
    return list(listed)  # type: ignore[call-overload,no-any-return]


def _replicas(replicas: object) -> None:
    options.whole("replicas", replicas, 1, 5)
    if replicas in (2, 4):
        raise ValueError(f"replicas must be an odd number, not {replicas}: two servers cannot outvote one")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options for nats-py. Raises: ImportError; TypeError: it does not know one, or it is ours."""
    try:
        from nats.aio.client import Client
    except ImportError as error:
        raise ImportError('NatsBus needs nats-py: pip install "p2pcore[fleet]"') from error
    known = set(inspect.signature(Client.connect).parameters) - {"self"}
    for name in given:
        if name in _OURS:
            raise TypeError(f"{name} is not for the caller to set: NatsBus connects again and buffers itself")
        if name not in known:
            raise TypeError(f"nats-py has no option {name!r}")
    defaults = {
        "name": "p2pcore",
        "ping_interval": limits.BUS_PING_S,
        "connect_timeout": limits.BUS_CONNECT_TIMEOUT_S,
    }
    return defaults | given
