"""Orders that this process carries out: those of other processes, from the bus, and its own.

Comes in: orders. Goes out: the peer's answer, or why there is none. What runs at once is bounded: in all, for
each asking process, and by the bytes of the messages. What is beyond fails at once. An order with an id runs
once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from p2pcore.aio.deadlines import Deadlines, end_stream
from p2pcore.codes import Undelivered
from p2pcore.errors import NotDelivered, RemoteProtocolError
from p2pcore.fleet.done import Done
from p2pcore.fleet.envelope import ALIVE, PEERS, Order, packed_answer, packed_failure, unpacked
from p2pcore.fleet.hand_over import hand_over
from p2pcore.limits import (
    FLEET_ATTEMPT_S,
    FLEET_MAX_SERVED,
    FLEET_MAX_SERVED_BYTES,
    FLEET_MAX_SERVED_PER_PROCESS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from p2pcore.fleet.bus import BusMessage
    from p2pcore.interfaces import Network

logger = logging.getLogger("p2pcore.fleet")


class Serving:
    """See above.

    Args:
        network: the host's swarm. marks: those of all its peers.

    Attributes:
        num_running: orders that run now. num_bytes: their messages.
        served: how often an order from the bus ended how: "delivered", or the name of an Undelivered.
    """

    __slots__ = (
        *("_deadlines", "_done", "_marks", "_network", "_of_process", "_tasks"),
        *("num_bytes", "num_running", "served"),
    )

    def __init__(self, network: Network, marks: Callable[[], bytes]) -> None:
        self._network = network
        self._marks = marks
        self._done = Done()
        self._deadlines = Deadlines(end_stream)
        self._of_process: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_running = 0
        self.num_bytes = 0
        self.served: Counter[str] = Counter()

    async def carry_out(self, order: Order) -> bytes:
        """The peer's answer. Raises NotDelivered."""
        if not order.key:
            return await self._hand_over(order)
        key = order.peer, order.protocol, order.wants_answer, order.key
        patience_s = min(order.left_s, FLEET_ATTEMPT_S)  # by then it has been asked again, or given up
        try:
            return await self._done.once(key, lambda: self._hand_over(order), patience_s)
        except TimeoutError:
            raise NotDelivered(order.peer, Undelivered.TIMEOUT, may_have_arrived=True) from None

    def _hand_over(self, order: Order) -> Coroutine[Any, Any, bytes]:
        return hand_over(self._network, order, self._deadlines)

    def deliver(self, message: BusMessage) -> None:
        """Takes an order from the bus, or a question to this process."""
        if message.answer is None:
            return
        if message.data in (ALIVE, PEERS):
            message.answer(self._marks() if message.data == PEERS else b"")
            return
        try:
            order = unpacked(message.data)
        except RemoteProtocolError as error:
            logger.warning("an order of another process cannot be read: %s", error)
            return
        if self._is_full(order):
            self._end(message, order, NotDelivered(order.peer, Undelivered.BUSY))
            return
        self._count(order, 1)
        task = asyncio.get_running_loop().create_task(self._serve(message, order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_full(self, order: Order) -> bool:
        return (
            self.num_running >= FLEET_MAX_SERVED
            or self._of_process[order.process] >= FLEET_MAX_SERVED_PER_PROCESS
            or self.num_bytes + len(order.message) > FLEET_MAX_SERVED_BYTES
        )

    def _count(self, order: Order, step: int) -> None:
        self.num_running += step
        self.num_bytes += step * len(order.message)
        self._of_process[order.process] += step
        if not self._of_process[order.process]:
            del self._of_process[order.process]

    async def _serve(self, message: BusMessage, order: Order) -> None:
        outcome: bytes | NotDelivered | None = None
        try:
            outcome = await self.carry_out(order)
        except NotDelivered as error:
            outcome = error
        except Exception:  # a fault of ours must not leave the asking process without an answer
            logger.exception("an order for %s has failed", order.peer)
        finally:
            self._count(order, -1)
            if outcome is None:
                outcome = NotDelivered(order.peer, Undelivered.GONE, may_have_arrived=True)
            self._end(message, order, outcome)

    def _end(self, message: BusMessage, order: Order, outcome: bytes | NotDelivered) -> None:
        assert message.answer is not None
        if isinstance(outcome, NotDelivered):
            self.served[outcome.reason.name.lower()] += 1
            message.answer(packed_failure(outcome))
        else:
            self.served["delivered"] += 1
            message.answer(packed_answer(outcome))

    async def close(self) -> None:
        """Cancels what runs for others; they get GONE."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._deadlines.rest()
