"""Raw connection to CapableConn: private network, security, handshake, muxer negotiation, multiplexer.

Comes in: a RawConn that nobody has started, a role, perhaps the id the peer must prove. Goes out: a
TransportConn, or a typed error with the failed step in `.stage`; the raw connection is closed then. One
deadline covers all steps. Never trusts what multistream-select says: only the handshake proves anything.
Specification: libp2p connections, "Upgrading connections".
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from p2pcore._fast.loop.deadline import Deadline
from p2pcore.errors import (
    ConnectionClosed,
    GaterRefused,
    HandshakeError,
    IncompleteRead,
    LocalProtocolError,
    NegotiationError,
    P2PError,
    UpgradeTimeout,
    WrongNetworkKey,
)
from p2pcore.interfaces import (
    CapableConn,
    ConnState,
    Direction,
    Multiplexer,
    MuxedConn,
    Protection,
    Protector,
    RawConn,
    RawListener,
    Secured,
    SecureTransport,
    Stream,
    StreamHandler,
)
from p2pcore.limits import ACCEPT_TIMEOUT_S
from p2pcore.upgrade import multistream
from p2pcore.upgrade.listener import ListenerHooks, ListenerOptions, UpgradedListener
from p2pcore.values.keys import PrivateKey, PublicKey

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Layer, Mailbox
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


class Stage(enum.StrEnum):
    """The steps of an upgrade, as they appear in `.stage` of an error."""

    TRANSPORT = "transport handshake"
    NETWORK = "private network"
    SECURITY = "security negotiation"
    HANDSHAKE = "security handshake"
    GATER = "connection gater"
    MUXER = "muxer negotiation"


@dataclass(frozen=True, slots=True)
class UpgraderOptions:
    """Bounds of an upgrade.

    Attributes:
        timeout: seconds for one whole upgrade, where the caller gives no deadline; it ends up to 0.25 later.
        listener, hooks: how listeners made by `upgrade_listener` behave, whom they ask and tell.
        check_secured: asked once the peer has proved its id, before anything is multiplexed; raises
            GaterRefused to end it.
    """

    timeout: float = ACCEPT_TIMEOUT_S
    listener: ListenerOptions = field(default_factory=ListenerOptions)
    hooks: ListenerHooks = field(default_factory=ListenerHooks)
    check_secured: Callable[[Direction, PeerId, Multiaddr, Multiaddr | None], None] | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    """What all connections upgraded in the same way share: one object for all of them."""

    local_peer: PeerId
    direction: Direction
    state: ConnState
    is_limited: bool


class TransportConn:
    """A secured, multiplexed connection: satisfies interfaces.CapableConn. Made by the upgrader."""

    __slots__ = ("_key", "_kind", "_session", "local_multiaddr", "remote_multiaddr", "remote_peer")

    def __init__(self, raw: RawConn, session: MuxedConn, secured: Secured, kind: _Kind) -> None:
        self.local_multiaddr: Multiaddr = raw.local_multiaddr
        self.remote_multiaddr: Multiaddr | None = raw.remote_multiaddr
        self._session = session
        self._kind = kind
        self.remote_peer = secured.remote_peer
        # An id that contains the key makes it anew when asked: 110 bytes less for each idle connection.
        self._key = secured.remote_key if secured.remote_peer.public_key_bytes() is None else None

    @property
    def local_peer(self) -> PeerId:
        """Our own id."""
        return self._kind.local_peer

    @property
    def remote_public_key(self) -> PublicKey:
        """The key the peer proved to have."""
        if self._key is not None:
            return self._key
        return PublicKey.from_protobuf(self.remote_peer.public_key_bytes() or b"")

    @property
    def direction(self) -> Direction:
        """Who dialled."""
        return self._kind.direction

    @property
    def state(self) -> ConnState:
        """How it was upgraded."""
        return self._kind.state

    @property
    def is_limited(self) -> bool:
        """True where a relay bounds its bytes or its time."""
        return self._kind.is_limited

    @property
    def session(self) -> MuxedConn:
        """The multiplexer's session, for what only that multiplexer offers."""
        return self._session

    @property
    def owner(self) -> CapableConn | None:
        """What its streams give as `conn`; set by the swarm that holds it."""
        return self._session.owner

    @owner.setter
    def owner(self, value: CapableConn | None) -> None:
        self._session.owner = value

    @property
    def is_closed(self) -> bool:
        """True once no stream can be used any more."""
        return self._session.is_closed

    @property
    def num_streams(self) -> int:
        """Streams open now, both directions."""
        return self._session.num_streams

    def open_stream(self) -> Awaitable[Stream]:
        """A new outbound stream. Raises ConnectionClosed (GoAway) when no more can be opened."""
        return self._session.open_stream()

    def accept_stream(self) -> Awaitable[Stream]:
        """The next stream the peer opens, where no handler is set. Raises ConnectionClosed."""
        return self._session.accept_stream()

    def set_stream_handler(self, handler: StreamHandler | None) -> None:
        """Inbound streams go to `handler`, those already waiting first."""
        self._session.set_stream_handler(handler)

    async def close(self, code: int = 0) -> None:
        """Orderly end; streams fail. Idempotent."""
        await self._session.close(code)

    def abort(self, code: int = 0) -> None:
        """Ends at once, with a go-away if that needs no waiting. Idempotent."""
        self._session.abort(code)

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        """`callback(error)` runs once, from the event loop, when the connection has ended."""
        self._session.add_close_callback(callback)

    def __repr__(self) -> str:
        return f"<TransportConn {self.direction.value} {self.remote_peer} {self.remote_multiaddr}>"


class StreamUpgrader:
    """Upgrades connections that carry a stream of bytes (TCP, UNIX, WebSocket, relay).

    Args:
        local_key: our identity.
        security: security protocols in order of preference, at least one.
        muxers: multiplexers in order of preference, at least one.
        options: see UpgraderOptions.
        protector: the private network; None for none.

    Raises:
        LocalProtocolError: a list is empty or names a protocol twice; there is no private network although
            LIBP2P_FORCE_PNET=1 in the environment asks for one.
    """

    def __init__(
        self,
        local_key: PrivateKey,
        security: Sequence[SecureTransport],
        muxers: Sequence[Multiplexer],
        options: UpgraderOptions | None = None,
        protector: Protector | None = None,
    ) -> None:
        if protector is None and os.environ.get("LIBP2P_FORCE_PNET") == "1":
            raise LocalProtocolError("LIBP2P_FORCE_PNET=1 is set, and no network key was given")
        self._protector = protector
        self._local_peer: PeerId = local_key.public_key.peer_id()
        self._security = {transport.protocol: transport for transport in security}
        self._muxers = {muxer.protocol: muxer for muxer in muxers}
        self._security_names = _distinct("security protocols", [each.protocol for each in security])
        self._muxer_names = _distinct("multiplexers", [each.protocol for each in muxers])
        self._options = options or UpgraderOptions()
        self._kinds: dict[tuple[Direction, str, bool, str, str, bool], _Kind] = {}

    @property
    def local_peer(self) -> PeerId:
        """The id all upgraded connections have on our side."""
        return self._local_peer

    def upgrade_listener(self, inner: RawListener) -> UpgradedListener:
        """Starts to accept and upgrade what `inner`, which it owns from now on, gives out."""
        return UpgradedListener(inner, self, self._options.listener, self._options.hooks)

    async def upgrade_inbound(self, conn: RawConn, deadline: float | None = None) -> TransportConn:
        """See interfaces.Upgrader."""
        return await self._upgrade(conn, conn.expected_peer, Direction.INBOUND, deadline)

    async def upgrade_outbound(
        self, conn: RawConn, peer: PeerId | None, deadline: float | None = None
    ) -> TransportConn:
        """See interfaces.Upgrader."""
        return await self._upgrade(conn, peer, Direction.OUTBOUND, deadline)

    async def _upgrade(
        self, conn: RawConn, expected: PeerId | None, direction: Direction, deadline: float | None
    ) -> TransportConn:
        loop = asyncio.get_running_loop()
        if deadline is None:
            deadline = loop.time() + self._options.timeout
        upgrade = _Upgrade(self, conn, expected, direction)
        try:
            with Deadline(loop, deadline):
                return await upgrade.run()
        except BaseException as error:
            conn.abort()
            failure = _failure(upgrade.explained(error), upgrade.stage, conn)
            if failure is error:
                raise
            raise failure from error

    def _kind(self, direction: Direction, conn: RawConn, security: str, muxer: str, is_early: bool) -> _Kind:
        key = (direction, conn.transport, conn.is_limited, security, muxer, is_early)
        kind = self._kinds.get(key)
        if kind is None:
            state = ConnState(security, muxer, conn.transport, is_early)
            kind = self._kinds[key] = _Kind(self._local_peer, direction, state, conn.is_limited)
        return kind


class _Upgrade:
    """One upgrade under way; `stage` says where it is."""

    __slots__ = ("_conn", "_direction", "_expected", "_protection", "_upgrader", "stage")

    def __init__(
        self, upgrader: StreamUpgrader, conn: RawConn, expected: PeerId | None, direction: Direction
    ) -> None:
        self._upgrader = upgrader
        self._conn = conn
        self._expected = expected
        self._direction = direction
        self._protection: Protection | None = None
        self.stage = Stage.TRANSPORT

    async def run(self) -> TransportConn:
        conn, upgrader = self._conn, self._upgrader
        await conn.start()
        self.stage = Stage.SECURITY
        mailbox = conn.mailbox
        if upgrader._protector is not None:
            self._protection = upgrader._protector.protect(mailbox)
        if self._direction is Direction.INBOUND:
            security, secured = await self._secure_inbound(mailbox)
        else:
            security, secured = await self._secure_outbound(mailbox)
        if secured.remote_peer == upgrader._local_peer:
            raise HandshakeError("the peer proved to be this host itself")
        check = upgrader._options.check_secured
        if check is not None:
            self.stage = Stage.GATER
            check(self._direction, secured.remote_peer, conn.local_multiaddr, conn.remote_multiaddr)
        self.stage = Stage.MUXER
        muxer = secured.muxer or await self._negotiate_muxer(mailbox)
        session = self._start_muxer(muxer, mailbox)
        is_early = secured.muxer is not None
        kind = upgrader._kind(self._direction, conn, security, muxer, is_early)
        return TransportConn(conn, session, secured, kind)

    def explained(self, error: BaseException) -> BaseException:
        """`error`, or what it means where the peer has not shown that it has our network's key."""
        if isinstance(error, WrongNetworkKey):
            self.stage = Stage.NETWORK
            return error
        if self._protection is None or self._protection.has_agreed:
            return error
        if not isinstance(error, ConnectionClosed) and not isinstance(error.__cause__, IncompleteRead):
            return error
        self.stage = Stage.NETWORK
        return WrongNetworkKey(
            "wrong network key, it seems: the peer closed the connection before it said anything readable"
        )

    async def _secure_inbound(self, mailbox: Mailbox) -> tuple[str, Secured]:
        upgrader = self._upgrader
        await mailbox.peek(1)  # so that the negotiation finds a proposal that is whole
        name = await multistream.handle(mailbox, upgrader._security)
        self.stage = Stage.HANDSHAKE
        transport = upgrader._security[name]
        return name, await transport.secure_inbound(mailbox, self._expected, upgrader._muxer_names)

    async def _secure_outbound(self, mailbox: Mailbox) -> tuple[str, Secured]:
        upgrader = self._upgrader
        names = upgrader._security_names
        if len(names) == 1:
            name = names[0]
            mailbox = cast("Mailbox", _Optimistic(self, mailbox, name))
        else:
            name = await multistream.select(mailbox, names)
            self.stage = Stage.HANDSHAKE
        transport = upgrader._security[name]
        return name, await transport.secure_outbound(mailbox, self._expected, upgrader._muxer_names)

    async def _negotiate_muxer(self, mailbox: Mailbox) -> str:
        if self._direction is Direction.INBOUND:
            return await multistream.handle(mailbox, self._upgrader._muxers)
        return await multistream.select(mailbox, self._upgrader._muxer_names)

    def _start_muxer(self, name: str, mailbox: Mailbox) -> MuxedConn:
        muxer = self._upgrader._muxers.get(name)
        if muxer is None:
            raise NegotiationError(f"the handshake agreed on {name}, which was not offered")
        return muxer.start(mailbox, self._direction is Direction.OUTBOUND)


class _Optimistic:
    """A mailbox that proposes the only security protocol together with its first message.

    Saves a round trip: the peer's answer is read, and checked, ahead of the handshake's first read.
    """

    __slots__ = ("_is_answered", "_mailbox", "_name", "_opening", "_upgrade")

    def __init__(self, upgrade: _Upgrade, mailbox: Mailbox, name: str) -> None:
        self._upgrade = upgrade
        self._mailbox = mailbox
        self._name = name
        self._opening = multistream.lazy_open(name)[0]
        self._is_answered = False

    def write(self, data: bytes) -> None:
        """Writes the proposal in front of the first `data`."""
        opening, self._opening = self._opening, b""
        self._mailbox.write(opening + data)

    async def read_exactly(self, n: int) -> bytes:
        """As Mailbox.read_exactly, behind the peer's answer."""
        if not self._is_answered:
            await self._read_answer()
        return await self._mailbox.read_exactly(n)

    async def read_some(self, most: int) -> bytes:
        """As Mailbox.read_some, behind the peer's answer."""
        if not self._is_answered:
            await self._read_answer()
        return await self._mailbox.read_some(most)

    async def read_frame(self) -> bytes:
        """As Mailbox.read_frame, behind the peer's answer."""
        if not self._is_answered:
            await self._read_answer()
        return await self._mailbox.read_frame()

    async def _read_answer(self) -> None:
        if self._opening:
            self.write(b"")
        await self._mailbox.peek(1)
        await multistream.select(_Answers(self._mailbox), (self._name,))
        self._is_answered = True
        self._upgrade.stage = Stage.HANDSHAKE

    def unread(self, data: bytes) -> None:
        """As Mailbox.unread."""
        self._mailbox.unread(data)

    def insert(self, layer: Layer) -> None:
        """As Mailbox.insert."""
        self._mailbox.insert(layer)

    def abort(self) -> None:
        """As Mailbox.abort."""
        self._mailbox.abort()


class _Answers:
    """The reading half of a mailbox, for a negotiation whose only proposal has been sent already."""

    __slots__ = ("read_exactly", "take_opening")

    def __init__(self, mailbox: Mailbox) -> None:
        self.read_exactly = mailbox.read_exactly
        self.take_opening = mailbox.take_opening

    def write(self, data: bytes) -> None:
        """It left with the first message of the handshake."""


def _distinct(what: str, names: list[str]) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names):
        raise LocalProtocolError(f"{what} must be distinct and at least one, not {names}")
    return tuple(names)


_TELLING: dict[Stage, tuple[type[P2PError], ...]] = {
    Stage.TRANSPORT: (NegotiationError, HandshakeError),
    Stage.NETWORK: (NegotiationError,),
    Stage.SECURITY: (NegotiationError,),
    Stage.HANDSHAKE: (HandshakeError,),
    Stage.GATER: (GaterRefused,),
    Stage.MUXER: (NegotiationError,),
}
"""What says by its type what went wrong in a stage; other errors become the cause of one that does."""


def _failure(error: BaseException, stage: Stage, conn: RawConn) -> BaseException:
    """The error to raise for `error` in `stage`: itself where its type says enough, else one that does."""
    if isinstance(error, _TELLING[stage]):
        failure: P2PError = error
        failure.add_note(f"in the {stage} with {conn.remote_multiaddr}")
    elif isinstance(error, TimeoutError):
        failure = UpgradeTimeout(f"no end of the {stage} with {conn.remote_multiaddr} in time")
    elif isinstance(error, (P2PError, OSError)):
        kind = HandshakeError if stage is Stage.HANDSHAKE else NegotiationError
        failure = kind(f"{stage} with {conn.remote_multiaddr}: {error}")
    else:  # cancelled, or a fault of ours
        return error
    failure.stage = stage
    return failure
