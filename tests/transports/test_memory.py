"""The memory transport: numbers of the process, refusals, and hosts that talk without a descriptor."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from harness import looped, run
from nodes import make_node, num_descriptors
from p2pcore import Host
from p2pcore.errors import AddressError, ListenerClosed, PeerIdMismatch
from p2pcore.interfaces import Transport
from p2pcore.transports.memory import MemoryListener, MemoryTransport
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr

ANY = Multiaddr("/memory/0")
PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


def transport() -> MemoryTransport:
    return MemoryTransport(make_node().upgrader)


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("/memory/1", True),
        (f"/memory/18446744073709551615/p2p/{PEER}", True),
        ("/memory/0", False),
        ("/memory/1/ws", False),
        ("/ip4/127.0.0.1/tcp/1", False),
    ],
)
def test_it_dials_numbers(text: str, can: bool) -> None:
    each: Transport = transport()
    assert each.can_dial(Multiaddr(text)) is can
    assert each.protocols == ("memory",)
    assert not each.is_proxy


@looped
async def test_number_zero_takes_a_free_one_and_others_are_taken_once() -> None:
    one, two = MemoryListener.bind(ANY), MemoryListener.bind(ANY)
    assert one.multiaddr != two.multiaddr
    with pytest.raises(OSError) as caught:
        MemoryListener.bind(one.multiaddr)
    assert caught.value.errno == errno.EADDRINUSE
    await one.close()
    again = MemoryListener.bind(one.multiaddr)
    await one.close()  # long over, and not its number any more
    again.connect().abort()
    for each in (again, two):
        await each.close()
    with pytest.raises(AddressError):
        MemoryListener.bind(Multiaddr(f"/memory/1/p2p/{PEER}"))


def test_a_listener_of_a_loop_that_is_over_gives_its_number_back() -> None:
    async def bind() -> Multiaddr:
        return MemoryListener.bind(Multiaddr("/memory/987654321")).multiaddr

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await transport().dial(addr, None)
        await MemoryListener.bind(addr).close()

    addr = run(bind())
    run(main())


@looped
async def test_a_full_backlog_refuses_and_close_ends_who_waits() -> None:
    listener = MemoryListener.bind(ANY, backlog=2)
    waiting = [listener.connect() for _ in range(2)]
    with pytest.raises(ConnectionRefusedError):
        listener.connect()
    (await listener.accept()).abort()
    waiting.append(listener.connect())
    for conn in waiting[1:]:
        await conn.start()
    await listener.close()
    for conn in waiting[1:]:
        assert await conn.mailbox.read(1) == b""
    with pytest.raises(ConnectionRefusedError):
        listener.connect()
    for call in (listener.accept, listener.rebind):
        with pytest.raises(ListenerClosed):
            await call()


@looped
async def test_accept_may_be_cancelled_and_close_wakes_it() -> None:
    listener = MemoryListener.bind(ANY)
    waiting = [asyncio.ensure_future(listener.accept()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    ours = listener.connect()
    theirs = await waiting[1]
    assert theirs.remote_multiaddr == ours.local_multiaddr
    assert theirs.local_multiaddr == ours.remote_multiaddr == listener.multiaddr
    ours.abort()
    late = asyncio.ensure_future(listener.accept())
    await asyncio.sleep(0)
    await listener.close()
    with pytest.raises(ListenerClosed):
        await late


@looped
async def test_start_after_abort_is_refused() -> None:
    listener = MemoryListener.bind(ANY)
    conn = listener.connect()
    conn.abort()
    with pytest.raises(OSError):
        await conn.start()
    await listener.close()


@looped
async def test_dials_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConnectionRefusedError):
        await transport().dial(Multiaddr("/memory/1234567"), None)
    with pytest.raises(AddressError):
        await transport().dial(Multiaddr(f"/memory/1/p2p/{PEER}"), PrivateKey.generate().peer_id())
    listener = await transport().listen(ANY)
    with pytest.raises(PeerIdMismatch):
        await transport().dial(Multiaddr(f"{listener.multiaddr}/p2p/{PEER}"), None)
    await listener.close()


@looped
async def test_hosts_talk_without_a_descriptor() -> None:
    options: Any = {"identify": False}
    before = num_descriptors()
    async with (
        Host(listen=["/memory/0"], echo=True, **options) as host,
        Host(listen=(), **options) as dialler,
    ):
        conn = await dialler.connect(host.addrs_with_peer[0])
        data = os.urandom(3_000_000)
        assert await dialler.echo(conn, data) == data
        assert conn.state.transport == "memory"
        assert num_descriptors() == before
