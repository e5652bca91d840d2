"""Makes a CapableConn from a raw connection: private network, security, handshake, multiplexer.

Comes in: a RawConn that is not started, a role, perhaps the id the peer must prove. Goes out: an Upgraded. On
failure it closes the raw connection, and raises a typed error with the failed step in `.stage`. One deadline
covers all steps. Never trusts what multistream-select says: only the handshake proves something.
Specification: libp2p connections, "Upgrading connections".
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pcore._fast.loop.deadline import Deadline
from p2pcore.errors import (
    ConnectionClosed,
    GaterRefused,
    HandshakeError,
    IncompleteRead,
    LocalProtocolError,
    NegotiationError,
    P2PError,
    PeerIsSelf,
    UpgradeTimeout,
    WrongNetworkKey,
)
from p2pcore.interfaces import (
    ConnKind,
    ConnState,
    Direction,
    Multiplexer,
    MuxedConn,
    Protection,
    Protector,
    RawConn,
    RawListener,
    Secured,
    SecuredGate,
    SecureTransport,
    UpgradeSpan,
    UpgradeTraces,
)
from p2pcore.limits import ACCEPT_TIMEOUT_S
from p2pcore.upgrade import multistream
from p2pcore.upgrade.listener import ListenerHooks, ListenerOptions, UpgradedListener
from p2pcore.values.keys import PrivateKey, PublicKey

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore._fast.loop.ledger import Ledger
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


class Stage(enum.StrEnum):
    """The steps of an upgrade. An error has its step in `.stage`."""

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
        timeout: seconds for a whole upgrade, if the caller gives no deadline. It may end up to 0.25 s later.
        listener, hooks: for listeners that `upgrade_listener` makes.
        gate: is asked when the peer has proved its id, before the multiplexer starts; None: nobody is.
        ledger: counts the bytes that wait on connections, from here on.
        traces: hears of each upgrade and its steps; None: nobody does.
    """

    timeout: float = ACCEPT_TIMEOUT_S
    listener: ListenerOptions = field(default_factory=ListenerOptions)
    hooks: ListenerHooks = field(default_factory=ListenerHooks)
    gate: SecuredGate | None = None
    ledger: Ledger | None = None
    traces: UpgradeTraces | None = None


@dataclass(slots=True, eq=False)
class Upgraded:
    """The result of an upgrade; satisfies interfaces.CapableConn. A swarm copies its fields and drops it.

    It is not frozen, because that would cost 300 instructions more for each field.
    """

    session: MuxedConn
    kind: ConnKind
    remote_peer: PeerId
    remote_public_key: PublicKey
    local_multiaddr: Multiaddr
    remote_multiaddr: Multiaddr | None

    @property
    def is_closed(self) -> bool:
        """True once its session has ended."""
        return self.session.is_closed

    def abort(self, code: int = 0) -> None:
        """Ends its session at once. Idempotent."""
        self.session.abort(code)


class StreamUpgrader:
    """Upgrades connections that carry a stream of bytes (TCP, UNIX, WebSocket, relay).

    Args:
        local_key: our identity.
        security: security protocols in order of preference, at least one.
        muxers: multiplexers in order of preference, at least one.
        options: see UpgraderOptions.
        protector: the private network, or None.

    Raises:
        LocalProtocolError: a list is empty or names a protocol twice. Or LIBP2P_FORCE_PNET=1 is in the
            environment, and `protector` is None.
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
        self._kinds: dict[tuple[Direction, str, bool, str, str, bool], ConnKind] = {}

    @property
    def local_peer(self) -> PeerId:
        """Our id on all upgraded connections."""
        return self._local_peer

    def upgrade_listener(self, inner: RawListener) -> UpgradedListener:
        """Starts to accept and upgrade the connections of `inner`. The result owns `inner`."""
        return UpgradedListener(inner, self, self._options.listener, self._options.hooks)

    async def upgrade_inbound(self, conn: RawConn, deadline: float | None = None) -> Upgraded:
        """See interfaces.Upgrader."""
        return await self._upgrade(conn, conn.expected_peer, Direction.INBOUND, deadline)

    async def upgrade_outbound(
        self, conn: RawConn, peer: PeerId | None, deadline: float | None = None
    ) -> Upgraded:
        """See interfaces.Upgrader."""
        return await self._upgrade(conn, peer, Direction.OUTBOUND, deadline)

    async def _upgrade(
        self, conn: RawConn, expected: PeerId | None, direction: Direction, deadline: float | None
    ) -> Upgraded:
        loop = asyncio.get_running_loop()
        if deadline is None:
            deadline = loop.time() + self._options.timeout
        traces = self._options.traces
        if traces is None:
            upgrade = _Upgrade(self, conn, expected, direction)
        else:
            upgrade = _TracedUpgrade(self, conn, expected, direction, traces.upgrade(conn, direction))
        try:
            with Deadline(loop, deadline):
                return await upgrade.run()
        except BaseException as error:
            conn.abort()
            failure = _failure(upgrade.explained(error), upgrade.stage, conn)
            upgrade.failed(failure)
            try:
                if failure is error:
                    raise
                raise failure from error
            finally:
                del failure  # else it keeps itself and the connection alive by its traceback

    def _kind(
        self, direction: Direction, conn: RawConn, security: str, muxer: str, is_early: bool
    ) -> ConnKind:
        key = (direction, conn.transport, conn.is_limited, security, muxer, is_early)
        kind = self._kinds.get(key)
        if kind is None:
            state = ConnState(security, muxer, conn.transport, is_early)
            kind = self._kinds[key] = ConnKind(self._local_peer, direction, state, conn.is_limited)
        return kind


class _Upgrade:
    """One upgrade. `stage` is its present step."""

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

    async def run(self) -> Upgraded:
        conn, upgrader = self._conn, self._upgrader
        await conn.start()
        self.stage = Stage.SECURITY
        mailbox = conn.mailbox
        if upgrader._options.ledger is not None:
            mailbox.account(upgrader._options.ledger)
        if upgrader._protector is not None:
            self._protection = upgrader._protector.protect(mailbox)
        if self._direction is Direction.INBOUND:
            security, secured = await self._secure_inbound(mailbox)
        else:
            security, secured = await self._secure_outbound(mailbox)
        if secured.remote_peer == upgrader._local_peer:
            raise PeerIsSelf(secured.remote_peer)
        gate = upgrader._options.gate
        if gate is not None and gate.has_gater:
            await self._ask(gate, secured, mailbox)
        self.stage = Stage.MUXER
        muxer = secured.muxer or await self._negotiate_muxer(mailbox)
        session = self._start_muxer(muxer, mailbox)
        is_early = secured.muxer is not None
        kind = upgrader._kind(self._direction, conn, security, muxer, is_early)
        return Upgraded(
            session,
            kind,
            secured.remote_peer,
            secured.remote_key,
            conn.local_multiaddr,
            conn.remote_multiaddr,
        )

    async def _ask(self, gate: SecuredGate, secured: Secured, mailbox: Mailbox) -> None:
        """Asks the gater. If it refuses, and a multiplexer is agreed, the peer is told the code."""
        self.stage = Stage.GATER
        conn, peer = self._conn, secured.remote_peer
        try:
            asked = gate.check_secured(self._direction, peer, conn.local_multiaddr, conn.remote_multiaddr)
            if asked is not None:
                await asked
        except GaterRefused as refusal:
            if secured.muxer is not None:
                self._start_muxer(secured.muxer, mailbox).abort(refusal.code)
            raise

    def failed(self, error: BaseException) -> None:
        """The upgrade has failed with `error`. Nobody is told here."""

    def explained(self, error: BaseException) -> BaseException:
        """`error`, or WrongNetworkKey if the peer seems not to have the key of our private network."""
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
        await mailbox.peek(1)  # so that header and proposal are usually here when the negotiation begins
        name = await multistream.handle(mailbox, upgrader._security, Stage.SECURITY)
        self.stage = Stage.HANDSHAKE
        transport = upgrader._security[name]
        return name, await transport.secure_inbound(mailbox, self._expected, upgrader._muxer_names)

    async def _secure_outbound(self, mailbox: Mailbox) -> tuple[str, Secured]:
        upgrader = self._upgrader
        names = upgrader._security_names
        if len(names) == 1:
            name = names[0]
            multistream.propose(mailbox, name, Stage.SECURITY)  # saves a round trip
        else:
            name = await multistream.select(mailbox, names, Stage.SECURITY)
        transport = upgrader._security[name]
        try:
            return name, await transport.secure_outbound(mailbox, self._expected, upgrader._muxer_names)
        finally:
            if not mailbox.is_expecting:
                self.stage = Stage.HANDSHAKE

    async def _negotiate_muxer(self, mailbox: Mailbox) -> str:
        if self._direction is Direction.INBOUND:
            return await multistream.handle(mailbox, self._upgrader._muxers, Stage.MUXER)
        return await multistream.select(mailbox, self._upgrader._muxer_names, Stage.MUXER)

    def _start_muxer(self, name: str, mailbox: Mailbox) -> MuxedConn:
        muxer = self._upgrader._muxers.get(name)
        if muxer is None:
            raise NegotiationError(f"the handshake agreed on {name}, which was not offered")
        return muxer.start(mailbox, self._direction is Direction.OUTBOUND)


class _TracedUpgrade(_Upgrade):
    """An upgrade whose steps are events of a span."""

    __slots__ = ("_span", "_stage")

    def __init__(
        self,
        upgrader: StreamUpgrader,
        conn: RawConn,
        expected: PeerId | None,
        direction: Direction,
        span: UpgradeSpan,
    ) -> None:
        self._span = span
        super().__init__(upgrader, conn, expected, direction)

    @property
    def stage(self) -> Stage:
        """The present step."""
        return self._stage

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._stage = stage
        self._span.event(str(stage))

    async def run(self) -> Upgraded:
        made = await super().run()
        self._span.worked(made)
        return made

    def failed(self, error: BaseException) -> None:
        """Ends the span."""
        self._span.failed(error)


def _distinct(what: str, names: list[str]) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names):
        raise LocalProtocolError(f"{what} must be at least one, each only once, not {names}")
    return tuple(names)


_TELLING: dict[Stage, tuple[type[P2PError], ...]] = {
    Stage.TRANSPORT: (NegotiationError, HandshakeError),
    Stage.NETWORK: (NegotiationError,),
    Stage.SECURITY: (NegotiationError,),
    Stage.HANDSHAKE: (HandshakeError,),
    Stage.GATER: (GaterRefused,),
    Stage.MUXER: (NegotiationError,),
}
"""The error types that explain a failure of each stage. Another error becomes the cause of one of these."""


def _failure(error: BaseException, stage: Stage, conn: RawConn) -> BaseException:
    """The error to raise for `error` in `stage`: itself, or a new one if its type does not say enough."""
    if isinstance(error, NegotiationError) and error.stage in (Stage.SECURITY, Stage.MUXER):
        stage = Stage(error.stage)  # Noise and ALPN agree on a multiplexer within the handshake
    if isinstance(error, _TELLING[stage]):
        failure: P2PError = error
        failure.add_note(f"in the {stage} with {conn.remote_multiaddr}")
    elif isinstance(error, TimeoutError):
        failure = UpgradeTimeout(f"the {stage} with {conn.remote_multiaddr} did not end in time")
    elif isinstance(error, (P2PError, OSError)):
        kind = HandshakeError if stage is Stage.HANDSHAKE else NegotiationError
        failure = kind(f"{stage} with {conn.remote_multiaddr}: {error}")
    else:  # cancelled, or our own bug
        return error
    failure.stage = stage
    return failure
