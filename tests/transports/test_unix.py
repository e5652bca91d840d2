"""UNIX sockets: files that are replaced, refused and removed as they should be; modes, peers, rebinding."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness import eventually, looped, seconds
from nodes import make_node, num_descriptors, settled_descriptors
from p2pcore import Host
from p2pcore.errors import AddressError, ListenerClosed, PeerIdMismatch
from p2pcore.interfaces import Transport
from p2pcore.limits import MAX_UNIX_PATH_BYTES
from p2pcore.manet.unix_file import open_unix
from p2pcore.transports import unix as unix_module
from p2pcore.transports.unix import (
    UnixListener,
    UnixOptions,
    UnixTransport,
    unix_path,
)
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


@asynccontextmanager
async def bound(path: Path, **options: Any) -> AsyncIterator[UnixListener]:
    listener = await UnixListener.listen(Multiaddr(f"/unix{path}"), **options)
    try:
        yield listener
    finally:
        await listener.close()


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    return sock


def leave_stale(path: Path) -> None:
    """A socket file whose listener has died."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "peer"),
    [
        ("/unix/run/a.sock", "/run/a.sock", None),
        (f"/unix/run/a.sock/p2p/{PEER}", "/run/a.sock", PEER),
        ("/unix/run/p2p/a.sock", "/run/p2p/a.sock", None),
        ("/unix/run/p2p/nobody", "/run/p2p/nobody", None),
        (f"/unix/p2p/{PEER}", f"/p2p/{PEER}", None),
        (f"/unix/a/p2p/{PEER}/p2p/{PEER}", f"/a/p2p/{PEER}", PEER),
        ("/unix/%2Frun%2Fa.sock", "/run/a.sock", None),
        (f"/unix/%2frun%2fa%20b%25.sock/p2p/{PEER}", "/run/a b%.sock", PEER),
        ("/unix/run/a%20b.sock", "/run/a b.sock", None),
        ("/unix/%2F%252Frun/a.sock", "/%2Frun/a.sock", None),
        ("/unix/run%2Fa.sock", "/run/a.sock", None),
        ("/unix/run/a%25.sock", "/run/a%.sock", None),
        ("/unix/%2Frun/a%25.sock", "/run/a%.sock", None),
        (f"/unix/run%2Fa.sock%2Fp2p%2F{PEER}", "/run/a.sock", PEER),
    ],
)
def test_the_last_two_parts_of_a_path_may_name_the_peer(text: str, path: str, peer: str | None) -> None:
    addr = Multiaddr(text)
    assert unix_path(addr) == path
    assert (str(addr.peer_id) if addr.peer_id else None) == peer
    assert addr.without_p2p() == Multiaddr(str(addr).removesuffix(f"/p2p/{peer}"))
    if peer is None:
        named = addr.with_p2p(PEER)
        assert str(named) == f"{addr}/p2p/{PEER}"
        assert named.without_p2p() == addr
    else:
        assert addr.with_p2p(peer) == addr
        with pytest.raises(AddressError):
            addr.with_p2p(PrivateKey.generate().peer_id())


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("/unix/tmp/p2p.sock", True),
        (f"/unix/tmp/p2p.sock/p2p/{PEER}", True),
        ("/unix/" + "a" * (MAX_UNIX_PATH_BYTES - 1), True),
        ("/unix/" + "a" * MAX_UNIX_PATH_BYTES, False),
        ("/unix/" + "ü" * 54, False),
        ("/ip4/127.0.0.1/tcp/1/unix/tmp/a", False),
        ("/ip4/127.0.0.1/tcp/1", False),
        (f"/p2p/{PEER}", False),
    ],
)
def test_it_dials_paths_that_fit_a_socket_address(text: str, can: bool) -> None:
    transport: Transport = UnixTransport(make_node().upgrader)
    assert transport.can_dial(Multiaddr(text)) is can
    assert transport.protocols == ("unix",)
    assert not transport.is_proxy


@pytest.mark.parametrize(
    "path", ["/tmp/a.sock", "/%2Ftmp", "/%2ftmp%/b", "/%2F/x", "/a/%2F", "/ü%2F", "/a%", "/%%25"]
)
def test_every_path_has_a_text_that_leads_back_to_it(path: str) -> None:
    raw = path.encode()
    addr = Multiaddr(b"\x90\x03" + bytes([len(raw)]) + raw)
    assert unix_path(Multiaddr(str(addr))) == unix_path(addr) == path
    assert unix_path(Multiaddr(f"{addr}/p2p/{PEER}")) == path
    assert addr.with_p2p(PEER).without_p2p() == addr


@pytest.mark.parametrize(
    "path", ["%2Ftmp%2", "%2Ftmp%zz", "%2Ftmp%00", "%2Ftmp%FF", "%2Ftmp%2F", "tmp%2", "tmp/100%", "tmp/%zz"]
)
def test_an_escaped_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(AddressError):
        Multiaddr(f"/unix/{path}")


def test_both_forms_have_the_bytes_of_js_libp2p() -> None:
    for text in ("/unix/%2Ftmp%2Fp2p.sock", "/unix/tmp%2Fp2p.sock", "/unix/tmp/p2p.sock"):
        assert Multiaddr(text).to_bytes().hex() == "90030d2f746d702f7032702e736f636b"
        assert str(Multiaddr(text)) == "/unix/tmp/p2p.sock"


@pytest.mark.parametrize("listens", ["plain", "escaped", "half"])
@looped
async def test_the_form_of_js_libp2p_leads_to_the_same_socket(listens: str, tmp_path: Path) -> None:
    forms = {"plain": f"/unix{tmp_path}/s.sock", "escaped": f"/unix/{quote(f'{tmp_path}/s.sock', safe='')}"}
    forms["half"] = f"/unix{tmp_path}%2Fs.sock"
    async with Host(listen=[forms[listens]]) as server:
        assert (tmp_path / "s.sock").is_socket()
        for form in forms.values():
            async with Host(listen=()) as dialer:
                await dialer.ping(f"{form}/p2p/{server.peer_id}")


@looped
async def test_a_path_that_is_too_long_is_refused_by_name_and_length(tmp_path: Path) -> None:
    path = tmp_path / ("a" * MAX_UNIX_PATH_BYTES)
    with pytest.raises(AddressError, match=f"{len(str(path))} bytes.*limit of {MAX_UNIX_PATH_BYTES}"):
        await UnixListener.listen(Multiaddr(f"/unix{path}"))
    with pytest.raises(AddressError, match="has no peer id"):
        await UnixListener.listen(Multiaddr(f"/unix{tmp_path}/a/p2p/{PEER}"))


# -- the file ------------------------------------------------------------------------------------


@looped
async def test_the_file_is_there_while_it_listens_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = await settled_descriptors()
    async with bound(path) as listener:
        assert stat.S_ISSOCK(path.lstat().st_mode)
        with connect(path):
            conn = await listener.accept()
            assert conn.remote_multiaddr is None
            assert conn.local_multiaddr == listener.multiaddr == Multiaddr(f"/unix{path}")
            conn.abort()
    assert os.listdir(tmp_path) == []
    await eventually(lambda: num_descriptors() <= before)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
@looped
async def test_the_mode_is_as_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    umask = os.umask(0o022)
    try:
        async with bound(tmp_path / "s", mode=mode):
            assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == mode
        async with bound(tmp_path / "s"):
            assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o755
    finally:
        os.umask(umask)


@looped
async def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    leave_stale(path)
    async with bound(path) as listener:
        with connect(path):
            (await listener.accept()).abort()


@looped
async def test_a_socket_that_is_in_use_is_taken_and_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with bound(path) as listener:
        with pytest.raises(OSError) as caught:
            await UnixListener.listen(listener.multiaddr)
        assert caught.value.errno == errno.EADDRINUSE
        (await listener.accept()).abort()  # the look whether somebody listens
        with connect(path):
            (await listener.accept()).abort()


@looped
async def test_a_socket_whose_backlog_is_full_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_unix(str(path), backlog=0):
        waiting = [connect(path)]
        with pytest.raises(OSError) as caught:
            await UnixListener.listen(Multiaddr(f"/unix{path}"))
        assert caught.value.errno == errno.EADDRINUSE
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "datagram"])
@looped
async def test_what_is_no_stream_socket_of_nobody_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        leave_stale(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    else:
        other.bind(str(path))
    before = path.lstat()

    with pytest.raises(OSError) as caught:
        await UnixListener.listen(Multiaddr(f"/unix{path}"))
    assert caught.value.errno == (errno.EADDRINUSE if kind == "datagram" else errno.EEXIST)
    other.close()
    assert path.lstat() == before


@pytest.mark.parametrize("other", ["socket", "file", "nothing"])
@looped
async def test_close_removes_the_file_only_while_it_is_its_own(tmp_path: Path, other: str) -> None:
    path = tmp_path / "s"
    async with bound(path):
        path.unlink()
        if other == "socket":
            leave_stale(path)
        elif other == "file":
            path.write_text("somebody else's")
        before = path.lstat() if other != "nothing" else None
    assert path.exists() is (other != "nothing")
    assert before is None or path.lstat() == before


@looped
async def test_one_who_binds_in_the_same_folder_is_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(unix_module, "UNIX_BIND_TIMEOUT_S", seconds(0.05))

    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        await UnixListener.listen(Multiaddr(f"/unix{tmp_path}/s"))
    monkeypatch.setattr(unix_module, "UNIX_BIND_TIMEOUT_S", seconds(30))
    listening = asyncio.ensure_future(UnixListener.listen(Multiaddr(f"/unix{tmp_path}/s")))
    await asyncio.sleep(0)
    assert not listening.done()
    os.close(fd)
    await (await listening).close()
    assert os.listdir(tmp_path) == []


@looped
async def test_a_folder_there_is_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await UnixListener.listen(Multiaddr(f"/unix{tmp_path}/none/s"))


# -- a socket that is lost -----------------------------------------------------------------------


@looped
async def test_a_descriptor_closed_under_it_leaves_a_stale_file_that_rebinding_replaces(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    async with bound(path, mode=0o600) as listener:
        assert listener.listening_socket is not None
        os.close(listener.listening_socket.fileno())
        with pytest.raises(OSError):
            await listener.accept()
        await listener.rebind()
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        with connect(path):
            (await listener.accept()).abort()
    assert os.listdir(tmp_path) == []
    with pytest.raises(ListenerClosed):
        await listener.rebind()


@looped
async def test_a_rebind_that_close_overtakes_leaves_no_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    async with bound(tmp_path / "s") as listener:
        fcntl.flock(fd, fcntl.LOCK_EX)
        rebinding = asyncio.ensure_future(listener.rebind())
        await asyncio.sleep(0)
        await listener.close()
        os.close(fd)
        with pytest.raises(ListenerClosed):
            await rebinding
    assert os.listdir(tmp_path) == []


# -- dialling ------------------------------------------------------------------------------------


@looped
async def test_hosts_talk_over_a_path_that_names_the_peer(tmp_path: Path) -> None:
    options: Any = {"ping": True, "identify": False}
    async with (
        Host(listen=[f"/unix{tmp_path}/s"], unix=UnixOptions(mode=0o600), **options) as host,
        Host(listen=(), **options) as dialler,
    ):
        (addr,) = host.addrs_with_peer
        assert str(addr) == f"/unix{tmp_path}/s/p2p/{host.peer_id}"
        assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o600
        conn = await dialler.connect(str(addr))
        assert conn.remote_peer == host.peer_id
        assert await dialler.ping(conn)
        assert conn.state.transport == "unix"
        with pytest.raises(PeerIdMismatch):
            await dialler.swarm.transport_for_dialing(addr).dial(  # type: ignore[union-attr]
                Multiaddr(f"/unix{tmp_path}/s/p2p/{PEER}"), None
            )


@looped
async def test_a_dial_where_nobody_listens_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    before = await settled_descriptors()
    transport = UnixTransport(make_node().upgrader)
    with pytest.raises(FileNotFoundError):
        await transport.dial(Multiaddr(f"/unix{tmp_path}/none"), None)
    leave_stale(tmp_path / "s")
    with pytest.raises(ConnectionRefusedError):
        await transport.dial(Multiaddr(f"/unix{tmp_path}/s"), None)
    with pytest.raises(AddressError):
        await transport.dial(Multiaddr(f"/unix{tmp_path}/s/p2p/{PEER}"), PrivateKey.generate().peer_id())
    assert num_descriptors() <= before


@looped
async def test_a_full_backlog_is_waited_for_and_times_out(tmp_path: Path) -> None:
    path = tmp_path / "s"
    addr = Multiaddr(f"/unix{path}")
    before = await settled_descriptors()
    with open_unix(str(path), backlog=0) as server:
        first = connect(path)
        hasty = UnixTransport(make_node().upgrader, UnixOptions(connect_timeout=seconds(0.05)))
        with pytest.raises(TimeoutError, match="accepted no connection"):
            await hasty.dial(addr, None)
        patient = UnixTransport(make_node().upgrader)
        dialling = asyncio.ensure_future(patient._connect(str(path)))
        await asyncio.sleep(0)
        assert not dialling.done()
        server.accept()[0].close()
        (await dialling).abort()
        first.close()
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_a_socket_that_listens_already_is_taken_over_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sock = open_unix(str(path))
    transport = UnixTransport(make_node().upgrader, UnixOptions(sockets=(sock,)))
    listener = await transport.listen(Multiaddr(f"/unix{path}"))
    dialler = UnixTransport(make_node().upgrader)
    outbound = await dialler.dial(listener.multiaddr, None)
    (await listener.accept()).abort()
    outbound.abort()
    await listener.close()
    assert path.exists()
