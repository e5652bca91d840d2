"""Reserved places: room for chosen networks and peers in a node that is full.

Comes in: Limits.reserved, the address and peer of a connection. Goes out: a Place, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2pcore._fast.loop.blocks import Networks
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore.resources.options import Reserved
    from p2pcore.values.multiaddr import Multiaddr


class Place:
    """The places of one Reserved. `used`: how many connections have one."""

    __slots__ = ("_network", "_peer", "maximum", "used")

    def __init__(self, reserved: Reserved) -> None:
        self.maximum = reserved.places
        self.used = 0
        self._network = None if reserved.network is None else Networks([(reserved.network, True)])
        self._peer = None if reserved.peer is None else PeerId(reserved.peer)

    def may_take(self, where: Multiaddr | str | None, peer: PeerId | None) -> bool:
        """Whether a connection has room here.

        Args:
            where: its address; None: it has none.
            peer: None: not known yet, so it may be the right one.
        """
        if self.used >= self.maximum:
            return False
        if self._network is not None and not self._network.get(where):
            return False
        return self._peer is None or peer is None or self._peer == peer


class Places:
    """All reserved places of one node."""

    __slots__ = ("_places",)

    def __init__(self, reserved: Sequence[Reserved]) -> None:
        self._places = [Place(each) for each in reserved]

    def find(self, where: Multiaddr | str | None, peer: PeerId | None) -> Place | None:
        """Where a connection has room; None: nowhere. See Place.may_take."""
        for place in self._places:
            if place.may_take(where, peer):
                return place
        return None

    @property
    def are_free(self) -> bool:
        """Whether any place is free."""
        return any(place.used < place.maximum for place in self._places)

    @property
    def used(self) -> int:
        """Connections that have a place."""
        return sum(place.used for place in self._places)

    @property
    def maximum(self) -> int:
        """All places."""
        return sum(place.maximum for place in self._places)
