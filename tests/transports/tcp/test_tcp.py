"""TcpTransport: which addresses it takes, whom it expects, and what it closes."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from harness import eventually, looped, seconds, settle
from nodes import LOOPBACK, make_node, num_descriptors, settled_descriptors
from p2pcore.errors import AddressError, PeerIdMismatch
from p2pcore.interfaces import Transport
from p2pcore.manet.linger import LingerListener
from p2pcore.manet.sockaddr import parse_endpoint
from p2pcore.transports.tcp.transport import TcpOptions, TcpTransport
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")  # a socket left to the collector


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("/ip4/192.0.2.1/tcp/4001", True),
        ("/ip6/2001:db8::1/tcp/4001", True),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/4001", True),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}", True),
        ("/ip4/192.0.2.1/tcp/0", False),
        ("/ip4/192.0.2.1/udp/4001/quic-v1", False),
        ("/dns4/example.com/tcp/4001", False),
        ("/ip4/192.0.2.1/tcp/4001/ws", False),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}/p2p-circuit", False),
        (f"/p2p/{PEER}", False),
    ],
)
def test_it_dials_numeric_tcp_addresses_only(text: str, can: bool) -> None:
    transport: Transport = make_node().transport
    assert transport.can_dial(Multiaddr(text)) is can
    assert transport.protocols == ("tcp",)
    assert not transport.is_proxy


@pytest.mark.parametrize("host", ["ip4/127.0.0.1", "ip6/::1"])
@looped
async def test_dial_and_listen(host: str) -> None:
    node, dialler = make_node(), make_node()
    listener = await node.transport.listen(Multiaddr(f"/{host}/tcp/0"))
    outbound = await dialler.dial(listener.multiaddr)
    inbound = await listener.accept()
    assert outbound.remote_multiaddr == listener.multiaddr == inbound.local_multiaddr
    assert outbound.local_multiaddr == inbound.remote_multiaddr
    await outbound.session.close()
    await inbound.session.close()
    await listener.close()


@looped
async def test_the_peer_id_of_the_address_must_be_proved() -> None:
    node, dialler = make_node(), make_node()
    async with node.listening() as listener:
        right = await dialler.dial(Multiaddr(f"{listener.multiaddr}/p2p/{node.peer}"))
        right.abort()
        right = await dialler.dial(Multiaddr(f"{listener.multiaddr}/p2p/{node.peer}"), node.peer)
        right.abort()
        with pytest.raises(PeerIdMismatch):
            await dialler.dial(Multiaddr(f"{listener.multiaddr}/p2p/{PEER}"))


@looped
async def test_an_address_of_another_peer_than_the_one_asked_for_is_refused_without_a_connection() -> None:
    stranger = PrivateKey.generate().peer_id()
    async with make_node().listening() as listener:
        with pytest.raises(AddressError):
            await make_node().dial(Multiaddr(f"{listener.multiaddr}/p2p/{PEER}"), stranger)
        await asyncio.sleep(0)
        assert listener.num_accepted == 0


@looped
async def test_a_refused_connection_is_an_os_error_and_leaves_nothing() -> None:
    before = await settled_descriptors()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addr = Multiaddr(f"/ip4/127.0.0.1/tcp/{unused.getsockname()[1]}")
        with pytest.raises(ConnectionRefusedError):
            await make_node().dial(addr)
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_a_host_that_does_not_answer_is_a_timeout() -> None:
    before = await settled_descriptors()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        addr = Multiaddr(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")
        transport = TcpTransport(make_node().upgrader, TcpOptions(connect_timeout=seconds(0.05)))
        fill = []  # a full backlog drops SYNs, as a firewall would
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            fill.append(sock)
        with pytest.raises(TimeoutError):
            await transport.dial(addr, None)
        for sock in fill:
            sock.close()
    await eventually(lambda: num_descriptors() <= before)


@pytest.mark.parametrize("ticks", range(8))
@looped
async def test_a_dial_cancelled_at_any_step_leaves_nothing(ticks: int) -> None:
    before = await settled_descriptors()
    node, dialler = make_node(), make_node()
    async with node.listening() as listener:
        dialling = asyncio.ensure_future(dialler.dial(listener.multiaddr))
        await settle(ticks)
        if dialling.cancel():
            with pytest.raises(asyncio.CancelledError):
                await dialling
        else:
            (await dialling).abort()  # it was quicker
    await eventually(lambda: num_descriptors() <= before)


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/udp/0", f"/ip4/127.0.0.1/tcp/0/p2p/{PEER}"])
@looped
async def test_it_does_not_listen_on_other_addresses(text: str) -> None:
    with pytest.raises(AddressError):
        await make_node().transport.listen(Multiaddr(text))


@looped
async def test_a_taken_port_is_an_os_error() -> None:
    async with make_node().listening() as listener:
        with pytest.raises(OSError) as caught:
            await make_node().transport.listen(listener.multiaddr)
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("linger", [None, 0])
@looped
async def test_linger_is_off_unless_asked_for(linger: int | None) -> None:
    transport = TcpTransport(make_node().upgrader, TcpOptions(linger=linger))
    listener = await transport.listen(LOOPBACK)
    inner = listener._inner  # type: ignore[attr-defined]
    assert isinstance(inner, LingerListener) is (linger is not None)
    conn = await transport.connect(parse_endpoint(listener.multiaddr))
    sock = conn._sock
    assert sock is not None
    on = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[:4], "little")
    assert bool(on) is (linger is not None)
    conn.abort()
    await listener.close()


@looped
async def test_bytes_written_just_before_close_arrive() -> None:
    node, dialler = make_node(), make_node()
    data = bytes(range(256)) * 800  # within one window, and more than the socket takes at once
    async with node.listening() as listener:
        outbound = await dialler.dial(listener.multiaddr)
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
