"""What callbacks of the application raise, and that it ends nothing of ours.

Comes in: a callback's exception. Goes out: one error with its traceback for each callback, lines for
debugging after that. Only what ends the whole process passes: KeyboardInterrupt and SystemExit.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

RAISED: Final = (Exception, asyncio.CancelledError, GeneratorExit, BaseExceptionGroup)
"""For the `except` around a callback that is not awaited: there a CancelledError is the callback's own, and
would end our task as if somebody had cancelled it."""


class Complaints:
    """Logs the callbacks that raised, each once; the same again is a line for debugging."""

    __slots__ = ("_log", "_told")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[str] = set()

    def raised(self, what: str) -> None:
        """To be called where the exception is handled; `what` names the callback: one of a few."""
        level = logging.DEBUG if what in self._told else logging.ERROR
        self._told.add(what)
        self._log.log(level, "%s raised", what, exc_info=True)
