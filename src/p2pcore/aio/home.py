"""The event loop and the thread that a host belongs to.

Comes in: calls. Goes out: nothing, or RuntimeError for a call from another loop or another thread. The first
call on a running loop decides where home is.
"""

from __future__ import annotations

import asyncio
import threading


class Home:
    """See above. Until the first call on a loop, home is the thread that made it."""

    __slots__ = ("_loop", "_thread")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.current_thread()

    def check_loop(self) -> None:
        """Every coroutine calls this. Raises RuntimeError: it does not run on the loop of this host."""
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._thread = running, threading.current_thread()
        elif running is not self._loop:
            raise self._wrong()

    def check_thread(self) -> None:
        """Other methods call this; they also work without a loop. Raises RuntimeError: a wrong thread."""
        if self._loop is not None and threading.current_thread() is not self._thread:
            raise self._wrong()

    def _wrong(self) -> RuntimeError:
        here = threading.current_thread()
        if here is self._thread:
            return RuntimeError("this host belongs to another event loop: make one host for each loop")
        return RuntimeError(
            f"this host belongs to the event loop of thread {self._thread.name!r} and was called from thread "
            f"{here.name!r}: {_HOW}"
        )


_HOW = "use asyncio.run_coroutine_threadsafe or loop.call_soon_threadsafe"


def check_home(loop: asyncio.AbstractEventLoop | None) -> None:
    """As Home.check_loop, for a connection, which knows only its `loop`. Raises RuntimeError."""
    if asyncio.get_running_loop() is not loop:
        raise RuntimeError(
            f"this connection belongs to another event loop, perhaps of another thread: {_HOW}"
        )
