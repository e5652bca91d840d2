"""What the connection manager sees of a swarm and of its connections.

Comes in: nothing. Goes out: interfaces that the classes of `swarm` have, and a look at all connections, part
by part. Never changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from p2pcore import limits

if TYPE_CHECKING:
    from p2pcore.interfaces import MuxedConn
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

Standing = tuple[bool, int, bool, float, int]
"""The part of the order that a connection brings itself: see ConnTable.standing in p2pcore.swarm.conns."""
Row = Any
"""The connections of one peer: a HeldConn, or a mapping whose keys are several."""


class HeldConn(Protocol):
    """What is looked at of a connection; swarm.conn.Conn has it."""

    @property
    def session(self) -> MuxedConn: ...
    @property
    def remote_peer(self) -> PeerId: ...
    @property
    def remote_multiaddr(self) -> Multiaddr | None: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def num_streams(self) -> int: ...
    async def close(self, code: int = 0) -> None: ...
    def abort(self, code: int = 0) -> None: ...


class Held(Protocol):
    """The connections of a swarm."""

    @property
    def num_conns(self) -> int: ...
    def rows(self) -> Sequence[Row]:
        """All connections, by peer. A snapshot."""

    def of(self, peer: PeerId) -> Sequence[HeldConn]:
        """The connections to `peer`."""

    def active_at(self, conn: Any) -> float:
        """The event loop's time at which a stream of `conn` was last used."""

    def standing(self, conn: Any) -> Standing:
        """The part of the order that `conn` brings itself."""


class NoConns:
    """The connections of no swarm."""

    num_conns = 0

    def rows(self) -> list[Row]:
        return []

    def of(self, peer: PeerId) -> list[HeldConn]:
        return []

    def active_at(self, conn: Any) -> float:
        raise NotImplementedError

    def standing(self, conn: Any) -> Standing:
        raise NotImplementedError


def parts(rows: Iterable[Row], size: int = limits.TRIM_PART_CONNS) -> Iterator[list[HeldConn]]:
    """The open connections of `rows`, of at most `size` in each part."""
    left = (conn for row in rows for conn in (tuple(row) if isinstance(row, Mapping) else (row,)))
    while part := list(islice(left, size)):
        yield [conn for conn in part if not conn.is_closed]
