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
from p2pcore.limits import (
    FLEET_ATTEMPT_S,
    FLEET_MAX_ASKED,
    FLEET_MAX_LAST,
    FLEET_MAX_RETRY_PAUSE_S,
    FLEET_RETRY_PAUSE_S,
)

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bus
    from p2pcore.fleet.directory import Place
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
        where: the processes that a peer is connected to.
        is_here: whether a peer is connected to this process.

    Attributes:
        num_running: messages under way.
        asked: how often one ended how: "delivered", or the name of an Undelivered.
    """

    __slots__ = ("_bus", "_is_here", "_last", "_serving", "_subject", "_where", "asked", "num_running")

    def __init__(
        self,
        bus: Bus,
        subject: Callable[[str], str],
        serving: Serving,
        where: Callable[[PeerId], Awaitable[tuple[Place, ...]]],
        is_here: Callable[[PeerId], bool],
    ) -> None:
        self._bus = bus
        self._subject = subject
        self._serving = serving
        self._where = where
        self._is_here = is_here
        self._last: dict[PeerId, str] = {}  # used longest ago first
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

        The first of the other processes is the one that had the peer last: most often it still has it, and
        the bus need not be asked where the peer is.
        """
        deadline = asyncio.get_running_loop().time() + order.left_s
        failure = NotDelivered(order.peer, Undelivered.NOT_CONNECTED)
        if self._is_here(order.peer):
            try:
                return await self._serving.carry_out(order)
            except NotDelivered as error:
                failure = _unless_elsewhere(error)
        last = self._last.get(order.peer)
        if last is not None:
            try:
                return await self._over_bus(last, order, deadline)
            except NotDelivered as error:
                failure = _unless_elsewhere(error)
                self._last.pop(order.peer, None)
        for place in await self._others(order.peer, deadline, failure.reason):
            if place.process == last:
                continue
            try:
                return await self._over_bus(place.process, order, deadline)
            except NotDelivered as error:
                failure = _unless_elsewhere(error)
        try:
            raise failure
        finally:
            del failure  # else it keeps itself alive by its traceback

    async def _others(self, peer: PeerId, deadline: float, before: Undelivered) -> list[Place]:
        """The other processes that `peer` is connected to."""
        try:
            async with asyncio.timeout_at(deadline):
                return [place for place in await self._where(peer) if not place.is_local]
        except BusDown as error:
            reason = before if before is Undelivered.GONE else Undelivered.BUS_DOWN
            raise NotDelivered(peer, reason, detail=str(error)) from error
        except TimeoutError:
            raise NotDelivered(peer, Undelivered.TIMEOUT, detail="the bus did not answer") from None

    async def _over_bus(self, process: str, order: Order, deadline: float) -> bytes:
        """Has another process carry out `order`. Raises NotDelivered."""
        peer = order.peer
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise NotDelivered(peer, Undelivered.TIMEOUT)
        try:
            data = await self._bus.request(
                self._subject(process),
                packed(replace(order, left_s=left_s)),
                timeout_s=min(left_s, FLEET_ATTEMPT_S) if order.key else left_s,
            )
            answer = answer_of(peer, data)
            self._remember(peer, process)
            return answer
        except NobodyListens:
            raise NotDelivered(peer, Undelivered.GONE, detail="its process has ended") from None
        except TimeoutError:
            raise NotDelivered(peer, Undelivered.TIMEOUT, may_have_arrived=True) from None
        except (BusDown, RemoteProtocolError) as error:
            reason = Undelivered.BUS_DOWN if isinstance(error, BusDown) else Undelivered.GONE
            raise NotDelivered(peer, reason, may_have_arrived=True, detail=str(error)) from error

    def _remember(self, peer: PeerId, process: str) -> None:
        """`process` has `peer`."""
        self._last.pop(peer, None)
        self._last[peer] = process
        if len(self._last) > FLEET_MAX_LAST:
            del self._last[next(iter(self._last))]


def _unless_elsewhere(error: NotDelivered) -> NotDelivered:
    """`error`, if another place of the peer may be tried after it; else raises it."""
    if error.may_have_arrived or error.reason not in _ELSEWHERE:
        raise error
    return error
