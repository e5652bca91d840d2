"""MaPacketConn: datagrams with addresses, a queue with a bound, an end that wakes everybody."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import eventually, looped
from p2pcore.errors import AddressError, ConnectionClosed
from p2pcore.manet.packet import MaPacketConn
from p2pcore.manet.sockaddr import parse_endpoint
from p2pcore.values.multiaddr import Multiaddr

LOOPBACK = Multiaddr("/ip4/127.0.0.1/udp/0")
LOOPBACK6 = Multiaddr("/ip6/::1/udp/0")
PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


@asynccontextmanager
async def bound(addr: Multiaddr = LOOPBACK, **options: Any) -> AsyncIterator[MaPacketConn]:
    conn = MaPacketConn.bind(addr, **options)
    try:
        yield conn
    finally:
        await conn.close()


@pytest.mark.parametrize("addr", [LOOPBACK, LOOPBACK6])
@looped
async def test_datagrams_arrive_whole_and_with_their_senders_address(addr: Multiaddr) -> None:
    async with bound(addr) as one, bound(addr) as two:
        assert parse_endpoint(one.local_multiaddr, "udp").port != 0
        for data in (b"first", b"", bytes(range(256)) * 255):
            await one.send_to(data, two.local_multiaddr)
            assert await two.recv_from() == (data, one.local_multiaddr)
            await two.send_to(bytearray(data), one.local_multiaddr)
            assert await one.recv_from() == (data, two.local_multiaddr)


@looped
async def test_a_sender_of_another_kind_than_ours_is_heard() -> None:
    async with bound(Multiaddr("/ip4/0.0.0.0/udp/0")) as conn:
        port = parse_endpoint(conn.local_multiaddr, "udp").port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.sendto(b"hello", ("127.0.0.1", port))
            data, sender = await conn.recv_from()
            assert data == b"hello"
            assert str(sender) == f"/ip4/127.0.0.1/udp/{plain.getsockname()[1]}"


@looped
async def test_what_nobody_takes_is_dropped_and_counted_and_the_oldest_are_kept() -> None:
    async with bound(max_queued=3) as conn, bound() as sender:
        for i in range(10):
            await sender.send_to(bytes([i]), conn.local_multiaddr)
            await eventually(lambda: len(conn._queue) + conn.dropped == i + 1)  # noqa: B023
        assert conn.dropped == 7
        assert [(await conn.recv_from())[0] for _ in range(3)] == [b"\0", b"\1", b"\2"]
        await sender.send_to(b"again", conn.local_multiaddr)
        assert (await conn.recv_from())[0] == b"again"


@looped
async def test_a_receive_that_is_cancelled_takes_nothing() -> None:
    async with bound() as conn, bound() as sender:
        waiting = asyncio.ensure_future(conn.recv_from())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await sender.send_to(b"kept", conn.local_multiaddr)
        assert (await conn.recv_from())[0] == b"kept"


@looped
async def test_a_full_send_buffer_is_waited_for() -> None:
    async with bound() as conn, bound() as target:
        real, refusals = conn._sock, 2

        class Full:
            """A socket whose buffer is full twice: loopback never fills one."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def sendto(self, *args: Any) -> int:
                nonlocal refusals
                refusals -= 1
                if refusals >= 0:
                    raise BlockingIOError(errno.EAGAIN, "full")
                return real.sendto(*args)

        conn._sock = Full()  # type: ignore[assignment]
        await asyncio.gather(*(conn.send_to(b"patient", target.local_multiaddr) for _ in range(2)))
        for _ in range(2):
            assert (await target.recv_from())[0] == b"patient"
        assert refusals < 0
        conn._sock = real


@looped
async def test_close_wakes_every_receiver_and_is_idempotent() -> None:
    async with bound() as conn:
        waiting = [asyncio.ensure_future(conn.recv_from()) for _ in range(3)]
        await asyncio.sleep(0)
        await conn.close()
        await conn.close()
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, ConnectionClosed)
        assert conn.is_closed
        with pytest.raises(ConnectionClosed):
            await conn.recv_from()
        with pytest.raises(ConnectionClosed):
            await conn.send_to(b"", LOOPBACK)
        async with bound(conn.local_multiaddr):  # the port is free again
            pass


@looped
async def test_a_bound_port_is_taken_unless_both_share_it() -> None:
    async with bound(reuse_port=True) as conn:
        with pytest.raises(OSError) as caught:
            MaPacketConn.bind(conn.local_multiaddr)
        assert caught.value.errno == errno.EADDRINUSE
        async with bound(conn.local_multiaddr, reuse_port=True):
            pass


@pytest.mark.parametrize(
    "text", ["/ip4/127.0.0.1/tcp/0", "/dns4/localhost/udp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]
)
@looped
async def test_only_plain_udp_addresses_are_taken(text: str) -> None:
    with pytest.raises(AddressError):
        MaPacketConn.bind(Multiaddr(text))
    async with bound() as conn:
        with pytest.raises(AddressError):
            await conn.send_to(b"", Multiaddr(text))


@looped
async def test_addresses_with_a_peer_and_senseless_queues_are_refused() -> None:
    with pytest.raises(AddressError):
        MaPacketConn.bind(Multiaddr(f"{LOOPBACK}/p2p/{PEER}"))
    with pytest.raises(ValueError):
        MaPacketConn.bind(LOOPBACK, max_queued=0)


@looped
async def test_what_cannot_be_sent_is_an_error() -> None:
    async with bound() as conn:
        with pytest.raises(OSError) as caught:
            await conn.send_to(bytes(65536), conn.local_multiaddr)
        assert caught.value.errno == errno.EMSGSIZE
        with pytest.raises(AddressError):
            await conn.send_to(b"", Multiaddr("/ip6/::1/udp/1"))
