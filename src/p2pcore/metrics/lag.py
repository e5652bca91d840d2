"""How late the timers of an event loop are: what a blocked or busy loop does to everybody.

Comes in: an event loop. Goes out: a histogram of seconds. It runs one timer each LOOP_LAG_EVERY_S, from the
first scrape until it is closed; a host that nobody watches has no timer.
"""

from __future__ import annotations

import asyncio

from p2pcore._fast.loop.metrics import Histogram
from p2pcore.limits import LOOP_LAG_EVERY_S
from p2pcore.metrics.names import LAGS_S


class LoopLag:
    """See above.

    Attributes:
        seconds: the histogram.
    """

    def __init__(self) -> None:
        self.seconds = Histogram(LAGS_S)
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Begins to measure, if a loop runs here and this was not done before."""
        if self._timer is None and not self._is_closed:
            try:
                self._next(asyncio.get_running_loop())
            except RuntimeError:
                pass  # there is no loop to measure

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + LOOP_LAG_EVERY_S
        self._timer = loop.call_at(due, self._late, loop, due)

    def _late(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.seconds.observe(loop.time() - due)
        self._next(loop)

    def close(self) -> None:
        """Ends the timer. Idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
