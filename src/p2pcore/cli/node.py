"""Runs one command on the event loop: signals, the host of a client, standard input and output.

Comes in: a coroutine. After the first signal the command ends in less than a second, plus the time of a
drain. A second signal ends the process at once. Never blocks the loop: a read or write that may block has a
thread of its own.
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

import uvloop  # noqa: F401  (before a coroutine exists that an interrupted import would leave behind)

import p2pcore
from p2pcore import Conn, Host, Multiaddr
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import finish
from p2pcore.cli.params import check_target

T = TypeVar("T")

CLOSING_S = 0.8
"""Seconds that the end may take after Ctrl-C. We do not wait longer for a peer that does not answer."""


class _Stop:
    """The first signal cancels the command. The second signal ends the process.

    After a signal the process exits while the loop still runs (`exit_by_signal`). Later there are no signal
    handlers: a second signal would then print a traceback or kill the process.
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

    def exit_by_signal(self) -> None:
        """Ends the process if there was a signal. No output is lost that somebody reads."""
        if self.status is not None:
            finish()
            os._exit(self.status)


def run(main: Coroutine[Any, Any, None], interrupted: int | None = None, grace_s: float = 0.0) -> None:
    """Runs `main` on uvloop to its end. After a signal it does not return: the process ends.

    Args:
        interrupted: the exit status after a signal; None: 128 plus the number of the signal.
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
            stop.exit_by_signal()

    p2pcore.run(guarded())


@asynccontextmanager
async def dialled(target: Multiaddr, any_peer: bool, node: NodeOptions) -> AsyncIterator[tuple[Host, Conn]]:
    """A host that does not listen, and its connection to `target`."""
    check_target(target, any_peer)
    async with node.host(listen=[]) as host:
        yield host, await host.connect(target)


class Background:
    """A thread for calls that may block for ever, one at a time. The process can end while it blocks."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """Returns or raises what `function()` does. If this is cancelled, the call itself goes on."""
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
