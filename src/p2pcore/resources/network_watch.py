"""Notices that the addresses of this machine's interfaces have changed, as long as somebody wants to know.

Comes in: the wish, the addresses of the interfaces. Goes out: a call when they have changed. It has one
timer, and only while somebody is interested; no system tells us in a way that all of them share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pcore import limits
from p2pcore.manet.netif import interface_addresses


class NetworkWatch:
    """One look each KEEP_LOOK_S.

    Args:
        is_wanted: whether to look again. changed: called after a change.
        addresses: gives the addresses of the interfaces.
    """

    __slots__ = ("_addresses", "_changed", "_is_wanted", "_known", "_timer")

    def __init__(
        self,
        is_wanted: Callable[[], bool],
        changed: Callable[[], None],
        addresses: Callable[[], list[str]] = interface_addresses,
    ) -> None:
        self._is_wanted = is_wanted
        self._changed = changed
        self._addresses = addresses
        self._known: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Looks from now on, until nobody is interested any more. Idempotent."""
        if self._timer is None:
            self._known = self._now()
            self._look_later()

    def stop(self) -> None:
        """Looks no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(limits.KEEP_LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_wanted():
            return
        before, self._known = self._known, self._now()
        self._look_later()
        if self._known != before:
            self._changed()

    def _now(self) -> frozenset[str]:
        """The addresses now. If they cannot be read, those that were known: that is no change."""
        try:
            return frozenset(self._addresses())
        except OSError:
            return self._known
