"""The task of a fleet in a process: it joins, says that this process lives, and writes its presence.

Comes in: a bus, and what the parts of the fleet have to do there. Goes out: whether the process is in the
fleet. While the engine is away it tries again each FLEET_REFRESH_S, and at once when the bus says that it is
back. A timer looks after the other processes, and asks those that are late.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from p2pcore.errors import BusDown, BusError, LimitExceeded, NobodyListens
from p2pcore.fleet.directory import lease_key, lease_of
from p2pcore.fleet.envelope import ALIVE, PEERS
from p2pcore.limits import (
    FLEET_BATCH_S,
    FLEET_BUS_WAIT_S,
    FLEET_CLOSE_S,
    FLEET_EXPIRY_S,
    FLEET_LEASE_S,
    FLEET_LOOK_S,
    FLEET_REFRESH_S,
    FLEET_RENEW_S,
    FLEET_TOPIC_LOOK_S,
)

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bucket, Bus, Subscription
    from p2pcore.fleet.caps import Caps
    from p2pcore.fleet.directory import Directory, Place
    from p2pcore.fleet.hints import Hints
    from p2pcore.fleet.presence import Presence
    from p2pcore.fleet.topics import Topics

logger = logging.getLogger("p2pcore.fleet")

Step = Callable[[], Awaitable["Subscription"]]


class Member:
    """See above.

    Args:
        bus: of the fleet. name: of the fleet. subject: of the messages to a process.
        here: what this process says of itself now.
        presence, directory, topics, hints, caps: the parts.
        steps: what else is subscribed to once.
        told: called when `is_up` changes, with the error.

    Attributes:
        is_up: whether this process is in the fleet now, as far as is known.
        leases, peers: the buckets; None: the engine has never been there.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        subject: Callable[[str], str],
        here: Callable[[], Place],
        presence: Presence,
        directory: Directory,
        topics: Topics,
        hints: Hints,
        caps: Caps | None,
        steps: Sequence[Step],
        told: Callable[[bool, BaseException | None], None],
    ) -> None:
        self._bus = bus
        self._name = name
        self._subject = subject
        self._here = here
        self._presence = presence
        self._directory = directory
        self._topics = topics
        self._hints = hints
        self._caps = caps
        self._steps = steps
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._tried = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._is_joined = False
        self._beat = 0
        self._beaten_at = float("-inf")
        self._looked_at = self._loop.time()
        self._renew_at = float("inf")
        self._task: asyncio.Task[None] | None = None
        self._on_state: Subscription | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}  # of processes that are late, or new
        self.is_up = False
        self.leases: Bucket | None = None
        self.peers: Bucket | None = None

    async def start(self) -> None:
        """Returns when this process has joined, or when the engine was found to be away."""
        self._on_state = self._bus.on_state(self._state_changed)
        self._tick()
        self._task = self._loop.create_task(self._run())
        await self._tried.wait()

    def changed(self) -> None:
        """Something waits to be written: it is, with what else comes meanwhile, in FLEET_BATCH_S."""
        self._loop.call_later(FLEET_BATCH_S, self._woken.set)

    def _tick(self) -> None:
        """By a timer, not by the task: waiting for the bus must not look as if this process stood still."""
        for process in self._directory.tick():
            if process not in self._asking and self.is_up:
                self._asking[process] = self._loop.create_task(self._ask(process, ALIVE))
        self._ticking = self._loop.call_later(FLEET_LOOK_S, self._tick)

    def came(self, process: str) -> None:
        """Asks a process that this one did not know for its peers."""
        if process not in self._asking:
            self._asking[process] = self._loop.create_task(self._ask(process, PEERS))

    async def _ask(self, process: str, what: bytes) -> None:
        """Asks `process` one of the questions of the envelope. If the bus has it no more, it has ended.

        One that is there and does not answer may stand still: its lease decides that.
        """
        try:
            marks = await self._bus.request(self._subject(process), what, timeout_s=FLEET_LEASE_S)
            self._hints.note(marks, process)
        except NobodyListens:
            self._directory.nobody(process)
        except (BusError, LimitExceeded, TimeoutError):
            pass
        finally:
            del self._asking[process]

    def _state_changed(self, is_up: bool) -> None:
        if is_up:
            self._woken.set()
        else:
            self._went_away(BusDown("the engine of the bus went away"))

    # -- the task ------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            error: BaseException | None = None
            try:
                async with asyncio.timeout(FLEET_BUS_WAIT_S):
                    await self._join()
                self._came_back()
                await self._stay()
            except (BusError, TimeoutError) as away:
                error = away
            except Exception as fault:  # of a bus, or ours: presence must not end with it
                logger.exception("the fleet has lost its bus")
                error = fault
            self._went_away(error)
            await self._pause(FLEET_REFRESH_S)

    async def _join(self) -> None:
        """Makes buckets and subscriptions, which hold from then on. Raises BusDown."""
        if not self._is_joined:
            self._leave()
            self.leases = await self._bus.bucket(f"{self._name}-processes", expiry_s=FLEET_LEASE_S)
            self.peers = await self._bus.bucket(f"{self._name}-peers", expiry_s=FLEET_EXPIRY_S)
            for step in self._steps:
                self._subscriptions.append(await step())
            self._is_joined = True
        await self._say_alive(self._loop.time())
        await self._topics.rejoin()

    def _leave(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()

    def _came_back(self) -> None:
        self._directory.back()
        self._renew()
        self._set_up(True, None)

    def _renew(self) -> None:
        """Writes all again that this process has on the bus."""
        self._renew_at = self._loop.time() + FLEET_RENEW_S * random.uniform(0.5, 1)
        self._presence.restore()
        if self._caps is not None:
            self._caps.restore()

    def _went_away(self, error: BaseException | None) -> None:
        self._presence.away()
        self._directory.away()
        self._set_up(False, error)

    def _set_up(self, is_up: bool, error: BaseException | None) -> None:
        is_first = not self._tried.is_set()
        self._tried.set()
        if is_up is not self.is_up or (is_first and not is_up):
            self.is_up = is_up
            self._told(is_up, error)

    async def _stay(self) -> None:
        """Does what there is to do, until BusDown."""
        assert self.peers is not None
        assert self.leases is not None
        while self.is_up:
            now = self._loop.time()
            async with asyncio.timeout(FLEET_BUS_WAIT_S):
                if now >= self._beaten_at + FLEET_REFRESH_S:
                    await self._say_alive(now)
                    self._look(now)
                await self._presence.write(self.peers)
                if self._caps is not None:
                    await self._caps.write()
            if self._presence.has_changes or (self._caps is not None and self._caps.has_changes):
                self.changed()
            await self._pause(self._beaten_at + FLEET_REFRESH_S - self._loop.time())

    async def _say_alive(self, now: float) -> None:
        assert self.leases is not None
        self._beat += 1
        here = self._here()
        lease = lease_of(here, self._beat, self._presence.take_news())
        await self.leases.put({lease_key(here.process): lease})
        self._beaten_at = now

    def _look(self, now: float) -> None:
        if self._caps is not None:
            self._caps.look()
        if now >= self._renew_at:
            self._renew()
        if now - self._looked_at >= FLEET_TOPIC_LOOK_S:
            self._looked_at = now
            self._topics.sweep()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        self._woken.clear()

    async def close(self) -> None:
        """Ends the task, and takes this process out of the fleet."""
        if self._on_state is not None:
            self._on_state.close()
        if self._ticking is not None:
            self._ticking.cancel()
        if self._task is not None:
            await _ended([self._task])
            self._task = None
        self._leave()
        await _ended(list(self._asking.values()))
        if self.is_up and self.leases is not None and self.peers is not None:
            self.is_up = False
            with suppress(BusError, TimeoutError):
                async with asyncio.timeout(FLEET_CLOSE_S):
                    await self.leases.put({lease_key(self._here().process): None})
                    if self._caps is not None:
                        await self._caps.withdraw()
                    await self._presence.withdraw(self.peers)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Cancels tasks, and waits for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
