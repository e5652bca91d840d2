"""Peers notice a drain: they are told, go elsewhere, and lose no call; peers that do not know are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import eventually, looped, seconds
from hosts import pair
from p2pcore import (
    DialError,
    Direction,
    DrainOptions,
    GoAway,
    Host,
    PeerId,
    PrivateKey,
    ProtocolNotSupported,
    Stream,
    StreamReset,
    codes,
    limits,
)
from p2pcore.protocols import identify
from p2pcore.swarm.events import Draining, PeerDraining
from swarm_fakes import FakeConn, make_swarm, peer

CALL = "/call/1"
KNOWN: dict[str, Any] = {"ping": False}
"""Options of a host that identifies its peers."""


async def answer(stream: Stream) -> None:
    """Answers one call after some turns of the loop."""
    request = await stream.read_exactly(4)
    for _ in range(5):
        await asyncio.sleep(0)
    await stream.write(request[::-1])


def make_server(**options: Any) -> Host:
    host = Host(**KNOWN | options)
    host.set_stream_handler(CALL, answer)
    return host


async def call(client: Host, target: Any) -> None:
    """One call. Raises what new_stream raises; an error after that is an AssertionError: the call was cut."""
    stream = await client.new_stream(target, CALL)
    try:
        await stream.write(b"ping")
        assert await stream.read_exactly(4) == b"gnip"
        await stream.close()
    except OSError as error:
        raise AssertionError(f"a call was cut: {error!r}") from error


@asynccontextmanager
async def caller(client: Host, targets: list[Any]) -> AsyncIterator[list[Any]]:
    """Calls back to back, at the first of `targets` that takes calls. Yields the targets that answered."""
    answered: list[Any] = []

    async def go_on() -> None:
        left = list(targets)
        while left:
            try:
                await call(client, left[0])
            except (GoAway, DialError):
                left.pop(0)
            else:
                answered.append(left[0])
        raise AssertionError("no host takes calls")

    task = asyncio.create_task(go_on())
    try:
        yield answered
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def knows(client: Host, host: Host) -> None:
    """Waits until both ends have identified each other."""
    for one, other in ((client, host), (host, client)):
        await eventually(lambda one=one, other=other: _info(one, other.peer_id) is not None)  # type: ignore[misc]


def _info(host: Host, peer: PeerId) -> object:
    conn = host.swarm.best_conn(peer)
    return None if conn is None else host.info_of(conn)


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_a_client_with_calls_back_to_back_loses_none_and_does_not_hold_a_drain_up(muxer: str) -> None:
    async with (
        make_server(muxers=(muxer,)) as one,
        make_server(muxers=(muxer,)) as two,
        Host(listen=(), muxers=(muxer,), **KNOWN) as client,
    ):
        targets = [host.addrs_with_peer[0] for host in (one, two)]
        async with caller(client, targets) as answered:
            await knows(client, one)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await one.drain(seconds(60)) == 0
            assert loop.time() - began < seconds(20)
            num = len(answered)
            await eventually(lambda: len(answered) > num + 20)
            assert set(answered[num:]) == {targets[1]}


@looped
async def test_a_call_in_progress_is_answered_and_then_the_drain_ends() -> None:
    gate = asyncio.Event()

    async def wait(stream: Stream) -> None:
        await gate.wait()
        await stream.write(b"done")

    async with make_server() as server, Host(listen=(), **KNOWN) as client:
        server.set_stream_handler("/wait/1", wait)
        addr = server.addrs_with_peer[0]
        stream = await client.new_stream(addr, "/wait/1")
        await stream.write(b"x")
        await knows(client, server)
        events = client.events(PeerDraining)
        drained = asyncio.create_task(server.drain(seconds(60)))
        assert isinstance(event := await anext(events), PeerDraining)
        assert event.conn is client.swarm.conns()[0]
        with pytest.raises(
            DialError
        ):  # the listener is closed: this goes elsewhere, and there is nothing else
            await client.new_stream(addr, CALL)
        assert not drained.done()
        gate.set()
        assert await stream.read_exactly(4) == b"done"
        assert await drained == 0


@looped
async def test_a_client_goes_to_the_next_node_at_the_same_address_by_itself() -> None:
    key = PrivateKey.generate()
    async with make_server(private_key=key) as old, Host(listen=(), **KNOWN) as client:
        addr = old.addrs_with_peer[0]
        await call(client, addr)
        await knows(client, old)
        stream = await client.new_stream(addr, CALL)  # it goes on while the client uses the next node
        drained = asyncio.create_task(old.drain(seconds(60)))
        await eventually(lambda: client.swarm.best_conn(old.peer_id) is None)
        async with make_server(private_key=key, listen=[addr.without_p2p()]) as new:
            await call(client, old.peer_id)  # without an address: where the old node was
            assert new.swarm.num_conns == 1
            await stream.write(b"ping")
            assert await stream.read_exactly(4) == b"gnip"
            await stream.close()
            assert await drained == 0
            await call(client, old.peer_id)
            assert len(client.swarm.conns()) == 1


@looped
async def test_a_peer_that_cannot_be_told_is_refused_after_a_while_with_a_code_that_says_elsewhere() -> None:
    drain = DrainOptions(refuse_after_s=0.0)
    async with pair(server={"echo": True, "drain": drain}) as p:
        going = await p.conn.new_stream("/echo/1.0.0")
        await going.write(b"x")
        assert await going.read_exactly(1) == b"x"
        drained = asyncio.create_task(p.server.drain(seconds(60)))
        await eventually(lambda: p.server.swarm._streams.is_refusing)
        stream = await p.conn.new_stream("/echo/1.0.0")
        with pytest.raises(StreamReset) as refused:
            await stream.read()
        assert (refused.value.code, refused.value.remote) == (codes.STREAM_SHUTDOWN, True)
        await going.write(b"y")
        assert await going.read_exactly(1) == b"y"
        with pytest.raises(StreamReset):  # two protocols: the answer is awaited, and the connection left
            await p.dialer.swarm.new_stream(p.server.peer_id, ["/echo/1.0.0", "/other"])
        assert p.dialer.swarm.best_conn(p.server.peer_id) is None
        await going.close()
        assert await drained == 0


@looped
async def test_new_streams_are_served_until_the_time_to_refuse_them() -> None:
    async with pair(server={"echo": True, "drain": DrainOptions(refuse_after_s=None)}) as p:
        going = await p.conn.new_stream("/echo/1.0.0")
        await going.write(b"x")
        drained = asyncio.create_task(p.server.drain(seconds(60)))
        await eventually(lambda: not p.server.swarm.listen_addresses())
        for _ in range(3):
            await asyncio.sleep(limits.DRAIN_LOOK_S)
            assert await p.dialer.echo(p.conn, b"again") == b"again"
        await going.close()
        assert await drained == 0


@looped
async def test_readiness_goes_first_and_listeners_stay_for_the_delay() -> None:
    async with make_server(drain=DrainOptions(delay_s=0.3)) as server, Host(listen=(), **KNOWN) as client:
        assert not server.is_draining
        events = server.events(Draining)
        drained = asyncio.create_task(server.drain(7))
        event = await anext(events)
        assert event == Draining(0.3, 7)
        assert server.is_draining
        await call(client, server.addrs_with_peer[0])  # a new connection, still served
        assert await drained == 0
        assert not server.addrs


@looped
async def test_a_delay_given_to_drain_replaces_the_option() -> None:
    async with make_server(drain=DrainOptions(delay_s=1000)) as server:
        assert await server.drain(7, delay_s=0) == 0


@looped
async def test_a_peer_is_told_that_nothing_is_served_any_more() -> None:
    async with make_server() as server, Host(listen=(), **KNOWN) as client:
        conn = await client.connect(server.addrs_with_peer[0])
        await knows(client, server)
        stream = await client.new_stream(conn, CALL)
        drained = asyncio.create_task(server.drain(seconds(60)))
        await eventually(lambda: (info := client.info_of(conn)) and CALL not in info.protocols)
        info = client.info_of(conn)
        assert info is not None
        assert info.protocols == identify.DRAINING_PROTOCOLS
        stream.reset()
        assert await drained == 0


@looped
async def test_a_peer_that_we_are_still_identifying_is_told_too() -> None:
    """Else its connection is closed between two calls, before it knows, and the next call is cut."""
    may_answer = asyncio.Event()
    async with make_server() as server, Host(listen=(), **KNOWN) as client:

        async def slowly(stream: Stream) -> None:
            await may_answer.wait()
            await client._identify.serve(stream)

        client.set_stream_handler(identify.PROTOCOL, slowly)
        conn = await client.connect(server.addrs_with_peer[0])
        await client.identify(conn)
        noticed = asyncio.ensure_future(anext(client.events(PeerDraining)))
        draining = asyncio.ensure_future(server.drain(seconds(30)))
        await eventually(lambda: server._identify._is_draining)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not conn.is_closed
        may_answer.set()
        await asyncio.wait([noticed, draining], return_when=asyncio.FIRST_COMPLETED)
        assert noticed.done(), "the drain is over, and the peer has not heard of it"
        assert noticed.result().conn is conn
        await draining


@looped
async def test_a_peer_that_does_not_read_what_it_is_told_holds_a_drain_up_no_longer_than_the_refusals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def deaf(self: Any, stream: Stream) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(limits, "DRAIN_GRACE_S", 0.0)
    monkeypatch.setattr(identify.IdentifyService, "serve_push", deaf)
    async with (
        make_server(drain=DrainOptions(refuse_after_s=0.2)) as server,
        Host(listen=(), **KNOWN) as client,
    ):
        await client.connect(server.addrs_with_peer[0])
        await knows(client, server)
        assert await server.drain(seconds(60)) == 0


@looped
async def test_no_connection_is_closed_before_its_peer_had_the_time_to_hear_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = asyncio.Event()
    serve_push = identify.IdentifyService.serve_push

    async def slow(self: Any, stream: Stream) -> None:
        await heard.wait()
        await serve_push(self, stream)

    monkeypatch.setattr(limits, "DRAIN_GRACE_S", 0.0)
    monkeypatch.setattr(limits, "DRAIN_TELLS", 1)
    monkeypatch.setattr(identify.IdentifyService, "serve_push", slow)
    async with (
        make_server(drain=DrainOptions(refuse_after_s=None)) as server,
        Host(listen=(), **KNOWN) as one,
        Host(listen=(), **KNOWN) as two,
    ):
        monkeypatch.setattr(limits, "DRAIN_REFUSE_AFTER_S", seconds(60))
        for client in (one, two):
            await client.connect(server.addrs_with_peer[0])
            await knows(client, server)
        drained = asyncio.create_task(server.drain(seconds(60)))
        await asyncio.sleep(5 * limits.DRAIN_LOOK_S)
        assert server.swarm.num_conns == 2
        heard.set()
        assert await drained == 0


@looped
async def test_a_connection_to_a_draining_peer_is_closed_here_once_it_has_no_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LEAVING_LOOK_S", 0.01)
    async with pair(server={"echo": True}) as p:
        stream = await p.conn.new_stream("/echo/1.0.0")
        p.dialer.swarm.peer_drains(p.conn)
        p.dialer.swarm.peer_drains(p.conn)
        await asyncio.sleep(0.05)
        await stream.write(b"x")
        assert await stream.read_exactly(1) == b"x"
        assert p.dialer.swarm.num_conns == 1
        await stream.close()
        await eventually(lambda: not p.dialer.swarm.num_conns)
        assert p.dialer.swarm._conns.leaving == set()


@looped
async def test_the_connection_that_replaces_a_leaving_one_is_no_duplicate() -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    old, new = FakeConn(peer(1), Direction.OUTBOUND, streams=1), FakeConn(peer(1), Direction.OUTBOUND)
    leaving = swarm.add_conn(old)
    swarm.peer_drains(leaving)
    fresh = swarm.add_conn(new)
    assert fresh not in swarm._duplicates
    assert swarm.best_conn(peer(1)) is fresh
    old.end()
    await asyncio.sleep(0)
    assert swarm.best_conn(peer(1)) is fresh


@looped
async def test_an_ordinary_error_does_not_make_a_client_leave() -> None:
    async with pair() as p:
        with pytest.raises(ProtocolNotSupported):
            await p.dialer.new_stream(p.server.peer_id, ["/a", "/b"])
        assert p.dialer.swarm.best_conn(p.server.peer_id) is p.conn


@pytest.mark.parametrize(
    "wrong", [{"delay_s": -1}, {"delay_s": 1e9}, {"refuse_after_s": -1}, {"refuse_after_s": "x"}]
)
def test_options_of_a_drain_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        DrainOptions(**wrong)
