"""An event loop whose clock jumps to the next timer when nothing else is ready: minutes pass at once.

Comes in: coroutines that wait only on timers and futures, never on sockets. Goes out: their results; fails if
they wait for something that never happens. p2pcore takes time only from its event loop, so it runs here
unchanged (go-libp2p can inject a clock only into its dial worker: W49).
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Moves the clock and does not wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("everybody waits for something that will never happen")
        self.now += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds since the loop was made, on the clock of its timers."""
        return self._clock.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` on a fresh VirtualLoop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


def virtual(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Runs an `async` test on a fresh VirtualLoop."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        run_virtual(main())

    return wrapper
