"""Decides what to do after an error of accept(2): go on after a pause, or bind again.

Comes in: OSError. Goes out: whether the socket is still good, and how long to pause. It never sleeps itself.
"""

from __future__ import annotations

import errno

from p2pcore.limits import ACCEPT_BACKOFF_MAX_S, ACCEPT_BACKOFF_MIN_S

_SHORTAGES = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")
_LOST_CONNECTIONS = ("ECONNABORTED", "ECONNRESET", "EPROTO", "EPERM", "EINTR", "EAGAIN", "ETIMEDOUT")
# On Linux, accept(2) also returns pending network errors of the new connection; see its manual page.
_NETWORK = ("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET", "ENOPROTOOPT", "EOPNOTSUPP")

TEMPORARY_ERRNOS = frozenset(
    getattr(errno, name) for name in _SHORTAGES + _LOST_CONNECTIONS + _NETWORK if hasattr(errno, name)
)
"""Errors of accept(2) after which the listening socket still works."""


def is_temporary(error: OSError) -> bool:
    """True if accepting may go on with the same socket; False: the socket itself is lost."""
    return error.errno in TEMPORARY_ERRNOS


class Backoff:
    """Pauses that double from a minimum to a maximum; after a success they begin at the minimum again.

    Args:
        minimum, maximum: seconds, 0 < minimum <= maximum.

    Raises:
        ValueError: the two are not in that order.
    """

    __slots__ = ("_maximum", "_minimum", "_next")

    def __init__(self, minimum: float = ACCEPT_BACKOFF_MIN_S, maximum: float = ACCEPT_BACKOFF_MAX_S) -> None:
        if not 0 < minimum <= maximum:
            raise ValueError(f"back-off needs 0 < minimum <= maximum, not {minimum} and {maximum}")
        self._minimum = minimum
        self._maximum = maximum
        self._next = minimum

    def next(self) -> float:
        """Seconds to pause now; the following pause is twice as long, up to the maximum."""
        pause = self._next
        self._next = min(pause * 2, self._maximum)
        return pause

    def reset(self) -> None:
        """Call it after a success: the next pause is the minimum."""
        self._next = self._minimum
