"""MaConn: socket options, addresses, and a descriptor that is closed whatever happens."""

from __future__ import annotations

import asyncio
import gc
import os
import socket

import pytest

from harness import eventually, looped, settle
from nodes import LOOPBACK, open_raw, open_socket, read_all, settled_descriptors
from p2pcore import limits
from p2pcore.errors import ConnectionClosed, IncompleteRead
from p2pcore.manet.conn import MaConn, tune
from p2pcore.manet.listener import MaListener

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")  # a socket left to the collector


async def pair() -> tuple[MaConn, socket.socket]:
    """An inbound connection, not started, and the socket at its other end."""
    listener = MaListener.bind(LOOPBACK)
    sock = await open_socket(listener.multiaddr)
    conn = await listener.accept()
    await listener.close()
    return conn, sock


def test_tune_sets_no_delay_and_keepalive() -> None:
    with socket.socket() as sock:
        tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert idle == limits.TCP_KEEPALIVE_IDLE_S


@looped
async def test_a_started_connection_reads_and_writes() -> None:
    conn, sock = await pair()
    loop = asyncio.get_running_loop()
    await conn.start()
    await loop.sock_sendall(sock, b"hello")
    assert await conn.mailbox.read_exactly(5) == b"hello"
    conn.mailbox.write(b"back")
    assert await loop.sock_recv(sock, 16) == b"back"
    conn.abort()
    assert await read_all(sock) == b""
    sock.close()


@looped
async def test_nothing_is_read_before_start() -> None:
    conn, sock = await pair()
    await asyncio.get_running_loop().sock_sendall(sock, b"early")
    await settle(10)
    assert conn.mailbox.num_held == 0
    await conn.start()
    assert await conn.mailbox.read_exactly(5) == b"early"
    conn.abort()
    sock.close()


@looped
async def test_the_end_of_input_keeps_what_came_before() -> None:
    conn, sock = await pair()
    await conn.start()
    await asyncio.get_running_loop().sock_sendall(sock, b"half")
    sock.close()
    with pytest.raises(IncompleteRead) as caught:
        await conn.mailbox.read_exactly(8)
    assert caught.value.partial == b"half"
    conn.abort()


@looped
async def test_addresses_are_known_before_and_after_the_connection() -> None:
    conn, sock = await pair()
    expected = f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"
    assert str(conn.remote_multiaddr) == expected
    await conn.start()
    conn.abort()
    sock.close()
    await asyncio.sleep(0)
    assert str(conn.remote_multiaddr) == expected
    assert str(conn.local_multiaddr).startswith("/ip4/127.0.0.1/tcp/")
    assert conn.remote_multiaddr is conn.remote_multiaddr


@pytest.mark.parametrize("is_started", [False, True])
@looped
async def test_abort_closes_and_may_be_repeated(is_started: bool) -> None:
    conn, sock = await pair()
    if is_started:
        await conn.start()
    conn.abort()
    conn.abort()
    assert await read_all(sock) == b""
    sock.close()


@looped
async def test_start_after_abort_is_refused() -> None:
    conn, sock = await pair()
    conn.abort()
    with pytest.raises(OSError):
        await conn.start()
    sock.close()


@looped
async def test_abort_while_starting_closes() -> None:
    conn, sock = await pair()
    starting = asyncio.ensure_future(conn.start())
    await asyncio.sleep(0)
    conn.abort()
    await asyncio.wait([starting])
    assert await read_all(sock) == b""
    with pytest.raises(ConnectionClosed):
        conn.mailbox.write(b"too late")
    sock.close()


@looped
async def test_a_socket_that_is_no_socket_is_closed_by_start() -> None:
    before = await settled_descriptors()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    conn = MaConn(asyncio.get_running_loop(), here, ("127.0.0.1", 1), ("127.0.0.1", 2))
    with pytest.raises(ValueError):
        await conn.start()
    assert here.fileno() == -1
    there.close()
    conn.abort()
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


@looped
async def test_a_start_cancelled_at_any_step_closes_the_descriptor_once() -> None:
    before = await settled_descriptors()
    for ticks in range(6):
        conn, sock = await pair()
        starting = asyncio.ensure_future(conn.start())
        await settle(ticks)
        starting.cancel()
        await asyncio.wait([starting])
        conn.abort()
        assert await read_all(sock) == b""
        sock.close()
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


@looped
async def test_a_connection_thrown_away_leaves_nothing() -> None:
    before = await settled_descriptors()
    raws = []
    listener = MaListener.bind(LOOPBACK)
    for _ in range(5):
        raws.append(await open_raw(listener.multiaddr))
        raws.append(await listener.accept())
    for raw in raws:
        await raw.start()
    for raw in raws:
        raw.abort()
    raws.clear()
    await listener.close()
    gc.collect()
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


@looped
async def test_linger_is_set_on_the_socket() -> None:
    conn, sock = await pair()
    conn.set_linger(0)
    await conn.start()
    conn.set_linger(0)  # too late to matter, and harmless
    conn.abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(sock, 1)
    sock.close()
