"""Attacks with connections: others always get in."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attacked import ECHO, MESSAGE, arena, echoes, honest, node

from attacks import place
from attacks.rawpeer import DATA, Identity, RawPeer, opening, place_of, tcp_socket
from harness import eventually, looped
from p2pcore import BasicGater, Host, ListenerOptions, Multiaddr, TcpOptions
from p2pcore.errors import DialError

SEED = hashlib.sha256(b"slow").digest()


def _is_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@asynccontextmanager
async def _silent(addr: Multiaddr, count: int) -> AsyncIterator[list[socket.socket]]:
    """Connections of one address that say nothing."""
    loop = asyncio.get_running_loop()
    socks = [tcp_socket(place.attacker(0)) for _ in range(count)]
    try:
        for sock in socks:
            await loop.sock_connect(sock, place_of(str(addr)))
        yield socks
    finally:
        for sock in socks:
            sock.close()


async def _slow_peer_gets_in(host: Host, silent: int, ended: int) -> None:
    """Its handshake begins before `silent` others connect, and goes on when `ended` of those are ended."""
    addr, has_begun, may_go_on = host.addrs_with_peer[0], asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        has_begun.set()
        await may_go_on.wait()

    connecting = asyncio.create_task(RawPeer.connect(str(addr), place.honest(0), Identity(SEED), SEED, pause))
    await has_begun.wait()
    async with _silent(addr, silent) as socks:
        await eventually(lambda: sum(map(_is_ended, socks)) >= ended)
        may_go_on.set()
        peer = await connecting
        answered = asyncio.get_running_loop().create_future()

        def look(kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
            if kind == DATA and body.endswith(MESSAGE):
                answered.set_result(None)

        peer.on_frame = look
        peer.write(opening(1, ECHO, MESSAGE))
        await answered
        peer.abort()


@looped
async def test_silent_connections_end_no_slow_handshake_of_another_block() -> None:
    async with node(listener=ListenerOptions(max_upgrading=16, max_slow=32, slow_after=0.01)) as host:
        await _slow_peer_gets_in(host, 200, 60)


@looped
async def test_others_get_in_while_one_block_holds_silent_connections() -> None:
    async with (
        node(listener=ListenerOptions(max_upgrading=16, max_slow=32, slow_after=0.01)) as host,
        _silent(host.addrs_with_peer[0], 200),
        honest() as one,
    ):
        for _ in range(8):
            assert await echoes(one, host.addrs[0])


@looped
async def test_others_get_in_on_a_shared_port_where_one_block_is_silent() -> None:
    async with (
        node(tcp=TcpOptions(share_port=True)) as host,
        _silent(host.addrs_with_peer[0], 200),
        honest() as one,
    ):
        for _ in range(8):
            assert await echoes(one, host.addrs[0])


@asynccontextmanager
async def _shared_node(
    limits: dict[str, float], **options: Any
) -> AsyncIterator[tuple[Host, list[Multiaddr]]]:
    async with node(limits, tcp=TcpOptions(share_port=True), **options) as host:
        await host.swarm.listen(Multiaddr(f"{host.addrs[0]}/ws"))
        yield host, list(host.addrs_with_peer)


@looped
async def test_a_shared_port_refuses_a_block_over_its_rate_before_it_reads() -> None:
    """None of them has a place among the silent ones, and the refusals are counted once each."""
    rate = {"conn_burst_per_subnet": 20, "conn_rate_per_subnet": 0.001}
    async with (
        _shared_node(rate) as (host, addrs),
        _silent(addrs[0], 60) as socks,
        honest() as one,
    ):
        await eventually(lambda: sum(map(_is_ended, socks)) == 40)
        assert host.counters()["connections refused"] == 40
        for addr in addrs:
            assert await echoes(one, addr)
            await one.swarm.close_peer(host.peer_id)


@looped
async def test_a_connection_of_a_shared_port_counts_once_for_the_rate_of_its_block() -> None:
    rate = {"conn_burst_per_subnet": 6, "conn_rate_per_subnet": 0.001}
    async with _shared_node(rate) as (host, addrs), honest() as one:
        for addr in 3 * addrs:
            assert await echoes(one, addr)
            await one.swarm.close_peer(host.peer_id)
        with pytest.raises(DialError):
            await one.ping(addrs[0])


class _Seen(BasicGater):
    """Admits everybody, and keeps what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def intercept_accept(self, local: Multiaddr, remote: Multiaddr | None) -> bool:
        self.seen.append(str(local))
        return True


@looped
async def test_a_gater_is_asked_about_a_shared_port_once_the_kind_of_connection_is_known() -> None:
    gater = _Seen()
    async with _shared_node({}, gater=gater) as (host, addrs), honest() as one:
        for addr in addrs:
            assert await echoes(one, addr)
            await one.swarm.close_peer(host.peer_id)
        assert gater.seen == [str(addr) for addr in host.addrs]


@looped
async def test_one_identity_has_its_part_of_the_places() -> None:
    async with node({"max_conns": 20, "max_conns_per_peer": 6}) as host, honest() as one:
        peers = await arena(host, sources=30).peers(30)
        assert await echoes(one, host.addrs[0])
        await eventually(lambda: sum(peer.is_open for peer in peers) <= 6)
        assert host.swarm.num_conns == 7


@looped
async def test_one_block_has_its_part_of_the_places() -> None:
    async with node({"max_conns": 20, "max_conns_per_subnet": 6}) as host, honest() as one:
        peers = await arena(host, identities=30).peers(30)
        assert await echoes(one, host.addrs[0])
        await eventually(lambda: sum(peer.is_open for peer in peers) <= 6)
        assert host.swarm.num_conns == 7


@looped
async def test_one_block_has_its_part_of_the_handshakes() -> None:
    async with (
        node({"conn_rate_per_subnet": 0.001, "conn_burst_per_subnet": 10}) as host,
        honest() as one,
    ):
        attackers = arena(host, identities=40)
        for peer in await attackers.peers(40):
            peer.abort()
        assert attackers.counts["conns"] <= 10
        assert await echoes(one, host.addrs[0])
