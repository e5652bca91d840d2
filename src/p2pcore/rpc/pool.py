"""The streams of one client to one service: a call takes one, and gives it back for the next call.

Comes in: a function that opens a stream. Goes out: streams that no other call uses. Callers beyond the limit
wait in order. Streams that no call needs are closed after a while. Never reads or writes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.codes import RpcCode
from p2pcore.errors import LimitExceeded, rpc_error
from p2pcore.rpc.idle import end

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream

Waiter = asyncio.Future["Stream | None"]
"""Gets a stream, or None for the place of one."""


class Pool:
    """Streams to one service.

    Args:
        open_stream: opens one. most: streams at a time. idle_s: seconds after which a stream is closed.

    Attributes:
        num_open: streams that are idle or in use.
    """

    __slots__ = (
        "_idle",
        "_idle_s",
        "_is_closed",
        "_least",
        "_most",
        "_open",
        "_timer",
        "_waiting",
        "num_open",
    )

    def __init__(self, open_stream: Callable[[], Awaitable[Stream]], most: int, idle_s: float) -> None:
        self._open = open_stream
        self._most = most
        self._idle_s = idle_s
        self._idle: list[Stream] = []  # the one used last is at the end, and is taken first
        self._least = 0  # the least length of _idle since the last look: so many were not used since
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()  # if anybody waits, none is idle
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.num_open = 0

    @property
    def num_waiting(self) -> int:
        """Calls that wait for a stream."""
        return len(self._waiting)

    def maybe_take(self) -> Stream | None:
        """An idle stream that has not ended; None: there is none. Then call `give` or `drop` once."""
        while self._idle:
            stream = self._idle.pop()
            if len(self._idle) < self._least:
                self._least = len(self._idle)
            if not stream.is_closed:
                return stream
            self.num_open -= 1
        return None

    async def take(self) -> tuple[Stream, bool]:
        """A new stream, or the next one that is given back; and whether it is new.

        Then call `give` or `drop` once.

        Raises: RpcError: RESOURCE_EXHAUSTED: very many wait already. What `open_stream` raises.
        """
        if self.num_open >= self._most:
            stream = await self._wait()
            if stream is not None:
                return stream, False
        else:
            self.num_open += 1
        try:
            return await self._open(), True
        except BaseException:
            self.drop()
            raise

    def give(self, stream: Stream) -> None:
        """The call is over, and `stream` can carry another one."""
        if self._is_closed or stream.is_closed:
            end(stream)
            self.drop()
        elif (waiter := self._next_waiter()) is not None:
            waiter.set_result(stream)
        else:
            self._idle.append(stream)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._look)

    def drop(self) -> None:
        """The stream of a call has ended. The next one that waits may open another."""
        waiter = self._next_waiter()
        if waiter is None:
            self.num_open -= 1
        else:
            waiter.set_result(None)

    def close(self) -> None:
        """Closes what is idle, now and from now on. Idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle, self._idle = self._idle, []
        self.num_open -= len(idle)
        for stream in idle:
            end(stream)

    async def _wait(self) -> Stream | None:
        if len(self._waiting) >= limits.RPC_MAX_WAITING:
            over = LimitExceeded("RPC_MAX_WAITING", len(self._waiting) + 1, limits.RPC_MAX_WAITING)
            raise rpc_error(RpcCode.RESOURCE_EXHAUSTED, "too many calls of this client wait") from over
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiting.pop(waiter, None)
            elif (stream := waiter.result()) is None:
                self.drop()
            else:
                self.give(stream)
            raise

    def _next_waiter(self) -> Waiter | None:
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():  # else it has been cancelled in this turn of the loop
                return waiter
        return None

    def _look(self) -> None:
        """Closes the streams that no call has used since the last look."""
        unused, self._idle = self._idle[: self._least], self._idle[self._least :]
        self._least = len(self._idle)
        self.num_open -= len(unused)
        for stream in unused:
            end(stream)
        self._timer = None
        if self._idle:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._look)
