"""A function that somebody gave to a bus: called until it is closed, and never trusted.

Comes in: the function. Goes out: its calls. What it raises is logged and ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.errors import LimitExceeded
from p2pcore.fleet import names

_complaints: Final = Complaints(logging.getLogger("p2pcore.fleet"))


class Callback:
    """A subscription, a watch, or who wants to know the state of a bus.

    Attributes:
        subject: what it is for. is_closed: nothing is called any more.
    """

    __slots__ = ("_function", "is_closed", "subject")

    def __init__(self, subject: str, function: Callable[..., None]) -> None:
        self.subject = subject
        self._function = function
        self.is_closed = False

    def close(self) -> None:
        """Nothing is called any more. Idempotent."""
        self.is_closed = True

    def __call__(self, *args: Any) -> None:
        if self.is_closed:
            return
        try:
            self._function(*args)
        except RAISED:
            _complaints.raised("a callback of the bus")


def checked(answer: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """`answer` for the program: it never raises. What is no answer is logged, and nobody gets it."""

    def tried(data: bytes) -> None:
        try:
            names.message(data)
        except (TypeError, LimitExceeded):
            _complaints.raised("the answer to a request")
        else:
            answer(data)

    return tried
