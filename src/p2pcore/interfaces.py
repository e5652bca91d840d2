"""What each layer promises to the one above it: small Protocols, no code.

Swarm, upgrader, transports, security and muxers use these types, and do not import one another. There is
never an implementation or a default here.

Names are go-libp2p's in snake_case. A call that waits for bytes is `async`; a call that only passes bytes on
is not.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

from p2pcore import options
from p2pcore.codes import CONN_GATED, Direction
from p2pcore.limits import MAX_REASON_CHARS, MSG_MAX_BYTES, YAMUX_INITIAL_WINDOW_BYTES

if TYPE_CHECKING:
    import asyncio
    from asyncio import AbstractEventLoop
    from types import TracebackType

    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore._fast.loop.ledger import Ledger, Share
    from p2pcore._fast.loop.metrics import Protocols, Traffic
    from p2pcore.values.keys import PublicKey
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


class RawConn(Protocol):
    """A connected socket with multiaddrs and the bottom of a layer chain, before any upgrade."""

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain during negotiation."""

    @property
    def local_multiaddr(self) -> Multiaddr:
        """The socket's own address, never the wildcard of the listener."""

    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's address. None: the socket has none (UNIX)."""

    @property
    def block(self) -> str:
        """The addresses that share one share of the handshakes with the peer's address.

        It is an IPv4 address, an IPv6 /56, the relay, or the kind of socket where peers have no address.
        """

    @property
    def transport(self) -> str:
        """A short name for logs and ConnState: "tcp", "websocket", ..."""

    @property
    def is_limited(self) -> bool:
        """True if a relay limits its bytes or its time."""

    @property
    def expected_peer(self) -> PeerId | None:
        """The id that the peer of an accepted connection must prove, if a relay has named it; else None."""

    async def start(self) -> None:
        """Begins to read the socket. Nothing is read before. The upgrader calls it once.

        On a shared port the connection may read already, because the port looks at the first bytes. Then
        reading just continues.

        Raises:
            OSError: the socket is broken. It has been closed.
        """

    def abort(self) -> None:
        """Closes at once, started or not. Queued bytes are dropped. Idempotent."""


class RawListener(Protocol):
    """A listening socket with a multiaddr. It gives raw connections."""

    @property
    def multiaddr(self) -> Multiaddr:
        """The address it is bound to, with the real port."""

    async def accept(self) -> RawConn:
        """The next connection.

        Raises:
            ListenerClosed: the listener has been closed.
            OSError: accept(2) failed. The caller decides whether the error is temporary.
        """

    async def rebind(self) -> None:
        """Replaces a lost socket by a new one on the same address.

        Raises:
            ListenerClosed: the listener has been closed.
            OSError: the address cannot be bound now. The caller may try again.
        """

    def pause(self) -> None:
        """`accept` waits until `resume`, though connections have come. `drain` and `close` end a pause.

        The kernel goes on to queue peers. A listener without such a queue refuses them. Idempotent.
        """

    def resume(self) -> None:
        """Ends a pause. Idempotent."""

    def drain(self) -> None:
        """`accept` returns the connections queued by now, then raises ListenerClosed."""

    async def close(self) -> None:
        """Stops listening. A pending `accept` raises ListenerClosed. Idempotent."""


@dataclass(frozen=True, slots=True)
class Secured:
    """The result of a security handshake.

    Attributes:
        remote_peer: the id the peer has proved.
        remote_key: its public key.
        muxer: the multiplexer that the handshake has agreed on, or None.
    """

    remote_peer: PeerId
    remote_key: PublicKey
    muxer: str | None = None


class Protection(Protocol):
    """The encryption of one connection in a private network."""

    @property
    def has_agreed(self) -> bool:
        """Whether the peer has shown that it has the key."""


class Protector(Protocol):
    """A private network."""

    def protect(self, mailbox: Mailbox) -> Protection:
        """Inserts its layer below `mailbox`, the top of a raw chain. Nothing may have been written yet.

        If the peer does not have the key, its bytes raise WrongNetworkKey, here or at the next read of
        `mailbox`.
        """


class SecureTransport(Protocol):
    """A security protocol: turns a raw chain into a secured one."""

    @property
    def protocol(self) -> str:
        """Its multistream-select id, for instance "/noise"."""

    async def secure_inbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """Runs the responder's side. After it, `mailbox` is on top of the secure channel.

        Args:
            mailbox: the top of the raw chain. Bytes it holds already belong to the handshake.
            expected: the id the peer must prove; None: any id.
            muxers: our multiplexers in order of preference, for early negotiation. May be empty.

        Raises:
            HandshakeError: the peer refused, or sent something forged or malformed.
            PeerIdMismatch: the peer has another id.
            ConnectionClosed: the peer closed the connection.
        """

    async def secure_outbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """Runs the initiator's side; otherwise like `secure_inbound`."""


class Channel(Protocol):
    """The part of a Mailbox or a Stream that multistream-select uses."""

    def read(self, max_bytes: int, /) -> Awaitable[bytes]:
        """From 1 to `max_bytes` bytes; b"" at the end."""

    def read_exactly(self, n: int, /) -> Awaitable[bytes]:
        """Exactly n bytes. Raises IncompleteRead at the end."""

    def take_opening(self) -> bytes | None:
        """The message after multistream-select's header, if both are completely here.

        None: they are not, and nothing has been taken. They may still come.
        """

    def turn(self) -> Awaitable[None]:
        """Lets other connections go first: done when it is this connection's turn, later.

        Await it before each further part of work that a peer can cause cheaply.
        """

    def write(self, data: bytes, /) -> Awaitable[None] | None:
        """Writes `data`. A Mailbox does that at once; on a Stream, await the result."""

    def write_later(self, data: bytes, /) -> None:
        """Writes `data` together with the next write, or when a read has to wait. Does not wait."""

    def expect(self, reply: bytes, protocol: str, step: str, /) -> None:
        """Lazy negotiation: the next bytes of the peer must be `reply`. No read returns them.

        If the peer refuses `protocol`, reads raise ProtocolNotSupported. If it sends anything else, they
        raise NegotiationError.

        Args:
            reply: the header and the echo of the proposal.
            protocol: the proposed protocol.
            step: the purpose of the negotiation, for errors.
        """


Prefix = Literal["varint", "u32"]
"""The length of a message: an unsigned varint in its shortest form, or four bytes, big-endian."""


class Stream(Channel, Protocol):
    """A bidirectional stream of bytes. Any wait may be cancelled; a cancelled read has taken nothing."""

    handler_task: asyncio.Task[None] | None
    """The task of the handler that serves this stream. It is cancelled if the stream fails; None: it is not.

    The swarm sets it, see Swarm.set_stream_handler.
    """

    def turn(self, work: int = ...) -> Awaitable[None]:
        """As Channel.turn. `work`: how much will be done then, in units of limits.TURN_WORK.

        By default it is the work of starting a handler.
        """

    def set_aside(self) -> bool:
        """If the peer has said nothing yet, the muxer's stream handler gets this stream again when it has.

        That is its first byte, its end, or the end of the stream. Returns: whether it is set aside.
        """

    def count_in(self, protocols: Protocols, apart: bool = False) -> Traffic:
        """The swarm calls it once: from now on the row of its protocol counts this stream and its bytes.

        `apart`: count it in a row of its own as well. Returns: that row, or the protocol's.
        """

    @property
    def id(self) -> int: ...
    @property
    def protocol(self) -> str | None:
        """The agreed protocol id. None: it is not negotiated yet."""

    @protocol.setter
    def protocol(self, value: str | None) -> None: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def num_buffered(self) -> int:
        """Bytes that have come and that nobody has read."""

    @property
    def is_acknowledged(self) -> bool:
        """False: the peer's muxer has not shown that it has taken this stream. Mplex never shows it: True."""

    @property
    def conn(self) -> Conn:
        """The connection of this stream: the `owner` of its session. It stays until the handler returns.

        It is None if no swarm holds the session, or if the connection has ended and no handler runs.
        """

    @property
    def is_closed(self) -> bool:
        """True once both halves have ended or the stream was reset."""

    @property
    def close_reason(self) -> Exception | None:
        """Why reads and writes fail: the error of a reset, or of the connection. None: they do not."""

    def read(self, max_bytes: int = 65536) -> Awaitable[bytes]:
        """From 1 to `max_bytes` bytes; b"" at the end. Only one reader at a time.

        Raises:
            StreamReset: the stream was reset. StreamClosed: we have closed the read half.
            ProtocolNotSupported: the peer does not speak the single protocol that was proposed.
            NegotiationTimeout: the peer did not answer the proposal within 10 s.
            NegotiationError: the peer answered something else.
            DeadlineExceeded: see set_read_deadline. ConnectionClosed: the connection has ended.
        """

    def read_exactly(self, n: int, most: int = YAMUX_INITIAL_WINDOW_BYTES) -> Awaitable[bytes]:
        """Exactly n bytes. Raises IncompleteRead; LimitExceeded if n is over `most`; and as `read`.

        Until all have come, up to n bytes are held besides the stream's window.
        """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """`async for chunk in stream:` gives what comes until the end. It raises what `read` raises."""

    def read_msg(self, most: int = MSG_MAX_BYTES, *, prefix: Prefix = "varint") -> Awaitable[bytes]:
        """One message: a length, and as many bytes. b"" is an empty message.

        Args:
            most: the longest message that is accepted, in bytes, 0 to limits.MAX_SIZE_BYTES. Until all of it
                has come, it is held besides the stream's window.
            prefix: how the length is written.

        Raises:
            LimitExceeded: the message is longer than `most`. No memory was taken for it.
            RemoteProtocolError: the length is not a varint. In both cases nothing was taken out.
            IncompleteRead: the stream ended. `partial` is what came of the message and its length; it is b""
                if the stream ended in good order before a message.
            ValueError: `most` or `prefix` is wrong. The other errors are those of `read`.
        """

    def msgs(self, most: int = MSG_MAX_BYTES, *, prefix: Prefix = "varint") -> AsyncIterator[bytes]:
        """`async for message in stream.msgs():` gives each message, until the stream ends in good order.

        It raises what `read_msg` raises, also IncompleteRead if the stream ends inside a message.
        """

    def readinto(self, buffer: bytearray | memoryview) -> Awaitable[int]:
        """Reads at least one byte into `buffer`. Returns: the number of bytes; 0 at the end."""

    def write(self, data: bytes | bytearray | memoryview) -> Awaitable[None]:
        """Writes all of `data`. Waits while the peer's window is full.

        `data` must not change until this returns. If this is cancelled, a first part may have been sent.
        Errors are raised when it is awaited.
        """

    def try_write(self, data: bytes | bytearray | memoryview) -> bool:
        """Takes `data` whole and returns True, or takes nothing and returns False. Never waits.

        It takes nothing while an earlier write waits. What the peer's window and the socket do not take now
        follows by itself. Until then `data` must not change. Raises as `write`, at once.
        """

    def write_msg(
        self, data: bytes | bytearray | memoryview, *, prefix: Prefix = "varint"
    ) -> Awaitable[None]:
        """Writes the length of `data`, then `data`. Otherwise as `write`.

        If it is cancelled, or its deadline passes, after a part was sent, the stream is reset: the peer could
        not find the next message. Raises LimitExceeded for 4 GiB or more with the prefix "u32".
        """

    def wait_closed(self) -> Awaitable[None]:
        """Returns when both halves have ended or the stream has failed; see `close_reason`. Raises nothing.

        Bytes that came before may still be unread. It waits as long as the peer does not end its half.
        """

    async def close(self) -> None:
        """Tells the peer that our data has ended, and drops what still comes. Idempotent."""

    async def close_write(self) -> None:
        """Tells the peer that our data has ended. Reading continues. Idempotent.

        If a single protocol was proposed and the answer has not come yet, this waits for the answer, at most
        half a second.
        """

    async def close_read(self) -> None:
        """Drops what still comes. Writing continues. Idempotent."""

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
        """Aborts both halves at once. The peer gets the 32-bit `code`. Idempotent."""

    def set_deadline(self, seconds: float | None) -> None:
        """Sets the deadline of reads and of writes."""

    def set_read_deadline(self, seconds: float | None) -> None:
        """Reads raise DeadlineExceeded when `seconds` from now have passed. None: no deadline."""

    def set_write_deadline(self, seconds: float | None) -> None:
        """Like set_read_deadline, for writes."""


StreamHandler = Callable[[Stream], None]
"""Called with each stream the peer opens, from the event loop, outside the data path."""

ProtocolHandler = Callable[[Stream], Awaitable[Stream | None]]
"""Serves one inbound stream. `stream.conn` is its connection. See Swarm.set_stream_handler."""


@runtime_checkable
class MuxedConn(Protocol):
    """A connection that carries streams.

    Attributes:
        owner: the `conn` of its streams. The swarm that holds it sets it, and clears it after its end.
    """

    owner: Conn | None

    @property
    def num_refused(self) -> int:
        """Streams of the peer that were reset because it had too many."""

    def account(self, ledger: Ledger, share: Share) -> None:
        """From now on `ledger` counts what this connection uses. The swarm that takes it over calls this."""

    def open_stream(self) -> Awaitable[Stream]:
        """A new outbound stream. Waits while too many are unacknowledged.

        Raises: ConnectionClosed (or GoAway): no more streams can be opened.
        """

    def accept_stream(self) -> Awaitable[Stream]:
        """The next stream the peer opens, if no handler is set. Raises ConnectionClosed."""

    def set_stream_handler(self, handler: StreamHandler | None) -> None:
        """Passes inbound streams to `handler`. Streams that wait already come first."""

    @property
    def is_closed(self) -> bool: ...
    @property
    def can_open(self) -> bool:
        """Whether it may still open streams: not closed, no go-away from the peer, and ids are left."""

    @property
    def has_arrived(self) -> bool:
        """Whether streams of the peer wait to be taken. They can be taken after the end, too."""

    @property
    def num_streams(self) -> int:
        """Streams in use here, both ways. A stream that was closed here does not count."""

    @property
    def unread(self) -> int:
        """Bytes received that nobody has read yet."""

    @property
    def unsent(self) -> int:
        """Bytes written that have not left yet."""

    @property
    def active_at(self) -> float:
        """The event loop's time at which the peer last used a stream, or a stream ended; 0: never."""

    @property
    def loop(self) -> AbstractEventLoop | None:
        """The event loop that it belongs to."""

    @property
    def bytes_in(self) -> int:
        """Bytes from the peer, with what ciphers and frames add, from the handshake on. It never falls."""

    @property
    def bytes_out(self) -> int:
        """Bytes to the peer, the same way."""

    @property
    def num_streams_in(self) -> int:
        """Streams the peer has opened so far, without those that were refused."""

    @property
    def num_streams_out(self) -> int:
        """Streams opened here so far."""

    @property
    def rtt(self) -> float:
        """The last round trip that was measured, in seconds; 0: none."""

    async def close(self, code: int = 0) -> None:
        """Closes in order: go-away, queued bytes, FIN, a short drain. Open streams fail. Idempotent."""

    def abort(self, code: int = 0) -> None:
        """Closes at once. Sends a go-away only if that needs no wait. Idempotent."""

    def reset_streams(self, code: int = 0) -> None:
        """Resets every stream. What has arrived and nobody has read is dropped."""

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when it has ended, or where it has by now."""


class Multiplexer(Protocol):
    """A stream multiplexer."""

    @property
    def protocol(self) -> str:
        """Its multistream-select id, for instance "/yamux/1.0.0"."""

    def start(self, mailbox: Mailbox, is_client: bool) -> MuxedConn:
        """Makes a session in the place of `mailbox` on the chain. It gets the bytes of `mailbox` first."""


@dataclass(frozen=True, slots=True)
class ConnState:
    """How a connection was upgraded."""

    security: str
    muxer: str
    transport: str
    early_muxer: bool


@dataclass(frozen=True, slots=True, eq=False)  # one object for each kind, and tables are asked for it often
class ConnKind:
    """The values that all connections of one kind share. There is one object for all of them.

    Attributes:
        local_peer: our id. direction: who dialled. state: how they were upgraded.
        is_limited: True if a relay limits their bytes or their time.
    """

    local_peer: PeerId
    direction: Direction
    state: ConnState
    is_limited: bool


class CapableConn(Protocol):
    """The result of an upgrade, until a swarm takes it over: a session, and the identity of the peer."""

    @property
    def session(self) -> MuxedConn:
        """The multiplexer's session."""

    @property
    def kind(self) -> ConnKind: ...
    @property
    def remote_peer(self) -> PeerId:
        """The id the peer has proved."""

    @property
    def remote_public_key(self) -> PublicKey:
        """The key with which the peer has proved its id."""

    @property
    def local_multiaddr(self) -> Multiaddr: ...
    @property
    def remote_multiaddr(self) -> Multiaddr | None: ...
    @property
    def is_closed(self) -> bool:
        """True once its session has ended."""

    def abort(self, code: int = 0) -> None:
        """Ends its session at once. Sends a go-away only if that needs no wait. Idempotent."""


@dataclass(frozen=True, slots=True)
class ConnStat:
    """The state of a connection at one moment.

    Attributes:
        direction: who dialled. opened_at: `time.time()` when the swarm took it over.
        is_limited: True if a relay limits it. num_streams: open streams, in both directions.
        active_at: `time.time()` when the peer last used a stream, or a stream ended; at first `opened_at`.
        bytes_in, bytes_out: bytes from and to the peer so far, with what ciphers and frames add.
        num_streams_in, num_streams_out: streams that the peer has opened so far, and that we have opened.
        rtt_s: the last round trip that the multiplexer has measured, in seconds; None: none yet. It measures
            while much data flows; `Host.ping` measures at once.
        agent: the program of the peer, as identify tells it; None: not known. Escape it before you show it.
    """

    direction: Direction
    opened_at: float
    is_limited: bool
    num_streams: int
    active_at: float
    bytes_in: int
    bytes_out: int
    num_streams_in: int
    num_streams_out: int
    rtt_s: float | None
    agent: str | None


@runtime_checkable
class Conn(Protocol):
    """A connection of a swarm. Users, notifiees, gaters, events and handlers all see this object."""

    _info: object | None
    """Only identify uses it (see Host.info_of). A slot here costs a tenth of an entry in a table."""

    @property
    def id(self) -> str:
        """A name for logs, unique in its swarm."""

    @property
    def opened_at(self) -> float:
        """`time.time()` when the swarm took it over."""

    @property
    def local_peer(self) -> PeerId: ...
    @property
    def remote_peer(self) -> PeerId:
        """The id the peer has proved."""

    @property
    def remote_public_key(self) -> PublicKey:
        """The key with which the peer has proved its id."""

    @property
    def local_multiaddr(self) -> Multiaddr: ...
    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's end. None: the transport has no such address."""

    @property
    def direction(self) -> Direction:
        """Who dialled."""

    @property
    def state(self) -> ConnState:
        """How it was secured and multiplexed."""

    @property
    def is_limited(self) -> bool:
        """True if a relay limits its bytes or its time. Streams on it need `allow_limited`."""

    @property
    def is_direct(self) -> bool:
        """False if a relay carries it."""

    @property
    def is_closed(self) -> bool:
        """True once no stream can be opened on it."""

    @property
    def num_streams(self) -> int:
        """The number of open streams, in both directions."""

    @property
    def stat(self) -> ConnStat:
        """Age, activity, bytes and streams as they are now. The value does not change later."""

    @property
    def session(self) -> MuxedConn:
        """The multiplexer's session, for functions that only this multiplexer has."""

    async def new_stream(self, protocols: str | Sequence[str], allow_limited: bool = False) -> Stream:
        """A stream that speaks the first of `protocols` the peer has. A single one is negotiated lazily.

        Raises:
            LimitedConnection: a relay limits the connection, and `allow_limited` is not set.
            ConnectionClosed: no stream can be opened.
            ProtocolNotSupported, NegotiationError: the two sides did not agree on a protocol.
            TimeoutError: see limits.NEW_STREAM_TIMEOUT_S.
            ValueError: `protocols` is empty.
        """

    def open_stream(self) -> Awaitable[Stream]:
        """A stream without a negotiated protocol. Raises ConnectionClosed."""

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""

    async def close(self, code: int = 0) -> None:
        """Closes in order: go-away, queued bytes, FIN. If cancelled, it closes at once. Idempotent."""

    def abort(self, code: int = 0) -> None:
        """Closes at once. Idempotent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer of a gater that refuses and says why.

    Attributes:
        reason: for our log, `GaterRefused.reason` and the event Refused. The peer does not see it.
        code: what the peer is told, 0 to 2**32 - 1: a number of p2pcore.codes, or of the application. It gets
            the code with a go-away. So it gets none before a connection has a multiplexer: at "accept", and
            at "secured" if the handshake has not agreed on the multiplexer.

    Raises: TypeError, ValueError: a field has a wrong type or value.
    """

    reason: str = ""
    code: int = CONN_GATED

    def __post_init__(self) -> None:
        options.text("reason", self.reason, MAX_REASON_CHARS)
        options.whole("code", self.code, most=0xFFFFFFFF)


Verdict = bool | Refusal | Awaitable[bool | Refusal]
"""The answer of a gater: True admits; anything else refuses. An awaitable has limits.GATER_TIMEOUT_S."""


class Gater(Protocol):
    """Says who may connect, at five points. True admits, False or a Refusal refuses.

    A method is quick, or it is a coroutine function (`async def`) and may wait, for instance for a database.
    After limits.GATER_TIMEOUT_S without an answer the connection is refused.
    """

    def intercept_peer_dial(self, peer: PeerId) -> Verdict:
        """Is called before `peer` is dialled."""

    def intercept_addr_dial(self, peer: PeerId | None, addr: Multiaddr) -> Verdict:
        """Is called before `addr` of `peer` is dialled. None: any peer may answer there."""

    def intercept_accept(self, local: Multiaddr, remote: Multiaddr | None) -> Verdict:
        """Is called for an accepted connection before anything is read from it."""

    def intercept_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> Verdict:
        """Is called when the peer has proved its id, before the multiplexer is negotiated."""

    def intercept_upgraded(self, conn: Conn) -> Verdict:
        """Is called for a complete connection, before the swarm reports it. Its streams wait meanwhile."""


class SecuredGate(Protocol):
    """Asks the gater of a host about a peer that has proved its id.

    Attributes:
        has_gater: whether there is one now. Without one, there is nothing to ask.
    """

    has_gater: bool

    def check_secured(
        self, direction: Direction, peer: PeerId, local: Multiaddr, remote: Multiaddr | None
    ) -> Awaitable[None] | None:
        """Raises GaterRefused, or returns an awaitable that does."""


class Resolver(Protocol):
    """Looks up host names. Answers are not trusted; a list that is too long is cut."""

    async def addresses(self, name: str, version: int) -> Sequence[str]:
        """The IP addresses of `name` as text. `version` is 4 or 6. Raises ResolutionError."""

    async def texts(self, name: str) -> Sequence[str]:
        """The TXT records of `name`. The strings of one record are joined. Raises ResolutionError."""


class Listener(Protocol):
    """Gives upgraded connections."""

    @property
    def multiaddr(self) -> Multiaddr: ...
    async def accept(self) -> CapableConn:
        """The next upgraded connection. Raises ListenerClosed."""

    def pause_accepting(self) -> None:
        """Takes no new connection until `resume_accepting`; see RawListener.pause. Idempotent."""

    def resume_accepting(self) -> None:
        """Takes connections again. Idempotent."""

    async def drain(self, accept_queued: bool = True) -> None:
        """Stops listening, waits until running upgrades end and `accept` has taken all, then closes.

        Args:
            accept_queued: also serve connections that the kernel has queued. False leaves them to another
                process that shares the socket.
        """

    async def close(self) -> None:
        """Stops listening, aborts upgrades and connections that `accept` has not taken. Idempotent."""


class Transport(Protocol):
    """Dials and listens on one kind of address."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """The multiaddr protocols it handles: an address that ends with one of them is for this transport."""

    @property
    def is_proxy(self) -> bool:
        """True if one of its protocols anywhere in an address makes the address its own (a relay)."""

    def can_dial(self, addr: Multiaddr) -> bool: ...
    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects and upgrades.

        Raises: AddressError, OSError, TimeoutError, HandshakeError, NegotiationError.
        """

    async def listen(self, addr: Multiaddr) -> Listener:
        """Binds `addr`. Raises AddressError, OSError."""


@runtime_checkable
class NameKeeper(Protocol):
    """A transport that may let a proxy look up host names."""

    def keeps_name(self, addr: Multiaddr) -> bool:
        """True if `addr` must be dialled with its host name: we do not look the name up."""


class Upgrader(Protocol):
    """Secures and multiplexes raw connections."""

    async def upgrade_inbound(self, conn: RawConn, deadline: float | None = None) -> CapableConn:
        """Upgrades an accepted connection. If that fails, it closes `conn`.

        Args:
            conn: accepted and not started yet.
            deadline: event loop time at which it must be done; None: the upgrader's own timeout from now.

        Raises:
            NegotiationError, HandshakeError, UpgradeTimeout: `.stage` is the step that failed.
        """

    async def upgrade_outbound(
        self, conn: RawConn, peer: PeerId | None, deadline: float | None = None
    ) -> CapableConn:
        """Upgrades a dialled connection. The peer must prove the id `peer`; None: any id."""

    def upgrade_listener(self, inner: RawListener) -> Listener: ...


class ListenerState(enum.Enum):
    """LISTENING: takes connections. RETRYING: pauses after an error of accept(2). CLOSED: has ended."""

    LISTENING = "listening"
    RETRYING = "retrying"
    CLOSED = "closed"


class ListenerNews(Protocol):
    """Hears the reports of listeners. Methods must be quick. If one raises, the error is only logged."""

    def upgrade_failed(
        self,
        direction: Direction,
        stage: str,
        error: BaseException,
        local: Multiaddr | None,
        remote: Multiaddr | None,
    ) -> None:
        """A raw connection was made, but the upgrade (security and multiplexer) failed.

        Args:
            direction: who dialled. stage: the step that failed, or another reason ("timeout").
            error: the error. local, remote: our address (of the listener, if inbound), and the peer's.
        """

    def accept_refused(self, addr: Multiaddr, reason: str) -> None:
        """The listener on `addr` closed a connection unread: `admits` said no, or for another `reason`."""

    def request_answered(self, addr: Multiaddr) -> None:
        """The listener on `addr` answered a plain HTTP request. This is not a failed upgrade."""

    def accept_failed(self, addr: Multiaddr, error: OSError) -> None:
        """accept(2) failed on the listener on `addr`."""

    def listener_changed(self, addr: Multiaddr, state: ListenerState, error: BaseException | None) -> None:
        """The listener on `addr` is in `state` now. `error` is the reason, if there is one."""


Attributes = Mapping[str, str | bool | int | float | Sequence[str]]
"""What is known about a span or an event, by name."""


class Span(Protocol):
    """Something that takes time. Methods must be quick. If one raises, the error is only logged."""

    def event(self, name: str, attributes: Attributes) -> None:
        """Something has happened within it."""

    def make_current(self) -> None:
        """What the present task begins from now on, in other libraries too, belongs to this span."""

    def end(self, attributes: Attributes, error: BaseException | None) -> None:
        """The end, called once. `attributes` are added; `error`: what it failed with, or None."""


@runtime_checkable
class Tracer(Protocol):
    """Takes the spans of a host; see TraceOptions. It must be quick. An error it raises is only logged."""

    def start(self, name: str, direction: Direction, attributes: Attributes, parent: Span | None) -> Span:
        """A span begins now.

        Args:
            direction: who began it; INBOUND: the peer, so nothing here is above it.
            attributes: those that are known at the beginning.
            parent: the span above it; None: if we began it, the one that is current in the present task.
        """


class UpgradeSpan(Protocol):
    """Hears of the steps of one upgrade."""

    def event(self, name: str) -> None:
        """A step begins."""

    def worked(self, made: CapableConn) -> None:
        """The upgrade has made a connection."""

    def failed(self, error: BaseException) -> None:
        """It has failed with `error`."""


class UpgradeTraces(Protocol):
    """Hears of upgrades. Never raises."""

    def upgrade(self, conn: RawConn, direction: Direction) -> UpgradeSpan:
        """The upgrade of `conn` begins. `direction`: who dialled."""


class PeerMarks(Protocol):
    """The part of the connection manager in which protocols say how useful a peer is. See ConnManager."""

    def tag(self, peer: PeerId, name: str, value: float) -> None:
        """Sets one tag of `peer`. Of two peers, the one with the smaller sum of tags goes first."""

    def untag(self, peer: PeerId, name: str) -> None:
        """Removes one tag."""

    def protect(self, peer: PeerId, tag: str) -> None:
        """`peer` is not closed to make room until `unprotect` with the same `tag`."""

    def unprotect(self, peer: PeerId, tag: str) -> bool:
        """Ends that. Returns: whether `peer` is still protected under another tag."""


class Network(Protocol):
    """The part of the swarm that notifiees, relays and protocols use."""

    @property
    def conn_manager(self) -> PeerMarks:
        """Where to say which peers are useful."""

    @property
    def local_peer(self) -> PeerId: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def num_conns(self) -> int: ...
    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that inbound streams may speak."""

    async def dial_peer(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr | str] = (),
        *,
        force_direct: bool = False,
        ignore_backoff: bool = False,
    ) -> Conn:
        """The best connection to `peer`, or a new one. With `force_direct`: never a relayed one."""

    async def new_stream(
        self, peer: PeerId, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> Stream:
        """A stream to `peer` on its best connection."""

    def peers(self) -> Collection[PeerId]:
        """The peers that we are connected to."""

    def best_conn(self, peer: PeerId) -> Conn | None:
        """The best open connection to `peer`, or None."""

    def conns_to_peer(self, peer: PeerId) -> Sequence[Conn]:
        """The connections to `peer`, oldest first."""

    def peer_drains(self, conn: Conn) -> None:
        """The peer of `conn` has said that it is draining: nothing more is opened there."""

    def interface_listen_addresses(self) -> list[Multiaddr]:
        """The addresses we listen on. Interface addresses replace a wildcard."""

    def set_stream_handler(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serves inbound streams of `protocol`."""

    def remove_stream_handler(self, protocol: str) -> None:
        """Stops serving `protocol`."""

    def notify(self, notifiee: Notifiee) -> None:
        """Calls `notifiee` for listeners and connections from now on."""

    def stop_notify(self, notifiee: Notifiee) -> None:
        """Stops calling `notifiee`."""


class Notifiee(Protocol):
    """Is called when listeners and connections open and end. Methods must be quick. See Swarm.notify."""

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
    "PeerMarks",
    "Prefix",
    "Protection",
    "Protector",
    "ProtocolHandler",
    "RawConn",
    "RawListener",
    "Refusal",
    "Resolver",
    "SecureTransport",
    "Secured",
    "SecuredGate",
    "Stream",
    "StreamHandler",
    "Transport",
    "Upgrader",
    "Verdict",
]
