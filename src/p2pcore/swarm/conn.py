"""A connection as its swarm gives it out: the session an upgrade made, who was proved, and its own streams.

Comes in: what an upgrade has made. Goes out: interfaces.Conn. Closing goes down to the session, and the end
comes up from it, once. Never owns a task, a timer or a buffer: a connection that is idle costs its slots.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from p2pcore.errors import LimitedConnection
from p2pcore.interfaces import ConnStat
from p2pcore.swarm.streams import open_negotiated
from p2pcore.values.keys import PublicKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from p2pcore.interfaces import CapableConn, ConnState, Direction, MuxedConn, Stream
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

ID_SUFFIX_CHARS = 8
"""Of the peer id in a connection id: its end, since all Ed25519 ids begin alike (W31)."""


class Conn:
    """One connection of a swarm; satisfies interfaces.Conn.

    Args:
        made: by the upgrader; not kept.
        ordinal: unique in this swarm.
        since: event loop time of now.
        ended: called once with this connection and the error, from the event loop, when it has ended.

    Attributes:
        session: the multiplexer's session, for what only that multiplexer offers.
        remote_peer: the id the peer proved.
        local_multiaddr, remote_multiaddr: both ends; the peer's is None where it has no such address.
        opened_at: `time.time()` of when the swarm took it over.
    """

    # _ordinal and _since are for the modules of swarm/ alone, _info for identify.
    __slots__ = (
        "_ended",
        "_info",
        "_key",
        "_kind",
        "_ordinal",
        "_since",
        "local_multiaddr",
        "opened_at",
        "remote_multiaddr",
        "remote_peer",
        "session",
    )

    def __init__(
        self,
        made: CapableConn,
        ordinal: int,
        since: float,
        ended: Callable[[Conn, BaseException | None], None],
    ) -> None:
        self.session: MuxedConn = made.session
        self.remote_peer: PeerId = made.remote_peer
        self.local_multiaddr: Multiaddr = made.local_multiaddr
        self.remote_multiaddr: Multiaddr | None = made.remote_multiaddr
        self.opened_at = time.time()
        self._kind = made.kind
        # An id that contains the key makes it anew when asked: 110 bytes less for each idle connection.
        self._key = made.remote_public_key if made.remote_peer.public_key_bytes() is None else None
        self._ordinal = ordinal
        self._since = since
        self._ended = ended
        self._info: object | None = None

    def __repr__(self) -> str:
        return f"<Conn {self.id} {self.direction.value} {self.remote_multiaddr}>"

    @property
    def id(self) -> str:
        """A name for logs, unique in this process: the end of the peer's id, and a number."""
        return f"{str(self.remote_peer)[-ID_SUFFIX_CHARS:]}-{self._ordinal}"

    @property
    def local_peer(self) -> PeerId:
        """Our id on this connection."""
        return self._kind.local_peer

    @property
    def remote_public_key(self) -> PublicKey:
        """The key the peer proved its id with."""
        if self._key is not None:
            return self._key
        return PublicKey.from_protobuf(self.remote_peer.public_key_bytes() or b"")

    @property
    def direction(self) -> Direction:
        """Who dialled."""
        return self._kind.direction

    @property
    def state(self) -> ConnState:
        """How it was secured and multiplexed."""
        return self._kind.state

    @property
    def is_limited(self) -> bool:
        """True where a relay bounds its bytes or its time."""
        return self._kind.is_limited

    @property
    def is_direct(self) -> bool:
        """False where a relay carries it."""
        return self.remote_multiaddr is None or not self.remote_multiaddr.is_relayed

    @property
    def is_closed(self) -> bool:
        """True once nothing can be opened on it any more."""
        return self.session.is_closed

    @property
    def num_streams(self) -> int:
        """Streams open now, both ways."""
        return self.session.num_streams

    @property
    def stat(self) -> ConnStat:
        """Direction, age, streams: a value that does not change any more."""
        return ConnStat(self.direction, self.opened_at, self.is_limited, self.num_streams)

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
        if self._kind.is_limited and not allow_limited:
            raise LimitedConnection(
                f"{self.id} is a relayed connection with limits; a stream on it needs allow_limited"
            )
        return await open_negotiated(self.session, protocols)

    def open_stream(self) -> Awaitable[Stream]:
        """A stream on which nothing is negotiated yet; see `new_stream`. Raises ConnectionClosed."""
        return self.session.open_stream()

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""
        self.session.add_close_callback(callback)

    async def close(self, code: int = 0) -> None:
        """Closes in good order: go-away, what is queued, FIN. Cancelled, it closes at once. Idempotent.

        From the moment this begins no new stream is opened on it; the swarm's lists are without it from the
        event loop's next turn on.
        """
        try:
            await self.session.close(code)
        except BaseException:
            self.session.abort(code)
            raise

    def abort(self, code: int = 0) -> None:
        """Closes at once. Idempotent."""
        self.session.abort(code)

    def __call__(self, error: BaseException | None) -> None:
        """It is its session's close callback itself: a bound method for each connection would cost memory."""
        self._ended(self, error)
