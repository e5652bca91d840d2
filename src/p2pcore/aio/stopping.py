"""What SIGINT and SIGTERM do to a program under `p2pcore.run`: its main task is cancelled, its hosts drain.

Comes in: signals, if the program has no handlers of its own. Goes out: a cancelled task; whether a loop is
stopping, and how long hosts may drain. A second signal does what it does without us: it ends the process.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}

_stopping: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()


class Interrupted(SystemExit, KeyboardInterrupt):
    """A signal has ended the program. If nobody catches it, the process exits with 128 + signal.

    Python 3.14 takes it for a KeyboardInterrupt first, shows a traceback and ends by SIGINT. So a hook for
    what nobody catches makes it a SystemExit again.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        if sys.version_info >= (3, 14) and not isinstance(sys.excepthook, _Hook):
            sys.excepthook = _Hook(sys.excepthook)


class _Hook:
    """What is done with an exception that nobody catches: Interrupted exits, `before` gets any other."""

    def __init__(self, before: Callable[..., Any]) -> None:
        self._before = before

    def __call__(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Interrupted):
            raise SystemExit(error.code)
        self._before(kind, error, traceback)


def drain_time(loop: asyncio.AbstractEventLoop) -> float | None:
    """Seconds that hosts on `loop` may drain because of a signal; None: there was no signal."""
    return _stopping.get(loop)


class Stopping:
    """The signals of one run.

    Args:
        drain_s: seconds that each host may drain.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._task: asyncio.Task[Any] | None = None
        self._ours: list[signal.Signals] = []
        self.received: int | None = None

    async def watch(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs `main` in the task that a signal cancels."""
        self._task = asyncio.current_task()
        return await main

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Handles, in the main thread, those signals that the program itself does not handle."""
        if threading.current_thread() is threading.main_thread():
            self._ours = [each for each, default in _DEFAULTS.items() if signal.getsignal(each) is default]
        try:
            for number in self._ours:
                signal.signal(number, self._on_signal)
            yield
        finally:
            for number in self._ours:
                if signal.getsignal(number) in (self._on_signal, signal.SIG_DFL):
                    signal.signal(number, _DEFAULTS[number])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for each in self._ours:
            signal.signal(each, signal.SIG_DFL)  # not Python's handler, which would show a traceback
        if self._task is None or self._task.done():
            raise Interrupted(128 + number)
        loop = self._task.get_loop()
        _stopping[loop] = self._drain_s
        self._task.cancel()
        loop.call_soon_threadsafe(lambda: None)  # wakes the loop
