"""StreamUpgrader: every way an upgrade can go, with the step that failed named, and the socket closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from harness import eventually, looped, seconds, settle
from nodes import (
    LOOPBACK,
    Node,
    Reports,
    make_node,
    num_descriptors,
    open_raw,
    open_socket,
    port_of,
    read_all,
    settled_descriptors,
)
from p2pcore.errors import (
    HandshakeError,
    LocalProtocolError,
    NegotiationError,
    P2PError,
    PeerIdMismatch,
    PeerIsSelf,
    ProtocolNotSupported,
    UpgradeTimeout,
)
from p2pcore.interfaces import CapableConn, ConnState, Direction, Secured, SecureTransport
from p2pcore.manet.listener import MaListener
from p2pcore.muxers.yamux import YamuxMultiplexer
from p2pcore.security.noise import NoiseTransport
from p2pcore.security.plaintext import PlaintextTransport
from p2pcore.security.tls import TlsTransport
from p2pcore.upgrade import multistream
from p2pcore.upgrade.upgrader import Stage, StreamUpgrader, Upgraded
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr

KEY = PrivateKey.generate()
NOISE = NoiseTransport(KEY)
OPENING = multistream.HEADER + multistream.encode("/noise")

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")  # a socket left to the collector


class Renamed:
    """Noise under another name, and with the early muxer result a test wants."""

    def __init__(
        self, key: PrivateKey, protocol: str = "/noise", muxer: str | None = None, claims: Any = None
    ) -> None:
        self._noise = NoiseTransport(key)
        self.protocol = protocol
        self._muxer = muxer
        self._claims = claims

    async def secure_inbound(self, mailbox: Any, expected: Any, muxers: Sequence[str]) -> Secured:
        return self._changed(await self._noise.secure_inbound(mailbox, expected, ()))

    async def secure_outbound(self, mailbox: Any, expected: Any, muxers: Sequence[str]) -> Secured:
        return self._changed(await self._noise.secure_outbound(mailbox, expected, ()))

    def _changed(self, secured: Secured) -> Secured:
        return Secured(self._claims or secured.remote_peer, secured.remote_key, self._muxer)


class RenamedYamux(YamuxMultiplexer):
    """Yamux under another name."""

    def __init__(self, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol  # type: ignore[misc]


def node_with(*security: Renamed, key: PrivateKey, **options: Any) -> Node:
    return make_node(key, list(security), **options)


async def connect(dialler: Node, target: Node) -> tuple[Upgraded, Upgraded]:
    async with target.listening() as listener:
        outbound, inbound = await asyncio.gather(dialler.dial(listener.multiaddr), listener.accept())
    assert isinstance(inbound, Upgraded)
    return outbound, inbound


async def dial_fails(dialler: Node, target: Node, peer: Any = None) -> tuple[P2PError, dict[str, int]]:
    """The dialler's error and the listener's counts."""
    async with target.listening() as listener:
        with pytest.raises(P2PError) as caught:
            await dialler.dial(listener.multiaddr, peer)
        await eventually(lambda: listener.failures.total() == 1 and not listener.num_upgrading)
        return caught.value, dict(listener.failures)


@looped
async def test_an_upgraded_connection_knows_both_ends() -> None:
    one, two = make_node(), make_node()
    outbound, inbound = await connect(one, two)
    assert (outbound.kind.local_peer, outbound.remote_peer) == (one.peer, two.peer)
    assert (inbound.kind.local_peer, inbound.remote_peer) == (two.peer, one.peer)
    assert outbound.remote_public_key == two.key.public_key
    assert inbound.remote_public_key == one.key.public_key
    assert (outbound.kind.direction, inbound.kind.direction) == (Direction.OUTBOUND, Direction.INBOUND)
    assert outbound.kind.state == inbound.kind.state == ConnState("/noise", "/yamux/1.0.0", "tcp", True)
    assert outbound.local_multiaddr == inbound.remote_multiaddr
    assert outbound.remote_multiaddr == inbound.local_multiaddr
    assert str(one.peer) in repr(inbound)
    await outbound.session.close()
    await eventually(lambda: inbound.is_closed)


@looped
async def test_connections_of_one_kind_share_their_state() -> None:
    one, two = make_node(), make_node()
    first, second = await connect(one, two), await connect(one, two)
    for mine, other in zip(first, second, strict=True):
        assert mine.kind.state is other.kind.state
    for conn in (*first, *second):
        conn.abort()


@looped
async def test_streams_pass_through_the_connection() -> None:
    outbound, inbound = await connect(make_node(), make_node())
    stream = await outbound.session.open_stream()
    await stream.write(b"ping")
    answer = await inbound.session.accept_stream()
    assert await answer.read() == b"ping"
    assert outbound.session.num_streams == inbound.session.num_streams == 1
    outbound.session.owner = outbound  # type: ignore[assignment]
    assert stream.conn is outbound
    closed: list[BaseException | None] = []
    inbound.session.add_close_callback(closed.append)
    outbound.abort()
    await eventually(lambda: closed)


@looped
async def test_without_early_negotiation_the_muxer_is_agreed_by_multistream() -> None:
    keys = [PrivateKey.generate() for _ in range(2)]
    one, two = (node_with(Renamed(key), key=key) for key in keys)
    outbound, inbound = await connect(one, two)
    assert outbound.kind.state == inbound.kind.state == ConnState("/noise", "/yamux/1.0.0", "tcp", False)
    outbound.abort()
    inbound.abort()


@looped
async def test_the_dialler_goes_down_its_list_until_the_peer_agrees() -> None:
    keys = [PrivateKey.generate() for _ in range(2)]
    one = make_node(
        keys[0], [Renamed(keys[0], "/other"), Renamed(keys[0])], [RenamedYamux("/b"), RenamedYamux("/a")]
    )
    two = make_node(keys[1], [Renamed(keys[1])], [RenamedYamux("/a")])
    outbound, inbound = await connect(one, two)
    assert outbound.kind.state == inbound.kind.state == ConnState("/noise", "/a", "tcp", False)
    outbound.abort()
    inbound.abort()


@pytest.mark.parametrize("proposals", [["/other"], ["/other", "/another"]])
@looped
async def test_no_common_security_is_an_error_of_that_step(proposals: list[str]) -> None:
    key = PrivateKey.generate()
    one = make_node(key, [Renamed(key, name) for name in proposals])
    error, failures = await dial_fails(one, make_node())
    assert isinstance(error, ProtocolNotSupported)
    assert error.protocols == tuple(proposals)
    assert str(error).startswith("security negotiation: ")
    assert error.stage == Stage.SECURITY
    assert failures == {Stage.SECURITY: 1}


def named(kind: str, key: PrivateKey) -> SecureTransport:
    made = {"noise": NoiseTransport, "tls": TlsTransport, "plaintext": PlaintextTransport}[kind]
    security: SecureTransport = made(key)
    return security


async def both_fail(dialler: Node, target: Node) -> tuple[P2PError, P2PError]:
    """The dialler's error and the listener's."""
    inner = MaListener.bind(LOOPBACK)

    async def accepted() -> CapableConn:
        return await target.upgrader.upgrade_inbound(await inner.accept())

    ours, theirs = await asyncio.gather(dialler.dial(inner.multiaddr), accepted(), return_exceptions=True)
    await inner.close()
    assert isinstance(ours, P2PError), ours
    assert isinstance(theirs, P2PError), theirs
    return ours, theirs


@pytest.mark.parametrize("ours", ["noise", "tls", "plaintext"])
@pytest.mark.parametrize("theirs", ["noise", "tls", "plaintext"])
@looped
async def test_no_common_security_has_one_type_on_both_sides(ours: str, theirs: str) -> None:
    if ours == theirs:
        return
    keys = [PrivateKey.generate() for _ in range(2)]
    one, two = (make_node(key, [named(kind, key)]) for key, kind in zip(keys, (ours, theirs), strict=True))
    dialler, listener = await both_fail(one, two)
    for error, by_peer in ((dialler, False), (listener, True)):
        assert isinstance(error, ProtocolNotSupported)
        assert error.protocols == (named(ours, keys[0]).protocol,)
        assert (error.stage, error.by_peer) == (Stage.SECURITY, by_peer)
        assert "security negotiation" in str(error)
    assert ("begin a TLS handshake" in str(listener)) == (ours == "tls")


@pytest.mark.parametrize("kind", ["noise", "tls", "plaintext"])
@looped
async def test_no_common_muxer_has_one_type_in_every_stack(kind: str) -> None:
    keys = [PrivateKey.generate() for _ in range(2)]
    one, two = (
        make_node(key, [named(kind, key)], [RenamedYamux(muxer)])
        for key, muxer in zip(keys, ("/a", "/b"), strict=True)
    )
    for error, by_peer in zip(await both_fail(one, two), (False, True), strict=True):
        assert isinstance(error, ProtocolNotSupported)
        assert (error.stage, error.protocols, error.by_peer) == (Stage.MUXER, ("/a",), by_peer)
        assert str(error).startswith("muxer negotiation: ")


@pytest.mark.parametrize("kind", ["noise", "tls", "plaintext"])
@looped
async def test_dialling_oneself_has_one_type_in_every_stack(kind: str) -> None:
    key = PrivateKey.generate()
    error, _ = await dial_fails(make_node(key, [named(kind, key)]), make_node(key, [named(kind, key)]))
    assert isinstance(error, PeerIsSelf)


@looped
async def test_no_common_muxer_is_an_error_of_that_step() -> None:
    keys = [PrivateKey.generate() for _ in range(2)]
    one = make_node(keys[0], [Renamed(keys[0])], [RenamedYamux("/b")])
    error, failures = await dial_fails(one, node_with(Renamed(keys[1]), key=keys[1]))
    assert isinstance(error, ProtocolNotSupported)
    assert (error.stage, error.protocols) == (Stage.MUXER, ("/b",))
    assert failures == {Stage.MUXER: 1}


@looped
async def test_an_early_muxer_that_was_not_offered_is_refused() -> None:
    keys = [PrivateKey.generate() for _ in range(2)]
    one, two = (node_with(Renamed(key, muxer="/bogus"), key=key) for key in keys)
    error, failures = await dial_fails(one, two)
    assert isinstance(error, NegotiationError)
    assert error.stage == Stage.MUXER
    assert "/bogus" in str(error)
    assert failures == {Stage.MUXER: 1}


@looped
async def test_another_peer_than_expected_is_a_mismatch() -> None:
    two, stranger = make_node(), make_node()
    error, failures = await dial_fails(make_node(), two, stranger.peer)
    assert isinstance(error, PeerIdMismatch)
    assert (error.expected, error.actual) == (stranger.peer, two.peer)
    assert error.stage == Stage.HANDSHAKE
    assert failures == {Stage.HANDSHAKE: 1}


@looped
async def test_dialling_oneself_is_refused_on_both_sides() -> None:
    one = make_node()
    error, failures = await dial_fails(one, make_node(one.key))
    assert isinstance(error, PeerIsSelf)
    assert error.stage == Stage.HANDSHAKE
    assert failures == {Stage.HANDSHAKE: 1}


@looped
async def test_a_security_protocol_that_proves_our_own_id_is_not_believed() -> None:
    key = PrivateKey.generate()
    one = node_with(Renamed(key, claims=key.peer_id()), key=key)
    other = PrivateKey.generate()
    error, _ = await dial_fails(one, node_with(Renamed(other), key=other))
    assert isinstance(error, PeerIsSelf)
    assert error.stage == Stage.HANDSHAKE


@looped
async def test_the_only_security_protocol_travels_with_its_first_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        addr = Multiaddr(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")
        dialling = asyncio.ensure_future(make_node().dial(addr))
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(server)
        first = b""
        while len(first) < len(OPENING) + 34:  # nothing is answered meanwhile
            first += await loop.sock_recv(sock, 65536)
        assert first[: len(OPENING)] == OPENING
        assert first[len(OPENING) : len(OPENING) + 2] == b"\x00\x20"
        sock.close()
        with pytest.raises(P2PError) as caught:
            await dialling
        assert caught.value.stage == Stage.SECURITY


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + bytes(200),
        b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(20),
        b"\x00" * 64,
        b"\xff" * 64,
        b"\x13/multistream/9.9.9\n\x07/noise\n",
        multistream.HEADER + b"\xff\xff\xff\xff\x7f",
        multistream.HEADER + b"\x00",
        multistream.HEADER + multistream.encode("/plaintext/2.0.0") * 70,
        b"",
    ],
    ids=["http", "tls", "ssh", "zeros", "ones", "version", "length", "empty", "proposals", "nothing"],
)
@looped
async def test_a_stranger_on_the_port_is_closed(sent: bytes) -> None:
    before = await settled_descriptors()
    failures: list[tuple[str, object, BaseException, object]] = []
    node = make_node(news=Reports(failed=lambda *args: failures.append(args)))
    async with node.listening() as listener:
        sock = await open_socket(listener.multiaddr)
        local = f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"
        await asyncio.get_running_loop().sock_sendall(sock, sent)
        sock.shutdown(socket.SHUT_WR)
        await read_all(sock)
        sock.close()
        await eventually(lambda: failures)
        (reason, remote, error, _), *rest = failures
        assert not rest
        assert (reason, str(remote)) == (Stage.SECURITY, local)
        assert isinstance(error, NegotiationError)
    await eventually(lambda: num_descriptors() <= before)


@pytest.mark.parametrize(
    "message",
    [
        b"\x00\x00",
        b"\x00\x01x",
        b"\x00\x20" + bytes(32),
        b"\xff\xff" + b"x" * 65535,
        b"\x00\x20" + b"\xff" * 30,
    ],
    ids=["empty", "short", "low order", "long", "cut"],
)
@looped
async def test_rubbish_in_the_handshake_is_an_error_of_that_step(message: bytes) -> None:
    async with make_node().listening() as listener:
        sock = await open_socket(listener.multiaddr)
        await asyncio.get_running_loop().sock_sendall(sock, OPENING + message)
        sock.shutdown(socket.SHUT_WR)
        await read_all(sock)
        sock.close()
        await eventually(lambda: listener.failures.total())
        assert dict(listener.failures) == {Stage.HANDSHAKE: 1}


class Recorder:
    """Relays one connection and keeps what each side sent."""

    def __init__(self, target: Multiaddr) -> None:
        self._target = target
        self.sent: tuple[bytearray, bytearray] = (bytearray(), bytearray())

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.multiaddr = Multiaddr(f"/ip4/127.0.0.1/tcp/{self._server.sockets[0].getsockname()[1]}")

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port_of(self._target))
        await asyncio.gather(
            self._pump(reader, there[1], self.sent[0]), self._pump(there[0], writer, self.sent[1])
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, into: bytearray
    ) -> None:
        while data := await reader.read(65536):
            into += data
            writer.write(data)
        writer.close()

    def stop(self) -> None:
        self._server.close()


async def record(one: Node, two: Node) -> tuple[bytes, bytes]:
    """What dialler and listener sent in one whole upgrade."""
    async with two.listening() as listener:
        recorder = Recorder(listener.multiaddr)
        await recorder.start()
        outbound, inbound = await asyncio.gather(one.dial(recorder.multiaddr), listener.accept())
        sent = bytes(recorder.sent[0]), bytes(recorder.sent[1])
        inbound.abort()
        outbound.abort()
        recorder.stop()
        await eventually(lambda: len(asyncio.all_tasks()) <= 3)
    return sent


@looped
async def test_a_dialler_that_goes_away_at_any_byte_leaves_nothing_behind() -> None:
    one, two = make_node(), make_node()
    upgrade, _ = await record(one, two)
    before = await settled_descriptors()
    failed: list[BaseException] = []
    observed = make_node(two.key, news=Reports(lambda reason, remote, error, _: failed.append(error)))
    async with observed.listening() as listener:
        for length in range(len(upgrade)):
            sock = await open_socket(listener.multiaddr)
            await asyncio.get_running_loop().sock_sendall(sock, upgrade[:length])
            sock.close()
        await eventually(lambda: len(failed) == len(upgrade))
        assert not listener.num_upgrading
        assert not listener.num_ready
        in_handshake = len(upgrade) - len(OPENING)
        assert dict(listener.failures) == {
            Stage.SECURITY: len(upgrade) - in_handshake,
            Stage.HANDSHAKE: in_handshake,
        }
        assert all(isinstance(error, (NegotiationError, HandshakeError)) for error in failed)
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_a_listener_that_goes_away_at_any_byte_fails_the_dial() -> None:
    one, two = make_node(), make_node()
    _, answer = await record(one, two)
    before = await settled_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        addr = Multiaddr(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")
        for length in range(len(answer)):
            await replay_to(one, server, addr, answer[:length])
    await eventually(lambda: num_descriptors() <= before)


async def replay_to(node: Node, server: socket.socket, addr: Multiaddr, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    dialling = asyncio.ensure_future(node.dial(addr))
    sock, _ = await loop.sock_accept(server)
    await loop.sock_sendall(sock, answer)
    sock.shutdown(socket.SHUT_WR)
    with pytest.raises((NegotiationError, HandshakeError)) as caught:
        await dialling
    assert caught.value.stage == (Stage.SECURITY if len(answer) < len(OPENING) else Stage.HANDSHAKE)
    sock.close()


@looped
async def test_a_silent_peer_fails_the_dial_at_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        addr = Multiaddr(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")
        with pytest.raises(UpgradeTimeout) as caught:
            await make_node(timeout=seconds(0.2)).dial(addr)
        assert caught.value.stage == Stage.SECURITY
        assert str(addr) in str(caught.value)
        sock, _ = server.accept()
        sock.setblocking(False)
        assert (await read_all(sock)).startswith(OPENING)  # our proposal, then the end
        sock.close()


@looped
async def test_a_deadline_in_the_past_still_closes_the_connection() -> None:
    inner = MaListener.bind(LOOPBACK)
    raw = await open_raw(inner.multiaddr)
    conn = await inner.accept()
    with pytest.raises(UpgradeTimeout):
        await make_node().upgrader.upgrade_inbound(conn, asyncio.get_running_loop().time() - 1)
    with pytest.raises(NegotiationError):
        await make_node().upgrader.upgrade_outbound(raw, None)
    await inner.close()


@looped
async def test_a_cancelled_upgrade_closes_the_connection() -> None:
    before = await settled_descriptors()
    inner = MaListener.bind(LOOPBACK)
    for ticks in range(1, 12):  # at 0 the upgrade has not begun, and the connection is still ours
        sock = await open_socket(inner.multiaddr)
        upgrading = asyncio.ensure_future(make_node().upgrader.upgrade_inbound(await inner.accept()))
        await settle(ticks)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        assert await read_all(sock) == b""
        sock.close()
    await inner.close()
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_an_aborted_connection_cannot_be_upgraded() -> None:
    inner = MaListener.bind(LOOPBACK)
    sock = await open_socket(inner.multiaddr)
    conn = await inner.accept()
    conn.abort()
    conn.abort()
    with pytest.raises(NegotiationError) as caught:
        await make_node().upgrader.upgrade_inbound(conn)
    assert caught.value.stage == Stage.TRANSPORT
    sock.close()
    await inner.close()


@pytest.mark.parametrize(
    ("security", "muxers"),
    [([], [YamuxMultiplexer()]), ([NOISE], []), ([NOISE, NOISE], [YamuxMultiplexer()])],
)
def test_lists_that_are_empty_or_repeat_are_refused(security: list[Any], muxers: list[Any]) -> None:
    with pytest.raises(LocalProtocolError):
        StreamUpgrader(KEY, security, muxers)
