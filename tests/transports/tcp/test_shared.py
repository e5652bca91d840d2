"""Shared ports: who gets which connection, whole; bounds on those that wait; errors, ends, no deadlock."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from shared_ports import FIRST, HTTP, PLAIN, TLS, Counting, is_refused, said, shared

from harness import eventually, looped, seconds, settle
from nodes import (
    LOOPBACK,
    Reports,
    make_node,
    num_descriptors,
    open_socket,
    read_all,
    settled_descriptors,
)
from p2pcore.errors import ListenerClosed
from p2pcore.manet.conn import MaConn
from p2pcore.manet.listener import MaListener
from p2pcore.transports.tcp import shared as tcpreuse
from p2pcore.transports.tcp.ports import TcpPorts
from p2pcore.transports.tcp.shared import Kind, Refusal, SharedPort, kind_of
from p2pcore.transports.tcp.transport import TcpOptions
from p2pcore.upgrade.listener import ListenerState
from p2pcore.values.multiaddr import Multiaddr

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


# -- which is whose ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"\x13/m", Kind.PLAIN),
        *((method, Kind.HTTP) for method in (b"GET", b"HEA", b"POS", b"PUT", b"DEL")),
        *((method, Kind.HTTP) for method in (b"CON", b"OPT", b"TRA", b"PAT", b"PRI")),
        (b"\x16\x03\x01", Kind.TLS),
        (b"\x16\x03\x02", Kind.TLS),
        (b"\x16\x03\x03", Kind.TLS),
        (b"\x16\x03\x00", None),
        (b"\x16\x03\x04", None),
        (b"\x13/n", None),
        (b"get", None),
        (b"SSH", None),
        (b"\0\0\0", None),
        (b"\x13/", None),
        (b"", None),
    ],
)
def test_three_bytes_tell_the_kind(first: bytes, kind: Kind | None) -> None:
    assert kind_of(first) is kind
    is_whole = len(first) == 3
    assert kind_of(first, is_psk=True) is (kind if kind or not is_whole else Kind.PLAIN)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("pieces", [1, 2, 3, 99])
@looped
async def test_each_listener_gets_its_kind_and_every_byte_of_it(kind: Kind, pieces: int) -> None:
    async with shared(*Kind) as (port, _, listeners):
        data = FIRST[kind] + os.urandom(1000)
        sock = await open_socket(port.multiaddr)
        at = 0
        while at < len(data):  # one byte, two, three: cut within what is peeked at
            await asyncio.get_running_loop().sock_sendall(sock, data[at : at + pieces])
            at += pieces
            await asyncio.sleep(0)
        listener = next(each for each in listeners if each.kind is kind)
        conn = await listener.accept()
        assert isinstance(conn, MaConn)
        await conn.start()
        assert await conn.mailbox.read_exactly(len(data)) == data
        assert str(conn.remote_multiaddr) == f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"
        assert conn.local_multiaddr == port.multiaddr == listener.multiaddr
        conn.mailbox.write(b"back")
        assert await asyncio.get_running_loop().sock_recv(sock, 9) == b"back"
        assert (conn.transport, conn.is_limited) == ("tcp", False)
        conn.abort()
        sock.close()
        assert not port.refused


@looped
async def test_with_a_network_key_a_nonce_is_plain() -> None:
    async with shared(*Kind, is_psk=True) as (port, _, listeners):
        nonce = b"\xffSSH" + os.urandom(20)
        socks = [await said(port.multiaddr, data) for data in (nonce, HTTP, TLS)]
        for listener, data in zip(listeners, (nonce, HTTP, TLS), strict=True):
            conn = await listener.accept()
            assert await conn.mailbox.read_exactly(len(data)) == data
            conn.abort()
        for sock in socks:
            sock.close()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", Refusal.UNKNOWN),
        (b"\x00" * 100, Refusal.UNKNOWN),
        (HTTP, Refusal.UNWANTED),
        (b"\x13/", Refusal.ENDED),
        (b"", Refusal.ENDED),
    ],
)
@looped
async def test_what_nobody_wants_is_closed_and_counted(data: bytes, why: Refusal) -> None:
    async with shared(Kind.PLAIN) as (port, _, listener):
        sock = await said(port.multiaddr, data)
        if why is Refusal.ENDED:
            sock.shutdown(socket.SHUT_WR)
        assert await read_all(sock) == b""
        sock.close()
        await eventually(lambda: port.refused == {why: 1})
        good = await said(port.multiaddr, PLAIN)
        (await listener.accept()).abort()
        good.close()


@looped
async def test_a_second_listener_of_a_kind_is_an_error_until_the_first_is_closed() -> None:
    async with shared(Kind.PLAIN, Kind.HTTP) as (port, _, listeners):
        with pytest.raises(OSError, match="plain libp2p already") as caught:
            port.listen(Kind.PLAIN)
        assert caught.value.errno == errno.EADDRINUSE
        await listeners[0].close()
        again = port.listen(Kind.PLAIN)
        sock = await said(port.multiaddr, PLAIN)
        (await again.accept()).abort()
        sock.close()
        await again.close()


# -- bounds --------------------------------------------------------------------------------------


@looped
async def test_silent_peers_are_gone_after_the_peek_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcpreuse, "PEEK_TIMEOUT_S", seconds(0.05))

    async with shared(*Kind) as (port, _, _):
        silent = [await said(port.multiaddr, b"\x13/"[: i % 3]) for i in range(10)]
        assert await asyncio.gather(*map(read_all, silent)) == [b""] * 10
        assert port.refused == {Refusal.TIMEOUT: 10}
        for sock in silent:
            sock.close()


@looped
async def test_only_so_many_first_bytes_are_awaited_and_the_rest_stay_in_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcpreuse, "MAX_PEEKS", 4)
    monkeypatch.setattr(tcpreuse, "MAX_WAITING_UPGRADES", 0)
    monkeypatch.setattr(tcpreuse, "UPGRADE_SLOW_S", 3600.0)

    async with shared(Kind.PLAIN) as (port, counting, listener):
        silent = [await open_socket(port.multiaddr) for _ in range(6)]
        good = await said(port.multiaddr, PLAIN)
        await eventually(lambda: counting.given == 4)
        await settle(20)
        assert counting.given == 4
        for sock in silent[:3]:
            sock.close()
        (await listener.accept()).abort()
        assert counting.given == 7
        for sock in (*silent[3:], good):
            sock.close()


@looped
async def test_silent_peers_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcpreuse, "MAX_PEEKS", 2)
    monkeypatch.setattr(tcpreuse, "UPGRADE_SLOW_S", 0.001)

    async with shared(Kind.PLAIN) as (port, counting, listener):
        silent = [await open_socket(port.multiaddr) for _ in range(20)]
        good = [await said(port.multiaddr, PLAIN) for _ in range(5)]
        for _ in good:
            (await listener.accept()).abort()
        assert counting.given == 25
        assert not port.refused
        late = silent.pop()  # a slow one that speaks after all is served
        await asyncio.get_running_loop().sock_sendall(late, PLAIN)
        conn = await listener.accept()
        assert await conn.mailbox.read_exactly(len(PLAIN)) == PLAIN
        conn.abort()
        for sock in (*silent, *good, late):
            sock.close()


@looped
async def test_of_too_many_silent_peers_the_oldest_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcpreuse, "MAX_PEEKS", 4)
    monkeypatch.setattr(tcpreuse, "UPGRADE_SLOW_S", 0.001)
    monkeypatch.setattr(tcpreuse, "MAX_SLOW_PEEKS", 3)

    async with shared(Kind.PLAIN) as (port, _, _):
        silent = [await open_socket(port.multiaddr) for _ in range(14)]
        assert [await read_all(sock) for sock in silent[:7]] == [b""] * 7
        await eventually(lambda: port.refused[Refusal.TOO_MANY_SLOW] >= 7)
        for sock in silent:
            sock.close()


@looped
async def test_when_nobody_accepts_the_rest_stay_in_the_backlog_and_nothing_is_lost() -> None:
    async with shared(Kind.PLAIN) as (port, counting, listener):
        port._peeked._maximum = 3
        socks = []
        for n in range(1, 8):
            socks.append(await said(port.multiaddr, PLAIN + bytes([n])))
            await eventually(lambda: len(listener._ready) >= min(n, 3))  # noqa: B023
        await settle(20)
        assert counting.given <= 4  # one accept was waiting when the last place was taken
        for n in range(1, 8):
            conn = await listener.accept()
            assert await conn.mailbox.read_exactly(len(PLAIN) + 1) == PLAIN + bytes([n])
            conn.abort()
        for sock in socks:
            sock.close()


@looped
async def test_what_no_listener_takes_in_time_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcpreuse, "PEEKED_TIMEOUT_S", seconds(0.05))

    async with shared(Kind.PLAIN) as (port, _, listener):
        sock = await said(port.multiaddr, PLAIN)
        assert await read_all(sock) == b""
        sock.close()
        assert port.refused == {Refusal.NOT_ACCEPTED: 1}
        assert not listener._ready
        assert port._peeked.count == 0


@looped
async def test_an_accept_that_is_cancelled_takes_nothing() -> None:
    async with shared(Kind.PLAIN) as (port, _, listener):
        accepting = [asyncio.ensure_future(listener.accept()) for _ in range(2)]
        await settle(20)
        sock = await said(port.multiaddr, PLAIN)
        while not listener._ready:  # noqa: ASYNC110 - cancel between the hand-over and the accept
            await asyncio.sleep(0)
        accepting[0].cancel()
        (await accepting[1]).abort()
        assert accepting[0].cancelled()
        sock.close()


@looped
async def test_the_port_pauses_when_all_its_listeners_do() -> None:
    async with shared(Kind.PLAIN, Kind.HTTP) as (port, counting, listeners):
        plain, http = listeners
        plain.pause()
        socks = [await said(port.multiaddr, PLAIN), await said(port.multiaddr, HTTP)]
        (await http.accept()).abort()
        accepting = asyncio.ensure_future(plain.accept())
        await settle(20)
        assert (counting.given, accepting.done()) == (2, False)
        http.pause()
        socks.append(await said(port.multiaddr, HTTP))
        await settle(20)
        assert counting.given == 2
        third = port.listen(Kind.TLS)
        await eventually(lambda: counting.given == 3)
        await third.close()
        socks.append(await said(port.multiaddr, HTTP))
        await settle(20)
        assert counting.given == 3
        plain.resume()
        (await accepting).abort()
        http.resume()
        for _ in range(2):
            (await http.accept()).abort()
        for sock in socks:
            sock.close()


@looped
async def test_silent_peers_of_one_address_end_no_slow_one_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcpreuse, "MAX_PEEKS", 8)
    monkeypatch.setattr(tcpreuse, "UPGRADE_SLOW_S", 0.001)
    monkeypatch.setattr(tcpreuse, "MAX_SLOW_PEEKS", 8)

    async with shared(Kind.PLAIN) as (port, _, listener):
        slow = socket.socket()
        slow.bind(("127.0.1.1", 0))
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", int(port.multiaddr["tcp"])))
        silent = [await open_socket(port.multiaddr) for _ in range(40)]
        await eventually(lambda: port.refused[Refusal.TOO_MANY_SLOW] >= 20)
        await loop.sock_sendall(slow, PLAIN)
        conn = await listener.accept()
        assert conn.block == "127.0.1.1"
        conn.abort()
        for sock in (slow, *silent):
            sock.close()


# -- errors of accept(2) -------------------------------------------------------------------------


@looped
async def test_a_temporary_error_is_paused_over_by_every_listener_and_ends_none() -> None:
    counting = Counting()
    counting.errors = [errno.EMFILE, errno.ECONNABORTED, errno.ENOBUFS]
    port = SharedPort(counting)
    states: list[ListenerState] = []
    node = make_node(
        backoff_min=0.001, backoff_max=0.002, news=Reports(changed=lambda s, *_: states.append(s))
    )
    listeners = [node.upgrader.upgrade_listener(port.listen(kind)) for kind in Kind]
    await eventually(lambda: all(each.accept_errors.total() == 3 for each in listeners))
    for each in listeners:
        assert set(each.accept_errors) == {"EMFILE", "ECONNABORTED", "ENOBUFS"}
        await eventually(lambda: each.state is ListenerState.LISTENING)  # noqa: B023
    assert ListenerState.CLOSED not in states
    outbound = await make_node().dial(port.multiaddr)
    (await listeners[0].accept()).abort()
    outbound.abort()
    for each in listeners:
        await each.close()


@looped
async def test_a_lost_socket_is_bound_anew_once_for_all_listeners() -> None:
    counting = Counting()
    port = SharedPort(counting)
    node = make_node(backoff_min=0.001, backoff_max=0.002)
    listeners = [node.upgrader.upgrade_listener(port.listen(kind)) for kind in Kind]
    addr = port.multiaddr
    await settle(20)
    assert counting.inner.listening_socket is not None
    counting.inner.listening_socket.shutdown(socket.SHUT_RDWR)
    await eventually(lambda: all(each.num_rebinds == 1 for each in listeners))
    assert counting.rebinds == 1
    assert port.multiaddr == addr
    outbound = await make_node().dial(addr)
    (await listeners[0].accept()).abort()
    outbound.abort()
    for each in listeners:
        await each.close()


class Broken(Counting):
    async def accept(self) -> Any:
        raise ZeroDivisionError("a fault of ours")


@looped
async def test_a_port_with_a_fault_ends_its_listeners_rather_than_leave_them_deaf(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = SharedPort(Broken())
    listener = port.listen(Kind.PLAIN)
    with pytest.raises(ListenerClosed):
        await listener.accept()
    await listener.close()
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["p2pcore.tcpreuse"]


# -- the end -------------------------------------------------------------------------------------


@looped
async def test_closing_one_listener_leaves_the_others_and_the_last_one_frees_the_port() -> None:
    before = await settled_descriptors()
    async with shared(Kind.PLAIN, Kind.HTTP) as (port, _, (plain, http)):
        waiting = asyncio.ensure_future(plain.accept())
        await settle(20)
        await plain.close()
        await plain.close()
        with pytest.raises(ListenerClosed):
            await waiting
        gone, good = await said(port.multiaddr, PLAIN), await said(port.multiaddr, HTTP)
        (await http.accept()).abort()
        assert await read_all(gone) == b""
        await eventually(lambda: port.refused == {Refusal.UNWANTED: 1})
        silent = await open_socket(port.multiaddr)
        peeked = await said(port.multiaddr, HTTP)
        await eventually(lambda: http._ready)
        await http.close()
        for sock in (silent, peeked):
            assert await read_all(sock) == b""
        assert is_refused(port.multiaddr)
        for sock in (gone, good, silent, peeked):
            sock.close()
        async with MaListenerOn(port.multiaddr):
            pass
    await eventually(lambda: num_descriptors() <= before)
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


@asynccontextmanager
async def MaListenerOn(addr: Multiaddr) -> AsyncIterator[MaListener]:
    listener = MaListener.bind(addr)
    yield listener
    await listener.close()


@looped
async def test_listeners_that_all_drain_serve_what_the_kernel_has_queued() -> None:
    async with shared(Kind.PLAIN, Kind.HTTP) as (port, _, (plain, http)):
        socks = [await said(port.multiaddr, data) for data in (PLAIN, HTTP, PLAIN)]
        plain.drain()
        http.drain()
        conns = [await plain.accept(), await plain.accept(), await http.accept()]
        for listener in (plain, http):
            with pytest.raises(ListenerClosed):
                await listener.accept()
        assert is_refused(port.multiaddr)
        for each in (*conns, *socks):
            each.abort() if isinstance(each, MaConn) else each.close()


@looped
async def test_one_listener_that_drains_while_another_goes_on_ends_with_what_it_has() -> None:
    async with shared(Kind.PLAIN, Kind.HTTP) as (port, _, (plain, http)):
        sock = await said(port.multiaddr, PLAIN)
        await eventually(lambda: plain._ready)
        plain.drain()
        (await plain.accept()).abort()
        with pytest.raises(ListenerClosed):
            await plain.accept()
        sock.close()
        sock = await said(port.multiaddr, HTTP)
        (await http.accept()).abort()
        sock.close()


@looped
async def test_listening_and_closing_at_once_never_deadlocks() -> None:
    ports = TcpPorts(TcpOptions(share_port=True))
    first = ports.listen(LOOPBACK)
    addr = first.multiaddr

    async def churn(kind: Kind) -> int:
        worked = 0
        for i in range(30):
            try:
                listener = ports.listen(addr, kind)
            except OSError:
                await asyncio.sleep(0)
            else:
                worked += 1
                accepting = asyncio.ensure_future(listener.accept())
                await asyncio.sleep(0 if i % 2 else 0.001)
                await listener.close()
                with pytest.raises(ListenerClosed):
                    await accepting
        return worked

    churning = [asyncio.ensure_future(churn(kind)) for kind in (Kind.HTTP, Kind.TLS, Kind.HTTP)]
    await asyncio.sleep(0)
    await first.close()
    worked = await asyncio.gather(*churning)
    assert worked[1] == 30
    assert sum(worked) > 30  # two of one kind keep each other out
    assert not ports._shared
