"""Errors of this machine: no address is left alone for them, and no kind of address counts as not working."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness import looped, seconds
from p2pcore import Host, limits
from p2pcore.errors import AddressInBackoff, DialError, HandshakeError, blame_us, is_ours
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import WebsocketOptions
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import make_swarm, peer
from virtual_time import virtual

V6 = Multiaddr("/ip6/2001:4860::1/tcp/1")
CHILD = Path(__file__).parent / "own_faults_child.py"
OURS = (
    "EMFILE",
    "ENFILE",
    "ENOBUFS",
    "ENETUNREACH",
    "ENETDOWN",
    "EADDRNOTAVAIL",
    "EACCES",
    "EPERM",
    "ENODEV",
)
THEIRS = ("ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "EHOSTUNREACH", "ENOENT")


def failing(name: str) -> OSError:
    return OSError(getattr(errno, name), name)


@pytest.mark.parametrize("name", OURS + THEIRS)
@virtual
async def test_only_an_error_of_the_address_puts_it_into_back_off(name: str) -> None:
    swarm, tcp = make_swarm()
    tcp.errors[V6] = failing(name)
    for _ in range(2):
        with pytest.raises(DialError) as caught:
            await swarm.dial_peer(peer(1), [V6])
    (cause,) = caught.value.causes
    assert isinstance(cause[1], AddressInBackoff) is (name in THEIRS)
    assert len(tcp.dialled) == (1 if name in THEIRS else 2)
    await swarm.close()


@pytest.mark.parametrize("name", OURS + THEIRS)
@virtual
async def test_only_an_error_of_the_address_counts_as_a_black_hole(name: str) -> None:
    swarm, tcp = make_swarm()
    tcp.errors[V6] = failing(name)
    for _ in range(limits.BLACK_HOLE_WINDOW):
        with pytest.raises(DialError):
            await swarm.dial_peer(peer(1), [V6], ignore_backoff=True)
    assert swarm._dialer.black_holes.is_blocked("IPv6") is (name in THEIRS)
    await swarm.close()


def test_an_error_behind_an_error_is_found_and_a_mark_too() -> None:
    wrapped = HandshakeError("no")
    wrapped.__cause__ = OSError("x")
    assert not is_ours(wrapped)
    blame_us(wrapped.__cause__)
    assert is_ours(wrapped)
    assert not is_ours(None)
    assert not is_ours(ValueError())


def _backoff_of(host: Host) -> int:
    return len(host.swarm._dialer.backoff)


@looped
async def test_a_process_without_descriptors_blames_nobody() -> None:
    async with Host() as server, Host(listen=()) as dialer:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [socket.socket()]
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0].fileno() + 1, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                held.extend(socket.socket() for _ in range(1000))
            with pytest.raises(DialError, match="Too many open files"):
                await dialer.connect(server.addrs_with_peer[0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in held:
                sock.close()
        assert _backoff_of(dialer) == 0
        await dialer.ping(server.addrs_with_peer[0])


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 407 Who\r\n\r\n", b"nonsense\r\n\r\n", None])
@pytest.mark.parametrize("host", ["ip4/127.0.0.1", "dns4/a.example"])
@looped
async def test_a_dead_proxy_is_not_held_against_the_host_behind_it(
    host: str, answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")
        writer.close()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    if answer is None:
        proxy.close()
        await proxy.wait_closed()
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    async with Host(listen=()) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(f"/{host}/tcp/4001/ws/p2p/{PrivateKey.generate().peer_id()}")
        assert _backoff_of(dialer) == 0
    proxy.close()


@pytest.mark.parametrize("status", [502, 504])
@looped
async def test_a_proxy_that_does_not_reach_the_host_is_held_against_the_host(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    async with Host(listen=()) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(f"/ip4/127.0.0.1/tcp/4001/ws/p2p/{PrivateKey.generate().peer_id()}")
        assert _backoff_of(dialer) == 1
    proxy.close()


@looped
async def test_a_file_of_authorities_that_is_missing_blames_nobody(tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    path.write_bytes(WebCertificate.self_signed("localhost").pem)
    options = WebsocketOptions(ca_file=path, use_proxies=False)
    path.unlink()  # it is read again by the first dial
    async with Host(listen=(), websocket=options) as dialer:
        with pytest.raises(DialError, match=r"none\.pem"):
            await dialer.connect(f"/ip4/127.0.0.1/tcp/4001/tls/ws/p2p/{PrivateKey.generate().peer_id()}")
        assert _backoff_of(dialer) == 0


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="it takes root, unshare(1) and ip(8)",
)
@pytest.mark.parametrize("promise", ["no_route_blames_nobody", "a_low_port_is_left_to_root"])
def test_as_root(promise: str) -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(CHILD), promise],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds(60),
    )
    assert done.returncode == 0, done.stdout + done.stderr
