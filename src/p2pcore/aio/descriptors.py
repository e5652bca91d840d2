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
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from p2pcore.limits import DESCRIPTOR_FREE_S, MAX_DESCRIPTORS, RESERVED_DESCRIPTORS

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
        num_leaving: descriptors of what was closed, which become free some turns of the loop later.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._spare: dict[Callable[[], bool], None] = {}
        self._clock = clock
        self._closed_at = 0.0
        self.num_leaving = 0
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
        """Call it with each accepted descriptor that is scarce, and with each while some are leaving.

        If few are left, those that matter least are closed. All lower numbers are in use. As many are closed
        as the reserve lacks: the next descriptors get their numbers, which are low, so a shortage of one at a
        time would be seen only at every second call. A hundred may be accepted in one turn of the loop, in
        which nothing becomes free. So no connection goes while those that are leaving are enough.
        """
        if number < self.scarce_from:
            self.num_leaving = max(0, self.num_leaving - 1)  # it is the number of one that has left
            return
        self.look()
        if self._clock() - self._closed_at > DESCRIPTOR_FREE_S:
            self.num_leaving = 0  # whatever took their numbers, it was not told here
        lacking = number - self.scarce_from + 1
        for _ in range(lacking):
            if not (self._evict() or (self.num_leaving < lacking and self._close_last())):
                return
            self.num_leaving += 1
            self._closed_at = self._clock()

    def relieve(self) -> bool:
        """Closes what is needed least; its descriptor is free some turns of the loop later. False: nothing.

        If one block has several unfinished handshakes, one of them goes. Else the least useful connection
        goes, else the oldest unfinished handshake.
        """
        return self._evict() or self._close_last()

    def _close_last(self) -> bool:
        """Closes the least useful connection, else ends the oldest unfinished handshake."""
        return any(close_one() for close_one in self._spare) or self._evict(least=1)

    def _evict(self, least: int = 2) -> bool:
        """Ends an unfinished handshake of the block that has the most, if it has at least `least`."""
        worst = max(self._holders, key=_burden_of, default=None)
        return worst is not None and worst.burden >= least and worst.evict()


def _burden_of(holder: Holder) -> int:
    return holder.burden


def descriptors_of(loop: asyncio.AbstractEventLoop) -> Descriptors:
    """The one of `loop`, made when it is first asked for; it lives and dies with the loop."""
    found: Descriptors | None = getattr(loop, "_p2pcore_descriptors", None)
    if found is None:
        found = Descriptors(loop.time)
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
