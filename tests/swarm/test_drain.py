"""Draining a node: who is served to the end, who is cut off, what becomes of the kernel's queue."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from harness import ended_by, eventually, looped, seconds
from hosts import BARE, pair
from nodes import make_node, open_socket, port_of
from p2pcore import GoAway, Host, Multiaddr, Stream, TcpOptions, codes, limits
from p2pcore.manet.conn import MaConn
from p2pcore.manet.listener import open_listening
from p2pcore.manet.sockaddr import parse_endpoint, to_multiaddr
from swarm_fakes import FakeConn, make_swarm, peer
from virtual_time import now, virtual

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRAIN_GRACE_S", 0.0)


@looped
async def test_connections_without_streams_get_an_orderly_go_away() -> None:
    async with pair() as p:
        cut = await p.server.drain(seconds(20))
        error = await ended_by(p.conn)
        assert cut == 0
        assert isinstance(error, GoAway)
        assert (error.code, error.remote) == (codes.CONN_SHUTDOWN, True)


@looped
async def test_a_stream_that_ends_in_time_is_served_to_its_end() -> None:
    async with pair(server={"echo": True}) as p:
        stream = await p.conn.new_stream("/echo/1.0.0")
        await stream.write(b"before")
        assert await stream.read_exactly(6) == b"before"
        drained = asyncio.create_task(p.server.drain(seconds(20)))
        await eventually(lambda: not p.server.swarm.listen_addresses())
        await stream.write(b"during")
        assert await stream.read_exactly(6) == b"during"
        assert not drained.done()
        await stream.close()
        assert await drained == 0
        error = await ended_by(p.conn)
        assert isinstance(error, GoAway)
        assert error.code == codes.CONN_SHUTDOWN


@looped
async def test_a_stream_that_goes_on_is_cut_off_with_the_code_for_it() -> None:
    async with pair(server={"echo": True}) as p:
        stream = await p.conn.new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)
        assert await p.server.drain(0.05) == 1
        error = await ended_by(p.conn)
        assert isinstance(error, GoAway)
        assert error.code == codes.CONN_SHUTDOWN


@pytest.mark.parametrize("is_cancelled", [False, True])
@looped
async def test_a_drain_without_time_leaves_no_complaint(
    is_cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(server={"echo": True}) as p:
        stream = await p.conn.new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)
        draining = asyncio.create_task(p.server.drain(seconds(20) if is_cancelled else 0))
        if is_cancelled:
            await eventually(lambda: not p.server.swarm.listen_addresses())
            draining.cancel()
        await asyncio.wait([draining])
    gc.collect()  # asyncio complains when a future with an error that nobody has seen goes
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@looped
async def test_a_new_connection_may_open_its_first_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRAIN_GRACE_S", seconds(20))

    async with pair(server={"echo": True}) as p:
        drained = asyncio.create_task(p.server.drain(seconds(20)))
        await eventually(lambda: not p.server.swarm.listen_addresses())
        assert await p.dialer.echo(p.conn, b"first") == b"first"
        monkeypatch.setattr(limits, "DRAIN_GRACE_S", 0.0)
        assert await drained == 0


@virtual
async def test_the_grace_of_a_new_connection_is_time_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "DRAIN_GRACE_S", 1.0)

    swarm, _ = make_swarm()
    swarm.add_conn(FakeConn(peer(1)))
    await asyncio.sleep(limits.DRAIN_GRACE_S + 1)  # meanwhile the clock on the wall stands still
    began = now()
    assert await swarm.drain(60) == 0
    assert now() - began < 1


def connected(addr: Multiaddr) -> socket.socket:
    """A socket the kernel has connected while the event loop stood still."""
    endpoint = parse_endpoint(addr)
    sock = socket.create_connection((endpoint.host, endpoint.port))
    sock.setblocking(False)
    return sock


@looped
async def test_what_the_kernel_has_queued_is_served() -> None:
    dialer = make_node()
    served: list[Stream] = []

    async def serve(stream: Stream) -> None:
        served.append(stream)

    async with Host(**BARE) as host:
        host.set_stream_handler("/x", serve)
        addr = host.addrs[0]
        socks = [connected(addr) for _ in range(40)]
        drained = asyncio.create_task(host.drain(seconds(20)))
        loop = asyncio.get_running_loop()
        raws = [MaConn(loop, sock, sock.getsockname(), sock.getpeername()) for sock in socks]
        conns = await asyncio.gather(*(dialer.upgrader.upgrade_outbound(raw, host.peer_id) for raw in raws))
        errors = await asyncio.gather(*(ended_by(conn.session) for conn in conns))
        assert await drained == 0
        assert {type(error) for error in errors} == {GoAway}
        with pytest.raises(ConnectionRefusedError):
            await open_socket(addr)


@looped
async def test_a_silent_peer_does_not_hold_a_drain_up_for_longer_than_its_timeout() -> None:
    async with Host(**BARE) as host:
        sock = connected(host.addrs[0])
        assert await host.drain(0.2) == 0
        assert not host.swarm.listen_addresses()
        sock.close()


@looped
async def test_a_socket_taken_over_leaves_its_queue_to_who_else_holds_it() -> None:
    sock = open_listening(parse_endpoint(Multiaddr(LOOPBACK)), True)
    addr = to_multiaddr(sock.getsockname())
    async with Host(listen=[addr], tcp=TcpOptions(sockets=(sock.dup(),)), **BARE) as first:
        assert first.addrs == [addr]
        await first.drain(seconds(20), accept_queued=False)
        queued = connected(addr)
    async with Host(listen=[addr], tcp=TcpOptions(sockets=(sock,)), **BARE) as second:
        loop = asyncio.get_running_loop()
        raw = MaConn(loop, queued, queued.getsockname(), queued.getpeername())
        conn = await make_node().upgrader.upgrade_outbound(raw, second.peer_id)
        await conn.session.close()


@looped
async def test_dials_leave_from_the_address_asked_for() -> None:
    async with pair(dialer={"tcp": TcpOptions(dial_from="127.0.0.9")}) as p:
        remote = p.server_conn.remote_multiaddr
        assert remote is not None
        assert str(remote).startswith("/ip4/127.0.0.9/tcp/")
        assert port_of(remote)


@pytest.mark.parametrize("host", ["localhost", "127.0.0", "", "::1%lo0/x"])
def test_only_an_address_can_be_dialled_from(host: str) -> None:
    with pytest.raises(ValueError, match="dial_from must be a numeric IP address"):
        TcpOptions(dial_from=host)
