"""An event loop in a thread, for what lives longer than the loop of one test: a supervisor with its workers.

Comes in: coroutines. Goes out: their results.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from harness import HANG_S
from p2pcore import Supervisor

T = TypeVar("T")


class LoopThread:
    """The loop runs until `close`."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def result(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` there. What it raises is raised here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(HANG_S)

    def started(self, factory: Any, *args: object, workers: int) -> Supervisor:
        """A supervisor that has started there."""

        async def start() -> Supervisor:
            supervisor = Supervisor(factory, args, workers=workers)
            await supervisor.start()
            return supervisor

        return self.result(start())

    def close(self) -> None:
        """Ends the loop. What runs there must have ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
