"""The WebSocket transport: deadlines, closes, and what a connection leaves behind."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from websocket_nodes import CERTIFICATE, REQUEST, WS, WSS, listening, talk, tcp_part, websocket

from _fast.websocket_frames import MASK, close, frame
from harness import eventually, looped, seconds, settle
from nodes import make_node, num_descriptors, open_socket, read_all, settled_descriptors
from p2pcore import Multiaddr
from p2pcore.errors import (
    ConnectionClosed,
    HandshakeError,
    NegotiationError,
    UpgradeTimeout,
)
from p2pcore.interfaces import RawConn
from p2pcore.manet.listener import MaListener
from p2pcore.transports.websocket.transport import (
    WebsocketAcceptor,
    WebsocketConn,
    WebsocketListener,
    WebsocketOptions,
)
from p2pcore.upgrade.listener import TIMEOUT
from p2pcore.upgrade.upgrader import Stage

pytestmark = [
    pytest.mark.filterwarnings("error::ResourceWarning"),  # a socket left to the collector
    pytest.mark.usefixtures("no_proxies"),
]


# -- deadlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\n", REQUEST])
@looped
async def test_a_peer_that_is_silent_or_slow_is_ended_by_the_upgrades_deadline(begun: bytes) -> None:
    async with listening(node=make_node(accept_timeout=seconds(0.2))) as listener:
        sock = await open_socket(tcp_part(listener.multiaddr))
        await asyncio.get_running_loop().sock_sendall(sock, begun)
        await read_all(sock)
        sock.close()
        await eventually(lambda: listener.failures == {TIMEOUT: 1})


@pytest.mark.parametrize("addr", [WS, WSS], ids=str)
@looped
async def test_the_handshake_has_a_deadline_of_its_own(addr: Multiaddr) -> None:
    async def dripping(sock: socket.socket) -> None:
        """A byte now and then, for ever: slow loris."""
        try:
            while True:
                await asyncio.get_running_loop().sock_sendall(sock, b"G" if addr == WS else b"\x16")
                await asyncio.sleep(seconds(0.02))
        except ConnectionError:
            pass

    async with listening(addr, handshake_timeout=seconds(0.1)) as listener:
        sock = await open_socket(tcp_part(listener.multiaddr))
        drip = asyncio.ensure_future(dripping(sock))
        assert await read_all(sock) in (b"", b"\x15")
        drip.cancel()
        await asyncio.wait([drip])
        sock.close()
        await eventually(lambda: listener.failures == {TIMEOUT: 1})


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Switching"])
@looped
async def test_a_server_that_does_not_answer_is_a_timeout(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        dialer = websocket(make_node(), handshake_timeout=seconds(0.1))
        dialing = asyncio.ensure_future(dialer.dial(Multiaddr(f"/ip4/127.0.0.1/tcp/{port}/ws"), None))
        server.setblocking(False)
        sock, _ = await asyncio.get_running_loop().sock_accept(server)
        with sock:
            await asyncio.get_running_loop().sock_sendall(sock, said)
            with pytest.raises(UpgradeTimeout) as caught:
                await dialing
        assert caught.value.stage == Stage.TRANSPORT


# -- the end -----------------------------------------------------------------------------------------


async def raw_pair() -> tuple[WebsocketConn, socket.socket]:
    """A started WebSocket of a server, and the client's socket behind the upgrade."""
    bound = MaListener.bind(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    listener = WebsocketListener(bound, WebsocketAcceptor(WebsocketOptions(), Multiaddr("/ws")))
    peer = await open_socket(tcp_part(listener.multiaddr))
    conn: RawConn = await listener.accept()
    await listener.close()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, REQUEST)
    await conn.start()
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await loop.sock_recv(peer, 4096)
    assert isinstance(conn, WebsocketConn)
    return conn, peer


@pytest.mark.parametrize("code", [1000, 1001, None])
@looped
async def test_a_close_of_the_peer_is_answered_and_the_connection_ended(code: int | None) -> None:
    conn, peer = await raw_pair()
    await asyncio.get_running_loop().sock_sendall(peer, frame(b"end", mask=MASK) + close(code, mask=MASK))
    assert await conn.mailbox.read_exactly(3) == b"end"
    assert await conn.mailbox.read(9) == b""
    assert await read_all(peer) == close(code)
    peer.close()
    conn.abort()


@looped
async def test_an_orderly_end_waits_for_the_peer_within_a_bound() -> None:
    conn, peer = await raw_pair()
    box = conn.mailbox
    box.close()
    assert await read_all(peer) == close(1000)
    assert not box.is_lost  # the peer may still answer ...
    with pytest.raises(ConnectionClosed):  # ... but it need not: a bound of its own ends it
        await box.read_exactly(1)
    peer.close()


@looped
async def test_what_is_written_after_the_end_disturbs_nothing(ca: Path) -> None:
    for addr in (WS, WSS):
        bound = MaListener.bind(tcp_part(addr))
        options = WebsocketOptions(certificate=CERTIFICATE)
        suffix = Multiaddr.join(*addr.split()[2:])
        listener = WebsocketListener(bound, WebsocketAcceptor(options, suffix))
        dialing = asyncio.ensure_future(websocket(make_node(), ca_file=ca).dial(listener.multiaddr, None))
        conn = await listener.accept()
        await conn.start()
        box = conn.mailbox
        box.close()
        box.write(b"too late")
        with pytest.raises(ConnectionClosed, match="is closed"):
            await box.read_exactly(1)
        with pytest.raises(NegotiationError, match=r"ended it before it answered|is closed"):  # in good order
            await dialing
        await listener.close()


@looped
async def test_bytes_written_just_before_close_arrive(ca: Path) -> None:
    data = bytes(range(256)) * 800  # within one window, and more than the socket takes at once
    for addr in (WS, WSS):
        async with listening(addr) as listener:
            outbound = await websocket(make_node(), ca_file=ca).dial(listener.multiaddr, None)
            inbound = await listener.accept()
            stream = await outbound.session.open_stream()
            await stream.write(data[:1])
            received = await inbound.session.accept_stream()
            await stream.write(data[1:])
            await stream.close_write()
            await outbound.session.close()
            assert outbound.is_closed
            got = b""
            while chunk := await received.read():
                got += chunk
            assert got == data
            inbound.abort()


@looped
async def test_a_connection_that_has_been_started_already_can_be_wrapped() -> None:
    class Started:
        """What a listener gives out that has peeked at the first bytes."""

        transport = "tcp"
        is_limited = False

        def __init__(self, inner: RawConn) -> None:
            self._inner = inner
            self.mailbox = inner.mailbox
            self.local_multiaddr = inner.local_multiaddr
            self.remote_multiaddr = inner.remote_multiaddr
            self.abort = inner.abort

        async def start(self) -> None: ...

    bound = MaListener.bind(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    peer = await open_socket(bound.multiaddr)
    inner = await bound.accept()
    await inner.start()
    await asyncio.get_running_loop().sock_sendall(peer, REQUEST + frame(b"x", mask=MASK))
    assert await inner.mailbox.peek(3) == b"GET"
    conn = WebsocketAcceptor(WebsocketOptions(), Multiaddr("/ws"))(Started(inner))
    await conn.start()
    assert await conn.mailbox.read_exactly(1) == b"x"
    assert conn.local_multiaddr == bound.multiaddr.encapsulate("/ws")
    conn.abort()
    peer.close()
    await bound.close()


@pytest.mark.parametrize("addr", [WS, WSS], ids=str)
@pytest.mark.parametrize("ticks", [0, 1, 2, 3, 5, 8, 13, 21])
@looped
async def test_a_dial_cancelled_at_any_step_leaves_nothing(addr: Multiaddr, ticks: int, ca: Path) -> None:
    before = await settled_descriptors()
    dialer = websocket(make_node(), ca_file=ca)
    async with listening(addr) as listener:
        dialing = asyncio.ensure_future(dialer.dial(listener.multiaddr, None))
        await settle(ticks)
        if dialing.cancel():
            with pytest.raises(asyncio.CancelledError):
                await dialing
        else:
            (await dialing).abort()  # it was quicker
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_failed_upgrades_leave_nothing(ca: Path) -> None:
    before = await settled_descriptors()
    for addr, other in ((WS, "/tls/ws"), (WSS, "/ws")):
        async with listening(addr) as listener:
            await talk(listener.multiaddr, b"this is not HTTP\r\n\r\n")
            await talk(listener.multiaddr, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wrong = tcp_part(listener.multiaddr).encapsulate(other)
            with pytest.raises((NegotiationError, HandshakeError)):
                await websocket(make_node(), ca_file=ca).dial(wrong, None)
            await eventually(lambda: listener.failures.total() == 3)
    await eventually(lambda: num_descriptors() <= before)
