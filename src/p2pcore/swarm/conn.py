"""The connection that a swarm gives to its users: a session, and the identity that the peer has proved.

Comes in: the result of an upgrade. Goes out: interfaces.Conn. Closing goes down to the session. The session
reports its end once. A connection never owns a task, a timer or a buffer: while idle it costs only its slots.
"""

from __future__ import annotations

import time
from asyncio import get_running_loop
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcore.aio.home import wrong_loop
from p2pcore.errors import LimitedConnection
from p2pcore.interfaces import ConnStat
from p2pcore.swarm.streams import open_negotiated
from p2pcore.values.keys import PublicKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from p2pcore._fast.loop.metrics import Protocols
    from p2pcore.interfaces import CapableConn, ConnState, Direction, MuxedConn, Stream
    from p2pcore.metrics.traces import Traces
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

ID_SUFFIX_CHARS = 8
"""The part of the peer id in a connection id. We take its end: all Ed25519 ids begin alike (W31)."""


@dataclass(frozen=True, slots=True)
class ConnOwner:
    """What all connections of one swarm share.

    Attributes:
        ended: called once, with the connection and the error, when it has ended. The event loop calls it.
        metrics: counts the streams that are opened on it; None: nobody does.
        traces: makes spans of some of them; None: nobody does.
    """

    ended: Callable[[Conn, BaseException | None], None]
    metrics: Protocols | None = None
    traces: Traces | None = None


class Conn:
    """One connection of a swarm; satisfies interfaces.Conn.

    Args:
        made: the result of the upgrade. It is not kept.
        ordinal: a number that is unique in this swarm.
        since: the event loop's time now.
        owner: what it shares with the others.

    Attributes:
        session: the multiplexer's session, for functions that only this multiplexer has.
        remote_peer: the id the peer has proved.
        local_multiaddr, remote_multiaddr: both ends. The peer's end is None if it has no address (UNIX).
        opened_at: `time.time()` when the swarm took it over.
    """

    # Only the modules of swarm/ use _kind, _ordinal and _since. Only identify uses _info.
    __slots__ = (
        "_info",
        "_key",
        "_kind",
        "_ordinal",
        "_owner",
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
        owner: ConnOwner,
    ) -> None:
        self.session: MuxedConn = made.session
        self.remote_peer: PeerId = made.remote_peer
        self.local_multiaddr: Multiaddr = made.local_multiaddr
        self.remote_multiaddr: Multiaddr | None = made.remote_multiaddr
        self.opened_at = time.time()
        self._kind = made.kind
        # If the id contains the key, we make the key from it when asked. That saves 110 bytes a connection.
        self._key = made.remote_public_key if made.remote_peer.public_key_bytes() is None else None
        self._ordinal = ordinal
        self._since = since
        self._owner = owner
        self._info: object | None = None

    def __repr__(self) -> str:
        return f"<Conn {self.id} {self.direction.value} {self.remote_multiaddr}>"

    @property
    def id(self) -> str:
        """A name for logs, unique in this swarm: the end of the peer's id, and a number."""
        return f"{str(self.remote_peer)[-ID_SUFFIX_CHARS:]}-{self._ordinal}"

    @property
    def local_peer(self) -> PeerId:
        """Our id on this connection."""
        return self._kind.local_peer

    @property
    def remote_public_key(self) -> PublicKey:
        """The key with which the peer has proved its id."""
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
        """True if a relay limits its bytes or its time."""
        return self._kind.is_limited

    @property
    def is_direct(self) -> bool:
        """False if a relay carries it."""
        return self.remote_multiaddr is None or not self.remote_multiaddr.is_relayed

    @property
    def is_closed(self) -> bool:
        """True once no stream can be opened on it."""
        return self.session.is_closed

    @property
    def num_streams(self) -> int:
        """Streams open now, both ways."""
        return self.session.num_streams

    @property
    def stat(self) -> ConnStat:
        """Age, activity, bytes and streams as they are now. The value does not change later."""
        session = self.session
        return ConnStat(
            self.direction,
            self.opened_at,
            self.is_limited,
            session.num_streams,
            self.opened_at + max(0.0, session.active_at - self._since),
            session.bytes_in,
            session.bytes_out,
            session.num_streams_in,
            session.num_streams_out,
            session.rtt or None,
            getattr(self._info, "agent_version", None),
        )

    async def new_stream(self, protocols: str | Sequence[str], allow_limited: bool = False) -> Stream:
        """A stream on this connection that speaks the first of `protocols` the peer has.

        A single protocol is negotiated lazily: this call does not wait for the answer. If the peer does not
        speak it, the first read raises ProtocolNotSupported. If the peer does not answer within
        limits.STREAM_NEGOTIATION_TIMEOUT_S, it raises NegotiationTimeout. In both cases the stream is reset.

        Args:
            allow_limited: open the stream even if a relay limits the bytes or the time of the connection.

        Raises:
            LimitedConnection: a relay limits the connection, and `allow_limited` is not set.
            ConnectionClosed: no stream can be opened.
            ProtocolNotSupported, NegotiationError: the two sides did not agree on a protocol.
            NegotiationTimeout: several protocols were proposed, and the peer did not answer.
            TimeoutError: see limits.NEW_STREAM_TIMEOUT_S.
            ValueError, TypeError: `protocols` is empty, or no text.
            RuntimeError: this is not the event loop of the connection.
        """
        if get_running_loop() is not self.session.loop:
            raise wrong_loop()
        if self._kind.is_limited and not allow_limited:
            raise LimitedConnection(
                f"{self.id} is a relayed connection with limits; a stream on it needs allow_limited"
            )
        owner = self._owner
        if owner.traces is None:
            stream = await open_negotiated(self.session, protocols)
        else:
            stream = await owner.traces.new_stream(self, open_negotiated(self.session, protocols))
        if owner.metrics is not None:
            stream.count_in(owner.metrics)
        return stream

    def open_stream(self) -> Awaitable[Stream]:
        """A stream without a negotiated protocol; see `new_stream`. Raises ConnectionClosed."""
        return self.session.open_stream()

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""
        self.session.add_close_callback(callback)

    async def close(self, code: int = 0) -> None:
        """Closes in order: go-away, queued bytes, FIN. If cancelled, it closes at once. Idempotent.

        No new stream can be opened once this has begun. The swarm's lists drop the connection in the event
        loop's next turn.

        Raises: RuntimeError: this is not the event loop of the connection.
        """
        if get_running_loop() is not self.session.loop and not self.session.is_closed:
            raise wrong_loop()
        try:
            await self.session.close(code)
        except BaseException:
            self.session.abort(code)
            raise

    def abort(self, code: int = 0) -> None:
        """Closes at once. Idempotent."""
        self.session.abort(code)

    def __call__(self, error: BaseException | None) -> None:
        """The session calls this when it ends. A bound method for each connection would cost memory."""
        self._owner.ended(self, error)
