"""MaListener: exclusive binding, back-pressure into the backlog, cancellation, shortages, lost sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import HANG_S, eventually, looped, seconds, settle
from p2pcore import limits
from p2pcore.errors import AddressError, ListenerClosed
from p2pcore.manet import listener as malistener
from p2pcore.manet.accept_errors import is_temporary
from p2pcore.manet.conn import MaConn
from p2pcore.manet.linger import LingerListener
from p2pcore.manet.listener import MaListener
from p2pcore.values.multiaddr import Multiaddr

LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")
LOOPBACK6 = Multiaddr("/ip6/::1/tcp/0")

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")  # a socket left to the collector


def port_of(listener: MaListener) -> int:
    return int(str(listener.multiaddr).rsplit("/", 1)[1])


def connect(listener: MaListener, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port_of(listener)), timeout=seconds(HANG_S))


@asynccontextmanager
async def bound(addr: Multiaddr = LOOPBACK, **options: Any) -> AsyncIterator[MaListener]:
    listener = MaListener.bind(addr, **options)
    try:
        yield listener
    finally:
        await listener.close()


def option(sock: socket.socket, level: int, name: int) -> int:
    return sock.getsockopt(level, name)


@looped
async def test_port_zero_is_resolved_in_the_multiaddr() -> None:
    async with bound() as listener:
        assert port_of(listener) != 0
        assert str(listener.multiaddr).startswith("/ip4/127.0.0.1/tcp/")


@pytest.mark.parametrize(("addr", "host"), [(LOOPBACK, "127.0.0.1"), (LOOPBACK6, "::1")])
@looped
async def test_a_connection_knows_both_its_ends(addr: Multiaddr, host: str) -> None:
    async with bound(addr) as listener:
        with connect(listener, host) as client:
            conn = await listener.accept()
            kind = "ip6" if ":" in host else "ip4"
            assert str(conn.remote_multiaddr) == f"/{kind}/{host}/tcp/{client.getsockname()[1]}"
            assert conn.local_multiaddr == listener.multiaddr
            conn.abort()


@pytest.mark.parametrize(
    ("addr", "expected"), [("/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1"), ("/ip6/::/tcp/0", "/ip6/::1")]
)
@looped
async def test_a_wildcard_listener_tells_the_address_that_was_reached(addr: str, expected: str) -> None:
    async with bound(Multiaddr(addr)) as listener:
        with connect(listener, expected.rsplit("/", 1)[1]):
            conn = await listener.accept()
            assert str(conn.local_multiaddr) == f"{expected}/tcp/{port_of(listener)}"
            conn.abort()


@looped
async def test_ip6_wildcard_leaves_ip4_alone() -> None:
    async with bound(Multiaddr("/ip6/::/tcp/0")) as listener:
        with pytest.raises(ConnectionRefusedError):
            connect(listener, "127.0.0.1")


@looped
async def test_a_bound_port_is_taken() -> None:
    async with bound() as listener:
        with pytest.raises(OSError) as caught:
            MaListener.bind(listener.multiaddr)
        assert caught.value.errno == errno.EADDRINUSE


@looped
async def test_reuse_port_shares_only_where_both_ask_for_it() -> None:
    async with bound(reuse_port=True) as listener:
        with pytest.raises(OSError):
            MaListener.bind(listener.multiaddr)
        async with bound(listener.multiaddr, reuse_port=True) as second:
            assert second.multiaddr == listener.multiaddr


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/udp/0",
        "/ip4/127.0.0.1",
        "/dns4/localhost/tcp/0",
        "/ip4/127.0.0.1/tcp/0/ws",
        "/ip4/127.0.0.1/tcp/0/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
    ],
)
@looped
async def test_only_plain_tcp_addresses_can_be_bound(text: str) -> None:
    with pytest.raises(AddressError):
        MaListener.bind(Multiaddr(text))


@looped
async def test_an_address_of_nobody_here_is_an_os_error() -> None:
    with pytest.raises(OSError) as caught:
        MaListener.bind(Multiaddr("/ip4/203.0.113.77/tcp/0"))
    assert caught.value.errno == errno.EADDRNOTAVAIL


@looped
async def test_accepted_sockets_have_no_delay_and_keepalive() -> None:
    async with bound() as listener:
        with connect(listener):
            conn = await listener.accept()
            sock = conn._sock
            assert sock is not None
            assert option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle = getattr(socket, "TCP_KEEPIDLE", None)
            if idle is not None:
                assert option(sock, socket.IPPROTO_TCP, idle) == limits.TCP_KEEPALIVE_IDLE_S
            assert not os.get_inheritable(sock.fileno())
            conn.abort()


@looped
async def test_without_an_accept_the_peers_stay_in_the_backlog() -> None:
    async with bound() as listener:
        clients = [connect(listener) for _ in range(8)]
        conns = [await listener.accept() for _ in range(3)]
        before = set(os.listdir("/proc/self/fd"))
        await settle(20)
        assert set(os.listdir("/proc/self/fd")) == before  # nothing more was taken
        conns += [await listener.accept() for _ in range(5)]
        assert len({str(conn.remote_multiaddr) for conn in conns}) == 8
        for each in [*conns]:
            each.abort()
        for client in clients:
            client.close()


@looped
async def test_the_watch_ends_at_the_first_event_nobody_waits_for() -> None:
    async with bound() as listener:
        accepting = asyncio.ensure_future(listener.accept())
        await asyncio.sleep(0)
        with connect(listener), connect(listener):
            conn = await accepting
            await eventually(lambda: not listener._watching)
            conn.abort()
            (await listener.accept()).abort()


class CancelOnSet(asyncio.Event):
    """Cancels a task in the very step in which it is woken."""

    victim: asyncio.Task[Any]

    def set(self) -> None:
        super().set()
        self.victim.cancel()


@looped
async def test_an_accept_cancelled_as_it_is_woken_loses_no_connection() -> None:
    async with bound() as listener:
        listener._readable = event = CancelOnSet()
        event.victim = asyncio.ensure_future(listener.accept())
        await asyncio.sleep(0)
        with connect(listener) as client:
            with pytest.raises(asyncio.CancelledError):
                await event.victim
            conn = await listener.accept()
            assert str(conn.remote_multiaddr).endswith(f"/tcp/{client.getsockname()[1]}")
            conn.abort()


@looped
async def test_an_end_that_no_multiaddr_can_say_costs_one_connection_and_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(sockaddr: object) -> Multiaddr:
        raise AddressError("no multiaddr for this")

    async with bound(Multiaddr("/ip4/0.0.0.0/tcp/0")) as listener:
        with connect(listener) as client:
            with monkeypatch.context() as patch:
                patch.setattr(malistener, "to_multiaddr", fail)
                with pytest.raises(OSError) as caught:
                    await listener.accept()
            assert is_temporary(caught.value)
            assert client.recv(1) == b""  # it was closed
        with connect(listener):
            (await listener.accept()).abort()


@looped
async def test_several_accepts_may_wait_at_once() -> None:
    async with bound() as listener:
        waiting = [asyncio.ensure_future(listener.accept()) for _ in range(3)]
        await asyncio.sleep(0)
        clients = [connect(listener) for _ in range(3)]
        conns = await asyncio.gather(*waiting)
        assert len({str(conn.remote_multiaddr) for conn in conns}) == 3
        for each in conns:
            each.abort()
        for client in clients:
            client.close()


@looped
async def test_close_wakes_every_accept_and_is_idempotent() -> None:
    async with bound() as listener:
        waiting = [asyncio.ensure_future(listener.accept()) for _ in range(3)]
        await asyncio.sleep(0)
        await listener.close()
        await listener.close()
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, ListenerClosed)
        with pytest.raises(ListenerClosed):
            await listener.accept()
        with pytest.raises(ListenerClosed):
            await listener.rebind()
        with pytest.raises(ConnectionRefusedError):
            connect(listener)


@looped
async def test_close_gives_every_descriptor_back() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        async with bound() as listener:
            waiting = asyncio.ensure_future(listener.accept())
            await asyncio.sleep(0)
            await listener.close()
            with pytest.raises(ListenerClosed):
                await waiting
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= len(before))


@looped
async def test_a_socket_shut_down_under_it_is_bound_anew_on_the_same_port() -> None:
    async with bound() as listener:
        waiting = asyncio.ensure_future(listener.accept())
        await asyncio.sleep(0)
        assert listener._sock is not None
        listener._sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError) as caught:
            await waiting
        assert caught.value.errno == errno.EINVAL
        addr = listener.multiaddr
        await listener.rebind()
        assert listener.multiaddr == addr
        with connect(listener):
            (await listener.accept()).abort()


async def watched(listener: MaListener) -> None:
    """One connection has come and gone: the kernel knows of the watch (libuv aborts if it cannot be set)."""
    waiting = asyncio.ensure_future(listener.accept())
    await asyncio.sleep(0)
    with connect(listener):
        (await waiting).abort()


@pytest.mark.parametrize("is_waiting", [True, False])
@looped
async def test_a_descriptor_closed_under_it_is_noticed(
    is_waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(malistener, "SOCKET_PROBE_S", 0.01)

    async with bound() as listener:
        await watched(listener)
        accepting = asyncio.ensure_future(listener.accept())
        if is_waiting:
            await asyncio.sleep(0)
        assert listener._sock is not None
        fd = listener._sock.fileno()
        os.close(fd)
        assert os.open(os.devnull, os.O_RDONLY) == fd  # the number is somebody else's now
        with pytest.raises(OSError) as caught:
            await accepting
        assert caught.value.errno in (errno.EBADF, errno.ENOTSOCK)
        await listener.rebind()
        os.close(fd)  # raises if the listener had closed it
        with connect(listener):
            (await listener.accept()).abort()


@looped
async def test_rebinding_a_taken_port_fails_until_it_is_free() -> None:
    async with bound() as listener:
        listener._drop()
        with socket.create_server(("127.0.0.1", port_of(listener))):
            with pytest.raises(OSError):
                await listener.rebind()
            with pytest.raises(OSError) as caught:
                await listener.accept()
            assert caught.value.errno == errno.EBADF
        await listener.rebind()
        with connect(listener):
            (await listener.accept()).abort()


@looped
async def test_linger_zero_resets_at_close() -> None:
    async with bound() as inner:
        listener = LingerListener(inner, 0)
        assert listener.multiaddr == inner.multiaddr
        with connect(inner) as client:
            (await listener.accept()).abort()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        await listener.close()
        with pytest.raises(ListenerClosed):
            await listener.rebind()


@pytest.mark.parametrize("seconds", [-1, 32768])
@looped
async def test_linger_out_of_range_is_refused(seconds: int) -> None:
    async with bound() as inner:
        with pytest.raises(ValueError):
            LingerListener(inner, seconds)


@looped
async def test_a_paused_listener_leaves_its_peers_in_the_backlog() -> None:
    async with bound() as listener:
        accepting = asyncio.ensure_future(listener.accept())
        await asyncio.sleep(0)
        listener.pause()
        with connect(listener) as first, connect(listener):
            await settle(20)
            assert not accepting.done()
            listener.resume()
            conn = await accepting
            assert str(conn.remote_multiaddr).endswith(f"/tcp/{first.getsockname()[1]}")
            conn.abort()
            listener.pause()
            listener.drain()
            (await listener.accept()).abort()  # a drain ends the pause
            with pytest.raises(ListenerClosed):
                await listener.accept()


@looped
async def test_close_ends_a_pause() -> None:
    async with bound() as listener:
        listener.pause()
        accepting = asyncio.ensure_future(listener.accept())
        await asyncio.sleep(0)
        await listener.close()
        with pytest.raises(ListenerClosed):
            await accepting


@pytest.mark.parametrize(
    ("sockaddr", "block"),
    [
        (("203.0.113.7", 1), "203.0.113.7"),
        (("::ffff:203.0.113.7", 1, 0, 0), "203.0.113.7"),
        (("2001:db8:1:2345::7", 1, 0, 0), "2001:db8:1:2300::/56"),
        (("2001:db8:1:23ff:ffff::", 1, 0, 0), "2001:db8:1:2300::/56"),
        (("2001:db8:1:2400::", 1, 0, 0), "2001:db8:1:2400::/56"),
        (("fe80::1%lo", 1, 0, 1), "fe80::/56"),
        (("::1", 1, 0, 0), "::/56"),
    ],
)
@looped
async def test_an_address_has_a_block_before_and_after_it_is_a_multiaddr(
    sockaddr: tuple[Any, ...], block: str
) -> None:
    conn = MaConn(asyncio.get_running_loop(), socket.socket(), LOOPBACK, sockaddr)
    assert conn.block == block
    assert conn.remote_multiaddr is not None
    assert conn.block == block
    conn.abort()


@looped
async def test_a_connection_closed_before_it_was_read_is_reset() -> None:
    async with bound() as listener:
        with connect(listener) as client:
            (await listener.accept()).abort()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


SHORTAGE = """
import asyncio, errno, os, resource, socket, sys
sys.path.insert(0, sys.argv[1])
from harness import run
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.manet.listener import MaListener

async def main():
    listener = MaListener.bind(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    port = int(str(listener.multiaddr).rsplit("/", 1)[1])
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    waiting = asyncio.ensure_future(listener.accept())
    first = await waiting
    used = max(map(int, os.listdir("/proc/self/fd"))) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
    fill = []
    try:
        while True:
            fill.append(os.dup(0))
    except OSError as error:
        assert error.errno == errno.EMFILE
    for left in (2, 1):  # each failing accept closes one connection of the backlog, and only one
        try:
            await listener.accept()
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        else:
            raise SystemExit("accept worked without descriptors")
    assert listener.shed == 2
    for client in clients[1:]:
        client.settimeout(10)
        assert client.recv(1) == b""
    # With an empty backlog accept(2) says EMFILE too: that is no reason to fail, nor to spin.
    waiting = asyncio.ensure_future(listener.accept())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done() and listener.shed == 2
    for fd in fill:
        os.close(fd)
    late = socket.create_connection(("127.0.0.1", port))
    conn = await waiting
    assert str(conn.remote_multiaddr).endswith(f"/tcp/{late.getsockname()[1]}")
    first.abort(); conn.abort()
    await listener.close()
    print("ok")

run(main())
"""


def test_without_descriptors_each_accept_sheds_one_connection() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SHORTAGE, str(Path(__file__).parents[1])],
        capture_output=True, text=True, timeout=seconds(2 * HANG_S), check=False,
    )  # fmt: skip
    assert result.stdout.strip() == "ok", result.stderr
