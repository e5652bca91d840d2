"""What each layer promises to the one above it: small Protocols, no code.

Comes in: nothing. Goes out: the types that swarm, upgrader, transports, security and muxers name
instead of one another. Never an implementation, never a default.

Names are go-libp2p's in snake_case; a call that only waits for bytes is `async`, one that merely
hands bytes over is not.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from p2pcore.codes import Direction

if TYPE_CHECKING:
    from types import TracebackType

    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore.values.keys import PublicKey
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


class RawConn(Protocol):
    """A connected socket with multiaddrs and the bottom of a layer chain, before any upgrade."""

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated."""

    @property
    def local_multiaddr(self) -> Multiaddr:
        """The socket's own address (never the listener's wildcard)."""

    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's address; None where the socket has none (UNIX)."""

    @property
    def transport(self) -> str:
        """A short name for logs and ConnState: "tcp", "websocket", ..."""

    @property
    def is_limited(self) -> bool:
        """True where somebody else bounds its bytes or its time: a relayed connection."""

    @property
    def expected_peer(self) -> PeerId | None:
        """Who an accepted connection must prove to come from, where a relay has said so; else None."""

    async def start(self) -> None:
        """Begins to read the socket; nothing is read before. Called once, by the upgrader.

        A connection that reads already, because a shared port has looked at its first bytes, just goes on.

        Raises:
            OSError: the socket is of no use any more; it has been closed.
        """

    def abort(self) -> None:
        """Closes at once, started or not; queued bytes are dropped. Idempotent."""


class RawListener(Protocol):
    """A listening socket with a multiaddr that gives out raw connections."""

    @property
    def multiaddr(self) -> Multiaddr:
        """What it is bound to, with the real port."""

    async def accept(self) -> RawConn:
        """The next connection.

        Raises:
            ListenerClosed: the listener has been closed.
            OSError: accept(2) failed; the caller decides whether that is temporary.
        """

    async def rebind(self) -> None:
        """Replaces a lost socket by a new one on the same address.

        Raises:
            ListenerClosed: the listener has been closed.
            OSError: the address cannot be bound now; it may be tried again.
        """

    def finish(self) -> None:
        """Ends in good order: `accept` gives out what is queued by now, then raises ListenerClosed."""

    async def close(self) -> None:
        """Stops listening; a pending accept raises ListenerClosed. Idempotent."""


@dataclass(frozen=True, slots=True)
class Secured:
    """What a security handshake found out.

    Attributes:
        remote_peer: the id the peer proved.
        remote_key: its public key.
        muxer: the multiplexer agreed inside the handshake, or None.
    """

    remote_peer: PeerId
    remote_key: PublicKey
    muxer: str | None = None


class Protection(Protocol):
    """What hides one connection."""

    @property
    def has_agreed(self) -> bool:
        """Whether the peer has shown that it has the key."""


class Protector(Protocol):
    """A private network."""

    def protect(self, mailbox: Mailbox) -> Protection:
        """Seats its layer below `mailbox`, the top of a raw chain nobody has written to yet.

        Bytes of a peer without the key raise WrongNetworkKey, here or at the next read of `mailbox`.
        """


class SecureTransport(Protocol):
    """A security protocol: turns a raw chain into a secured one."""

    @property
    def protocol(self) -> str:
        """Its multistream-select id, "/noise" for instance."""

    async def secure_inbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """Runs the responder's side; on return `mailbox` is on top of the secure channel.

        Args:
            mailbox: top of the raw chain; bytes it already holds belong to the handshake.
            expected: the id the peer must prove, or None for any.
            muxers: our multiplexers in order of preference, for early negotiation; may be empty.

        Raises:
            HandshakeError: refused, forged or malformed; PeerIdMismatch for another id.
            ConnectionClosed: the peer went away.
        """

    async def secure_outbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """The initiator's side of `secure_inbound`."""


class Channel(Protocol):
    """What multistream-select talks through: a Mailbox, or a Stream."""

    def read(self, max_bytes: int, /) -> Awaitable[bytes]:
        """Up to `max_bytes`, at least one; b"" at the end."""

    def read_exactly(self, n: int, /) -> Awaitable[bytes]:
        """Exactly n bytes. Raises IncompleteRead at the end."""

    def take_opening(self) -> bytes | None:
        """The message behind multistream-select's header, where both are here whole by now.

        None: nothing has been taken; they may come yet.
        """

    def write(self, data: bytes, /) -> Awaitable[None] | None:
        """Hands `data` on; a Mailbox does so at once, a Stream is awaited."""

    def write_later(self, data: bytes, /) -> None:
        """Hands `data` on without a wait, ahead of what is written next; at the latest when a read waits."""

    def expect(self, reply: bytes, protocol: str, step: str, /) -> None:
        """Lazy negotiation: the peer's next bytes must be `reply`, which no read sees.

        Reads get ProtocolNotSupported for a refusal of `protocol`, NegotiationError for anything else.

        Args:
            reply: the header and the echo of the proposal.
            protocol: what is proposed.
            step: what the negotiation is for, as errors name it.
        """


class Stream(Channel, Protocol):
    """One bidirectional stream of bytes. All waits may be cancelled; nothing is half read then."""

    @property
    def id(self) -> int: ...
    @property
    def protocol(self) -> str | None:
        """The agreed protocol id; None until it is negotiated."""

    @protocol.setter
    def protocol(self, value: str | None) -> None: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def conn(self) -> Conn:
        """The connection it belongs to, the session's `owner`. A handler has it until it returns.

        Where no swarm holds the session, or the connection has ended and no handler runs, there is none.
        """

    @property
    def is_closed(self) -> bool:
        """True once both halves have ended or the stream was reset."""

    def read(self, max_bytes: int = 65536) -> Awaitable[bytes]:
        """Up to `max_bytes`, at least one; b"" at the end. One reader at a time.

        Raises:
            StreamReset: it was reset; StreamClosed: the read half was closed here.
            ProtocolNotSupported: the peer does not speak the one protocol that was proposed.
            NegotiationTimeout, NegotiationError: it did not say so within 10 s, or said something else.
            DeadlineExceeded: see set_read_deadline; ConnectionClosed: the connection is gone.
        """

    def read_exactly(self, n: int) -> Awaitable[bytes]:
        """Exactly n bytes (n at most one initial window). Raises IncompleteRead, and as `read`."""

    def readinto(self, buffer: bytearray | memoryview) -> Awaitable[int]:
        """Fills `buffer` from its start with what is there, at least one byte; 0 at the end."""

    def write(self, data: bytes | bytearray | memoryview) -> Awaitable[None]:
        """Returns when all of `data` is handed on; waits while the peer's window is used up.

        `data` must not change until then. Cancelled: a prefix may have been sent.
        """

    async def close(self) -> None:
        """Ends both halves: end of data to the peer, and what still comes is dropped. Idempotent."""

    async def close_write(self) -> None:
        """End of our data; reading goes on. Idempotent.

        On a stream whose one protocol was proposed a moment ago it waits for the answer, but not for longer
        than half a second.
        """

    async def close_read(self) -> None:
        """What still comes is dropped; writing goes on. Idempotent."""

    async def __aenter__(self) -> Self:
        """`async with stream:` closes it at the end of the block, and resets it where the block raises."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def reset(self, code: int = 0) -> None:
        """Aborts both halves at once, with a 32-bit code for the peer. Idempotent."""

    def set_deadline(self, seconds: float | None) -> None:
        """Both of the following."""

    def set_read_deadline(self, seconds: float | None) -> None:
        """Reads fail with DeadlineExceeded from `seconds` from now on; None: never."""

    def set_write_deadline(self, seconds: float | None) -> None:
        """As set_read_deadline, for writes."""


StreamHandler = Callable[[Stream], None]
"""Called from the event loop, outside the data path, with each stream the peer opens."""

ProtocolHandler = Callable[[Stream], Awaitable[Stream | None]]
"""Serves one inbound stream of a protocol; `stream.conn` is its connection. See Swarm.set_stream_handler."""


@runtime_checkable
class MuxedConn(Protocol):
    """A connection that carries streams.

    Attributes:
        owner: what its streams give as `conn`; set by the swarm that holds it, cleared when it has ended.
    """

    owner: Conn | None

    @property
    def num_refused(self) -> int:
        """Streams of the peer that were reset because it had too many."""

    def open_stream(self) -> Awaitable[Stream]:
        """A new outbound stream; waits while too many are unacknowledged.

        Raises: ConnectionClosed (GoAway) when no more can be opened.
        """

    def accept_stream(self) -> Awaitable[Stream]:
        """The next stream the peer opens, where no handler is set. Raises ConnectionClosed."""

    def set_stream_handler(self, handler: StreamHandler | None) -> None:
        """Inbound streams go to `handler`, those already waiting first."""

    @property
    def is_closed(self) -> bool: ...
    @property
    def num_streams(self) -> int:
        """Streams in use here, both ways. One that was closed here does not count, whatever the peer does."""

    async def close(self, code: int = 0) -> None:
        """Orderly: go-away, what is queued, FIN, a short drain. Streams fail. Idempotent."""

    def abort(self, code: int = 0) -> None:
        """At once: go-away if it can be sent without waiting, then the socket closes. Idempotent."""

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""


class Multiplexer(Protocol):
    """A stream multiplexer."""

    @property
    def protocol(self) -> str:
        """Its multistream-select id, "/yamux/1.0.0" for instance."""

    def start(self, mailbox: Mailbox, is_client: bool) -> MuxedConn:
        """Takes the place of `mailbox` on the chain; bytes it holds are the session's first."""


@dataclass(frozen=True, slots=True)
class ConnState:
    """How a connection was upgraded."""

    security: str
    muxer: str
    transport: str
    early_muxer: bool


@dataclass(frozen=True, slots=True)
class ConnKind:
    """What all connections upgraded in the same way have in common: one object for all of them.

    Attributes:
        local_peer: our id. direction: who dialled. state: how they were upgraded.
        is_limited: a relay bounds their bytes or their time.
    """

    local_peer: PeerId
    direction: Direction
    state: ConnState
    is_limited: bool


class CapableConn(Protocol):
    """What an upgrade has made, until a swarm takes it over: the session, who was proved, and how."""

    @property
    def session(self) -> MuxedConn:
        """The multiplexer's session."""

    @property
    def kind(self) -> ConnKind: ...
    @property
    def remote_peer(self) -> PeerId:
        """The id the peer proved."""

    @property
    def remote_public_key(self) -> PublicKey:
        """The key the peer proved it with."""

    @property
    def local_multiaddr(self) -> Multiaddr: ...
    @property
    def remote_multiaddr(self) -> Multiaddr | None: ...
    @property
    def is_closed(self) -> bool:
        """True once its session has ended."""

    def abort(self, code: int = 0) -> None:
        """Ends its session at once, with a go-away if that needs no waiting. Idempotent."""


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


@runtime_checkable
class Conn(Protocol):
    """A connection of a swarm: the one that users, notifiees, gaters, events and handlers see."""

    _info: object | None
    """Identify's alone (ask Host.info_of): a slot here costs a tenth of an entry in a table."""

    @property
    def id(self) -> str:
        """A name for logs, unique in this process."""

    @property
    def opened_at(self) -> float:
        """`time.time()` of when the swarm took it over."""

    @property
    def local_peer(self) -> PeerId: ...
    @property
    def remote_peer(self) -> PeerId:
        """The id the peer proved."""

    @property
    def remote_public_key(self) -> PublicKey:
        """The key the peer proved it with."""

    @property
    def local_multiaddr(self) -> Multiaddr: ...
    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's end; None where the transport has no such address."""

    @property
    def direction(self) -> Direction:
        """Who dialled."""

    @property
    def state(self) -> ConnState:
        """How it was secured and multiplexed."""

    @property
    def is_limited(self) -> bool:
        """True where a relay bounds its bytes or its time; streams on it are opened on request only."""

    @property
    def is_direct(self) -> bool:
        """False where a relay carries it."""

    @property
    def is_closed(self) -> bool:
        """True once nothing can be opened on it any more."""

    @property
    def num_streams(self) -> int:
        """Streams open now, both ways."""

    @property
    def stat(self) -> ConnStat:
        """Direction, age, streams: a value that does not change any more."""

    @property
    def session(self) -> MuxedConn:
        """The multiplexer's session, for what only that multiplexer offers."""

    async def new_stream(self, protocols: str | Sequence[str], allow_limited: bool = False) -> Stream:
        """A stream that speaks the first of `protocols` the peer has; one protocol is negotiated lazily.

        Raises:
            LimitedConnection: a relay bounds the connection, and `allow_limited` is not set.
            ConnectionClosed: no stream can be opened; ProtocolNotSupported, NegotiationError: no agreement.
            TimeoutError: see limits.NEW_STREAM_TIMEOUT_S; ValueError: `protocols` is empty.
        """

    def open_stream(self) -> Awaitable[Stream]:
        """A stream on which nothing is negotiated yet. Raises ConnectionClosed."""

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""

    async def close(self, code: int = 0) -> None:
        """Closes in good order: go-away, what is queued, FIN. Cancelled, it closes at once. Idempotent."""

    def abort(self, code: int = 0) -> None:
        """Closes at once. Idempotent."""


class Gater(Protocol):
    """Says who may connect, at five points. Synchronous and quick; False closes, or does not dial."""

    def intercept_peer_dial(self, peer: PeerId) -> bool:
        """Before `peer` is dialled."""

    def intercept_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> bool:
        """Before `addr` of `peer` is dialled; None: whoever answers there."""

    def intercept_accept(self, local: Multiaddr, remote: Multiaddr | None) -> bool:
        """An accepted connection, before anything is read from it."""

    def intercept_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> bool:
        """The peer has proved its id; nothing is multiplexed yet."""

    def intercept_upgraded(self, conn: Conn) -> bool:
        """A whole connection, before anybody is told of it."""


class Resolver(Protocol):
    """Looks host names up. Its answers are not trusted, and cut where they are too long."""

    async def addresses(self, name: str, version: int) -> Sequence[str]:
        """The IP addresses of `name`, as texts; `version` is 4 or 6. Raises ResolutionError."""

    async def texts(self, name: str) -> Sequence[str]:
        """The TXT records of `name`, the strings of each joined. Raises ResolutionError."""


class Listener(Protocol):
    """Gives out upgraded connections."""

    @property
    def multiaddr(self) -> Multiaddr: ...
    async def accept(self) -> CapableConn:
        """The next upgraded connection. Raises ListenerClosed."""

    async def drain(self, accept_queued: bool = True) -> None:
        """Stops listening and lets upgrades under way end, while `accept` goes on giving out; then closes.

        Args:
            accept_queued: serve what the kernel has queued as well; False leaves that to whoever shares
                the socket.
        """

    async def close(self) -> None:
        """Stops listening, aborts upgrades, closes connections not yet accepted. Idempotent."""


class Transport(Protocol):
    """Dials and listens on one kind of address."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """Multiaddr protocol names it answers for when an address ends with them."""

    @property
    def is_proxy(self) -> bool:
        """True if any component of an address makes it ours (a relay)."""

    def can_dial(self, addr: Multiaddr) -> bool: ...
    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects and upgrades.

        Raises: AddressError, OSError, TimeoutError, HandshakeError, NegotiationError.
        """

    async def listen(self, addr: Multiaddr) -> Listener:
        """Binds. Raises AddressError or OSError, unchanged."""


@runtime_checkable
class NameKeeper(Protocol):
    """A transport that may have somebody else look host names up: a proxy."""

    def keeps_name(self, addr: Multiaddr) -> bool:
        """True where `addr` is to be dialled with its host name, which is not looked up here."""


class Upgrader(Protocol):
    """Secures and multiplexes raw connections."""

    async def upgrade_inbound(self, conn: RawConn, deadline: float | None = None) -> CapableConn:
        """Answers the peer's negotiation; `conn` is closed on any failure.

        Args:
            conn: accepted and not yet started.
            deadline: event loop time by which it must be done; None: the upgrader's own timeout from now.

        Raises:
            NegotiationError, HandshakeError, UpgradeTimeout: with the failed step in `.stage`.
        """

    async def upgrade_outbound(
        self, conn: RawConn, peer: PeerId | None, deadline: float | None = None
    ) -> CapableConn:
        """The dialler's side of `upgrade_inbound`; `peer` is the id that must be proved, None for any."""

    def upgrade_listener(self, inner: RawListener) -> Listener: ...


class ListenerState(enum.Enum):
    """LISTENING takes connections, RETRYING pauses after an error of accept(2), CLOSED has ended."""

    LISTENING = "listening"
    RETRYING = "retrying"
    CLOSED = "closed"


class ListenerNews(Protocol):
    """Whom listeners report to. Quick; what it raises is logged, and ends nothing."""

    def upgrade_failed(
        self,
        direction: Direction,
        stage: str,
        error: BaseException,
        local: Multiaddr | None,
        remote: Multiaddr | None,
    ) -> None:
        """A connection was made, and then not secured or multiplexed.

        Args:
            direction: who dialled. stage: the step that failed, or what else ended it ("timeout").
            error: why. local, remote: our end (the listener's address for inbound ones), and the peer's.
        """

    def accept_refused(self, addr: Multiaddr) -> None:
        """The listener of `addr` closed a connection unread; whoever refused it reports why."""

    def request_answered(self, addr: Multiaddr) -> None:
        """The listener of `addr` answered a plain HTTP request, which is no failed upgrade."""

    def accept_failed(self, addr: Multiaddr, error: OSError) -> None:
        """accept(2) failed on the listener of `addr`."""

    def listener_changed(self, addr: Multiaddr, state: ListenerState, error: BaseException | None) -> None:
        """The listener of `addr` is in `state` now, because of `error` where there was one."""


class Network(Protocol):
    """The swarm, seen from below: what notifiees, relays and protocols need of it."""

    @property
    def local_peer(self) -> PeerId: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def num_conns(self) -> int: ...
    @property
    def protocols(self) -> tuple[str, ...]:
        """What inbound streams may speak."""

    async def dial_peer(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr | str] = (),
        *,
        force_direct: bool = False,
        ignore_backoff: bool = False,
    ) -> Conn:
        """The best connection to `peer`, dialled where there is none; no relayed one if `force_direct`."""

    async def new_stream(
        self, peer: PeerId, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> Stream:
        """A stream to `peer` on its best connection."""

    def peers(self) -> Collection[PeerId]:
        """The peers there is a connection to."""

    def best_conn(self, peer: PeerId) -> Conn | None:
        """The best open connection to `peer`, or None."""

    def conns_to_peer(self, peer: PeerId) -> Sequence[Conn]:
        """The connections to `peer`, oldest first."""

    def interface_listen_addresses(self) -> list[Multiaddr]:
        """Where we listen, wildcards replaced by the addresses of the interfaces."""

    def set_stream_handler(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serves inbound streams of `protocol`."""

    def remove_stream_handler(self, protocol: str) -> None:
        """Serves `protocol` no more."""

    def notify(self, notifiee: Notifiee) -> None:
        """Tells `notifiee` of listeners and connections from now on."""

    def stop_notify(self, notifiee: Notifiee) -> None:
        """Tells `notifiee` nothing more."""


class Notifiee(Protocol):
    """Is told of listeners and connections. Synchronous and quick; see Swarm.notify for the order."""

    def listen(self, network: Network, addr: Multiaddr) -> None: ...
    def listen_close(self, network: Network, addr: Multiaddr) -> None: ...
    def connected(self, network: Network, conn: Conn) -> None: ...
    def disconnected(self, network: Network, conn: Conn) -> None: ...


__all__ = [
    "CapableConn",
    "Channel",
    "Conn",
    "ConnKind",
    "ConnStat",
    "ConnState",
    "Direction",
    "Gater",
    "Listener",
    "ListenerNews",
    "ListenerState",
    "Multiplexer",
    "MuxedConn",
    "NameKeeper",
    "Network",
    "Notifiee",
    "Protection",
    "Protector",
    "ProtocolHandler",
    "RawConn",
    "RawListener",
    "Resolver",
    "SecureTransport",
    "Secured",
    "Stream",
    "StreamHandler",
    "Transport",
    "Upgrader",
]
