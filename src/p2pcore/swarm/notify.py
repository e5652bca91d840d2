"""The notifiees: objects that are called when listeners and connections open and end.

Comes in: one event at a time, from the event loop. Goes out: synchronous calls of each notifiee, in the
order of registration. If one notifiee raises, the others and the swarm do not notice.

A notifiee may add and remove notifiees, itself included, while it is called. A new one does not hear of the
current event. A removed one does not hear of it if its turn has not come yet (go-libp2p deadlocks: W28).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from p2pcore.aio.callbacks import RAISED, Complaints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from p2pcore.interfaces import Conn, Network, Notifiee
    from p2pcore.values.multiaddr import Multiaddr

logger = logging.getLogger("p2pcore.notify")


class Notifiees:
    """An ordered set of notifiees, and the four calls they get.

    Attributes:
        network: the first argument of each call. The swarm sets it before the first call.
    """

    __slots__ = ("_complaints", "_items", "network")

    network: Network

    def __init__(self) -> None:
        self._complaints = Complaints(logger)
        self._items: tuple[Notifiee, ...] = ()

    def add(self, notifiee: Notifiee) -> None:
        """Adds `notifiee` at the end. If it is there already, nothing happens."""
        if not self._has(notifiee):
            self._items += (notifiee,)

    def remove(self, notifiee: Notifiee) -> None:
        """Removes `notifiee`. If it is not there, nothing happens."""
        self._items = tuple(item for item in self._items if item is not notifiee)

    def listen(self, addr: Multiaddr) -> None:
        """A listener is bound to `addr`."""
        for item in self._each():
            try:
                item.listen(self.network, addr)
            except RAISED:
                self._raised(item, "listen")

    def listen_close(self, addr: Multiaddr) -> None:
        """The listener on `addr` has ended."""
        for item in self._each():
            try:
                item.listen_close(self.network, addr)
            except RAISED:
                self._raised(item, "listen_close")

    def connected(self, conn: Conn) -> None:
        """`conn` is open and registered."""
        for item in self._each():
            try:
                item.connected(self.network, conn)
            except RAISED:
                self._raised(item, "connected")

    def disconnected(self, conn: Conn) -> None:
        """`conn` has ended and is no longer registered."""
        for item in self._each():
            try:
                item.disconnected(self.network, conn)
            except RAISED:
                self._raised(item, "disconnected")

    def _each(self) -> Iterator[Notifiee]:
        items = self._items
        for item in items:
            if self._items is items or self._has(item):
                yield item

    def _has(self, notifiee: Notifiee) -> bool:
        return any(item is notifiee for item in self._items)

    def _raised(self, notifiee: Notifiee, event: str) -> None:
        self._complaints.raised(f"notifiee {type(notifiee).__name__} ({event})")
