"""LingerListener and the lack of one: what a slow reader gets of bytes written just before close."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import socket
from pathlib import Path

import pytest

from harness import eventually, looped
from nodes import LOOPBACK, make_node, open_socket, port_of, read_all
from p2pcore import limits
from p2pcore.interfaces import CapableConn
from p2pcore.manet.conn import MaConn
from p2pcore.manet.linger import LingerListener
from p2pcore.manet.listener import MaListener
from p2pcore.manet.sockaddr import parse_endpoint, to_multiaddr
from p2pcore.transports.tcp.transport import TcpOptions, TcpTransport

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")

DATA = b"".join(hashlib.blake2b(i.to_bytes(4, "big")).digest() for i in range(2000))
"""Less than a socket's buffers take at once."""

RESET = {errno.ECONNRESET, errno.EPIPE}
"""Errors of a socket that the peer has reset: the second after the end of the peer's data."""


async def raw_pair(linger: int | None) -> tuple[MaConn, socket.socket]:
    """An accepted connection that has been started, and the peer's socket."""
    inner = MaListener.bind(LOOPBACK)
    listener = inner if linger is None else LingerListener(inner, linger)
    sock = await open_socket(listener.multiaddr)
    conn = await listener.accept()
    await conn.start()
    await listener.close()
    return conn, sock


async def slowly(sock: socket.socket) -> bytes:
    """All there is up to the end, in small pieces with pauses between them."""
    loop, got = asyncio.get_running_loop(), b""
    while piece := await loop.sock_recv(sock, 7001):
        got += piece
        await asyncio.sleep(0)
    return got


@pytest.mark.parametrize("linger", [None, 0])
@looped
async def test_an_orderly_close_loses_nothing_and_linger_zero_resets_only_behind_it(
    linger: int | None,
) -> None:
    conn, sock = await raw_pair(linger)
    conn.mailbox.write(DATA)
    conn._wire.close()  # what an orderly end of the layers above comes to
    assert await slowly(sock) == DATA
    await conn._wire.wait_closed()  # after limits.CLOSE_DRAIN_TIMEOUT_S, for the peer does not end its half
    if linger is None:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    else:
        await eventually(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in RESET)
    sock.close()


@pytest.mark.parametrize("linger", [None, 0])
@looped
async def test_an_abort_with_bytes_unread_keeps_or_drops_them_as_linger_says(linger: int | None) -> None:
    conn, sock = await raw_pair(linger)
    conn.mailbox.write(DATA)
    conn.abort()
    await conn._wire.wait_closed()
    if linger is None:
        assert await slowly(sock) == DATA
    else:
        with pytest.raises(ConnectionResetError):
            await slowly(sock)
    sock.close()


def num_waiting(port: int, peer: int) -> int:
    """Whether the connection from our local port to that of the peer is in TIME_WAIT, as Linux tells.

    Both ports: the system may give a listener a port on which connections of others still wait.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [[int(end.partition(":")[2], 16) for end in row[1:3]] for row in rows if row[3] == "06"]
    return ends.count([port, peer])


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells of TIME_WAIT this way")
@pytest.mark.parametrize("linger", [None, 0])
@looped
async def test_linger_zero_frees_the_five_tuple_at_once(linger: int | None) -> None:
    conn, sock = await raw_pair(linger)
    ports = port_of(conn.local_multiaddr), sock.getsockname()[1]
    conn.abort()  # we close first, so TIME_WAIT would be on our side
    await conn._wire.wait_closed()
    assert await read_all(sock) == b""
    sock.close()
    if linger is None:
        await eventually(lambda: num_waiting(*ports) == 1)
    assert num_waiting(*ports) == (linger is None)


async def ends(linger: int | None) -> tuple[CapableConn, CapableConn]:
    """Both ends of an upgraded connection; the accepted one is the second."""
    transport = TcpTransport(make_node().upgrader, TcpOptions(linger=linger))
    listener = await transport.listen(LOOPBACK)
    outbound = await make_node().dial(listener.multiaddr)
    inbound = await listener.accept()
    await listener.close()
    return outbound, inbound


@looped
async def test_a_slow_reader_gets_what_was_written_just_before_close() -> None:
    """W34: go closes with linger 0 and no go-away, and loses it."""

    outbound, inbound = await ends(None)
    stream = await inbound.session.open_stream()
    data = DATA + DATA[: limits.YAMUX_INITIAL_WINDOW_BYTES - len(DATA)]
    await stream.write(data)
    await stream.close_write()
    received = await outbound.session.accept_stream()
    closing = asyncio.ensure_future(inbound.session.close())
    got = b""
    while piece := await received.read(5000):
        got += piece
        await asyncio.sleep(0)
    assert got == data
    await closing
    await eventually(lambda: outbound.is_closed)


@looped
async def test_a_peer_that_never_ends_its_half_does_not_hold_up_a_close() -> None:
    conn, sock = await raw_pair(None)
    conn.mailbox.write(b"bye")
    conn._wire.close()
    await conn._wire.wait_closed()  # after limits.CLOSE_DRAIN_TIMEOUT_S
    assert await slowly(sock) == b"bye"
    sock.close()


@looped
async def test_a_dialled_connection_lingers_as_asked_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = TcpTransport(make_node().upgrader, TcpOptions(linger=0))
        conn = await transport.connect(parse_endpoint(to_multiaddr(server.getsockname())))
        peer, _ = server.accept()
        conn.abort()
        with pytest.raises(OSError) as caught:
            peer.recv(1)
        assert caught.value.errno == errno.ECONNRESET
        peer.close()
