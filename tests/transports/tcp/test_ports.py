"""The TCP ports of a host: which of its listeners share one, and what a user gets of that."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest
from shared_ports import FIRST, PLAIN, said

from harness import looped, seconds
from nodes import LOOPBACK, make_node, port_of
from p2pcore import Host
from p2pcore.errors import DialError
from p2pcore.manet.listener import MaListener
from p2pcore.transports.tcp.ports import TcpPorts
from p2pcore.transports.tcp.shared import Kind, TcpReuseListener
from p2pcore.transports.tcp.transport import TcpOptions, TcpTransport
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import WebsocketOptions
from p2pcore.values.multiaddr import Multiaddr

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


# -- ports of a host -----------------------------------------------------------------------------


@looped
async def test_port_zero_of_one_address_is_one_port_for_all_kinds() -> None:
    ports = TcpPorts(TcpOptions(share_port=True))
    listeners = [ports.listen(LOOPBACK, kind) for kind in Kind]
    assert len({each.multiaddr for each in listeners}) == 1
    other = ports.listen(LOOPBACK, Kind.PLAIN)  # a second one of a kind takes another port
    assert other.multiaddr != listeners[0].multiaddr
    six = ports.listen(Multiaddr("/ip6/::1/tcp/0"), Kind.PLAIN)
    for each in (*listeners, other, six):
        await each.close()
    again = ports.listen(listeners[0].multiaddr, Kind.TLS)  # the port is free at once
    await again.close()


@looped
async def test_only_ports_that_are_to_be_shared_look_into_connections() -> None:
    own = TcpPorts().listen(LOOPBACK, Kind.HTTP)
    assert isinstance(own, MaListener)
    with pytest.raises(OSError) as caught:
        TcpPorts(TcpOptions(share_port=True)).listen(own.multiaddr)
    assert caught.value.errno == errno.EADDRINUSE
    await own.close()
    ports = TcpPorts(shared=frozenset([own.multiaddr]))
    both = [ports.listen(own.multiaddr, kind) for kind in (Kind.PLAIN, Kind.HTTP)]
    assert all(isinstance(each, TcpReuseListener) for each in both)
    for each in both:
        await each.close()


@looped
async def test_a_shared_port_can_be_given_as_a_socket_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        ports = TcpPorts(TcpOptions(share_port=True, sockets=(server.dup(),)))
        addr = Multiaddr(f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}")
        listeners = [ports.listen(addr, kind) for kind in Kind]
        for listener in listeners:
            sock = await said(addr, FIRST[listener.kind])  # type: ignore[attr-defined]
            (await listener.accept()).abort()
            sock.close()
        for each in listeners:
            await each.close()


@looped
async def test_linger_holds_for_connections_of_a_shared_port() -> None:
    transport = TcpTransport(make_node().upgrader, TcpOptions(share_port=True, linger=0))
    listener = transport.bind(LOOPBACK)
    sock = await said(listener.multiaddr, PLAIN)
    (await listener.accept()).abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(sock, 1)
    sock.close()
    await listener.close()


@looped
async def test_a_host_drains_a_shared_port() -> None:
    options: Any = {"identify": False}
    async with (
        Host(tcp=TcpOptions(share_port=True), echo=True, **options) as host,
        Host(listen=(), **options) as dialler,
    ):
        conn = await dialler.connect(host.addrs_with_peer[0])
        assert await dialler.echo(conn, b"hello") == b"hello"
        assert port_of(host.addrs[0])
        assert await host.drain(seconds(10)) == 0


WEB = WebsocketOptions(certificate=WebCertificate.self_signed("127.0.0.1"), verify=False, use_proxies=False)
ALL_KINDS = ["/ip4/127.0.0.1/tcp/{port}" + rest for rest in ("", "/ws", "/tls/ws")]


async def everybody_is_served(host: Host, dialler: Host) -> None:
    """Each address of `host` leads to it, by its own transport, at one port."""
    addrs = host.addrs_with_peer
    assert len(addrs) == 3
    assert len({addr["tcp"] for addr in addrs}) == 1
    for addr, transport in zip(addrs, ("tcp", "websocket", "websocket"), strict=True):
        conn = await dialler.swarm.dial_addr(addr)
        assert conn.state.transport == transport
        assert await dialler.echo(conn, b"hello") == b"hello"
        await conn.close()


@pytest.mark.parametrize("psk", [None, bytes(32)], ids=["public", "private"])
@looped
async def test_a_host_serves_tcp_ws_and_wss_on_one_port(psk: bytes | None) -> None:
    options: Any = {"identify": False, "psk": psk, "websocket": WEB}
    anywhere = [addr.format(port=0) for addr in ALL_KINDS]
    async with Host(listen=(), **options) as dialler:
        async with Host(listen=anywhere, tcp=TcpOptions(share_port=True), echo=True, **options) as host:
            await everybody_is_served(host, dialler)
            addrs = host.addrs
        # Addresses with one port share it without being told to, and at once.
        async with Host(listen=addrs, echo=True, **options) as host:
            assert host.addrs == addrs
            await everybody_is_served(host, dialler)
            await host.swarm.listen_close(addrs[0])
            conn = await dialler.swarm.dial_addr(addrs[1])
            assert await dialler.echo(conn, b"still") == b"still"
            with pytest.raises(DialError):
                await dialler.swarm.dial_addr(addrs[0])
            await host.swarm.add_listen_addr(addrs[0])
            assert await dialler.ping(await dialler.swarm.dial_addr(addrs[0]))


@looped
async def test_without_being_told_each_port_zero_is_a_port_of_its_own() -> None:
    listen = [addr.format(port=0) for addr in ALL_KINDS]
    async with Host(listen=listen, websocket=WEB) as host:
        assert len({addr["tcp"] for addr in host.addrs}) == 3
