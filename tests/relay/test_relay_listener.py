"""Listening behind relays: what is taken, what is refused and how, and the end of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from harness import eventually, looped
from hosts import BARE
from p2pcore import (
    AddressError,
    DialError,
    Host,
    ListenerClosed,
    ListenError,
    Multiaddr,
    PrivateKey,
    Stream,
    StreamReset,
    limits,
)
from p2pcore._fast.codec import varint
from p2pcore._fast.mux.splice import Splice
from p2pcore.relay.listener import RelayListener
from p2pcore.relay.messages import (
    CIRCUIT,
    STOP,
    Hop,
    HopType,
    Limit,
    Status,
    Stop,
    StopType,
    read_body,
)
from relays import (
    UNLIMITED,
    Relayed,
    ask_stop,
    behind,
    fake_relay,
    grant,
    relay_host,
    relayed,
    tasks_unchanged,
)

NOBODY = PrivateKey.from_seed(bytes([7]) * 32).peer_id()
CONNECT = Stop(StopType.CONNECT, peer=NOBODY)
OK = Stop(StopType.STATUS, status=Status.OK)
ECHO = {"echo": True}


# -- listeners -----------------------------------------------------------------------------------------


@looped
async def test_a_bare_circuit_listener_takes_what_comes_through_any_reservation() -> None:
    async with (
        relay_host() as first,
        relay_host() as second,
        Host(**BARE | ECHO | {"listen": [CIRCUIT]}) as one,
        Host(listen=[], **BARE) as dialer,
    ):
        assert one.addrs == [], "nobody can use it before there is a reservation"
        for relay in (first, second):
            await one.relay.reserve(behind(relay))
        assert one.addrs == [behind(first), behind(second)]
        for addr in one.addrs_with_peer:
            conn = await dialer.swarm.dial_addr(addr)
            assert await dialer.echo(conn, b"here") == b"here"


@looped
async def test_a_second_listener_or_reservation_at_one_relay_is_refused() -> None:
    async with relayed() as r:
        with pytest.raises(ListenError, match="already"):
            await r.target.swarm.listen(behind(r.relay))
        with pytest.raises(OSError, match="already"):
            await r.target.relay.reserve(behind(r.relay))
        with pytest.raises(AddressError):
            await r.target.relay.reserve(behind(r.relay).with_p2p(NOBODY))


@looped
async def test_closing_a_listener_really_ends_it() -> None:
    """2.10: go-libp2p's closed nothing, then everything."""

    def addr_of(r: Relayed) -> Multiaddr:
        return behind(r.relay).with_p2p(r.target.peer_id)

    async with tasks_unchanged(), relayed(UNLIMITED, ECHO) as r:
        conn = await r.dialer.connect(r.addr)
        assert await r.dialer.echo(conn, b"x") == b"x"
        await r.target.swarm.listen_close(behind(r.relay))
        assert r.target.addrs == []
        assert not r.target.relay.reservations
        assert STOP not in r.target.protocols
        assert await r.dialer.echo(conn, b"lives on") == b"lives on"
        with pytest.raises(DialError, match="CONNECTION_FAILED"):
            await r.dialer.swarm.dial_addr(r.addr if r.target.addrs else addr_of(r))
        await r.target.swarm.listen(behind(r.relay))
        assert r.target.addrs == [behind(r.relay)]
        await r.dialer.swarm.dial_addr(r.addr)


@looped
async def test_draining_ends_relayed_and_direct_connections_and_leaves_no_task() -> None:
    async with tasks_unchanged(), relayed(UNLIMITED, ECHO) as r:
        stream = await r.dialer.new_stream(r.addr, "/echo/1.0.0")
        await stream.write(b"going on")
        assert await stream.read_exactly(8) == b"going on"
        draining = asyncio.ensure_future(r.target.drain(20))
        await asyncio.sleep(0)
        await stream.write(b"until it ends")
        assert await stream.read_exactly(13) == b"until it ends"
        await stream.close()
        assert await draining == 0


@looped
async def test_a_node_that_closes_in_the_middle_of_everything_leaves_no_task() -> None:
    async with tasks_unchanged(), relayed(UNLIMITED, ECHO) as r:
        dials = [asyncio.ensure_future(r.dialer.swarm.dial_addr(r.addr)) for _ in range(5)]
        await asyncio.sleep(0)
        await r.target.close()
        await asyncio.gather(*dials, return_exceptions=True)


# -- stop streams: what goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (varint.encode(4097) + bytes(4097), Status.MALFORMED_MESSAGE),
        (b"\xff\xff\xff", Status.MALFORMED_MESSAGE),
        (b"\x02\xff\xff", Status.MALFORMED_MESSAGE),
        (b"\x00", Status.MALFORMED_MESSAGE),
        (b"\x10cut", Status.MALFORMED_MESSAGE),
        (b"\x02\x08\x07", Status.MALFORMED_MESSAGE),
        (b"", Status.MALFORMED_MESSAGE),
        (Stop(StopType.CONNECT).encode(), Status.MALFORMED_MESSAGE),
        (bytes.fromhex("0608001202") + b"\x0a\x00", Status.MALFORMED_MESSAGE),
        (OK.encode(), Status.UNEXPECTED_MESSAGE),
    ],
    ids=[
        "over 4096",
        "endless length",
        "no protobuf",
        "no type",
        "cut off",
        "unknown type",
        "nothing",
        "no peer",
        "bad peer",
        "status",
    ],
)
@looped
async def test_a_bad_stop_message_is_answered_with_its_status(data: bytes, status: Status) -> None:
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
        assert (await ask_stop(relay, one.peer_id, data)).status is status
        assert one.swarm.num_conns == 1


@looped
async def test_while_accepting_pauses_circuits_are_refused() -> None:
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
        one.swarm.pause_accepting()
        assert (await ask_stop(relay, one.peer_id, CONNECT)).status is Status.RESOURCE_LIMIT_EXCEEDED
        assert [each.is_paused for each in one.relay._listeners.values()] == [True]
        one.swarm.resume_accepting()
        assert [each.is_paused for each in one.relay._listeners.values()] == [False]


@looped
async def test_a_circuit_from_a_peer_that_is_no_relay_of_ours_is_refused() -> None:
    listen = ["/ip4/127.0.0.1/tcp/0"]
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": listen}) as one:
        await one.swarm.listen(behind(relay))
        async with Host(listen=[], **BARE) as stranger:
            direct = one.addrs_with_peer[0]
            assert not direct.is_relayed
            assert (await ask_stop(stranger, direct, CONNECT)).status is Status.PERMISSION_DENIED
        one.relay._keepers[relay.peer_id]._now = lambda: 1e12
        told = await ask_stop(relay, one.peer_id, CONNECT)
        assert told.status is Status.PERMISSION_DENIED, "nor one whose reservation has expired"


@looped
async def test_a_node_that_does_not_listen_behind_relays_does_not_speak_the_stop_protocol() -> None:
    async with Host(**BARE) as one:
        assert STOP not in one.protocols


@looped
async def test_a_dialler_that_is_not_who_the_relay_says_is_refused(caplog: pytest.LogCaptureFixture) -> None:

    caplog.set_level(logging.DEBUG, "p2pcore.listener")
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:

        async def lie(stream: Stream) -> Stream:
            await read_body(stream)
            stop = await relay.new_stream(one.peer_id, STOP)
            await stop.write(CONNECT.encode())
            assert Stop.parse(await read_body(stop)) == OK
            await stream.write(Hop(HopType.STATUS, status=Status.OK).encode())
            Splice(stream, stop, -1, 0, lambda error: None).start()  # type: ignore[arg-type]
            return stream

        relay.set_stream_handler("/libp2p/circuit/relay/0.2.0/hop", lie)
        async with Host(listen=[], **BARE) as dialer:
            conn = await dialer.connect(behind(relay).with_p2p(one.peer_id))
            await eventually(lambda: conn.is_closed)
            assert not one.swarm.conns_to_peer(dialer.peer_id)
    assert f"expected peer {NOBODY}" in caplog.text


@looped
async def test_nothing_is_upgraded_until_the_target_has_answered_and_limits_make_it_limited() -> None:
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
        stream = await relay.new_stream(one.peer_id, STOP)
        await stream.write(Stop(StopType.CONNECT, peer=NOBODY, limit=Limit()).encode())
        assert await stream.read_exactly(5) == OK.encode()
        await stream.write(b"not multistream at all" * 9)
        with pytest.raises(StreamReset):
            await stream.read()


class Waiting:
    """Stands for a connection that is offered; only its identity matters."""


def listener(closed: list[RelayListener]) -> RelayListener:
    async def close(each: RelayListener) -> None:
        closed.append(each)

    return RelayListener(CIRCUIT, close)


@looped
async def test_a_circuit_that_nobody_accepts_is_refused_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RELAY_ACCEPT_TIMEOUT_S", 0.02)

    one = listener([])
    assert await one.offer(Waiting()) is False  # type: ignore[arg-type]
    accepting = asyncio.ensure_future(one.accept())
    offered: Any = Waiting()
    assert await one.offer(offered) is True
    assert await accepting is offered


@looped
async def test_only_so_many_circuits_wait_to_be_accepted_and_they_are_taken_in_turn() -> None:
    one = listener([])
    offers: list[Any] = [Waiting() for _ in range(limits.MAX_RELAY_WAITING)]
    waiting = [asyncio.ensure_future(one.offer(each)) for each in offers]
    await asyncio.sleep(0)
    assert await one.offer(Waiting()) is False  # type: ignore[arg-type]
    assert [await one.accept() for _ in offers] == offers
    assert all(await asyncio.gather(*waiting))


@looped
async def test_a_listener_that_drains_gives_out_what_waits_and_one_that_closes_refuses_it() -> None:
    closed: list[RelayListener] = []
    one = listener(closed)
    offers: list[Any] = [Waiting(), Waiting()]
    waiting = [asyncio.ensure_future(one.offer(each)) for each in offers]
    await asyncio.sleep(0)
    one.drain()
    assert await one.offer(Waiting()) is False  # type: ignore[arg-type]
    assert await one.accept() is offers[0]
    await one.rebind()
    await one.close()
    await one.close()
    assert closed == [one]
    assert await asyncio.gather(*waiting) == [True, False]
    for call in (one.accept, one.rebind):
        with pytest.raises(ListenerClosed):
            await call()


@looped
async def test_an_accept_that_waits_is_ended_by_close_and_a_cancelled_one_takes_nothing() -> None:
    one = listener([])
    accepting = asyncio.ensure_future(one.accept())
    await asyncio.sleep(0)
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    offered: Any = Waiting()
    waiting = asyncio.ensure_future(one.offer(offered))
    assert await one.accept() is offered
    assert await waiting
    accepting = asyncio.ensure_future(one.accept())
    await asyncio.sleep(0)
    await one.close()
    with pytest.raises(ListenerClosed):
        await accepting


@looped
async def test_each_of_several_accepts_gets_a_circuit() -> None:
    one = listener([])
    accepting = [asyncio.ensure_future(one.accept()) for _ in range(2)]
    await asyncio.sleep(0)
    offers: list[Any] = [Waiting(), Waiting()]
    assert await asyncio.gather(*(one.offer(each) for each in offers)) == [True, True]
    assert await asyncio.gather(*accepting) == offers
