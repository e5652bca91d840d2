"""Hosts in a private network: they find one another, and nobody else gets in or is waited for.

Comes in: hosts with one key, another, none; strangers on plain sockets. Goes out: streams, or errors that say
what is wrong. Faults of go's that must not come back: W8, W47.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness import eventually, looped
from hosts import pair
from nodes import LOOPBACK, num_descriptors, open_socket, read_all
from p2pcore import (
    PSK,
    DialError,
    Host,
    LocalProtocolError,
    NegotiationError,
    PrivateKey,
    TcpOptions,
    WrongNetworkKey,
)
from p2pcore.errors import UpgradeTimeout
from p2pcore.manet.listener import MaListener
from p2pcore.muxers.yamux import YamuxMultiplexer
from p2pcore.security.noise import NoiseTransport
from p2pcore.security.pnet import PrivateNetwork
from p2pcore.upgrade.upgrader import StreamUpgrader
from relays import UNLIMITED, behind

KEY, OTHER = PSK(bytes(range(32))), PSK(bytes(range(1, 33)))


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_hosts_with_the_same_key_talk(muxer: str, tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    path.write_bytes(KEY.encode())
    served = {"psk": path, "echo": True, "identify": True, "ping": True, "muxers": [muxer]}
    async with pair(served, {"psk": KEY.key, "identify": True, "muxers": [muxer]}) as hosts:
        data = bytes(range(256)) * 4000
        assert await hosts.dialer.echo(hosts.conn, data) == data
        assert len(await hosts.dialer.ping(hosts.conn, 3)) == 3
        assert "/echo/1.0.0" in (await hosts.dialer.identify(hosts.conn)).protocols


@looped
async def test_a_shared_port_takes_members_of_the_network_of_every_kind() -> None:
    """A connection to it begins with a random nonce, or with HTTP."""

    listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"]
    served: dict[str, Any] = {"psk": KEY, "echo": True, "tcp": TcpOptions(share_port=True), "listen": listen}
    async with Host(**served) as server, Host(listen=(), psk=KEY) as dialer:
        addrs = server.addrs_with_peer
        assert len({addr["tcp"] for addr in addrs}) == 1
        for addr in addrs:
            assert await dialer.echo(await dialer.swarm.dial_addr(addr), b"x") == b"x"


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_hosts_meet_through_a_relay_of_their_network(muxer: str) -> None:
    """The circuit has nonces of its own inside the connections to the relay, as with go and js."""

    options: Any = {"psk": KEY, "muxers": [muxer], "identify": False}
    async with (
        Host(relay_service=UNLIMITED, **options) as relay,
        Host(listen=[behind(relay)], echo=True, **options) as target,
        Host(listen=(), **options) as dialer,
    ):
        conn = await dialer.connect(target.addrs_with_peer[0])
        data = bytes(range(256)) * 400
        assert await dialer.echo(conn, data) == data
        assert conn.state.muxer.startswith(f"/{muxer}/")


def cause(error: DialError) -> BaseException:
    ((_, found),) = error.causes
    return found


async def fails(server: dict[str, Any], dialer: dict[str, Any]) -> BaseException:
    """The dialler's error; long before any deadline."""
    async with Host(**server) as one, Host(listen=(), **dialer) as two:
        with pytest.raises(DialError) as caught:
            await two.connect(one.addrs_with_peer[0])
    return cause(caught.value)


@looped
async def test_w47_another_key_is_named_as_the_reason() -> None:
    """Go reports no more than a bad multistream header, or the end of the connection."""

    error = await fails({"psk": KEY}, {"psk": OTHER})
    assert isinstance(error, WrongNetworkKey)
    assert error.stage == "private network"
    assert "wrong network key" in str(error)


@looped
async def test_w47_a_listener_counts_peers_with_another_key_by_that_reason() -> None:
    node = upgrader(KEY)
    listener = node.upgrade_listener(MaListener.bind(LOOPBACK))
    sock = await open_socket(listener.multiaddr)
    await asyncio.get_running_loop().sock_sendall(sock, bytes(60))
    await read_all(sock)
    await eventually(lambda: listener.failures.total())
    assert dict(listener.failures) == {"private network": 1}
    sock.close()
    await listener.close()


def upgrader(psk: PSK | None) -> StreamUpgrader:
    key = PrivateKey.generate()
    protector = None if psk is None else PrivateNetwork(psk)
    return StreamUpgrader(key, [NoiseTransport(key)], [YamuxMultiplexer()], protector=protector)


@looped
async def test_a_plain_peer_is_refused_by_a_private_host_at_once() -> None:
    error = await fails({"psk": KEY}, {})
    assert isinstance(error, NegotiationError)
    assert not isinstance(error, UpgradeTimeout)
    assert not isinstance(error, WrongNetworkKey)  # it knows nothing of keys


@looped
async def test_a_private_host_is_refused_by_a_plain_one_at_once() -> None:
    error = await fails({}, {"psk": KEY})
    assert isinstance(error, WrongNetworkKey)
    assert error.stage == "private network"


@pytest.mark.parametrize(
    "first",
    [
        b"\x13/multistream/1.0.0\n",
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"\x16\x03\x01" + bytes(60),
        bytes(60),
    ],
    ids=["multistream header alone", "HTTP", "TLS", "zeros"],
)
@looped
async def test_a_stranger_hears_nothing_but_the_nonce_and_is_closed(first: bytes) -> None:
    async with Host(psk=KEY) as host:
        sock = await open_socket(host.addrs[0])
        await asyncio.get_running_loop().sock_sendall(sock, first)
        assert len(await read_all(sock)) in (0, 24)
        sock.close()


@looped
async def test_an_end_inside_the_nonce_closes() -> None:
    async with Host(psk=KEY) as host:
        sock = await open_socket(host.addrs[0])
        await asyncio.get_running_loop().sock_sendall(sock, bytes(23))
        sock.shutdown(1)
        assert len(await read_all(sock)) in (0, 24)
        sock.close()
        await eventually(lambda: not host.swarm.num_conns)


@looped
async def test_every_connection_has_a_nonce_of_its_own() -> None:
    async with Host(psk=KEY) as host:
        nonces = set()
        for _ in range(4):
            sock = await open_socket(host.addrs[0])
            nonce = b""
            while len(nonce) < 24:
                nonce += await asyncio.get_running_loop().sock_recv(sock, 24 - len(nonce))
            nonces.add(nonce)
            sock.close()
        assert len(nonces) == 4


# -- LIBP2P_FORCE_PNET ---------------------------------------------------------------------------------


def test_w8_a_host_that_must_be_private_is_not_made_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: go's upgrader leaks the connection then; here nothing is opened before."""
    before = num_descriptors()
    monkeypatch.setenv("LIBP2P_FORCE_PNET", "1")
    for _ in range(3):
        with pytest.raises(LocalProtocolError, match="LIBP2P_FORCE_PNET"):
            Host()
    with pytest.raises(LocalProtocolError, match="LIBP2P_FORCE_PNET"):
        upgrader(None)
    assert num_descriptors() == before
    Host(psk=KEY)
    monkeypatch.setenv("LIBP2P_FORCE_PNET", "0")
    Host()


def test_a_bad_key_stops_the_host_from_being_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Host(psk=tmp_path / "none")
    with pytest.raises(ValueError, match="11 bytes are no network key"):
        Host(psk=b"no key file")
