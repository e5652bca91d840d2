"""Sockets whose peers have not said a word yet: they wait in one epoll set, without a task or a transport.

Comes in: descriptors of accepted sockets, each with an item. Goes out: a call for each item when its first
byte, or the end of the connection, has come. Reads nothing, and closes no socket. Where the system has no
epoll it takes nobody, and what would wait here begins at once.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from p2pcore.limits import BEGUN_PER_TURN

T = TypeVar("T")


class FirstBytes(Generic[T]):
    """Create it inside a running event loop.

    Args:
        heard: called with an item, which waits no more. At most BEGUN_PER_TURN items in a turn of the loop.
    """

    __slots__ = ("_epoll", "_heard", "_items", "_loop")

    def __init__(self, heard: Callable[[T], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard = heard
        self._items: dict[int, T] = {}
        self._epoll: select.epoll | None = None

    def add(self, fd: int, item: T) -> bool:
        """Waits for the first byte on `fd`. Call `remove` before it is closed.

        Returns: False: the system cannot wait for it, so `heard` will not be called.
        """
        if sys.platform != "linux":
            return False
        try:
            epoll = self._epoll or self._open()
            epoll.register(fd, select.EPOLLIN)
        except OSError:  # no descriptor left, or too many are watched
            return False
        self._items[fd] = item
        return True

    def _open(self) -> select.epoll:
        """One descriptor until `close`: to watch it only now and then costs more for each connection."""
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll, self._look)
        return self._epoll

    def remove(self, fd: int) -> None:
        """Waits for `fd` no more. Idempotent."""
        if self._items.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def _look(self) -> None:
        assert self._epoll is not None
        epoll = self._epoll
        for fd, _ in epoll.poll(0, BEGUN_PER_TURN):
            item = self._items.pop(fd, None)
            if item is not None:  # else an item before it had it removed
                epoll.unregister(fd)
                self._heard(item)

    def close(self) -> None:
        """Waits for nobody any more. Idempotent."""
        self._items.clear()
        self._heard = _ignore  # else both keep each other alive
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            self._loop.remove_reader(epoll)
            epoll.close()


def _ignore(_: object) -> None:
    """Nobody is called any more."""
