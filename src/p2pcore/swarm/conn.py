"""A connection as its swarm gives it out: the upgraded one, with an id, a date and its own streams.

Comes in: a CapableConn the swarm has taken over. Goes out: a CapableConn that opens negotiated streams.
Never owns a task, a timer or a buffer: a connection that is idle costs its slots.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcore.errors import GoAway, LimitedConnection
from p2pcore.swarm.streams import open_negotiated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from p2pcore.interfaces import CapableConn, ConnState, Direction, Stream, StreamHandler
    from p2pcore.swarm.swarm import Swarm
    from p2pcore.values.keys import PublicKey
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

ID_SUFFIX_CHARS = 8
"""Of the peer id in a connection id: its end, since all Ed25519 ids begin alike (W31)."""


class Phase(enum.Enum):
    """How far the notifications of one connection have come."""

    NOTIFYING = enum.auto()
    OPEN = enum.auto()
    ENDED_EARLY = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True)
class ConnStat:
    """What a connection is at one moment.

    Attributes:
        direction: who dialled. opened_at: `time.time()` of when the swarm took it over.
        is_limited: a relay bounds it. num_streams: open ones, both ways.
    """

    direction: Direction
    opened_at: float
    is_limited: bool
    num_streams: int


class SwarmConn:
    """One connection of a swarm; satisfies CapableConn.

    Attributes:
        opened_at: `time.time()` of when the swarm took it over.
        info: what identify found out about the peer, or None; owned by the identify service.
        ordinal: unique in this swarm; phase: how far its notifications have come; num_handlers: inbound
            streams being served. All are the swarm's.
    """

    __slots__ = ("_conn", "_swarm", "info", "num_handlers", "opened_at", "ordinal", "phase")

    def __init__(self, swarm: Swarm, conn: CapableConn, ordinal: int) -> None:
        self._swarm = swarm
        self._conn = conn
        self.ordinal = ordinal
        self.phase = Phase.NOTIFYING
        self.opened_at = time.time()
        self.info: object | None = None
        self.num_handlers = 0

    def __repr__(self) -> str:
        return f"<SwarmConn {self.id} {self.direction.value} {self.remote_multiaddr}>"

    @property
    def id(self) -> str:
        """A name for logs, unique in this process: the end of the peer's id, and an ordinal."""
        return f"{str(self.remote_peer)[-ID_SUFFIX_CHARS:]}-{self.ordinal}"

    @property
    def inner(self) -> CapableConn:
        """The upgraded connection underneath."""
        return self._conn

    @property
    def local_peer(self) -> PeerId:
        """Our id on this connection."""
        return self._conn.local_peer

    @property
    def remote_peer(self) -> PeerId:
        """The id the peer proved."""
        return self._conn.remote_peer

    @property
    def remote_public_key(self) -> PublicKey:
        """The key the peer proved its id with."""
        return self._conn.remote_public_key

    @property
    def local_multiaddr(self) -> Multiaddr:
        """Our end."""
        return self._conn.local_multiaddr

    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's end; None where the transport has no such address."""
        return self._conn.remote_multiaddr

    @property
    def direction(self) -> Direction:
        """Who dialled."""
        return self._conn.direction

    @property
    def state(self) -> ConnState:
        """How it was secured and multiplexed."""
        return self._conn.state

    @property
    def is_limited(self) -> bool:
        """True where a relay bounds its bytes or its time."""
        return self._conn.is_limited

    @property
    def is_direct(self) -> bool:
        """False where a relay carries it."""
        remote = self._conn.remote_multiaddr
        return remote is None or not remote.is_relayed

    @property
    def stat(self) -> ConnStat:
        """Direction, age, streams: a value that does not change any more."""
        return ConnStat(self.direction, self.opened_at, self.is_limited, self.num_streams)

    @property
    def owner(self) -> CapableConn | None:
        """What its streams give as `conn`."""
        return self._conn.owner

    @owner.setter
    def owner(self, owner: CapableConn | None) -> None:
        self._conn.owner = owner

    @property
    def is_closed(self) -> bool:
        """True once nothing can be opened on it any more."""
        return self._conn.is_closed

    @property
    def num_streams(self) -> int:
        """Streams open now, both ways."""
        return self._conn.num_streams

    def open_stream(self) -> Awaitable[Stream]:
        """A stream on which nothing is negotiated yet; see `new_stream`."""
        return self._conn.open_stream()

    def accept_stream(self) -> Awaitable[Stream]:
        """Waits for ever while the swarm serves this connection's streams."""
        return self._conn.accept_stream()

    def set_stream_handler(self, handler: StreamHandler | None) -> None:
        """Takes inbound streams, not negotiated, away from the swarm."""
        self._conn.set_stream_handler(handler)

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""
        self._conn.add_close_callback(callback)

    async def new_stream(self, protocols: str | Sequence[str], allow_limited: bool = False) -> Stream:
        """A stream on this connection that speaks the first of `protocols` the peer has.

        One protocol is negotiated lazily: nothing is waited for. A peer that lacks it shows as
        ProtocolNotSupported at the first read, one that does not answer within
        limits.STREAM_NEGOTIATION_TIMEOUT_S as NegotiationTimeout; the stream is reset then.

        Args:
            allow_limited: also where a relay bounds the bytes or the time of the connection.

        Raises:
            LimitedConnection: it does, and `allow_limited` is not set.
            ConnectionClosed: no stream can be opened; ProtocolNotSupported, NegotiationError: no agreement.
            NegotiationTimeout: no answer to several protocols.
            TimeoutError: see limits.NEW_STREAM_TIMEOUT_S; ValueError: `protocols` is empty.
        """
        if self._conn.is_limited and not allow_limited:
            raise LimitedConnection(
                f"{self.id} is a relayed connection with limits; a stream on it needs allow_limited"
            )
        return await open_negotiated(self._conn, protocols)

    async def close(self, code: int = 0) -> None:
        """Leaves the swarm, then closes in good order: go-away, what is queued, FIN. Idempotent."""
        self._swarm.detach(self)
        try:
            await self._conn.close(code)
        except BaseException:
            self._conn.abort(code)
            raise
        finally:
            self._swarm.conn_ended(self, GoAway(code, False))

    def abort(self, code: int = 0) -> None:
        """Closes at once. Idempotent."""
        self._conn.abort(code)
        self._swarm.conn_ended(self, GoAway(code, False))

    def __call__(self, error: BaseException | None) -> None:
        """It is its own close callback, which spares a bound method for each connection."""
        self._swarm.conn_ended(self, error)
