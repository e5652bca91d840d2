"""Dialling from the port that listens: which listener, what if its port cannot be used, whose it stays."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from harness import looped
from hosts import BARE
from nodes import LOOPBACK, make_node, port_of
from p2pcore import Host
from p2pcore.manet.listener import MaListener, open_listening
from p2pcore.manet.reuseport import bind_beside, choose, preferred_source
from p2pcore.manet.sockaddr import Endpoint, parse_endpoint
from p2pcore.transports.tcp.transport import TcpOptions, TcpTransport
from p2pcore.values.multiaddr import Multiaddr

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


def to(host: str, port: int = 9) -> Endpoint:
    return Endpoint(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)


@contextmanager
def listeners(*hosts: str) -> Iterator[dict[str, socket.socket]]:
    with ExitStack() as stack:
        yield {host: stack.enter_context(open_listening(to(host, 0), False)) for host in hosts}


@pytest.mark.parametrize(
    ("hosts", "target", "chosen"),
    [
        (["127.0.0.2", "127.0.0.1", "0.0.0.0"], "127.0.0.1", "127.0.0.1"),  # the route's own source
        (["0.0.0.0", "127.0.0.2"], "127.0.0.1", "127.0.0.2"),  # loopback to loopback
        (["127.0.0.2", "0.0.0.0"], "192.0.2.1", "0.0.0.0"),  # anywhere else: the wildcard
        (["0.0.0.0"], "127.0.0.1", "0.0.0.0"),
        (["127.0.0.1"], "192.0.2.1", None),
        (["127.0.0.1", "0.0.0.0"], "::1", None),
        (["::1", "127.0.0.1"], "::1", "::1"),
        (["::"], "::1", "::"),
        ([], "127.0.0.1", None),
    ],
)
def test_the_listener_is_chosen_as_go_libp2p_does(hosts: list[str], target: str, chosen: str | None) -> None:
    with listeners(*hosts) as sockets:
        found = choose(sockets.values(), to(target))
        assert found is (sockets[chosen] if chosen else None)


def test_the_route_tells_the_preferred_source() -> None:
    assert preferred_source(to("127.0.0.1")) == ("127.0.0.1", 0)
    assert preferred_source(to("::1")) == ("::1", 0)


def test_a_port_that_cannot_be_bound_is_left_to_the_kernel() -> None:
    with listeners("127.0.0.1") as sockets, socket.socket() as other, socket.socket() as dialling:
        gone = sockets["127.0.0.1"]
        addr = gone.getsockname()

        class Elsewhere:
            """A listener whose address this machine does not have any more."""

            def getsockname(self) -> tuple[str, int]:
                return ("203.0.113.77", addr[1])

            def __getattr__(self, name: str) -> Any:
                return getattr(gone, name)

        assert not bind_beside(dialling, Elsewhere())  # type: ignore[arg-type]
        assert gone.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        assert bind_beside(other, gone)
        assert other.getsockname() == addr
        assert gone.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


def test_a_listener_that_shares_its_port_with_other_processes_goes_on_sharing() -> None:
    with open_listening(to("127.0.0.1", 0), True) as listener, socket.socket() as dialling:
        assert bind_beside(dialling, listener)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        with open_listening(to(*listener.getsockname()), True):
            pass


@pytest.mark.parametrize("addr", ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0", "/ip4/0.0.0.0/tcp/0"])
@looped
async def test_peers_see_the_port_that_listens(addr: str) -> None:
    target = Multiaddr(addr.replace("0.0.0.0", "127.0.0.1"))
    ours = TcpTransport(make_node().upgrader, TcpOptions(dial_from_listener=True))
    listener = await ours.listen(Multiaddr(addr))
    async with make_node().listening(target) as one, make_node().listening(target) as two:
        for peer in (one, two):
            outbound = await ours.dial(peer.multiaddr, None)
            inbound = await peer.accept()
            assert inbound.remote_multiaddr == outbound.local_multiaddr
            assert port_of(outbound.local_multiaddr) == port_of(listener.multiaddr)
            inbound.abort()
            outbound.abort()
    await listener.close()


@looped
async def test_a_second_connection_to_the_same_place_leaves_from_another_port() -> None:
    ours = TcpTransport(make_node().upgrader, TcpOptions(dial_from_listener=True))
    listener = await ours.listen(LOOPBACK)
    async with make_node().listening() as peer:
        conns = [await ours.dial(peer.multiaddr, None) for _ in range(3)]
        ports = [port_of(conn.local_multiaddr) for conn in conns]
        assert ports[0] == port_of(listener.multiaddr)
        assert len(set(ports)) == 3
        for conn in conns:
            conn.abort()
    await listener.close()


@looped
async def test_the_port_stays_ours_alone_and_is_free_at_the_end() -> None:
    ours = TcpTransport(make_node().upgrader, TcpOptions(dial_from_listener=True))
    listener = await ours.listen(LOOPBACK)
    async with make_node().listening() as peer:
        outbound = await ours.dial(peer.multiaddr, None)
        for options in (TcpOptions(), TcpOptions(dial_from_listener=True)):
            with pytest.raises(OSError) as caught:
                await TcpTransport(make_node().upgrader, options).listen(listener.multiaddr)
            assert caught.value.errno == errno.EADDRINUSE
        second = await make_node().dial(listener.multiaddr)  # and it goes on accepting
        (await listener.accept()).abort()
        second.abort()
        await listener.close()
        again = await ours.listen(listener.multiaddr)
        await again.close()
        outbound.abort()


@looped
async def test_without_a_listener_that_fits_the_kernel_chooses() -> None:
    ours = TcpTransport(make_node().upgrader, TcpOptions(dial_from_listener=True))
    six = await ours.listen(Multiaddr("/ip6/::1/tcp/0"))
    closed = await ours.listen(LOOPBACK)
    await closed.close()
    async with make_node().listening() as peer:
        outbound = await ours.dial(peer.multiaddr, None)
        assert port_of(outbound.local_multiaddr) not in (
            port_of(six.multiaddr),
            port_of(closed.multiaddr),
        )
        outbound.abort()
    await six.close()


@looped
async def test_a_refused_dial_is_refused_and_not_tried_again_from_elsewhere() -> None:
    ours = TcpTransport(make_node().upgrader, TcpOptions(dial_from_listener=True))
    listener = await ours.listen(LOOPBACK)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await ours.dial(Multiaddr(f"/ip4/127.0.0.1/tcp/{unused.getsockname()[1]}"), None)
    await listener.close()


@pytest.mark.parametrize("is_on", [False, True])
@looped
async def test_a_host_does_so_when_asked(is_on: bool) -> None:
    async with Host(**BARE) as peer, Host(tcp=TcpOptions(dial_from_listener=is_on), **BARE) as host:
        conn = await host.connect(peer.addrs_with_peer[0])
        assert (conn.local_multiaddr in host.addrs) is is_on


def test_it_excludes_an_address_to_dial_from() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        TcpOptions(dial_from="127.0.0.1", dial_from_listener=True)
    with pytest.raises(ValueError):
        TcpOptions(dial_from="localhost")


@looped
async def test_listening_sockets_of_others_are_not_used() -> None:
    other = MaListener.bind(LOOPBACK)
    ours = TcpTransport(make_node().upgrader, TcpOptions(dial_from_listener=True))
    async with make_node().listening() as peer:
        conn = await ours.connect(parse_endpoint(peer.multiaddr))
        assert conn.local_multiaddr != other.multiaddr
        conn.abort()
    await other.close()
