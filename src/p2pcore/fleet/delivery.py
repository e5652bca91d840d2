"""A message to a peer, wherever in the fleet it is connected.

Comes in: peer, protocol, message, deadline. Goes out: the answer, or NotDelivered, before the deadline has
passed. A message without an id is sent a second time only if the peer has certainly not seen it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, NobodyListens, NotDelivered, RemoteProtocolError
from p2pcore.fleet.envelope import Order, answer_of, packed
from p2pcore.fleet.hints import marks_of
from p2pcore.limits import (
    FLEET_ATTEMPT_S,
    FLEET_MAX_ASKED,
    FLEET_MAX_RETRY_PAUSE_S,
    FLEET_RETRY_PAUSE_S,
)

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bus
    from p2pcore.fleet.directory import Directory, Place
    from p2pcore.fleet.hints import Hints
    from p2pcore.fleet.serving import Serving
    from p2pcore.values.peer_id import PeerId

_ELSEWHERE: Final = (Undelivered.NOT_CONNECTED, Undelivered.GONE)
_FINAL: Final = (Undelivered.NOT_SUPPORTED, Undelivered.BAD_ANSWER)
"""Not even a message with an id is sent again: the peer would do the same."""


class Delivery:
    """See above.

    Args:
        bus: carries orders to other processes. subject: of the orders for a process.
        serving: carries out those for peers that are connected here.
        directory: who lives, and is connected here. hints: where a peer may be.
        where: the processes that a peer is connected to, as the bus says.

    Attributes:
        num_running: messages under way.
        asked: how often one ended how: "delivered", or the name of an Undelivered.
    """

    __slots__ = (
        *("_bus", "_directory", "_hints", "_serving", "_subject", "_waiting", "_where"),
        *("asked", "num_running"),
    )

    def __init__(
        self,
        bus: Bus,
        subject: Callable[[str], str],
        serving: Serving,
        directory: Directory,
        hints: Hints,
        where: Callable[[PeerId], Awaitable[tuple[Place, ...]]],
    ) -> None:
        self._bus = bus
        self._subject = subject
        self._serving = serving
        self._directory = directory
        self._hints = hints
        self._where = where
        self._waiting: dict[str, set[asyncio.Timeout]] = {}  # for answers, by the process that was asked
        self.num_running = 0
        self.asked: Counter[str] = Counter()

    async def ask(self, order: Order) -> bytes:
        """The peer's answer to `order`. Raises NotDelivered."""
        outcome = "cancelled"
        if self.num_running >= FLEET_MAX_ASKED:
            self.asked["busy"] += 1
            raise NotDelivered(order.peer, Undelivered.BUSY, detail=f"{FLEET_MAX_ASKED} are under way here")
        self.num_running += 1
        try:
            answer = await (self._again(order) if order.key else self._once(order))
            outcome = "delivered"
            return answer
        except NotDelivered as error:
            outcome = error.reason.name.lower()
            raise
        finally:
            self.num_running -= 1
            self.asked[outcome] += 1

    async def _again(self, order: Order) -> bytes:
        """Attempts until one succeeds, or until the deadline."""
        now = asyncio.get_running_loop().time
        deadline = now() + order.left_s
        pause_s, may_have_arrived = FLEET_RETRY_PAUSE_S, False
        while True:
            drawn_s = random.random() * pause_s
            try:
                return await self._once(replace(order, left_s=deadline - now()))
            except NotDelivered as error:
                may_have_arrived |= error.may_have_arrived
                if error.reason in _FINAL or drawn_s >= deadline - now():
                    raise NotDelivered(
                        order.peer, error.reason, may_have_arrived=may_have_arrived, detail=error.detail
                    ) from error
            await asyncio.sleep(drawn_s)
            pause_s = min(2 * pause_s, FLEET_MAX_RETRY_PAUSE_S)

    async def _once(self, order: Order) -> bytes:
        """One attempt: at each place of the peer, as long as the last one has certainly not delivered it.

        Of the other processes, the first is a guess that needs no question to the bus, and mostly right.
        """
        deadline = asyncio.get_running_loop().time() + order.left_s
        failure: NotDelivered | None = None
        if self._directory.is_here(order.peer):
            try:
                return await self._serving.carry_out(order)
            except NotDelivered as error:
                if not _may_be_elsewhere(error):
                    raise
                failure = error
        guess = self._hints.guess(order.peer) if self._bus.is_up else None
        if guess is not None:
            try:
                return await self._over_bus(guess, order, deadline)
            except NotDelivered as error:
                if not _may_be_elsewhere(error):
                    raise
                failure = error
                self._hints.forget(order.peer)
        for place in await self._others(order.peer, deadline, failure):
            if place.process == guess:
                continue
            try:
                answer = await self._over_bus(place.process, order, deadline)
                self._hints.note(marks_of((order.peer,)), place.process)
                return answer
            except NotDelivered as error:
                if not _may_be_elsewhere(error):
                    raise
                failure = error
        try:
            raise failure or NotDelivered(order.peer, Undelivered.NOT_CONNECTED)
        finally:
            del failure  # else it keeps itself alive by its traceback

    async def _others(self, peer: PeerId, deadline: float, before: NotDelivered | None) -> list[Place]:
        """The other processes that `peer` is connected to. `before`: why the first ones have failed."""
        try:
            async with asyncio.timeout_at(deadline):
                return [place for place in await self._where(peer) if not place.is_local]
        except BusDown as error:
            is_gone = before is not None and before.reason is Undelivered.GONE
            reason = Undelivered.GONE if is_gone else Undelivered.BUS_DOWN
            raise NotDelivered(peer, reason, detail=str(error)) from error
        except TimeoutError:
            raise NotDelivered(peer, Undelivered.TIMEOUT, detail="the bus did not answer") from None

    async def _over_bus(self, process: str, order: Order, deadline: float) -> bytes:
        """Has another process carry out `order`. Raises NotDelivered."""
        peer = order.peer
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise NotDelivered(peer, Undelivered.TIMEOUT)
        if not self._directory.is_alive(process):
            raise NotDelivered(peer, Undelivered.GONE, detail="its process has ended")
        try:
            data = await self._answer(process, packed(order, left_s), _patience_s(order, left_s))
            answer = answer_of(peer, data)
        except NobodyListens:
            raise NotDelivered(peer, Undelivered.GONE, detail="its process has ended") from None
        except TimeoutError:
            raise NotDelivered(peer, Undelivered.TIMEOUT, may_have_arrived=True) from None
        except (BusDown, RemoteProtocolError) as error:
            is_away = isinstance(error, BusDown) and not self._bus.is_up
            reason = Undelivered.BUS_DOWN if is_away else Undelivered.GONE
            raise NotDelivered(peer, reason, may_have_arrived=True, detail=str(error)) from error
        return answer

    async def _answer(self, process: str, data: bytes, timeout_s: float) -> bytes:
        """What `process` answers. Raises: as Bus.request; BusDown: its lease has ended meanwhile, too."""
        others = self._waiting.setdefault(process, set())
        try:
            async with asyncio.timeout(None) as waiting:
                others.add(waiting)
                return await self._bus.request(self._subject(process), data, timeout_s=timeout_s)
        except TimeoutError:
            if waiting.expired():
                raise BusDown("its process has ended, or stands still, before the answer") from None
            raise
        finally:
            others.discard(waiting)
            if not others and self._waiting.get(process) is others:
                del self._waiting[process]

    def process_ended(self, process: str) -> None:
        """`process` has no lease any more: what waits for its answer fails at once."""
        for waiting in self._waiting.pop(process, ()):
            waiting.reschedule(0)


def _patience_s(order: Order, left_s: float) -> float:
    """How long one attempt waits."""
    return min(left_s, FLEET_ATTEMPT_S) if order.key else left_s


def _may_be_elsewhere(error: NotDelivered) -> bool:
    """Whether another place of the peer may be tried after `error`."""
    return not error.may_have_arrived and error.reason in _ELSEWHERE
