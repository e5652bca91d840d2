"""Long work in short turns of the event loop.

Comes in: a generator that yields after each part of its work. Goes out: one part in each turn of the loop,
until the generator ends. Nothing else is started meanwhile. It needs no task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

logger = logging.getLogger("p2pcore.resources")


class Turns:
    """Runs at most one generator at a time."""

    __slots__ = ("_handle", "_work")

    def __init__(self) -> None:
        self._work: Iterator[None] | None = None
        self._handle: asyncio.Handle | None = None

    @property
    def is_busy(self) -> bool:
        """True from `start` until the generator has ended."""
        return self._work is not None

    def start(self, work: Iterator[None]) -> None:
        """Runs `work` from the next turn on. Call it only while it is not busy."""
        self._work = work
        self._handle = asyncio.get_running_loop().call_soon(self._step)

    def stop(self) -> None:
        """Ends the work where it is. Idempotent."""
        self._work = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _step(self) -> None:
        work = self._work
        if work is None:
            return
        try:
            next(work)
        except StopIteration:
            self._ended(work)
        except Exception:
            logger.exception("work in turns failed")
            self._ended(work)
        else:
            if self._work is work:
                self._handle = asyncio.get_running_loop().call_soon(self._step)

    def _ended(self, work: Iterator[None]) -> None:
        """Its last part may have started other work already."""
        if self._work is work:
            self._work = self._handle = None
