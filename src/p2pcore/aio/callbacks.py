"""Exceptions raised by callbacks of the application: they are logged, and they end nothing of ours.

Comes in: an exception of a callback. Goes out: one error with its traceback for each callback, debug lines
after that. Only KeyboardInterrupt and SystemExit, which end the process, are not caught.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

RAISED: Final = (Exception, asyncio.CancelledError, GeneratorExit, BaseExceptionGroup)
"""For the `except` around a callback that is not awaited. A CancelledError there is the callback's own; it
would end our task as if our task had been cancelled."""


class Complaints:
    """Logs each callback that raised once as an error, then at level debug."""

    __slots__ = ("_logger", "_told")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[str] = set()

    def raised(self, what: str) -> None:
        """Call it in the `except` block. `what` names the callback; there must be few such names."""
        level = logging.DEBUG if what in self._told else logging.ERROR
        self._told.add(what)
        self._logger.log(level, "%s raised", what, exc_info=True)
