"""Supervisors of one fleet restart one after another: a turn, kept on the bus that their workers have.

Comes in: a supervisor that wants to restart. Goes out: its turn. A supervisor has no bus, so each read and
each swap of the turn's cell is done by one of its workers; what is known of the turn stays in the supervisor,
which outlives them. Without a fleet that reaches other supervisors, nothing waits.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.aio.turn import Turn
from p2pcore.errors import BusDown
from p2pcore.workers.channel import Message
from p2pcore.workers.turn_proxy import bytes_of, text_of

if TYPE_CHECKING:
    from p2pcore.workers.process import Process


class RestartTurn:
    """The supervisor's side; satisfies aio.turn.Cell.

    Args: processes: all worker processes.
    """

    def __init__(self, processes: Callable[[], Iterable[Process]]) -> None:
        self._processes = processes
        self._numbers = itertools.count(1)
        self._asking: dict[int, asyncio.Future[Message]] = {}
        self._turn: Turn | None = None
        self._waiting: asyncio.Timeout | None = None
        self._is_closed = False

    @asynccontextmanager
    async def taken(self, step_s: float) -> AsyncIterator[None]:
        """Waits for the turn, and has it meanwhile.

        Args: step_s: how long a worker may drain at most. So long, and a little longer, the turn lasts when
            nobody renews it: no other supervisor begins while one of our workers may still drain.

        Raises: TimeoutError: others have had it for limits.FLEET_TURN_TIMEOUT_S.
        """
        if self._proxy() is None:
            yield
            return
        expiry_s = min(step_s + limits.FLEET_TURN_EXPIRY_S, limits.FLEET_TURN_MAX_EXPIRY_S)
        holder = f"the supervisor on {socket.gethostname()} (pid {os.getpid()})"
        async with AsyncExitStack() as stack:
            async with self._patiently():
                self._turn = await stack.enter_async_context(Turn(self, "restart", holder, expiry_s=expiry_s))
            try:
                yield
            finally:
                self._turn = None

    async def hold(self) -> None:
        """Before a worker drains: returns when the turn is ours for as long as that takes. See Turn.hold."""
        if self._turn is not None and self._proxy() is not None:
            async with self._patiently():
                await self._turn.hold()

    @asynccontextmanager
    async def _patiently(self) -> AsyncIterator[None]:
        """Waits inside end with TimeoutError at `close`."""
        try:
            async with asyncio.timeout(0 if self._is_closed else None) as self._waiting:
                yield
        except TimeoutError:
            if self._is_closed:
                raise TimeoutError("the workers are not replaced: they are to end") from None
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """All workers are to end: nobody waits for the turn any more. Idempotent."""
        self._is_closed = True
        if self._waiting is not None:
            self._waiting.reschedule(0)

    def _proxy(self) -> Process | None:
        """A worker that can ask; None: there is no fleet, or no worker to restart."""
        for process in self._processes():
            if process.has_turn and process.is_ready and not process.ended.done():
                return process
        return None

    # -- the cell ------------------------------------------------------------------------------

    async def get(self) -> bytes | None:
        """See `Cell`."""
        return bytes_of((await self._ask())["found"])

    async def swap(self, expected: bytes | None, value: bytes) -> bool:
        """See `Cell`."""
        answer = await self._ask(expected=text_of(expected), value=text_of(value))
        return bool(answer["is_swapped"])

    async def _ask(self, **fields: Any) -> Message:
        """Raises BusDown: no worker has an answer."""
        process = self._proxy()
        if process is None:
            raise BusDown("no worker is there that has a fleet")
        n = next(self._numbers)
        answer = self._asking[n] = asyncio.get_running_loop().create_future()
        either: list[asyncio.Future[Any]] = [answer, process.ended]
        try:
            process.send(do="turn", n=n, **fields)
            await asyncio.wait(
                either, timeout=limits.WORKER_TURN_ANSWER_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            del self._asking[n]
        if not answer.done() or "error" in answer.result():
            why = answer.result()["error"] if answer.done() else "it does not answer, or has ended"
            raise BusDown(f"worker {process.index} could not ask the bus: {why}")
        found: Message = answer.result()
        return found

    def heard(self, message: Message) -> None:
        """A worker answers."""
        answer = self._asking.get(message["n"])
        if answer is not None and not answer.done():
            answer.set_result(message)
