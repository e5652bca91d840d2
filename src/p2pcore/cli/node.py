"""Running one command on the event loop: signals, the host of a client, standard input and output.

Comes in: a coroutine. Goes out: its end. After the first signal that takes less than a second, and the time
of a drain if one was asked for; a second signal ends the process at once. Never blocks the loop: reads and
writes that may block have a thread each.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import p2pcore
from p2pcore import Conn, Host, Multiaddr
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.params import check_target

T = TypeVar("T")

CLOSING_S = 0.8
"""How long an orderly end may take after Ctrl-C; a peer that does not answer is not waited for."""


class _Stop:
    """The first signal cancels the command, the second ends the process.

    A command that a signal has ended leaves from within the loop (`leave`): later the handlers are gone, and
    a second signal would show as a traceback, or as a death by it, depending on when it comes.
    """

    def __init__(self, task: asyncio.Task[Any], status: int | None, closing_s: float) -> None:
        self._task = task
        self._status = status
        self._closing_s = closing_s
        self.status: int | None = None

    def arm(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: int) -> None:
        if self.status is not None:
            os._exit(self.status)
        self.status = 128 + number if self._status is None else self._status
        asyncio.get_running_loop().call_later(self._closing_s, os._exit, self.status)
        self._task.cancel()

    def leave(self) -> None:
        """Ends the process if there was a signal. Nothing is buffered: Output flushes each line."""
        if self.status is not None:
            os._exit(self.status)


def run(main: Coroutine[Any, Any, None], interrupted: int | None = None, grace_s: float = 0.0) -> None:
    """Runs `main` on uvloop to its end. After a signal it does not return: the process ends.

    Args:
        interrupted: the exit status after a signal; None: 128 and the signal's number.
        grace_s: seconds that `main` may use to drain after a signal, before it closes.
    """

    async def guarded() -> None:
        task = asyncio.current_task()
        assert task is not None
        stop = _Stop(task, interrupted, CLOSING_S + grace_s)
        stop.arm()
        try:
            await main
        finally:
            stop.leave()

    p2pcore.run(guarded())


@asynccontextmanager
async def dialled(target: Multiaddr, any_peer: bool, node: NodeOptions) -> AsyncIterator[tuple[Host, Conn]]:
    """A host that does not listen, and its connection to `target`."""
    check_target(target, any_peer)
    async with node.host(listen=[]) as host:
        yield host, await host.connect(target)


class Background:
    """A thread for calls that may block for ever, one at a time; it does not keep the process from ending."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function()`, or what it raises. Cancelled: the call itself goes on."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((function, future))
        return await future

    def _work(self) -> None:
        while True:
            function, future = self._calls.get()
            try:
                result, error = function(), None
            except Exception as failure:
                result, error = None, failure
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits
                return


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
