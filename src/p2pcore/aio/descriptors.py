"""The file descriptors of this process: how many there may be, and who gives one up when they run out.

Comes in: numbers of new descriptors, and those who hold some: intakes (unfinished handshakes) and `spare`
functions (connections). Goes out: a higher limit, and a free descriptor. A process uses the lowest free
number, so a high number means that few are left. Then one holder lets go before accept(2) or a dial fails.
There is one object for each event loop; the limit belongs to the process.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import weakref
from collections.abc import Callable
from typing import Protocol

from p2pcore.limits import MAX_DESCRIPTORS, RESERVED_DESCRIPTORS

logger = logging.getLogger("p2pcore.descriptors")


class Holder(Protocol):
    """Unfinished work of which each piece holds a descriptor."""

    @property
    def burden(self) -> int:
        """How many pieces the block of addresses with the most of them has."""

    def evict(self) -> bool:
        """Ends one piece of that block. False: there is none."""


class Descriptors:
    """The descriptors as one event loop sees them; use `descriptors_of`.

    Attributes:
        scarce_from: descriptors with this number or a higher one are the last ones.
    """

    def __init__(self) -> None:
        self._holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._spare: dict[Callable[[], bool], None] = {}
        self.scarce_from = 0
        self.look()

    def add(self, holder: Holder) -> None:
        """`holder` lives as long as others refer to it."""
        self._holders.add(holder)

    def add_spare(self, close_one: Callable[[], bool]) -> None:
        """`close_one()` closes the least useful connection soon, or returns False. Idempotent."""
        self._spare[close_one] = None

    def remove_spare(self, close_one: Callable[[], bool]) -> None:
        """Forgets what `add_spare` has added. Idempotent."""
        self._spare.pop(close_one, None)

    def look(self) -> None:
        """Reads the limit, which may change at any time."""
        limit = soft_limit()
        self.scarce_from = limit - min(RESERVED_DESCRIPTORS, limit // 4)

    def opened(self, number: int) -> None:
        """Call it with each accepted descriptor: if few are left, those that matter least are closed.

        All lower numbers are in use. As many are closed as the reserve lacks: the next descriptors get their
        numbers, which are low, so a shortage of one at a time would be seen only at every second call.
        """
        if number >= self.scarce_from:
            self.look()
            for _ in range(number - self.scarce_from + 1):
                if not self.relieve():
                    return

    def relieve(self) -> bool:
        """Closes what is needed least; its descriptor is free some turns of the loop later. False: nothing.

        If one block has several unfinished handshakes, one of them goes. Else the least useful connection
        goes, else the oldest unfinished handshake.
        """
        worst = max(self._holders, key=_burden_of, default=None)
        if worst is not None and worst.burden > 1:
            return worst.evict()
        return any(close_one() for close_one in self._spare) or (worst is not None and worst.evict())


def _burden_of(holder: Holder) -> int:
    return holder.burden


def descriptors_of(loop: asyncio.AbstractEventLoop) -> Descriptors:
    """The one of `loop`, made when it is first asked for; it lives and dies with the loop."""
    found: Descriptors | None = getattr(loop, "_p2pcore_descriptors", None)
    if found is None:
        found = Descriptors()
        setattr(loop, "_p2pcore_descriptors", found)  # noqa: B010 - event loops do not declare it
    return found


def soft_limit() -> int:
    """The number of descriptors that this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MAX_DESCRIPTORS)


def raise_limit() -> int:
    """Raises the soft limit of RLIMIT_NOFILE to the hard one, which needs no privilege.

    The default of most systems, 1,024, is for programs that call select(2).

    Returns: the limit after it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError) as error:  # a sandbox may forbid it, and macOS has another maximum
            logger.debug("cannot raise the limit of descriptors to %d: %s", most, error)
        else:
            logger.info("raised the limit of descriptors from %d to %d", soft, most)
    return soft_limit()
