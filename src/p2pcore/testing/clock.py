"""An event loop whose clock jumps to the next timer when nothing else is ready: minutes pass at once.

Comes in: coroutines that wait only for timers, and for each other. Goes out: their results. It fails if they
wait for something that never happens. All deadlines of p2pcore follow this clock while the loop runs. A
process has one clock: no other loop may use p2pcore meanwhile. It does not wait for sockets.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from p2pcore._fast.loop import clock
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.limits import VIRTUAL_THREAD_S

P = ParamSpec("P")
T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Moves the clock and does not wait."""

    now = 0.0
    has_threads: Callable[[], bool]

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return self._wait_for_threads()
        self.now += max(timeout, 0)
        clock.freeze(self.now)
        return []

    def _wait_for_threads(self) -> Any:
        """What is ready once a thread of the loop's executor is done: threads live in the time of people."""
        if self.has_threads() and (ready := super().select(VIRTUAL_THREAD_S)):
            return ready
        raise AssertionError("everybody waits for something that will never happen")


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. Its clock starts at 0 and moves only when everybody waits.

    Raises: from `run_until_complete`: AssertionError, if everybody waits and no timer is set;
        RuntimeError, if another VirtualLoop runs in this process.
    """

    def __init__(self) -> None:
        self._clock = _Selector()
        self._clock.has_threads = self._has_threads
        super().__init__(self._clock)
        loop_state(self).spin_s = 0  # who looks for an answer before it sleeps waits for the clock of people

    def _has_threads(self) -> bool:
        return getattr(self, "_default_executor", None) is not None

    def time(self) -> float:
        """Seconds since the loop was made, on the clock of its timers."""
        return self._clock.now

    def run_forever(self) -> None:
        """See asyncio. The clock of p2pcore is this loop's until it returns."""
        if clock.is_frozen():
            raise RuntimeError("another virtual loop runs in this process, which has one clock")
        clock.freeze(self._clock.now)
        try:
            super().run_forever()
        finally:
            clock.thaw()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """See asyncio. Without a time limit, which this clock would jump over while threads still end."""
        await super().shutdown_default_executor()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` on a fresh VirtualLoop. Returns: its result. Raises: what it raises; see VirtualLoop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Makes of an `async` test a plain function that runs it on a fresh VirtualLoop.

    It needs no plugin for async tests, and gets in the way of none.
    """

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        run_virtual(main())

    return wrapper
