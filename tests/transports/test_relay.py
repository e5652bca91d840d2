"""The relay client and its listeners, end to end through a relay, and against relays that cheat."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from harness import eventually, run
from p2pcore import (
    AddressError,
    ConnectionClosed,
    DialError,
    Host,
    LimitedConnection,
    ListenerClosed,
    ListenError,
    Multiaddr,
    NoTransport,
    PeerId,
    PeerIdMismatch,
    PrivateKey,
    RelayOptions,
    RelayRefused,
    Stream,
    StreamReset,
    limits,
)
from p2pcore._fast import varint
from p2pcore.circuit import (
    CIRCUIT,
    STOP,
    Hop,
    HopType,
    Limit,
    Reservation,
    Status,
    Stop,
    StopType,
    seal_voucher,
)
from p2pcore.errors import IdentityError, RemoteProtocolError
from p2pcore.interfaces import ConnState
from p2pcore.transports.relay_listener import RelayListener
from relays import BARE, UNLIMITED, Relayed, ask_stop, behind, fake_relay, relay_host, relayed

BEYOND_BUFFERS = 4 * limits.YAMUX_INITIAL_WINDOW_BYTES
NOBODY = PrivateKey.from_seed(bytes([7]) * 32).peer_id()
CONNECT = Stop(StopType.CONNECT, peer=NOBODY)
OK = Stop(StopType.STATUS, status=Status.OK)
ECHO = {"echo": True}
IDENTIFY = {"identify": True, "push_delay_s": 0.0}


def words(n: int) -> bytes:
    return bytes(i % 251 for i in range(n))


def cause_of(error: DialError) -> BaseException:
    """Why the only address failed."""
    ((_, cause),) = error.causes
    return cause


@asynccontextmanager
async def tasks_unchanged() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    gc.collect()
    assert asyncio.all_tasks() == before


# -- connections through a relay -------------------------------------------------------------------


def test_a_node_behind_a_relay_is_reached_and_the_connection_says_how() -> None:
    """W45: the state of a relayed connection shows its security and its muxer."""

    async def main() -> None:
        async with tasks_unchanged(), relayed(UNLIMITED, {"ping": True}) as r:
            assert r.addr == behind(r.relay).with_p2p(r.target.peer_id)
            conn = await r.dialer.connect(r.addr)
            await eventually(lambda: r.target.swarm.conns_to_peer(r.dialer.peer_id))
            there = r.target.swarm.conns_to_peer(r.dialer.peer_id)[0]
            for end in (conn, there):
                assert end.state == ConnState("/noise", "/yamux/1.0.0", "p2p-circuit", True)
                assert end.remote_multiaddr is not None
                assert end.remote_multiaddr.ends_with(f"/p2p/{r.relay.peer_id}/p2p-circuit")
                assert not end.is_limited
            assert conn.remote_multiaddr == behind(r.relay)
            assert conn.remote_peer == r.target.peer_id
            assert there.remote_peer == r.dialer.peer_id
            assert len(await r.dialer.ping(conn, 2)) == 2

    run(main())


def test_more_than_all_buffers_comes_back_as_it_was_sent() -> None:
    async def main() -> None:
        async with relayed(UNLIMITED, ECHO) as r:
            data = words(BEYOND_BUFFERS)
            assert await r.dialer.echo(r.addr, data) == data
            assert r.service.num_circuits == 1

    run(main())


def test_neither_end_nor_the_relay_has_a_task_or_a_handler_for_an_idle_relayed_connection() -> None:
    async def main() -> None:
        async with relayed() as r:
            await r.dialer.connect(r.relay.addrs_with_peer[0])
            await eventually(lambda: r.relay.swarm.num_conns == 2)
            before = asyncio.all_tasks()
            await r.dialer.connect(r.addr)
            await eventually(lambda: not r.relay.swarm.num_handlers_running)
            await eventually(lambda: not r.target.swarm.num_handlers_running)
            await eventually(lambda: asyncio.all_tasks() == before)

    run(main())


def test_a_thousand_streams_at_once_on_one_relayed_connection() -> None:
    async def main() -> None:
        async with relayed(UNLIMITED, ECHO) as r:
            conn = await r.dialer.connect(r.addr)

            async def one(number: int) -> bool:
                text = number.to_bytes(4, "big") * 64
                return await r.dialer.echo(conn, text) == text

            assert all(await asyncio.gather(*map(one, range(1000))))
            assert r.service.num_circuits == 1

    run(main())


def test_half_close_and_reset_reach_the_other_end_through_the_relay() -> None:
    ends: list[Any] = []

    async def serve(stream: Stream) -> None:
        data = await stream.read_exactly(3)
        assert await stream.read() == b"", "its end has come, and ours goes on"
        await stream.write(data + b" seen")
        ends.append(data)

    async def reset(stream: Stream) -> None:
        try:
            await stream.read()
        except StreamReset as error:
            ends.append(error.code)

    async def main() -> None:
        async with relayed() as r:
            r.target.set_stream_handler("/half", serve)
            r.target.set_stream_handler("/reset", reset)
            stream = await r.dialer.new_stream(r.addr, "/half")
            await stream.write(b"all")
            await stream.close_write()
            assert await stream.read_exactly(8) == b"all seen"
            assert await stream.read() == b""
            stream = await r.dialer.new_stream(r.addr, ["/reset", "/other"])
            stream.reset(77)
            await eventually(lambda: ends == [b"all", 77])

    run(main())


def test_identify_runs_over_it_and_peers_are_told_the_relayed_address() -> None:
    async def main() -> None:
        async with relayed(RelayOptions(), IDENTIFY, IDENTIFY) as r:
            conn = await r.dialer.connect(r.addr)
            assert conn.is_limited
            info = await r.dialer.identify(conn)
            assert info.listen_addrs == info.record_addrs == (behind(r.relay),)
            assert STOP in info.protocols

    run(main())


def test_an_orderly_close_ends_both_ends_and_the_circuit() -> None:
    async def main() -> None:
        async with relayed() as r:
            conn = await r.dialer.connect(r.addr)
            await eventually(lambda: r.target.swarm.conns_to_peer(r.dialer.peer_id))
            await conn.close()
            await eventually(lambda: not r.target.swarm.conns_to_peer(r.dialer.peer_id))
            await eventually(lambda: not r.service.num_circuits)
            assert r.dialer.swarm.conns_to_peer(r.relay.peer_id), "the way to the relay stays"

    run(main())


def test_two_nodes_behind_one_relay_reach_each_other() -> None:
    async def main() -> None:
        async with relayed(UNLIMITED, ECHO) as r, Host(**BARE | {"listen": [behind(r.relay)]}) as other:
            assert await other.echo(r.addr, b"neighbour") == b"neighbour"

    run(main())


def test_a_relay_that_is_connected_needs_no_address() -> None:
    async def main() -> None:
        async with relayed(UNLIMITED, ECHO) as r:
            short = f"/p2p/{r.relay.peer_id}/p2p-circuit/p2p/{r.target.peer_id}"
            async with Host(listen=[], **BARE) as stranger:
                with pytest.raises(DialError):
                    await stranger.connect(short)
            await r.dialer.connect(r.relay.addrs_with_peer[0])
            assert await r.dialer.echo(short, b"x") == b"x"

    run(main())


# -- limited connections ---------------------------------------------------------------------------


def test_a_stream_on_a_limited_connection_is_opened_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with relayed(RelayOptions(), ECHO | {"ping": True}) as r:
            conn = await r.dialer.connect(r.addr)
            monkeypatch.setattr(limits, "DIAL_PEER_TIMEOUT_S", 0.05)  # how long a direct one is waited for
            assert conn.is_limited
            await eventually(lambda: r.target.swarm.conns_to_peer(r.dialer.peer_id))
            assert r.target.swarm.conns_to_peer(r.dialer.peer_id)[0].is_limited
            for opening in (
                conn.new_stream("/echo/1.0.0"),
                r.dialer.new_stream(conn, "/echo/1.0.0"),
                r.dialer.swarm.new_stream(r.target.peer_id, "/echo/1.0.0"),
                r.dialer.echo(conn, b"x"),
            ):
                with pytest.raises(LimitedConnection):
                    await opening
            assert await r.dialer.echo(conn, b"asked for", allow_limited=True) == b"asked for"
            assert await r.dialer.ping(conn), "ping is allowed, as in go-libp2p"

    run(main())


def test_a_direct_connection_is_used_rather_than_a_limited_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with relay_host(RelayOptions()) as relay:
            listen = [behind(relay), "/ip4/127.0.0.1/tcp/0"]
            async with Host(**BARE | ECHO | {"listen": listen}) as target, Host(listen=[], **BARE) as dialer:
                limited = await dialer.swarm.dial_addr(behind(relay).with_p2p(target.peer_id))
                streams = [await limited.new_stream("/echo/1.0.0", True) for _ in range(3)]
                direct = next(addr for addr in target.addrs_with_peer if not addr.is_relayed)
                conn = await dialer.swarm.dial_addr(direct)
                stream = await dialer.swarm.new_stream(target.peer_id, "/echo/1.0.0")
                assert stream.conn is conn
                stream = await dialer.swarm.new_stream(target.peer_id, "/echo/1.0.0", allow_limited=True)
                assert stream.conn is conn, "however few streams it has"
                await conn.close()
                monkeypatch.setattr(limits, "DIAL_PEER_TIMEOUT_S", 0.05)  # how long another is waited for
                with pytest.raises(LimitedConnection):
                    await dialer.swarm.new_stream(target.peer_id, "/echo/1.0.0")
                assert len(streams) == limited.num_streams

    run(main())


def test_the_relays_limit_of_bytes_ends_the_connection() -> None:
    async def main() -> None:
        async with relayed(RelayOptions(circuit_bytes=20000), ECHO) as r:
            conn = await r.dialer.connect(r.addr)
            assert len(await r.dialer.echo(conn, bytes(10000), True)) == 10000
            with pytest.raises((ConnectionClosed, StreamReset)):
                await r.dialer.echo(conn, bytes(10000), True)
            await eventually(lambda: conn.is_closed)

    run(main())


# -- dialling: what goes wrong -----------------------------------------------------------------------


def test_a_target_that_is_not_there_is_a_refusal_with_its_status() -> None:
    async def main() -> None:
        async with relayed() as r:
            with pytest.raises(DialError) as caught:
                await r.dialer.connect(behind(r.relay).with_p2p(NOBODY))
            refused = cause_of(caught.value)
            assert isinstance(refused, RelayRefused)
            assert refused.status == Status.NO_RESERVATION
            assert "NO_RESERVATION (204)" in str(refused)

    run(main())


@pytest.mark.parametrize(
    "text",
    [
        "{relay}/p2p-circuit",
        "{relay}/p2p-circuit/p2p/{nobody}/p2p-circuit/p2p/{target}",
        "/ip4/127.0.0.1/tcp/1/p2p-circuit/p2p/{target}",
        "{relay}/p2p-circuit/p2p/{relay_id}",
    ],
)
def test_an_address_that_makes_no_circuit_is_refused_before_anything_is_dialled(text: str) -> None:
    async def main() -> None:
        async with relayed() as r:
            relay = r.relay.addrs_with_peer[0]
            addr = Multiaddr(
                text.format(relay=relay, nobody=NOBODY, target=r.target.peer_id, relay_id=r.relay.peer_id)
            )
            with pytest.raises(DialError) as caught:
                await r.dialer.connect(addr)
            assert isinstance(cause_of(caught.value), AddressError)
            assert not r.dialer.swarm.num_conns
            assert not r.dialer.relay.can_dial(addr) or addr.peer_id is None

    run(main())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Hop(HopType.STATUS, status=Status.RESOURCE_LIMIT_EXCEEDED).encode(), RelayRefused),
        (Hop(HopType.STATUS, status=Status.UNUSED).encode(), RelayRefused),
        (bytes.fromhex("05080228cd01"), RelayRefused),
        (Hop(HopType.STATUS).encode(), RelayRefused),
        (Hop(HopType.CONNECT, peer=NOBODY).encode(), RemoteProtocolError),
        (b"\x02\xff\xff", RemoteProtocolError),
        (varint.encode(4097) + bytes(10), Exception),
        (b"noise before the status" + Hop(HopType.STATUS, status=Status.OK).encode(), Exception),
        (b"\x10cut", Exception),
        (b"", Exception),
    ],
    ids=[
        "refused",
        "unused",
        "unknown",
        "no status",
        "connect",
        "garbage",
        "too long",
        "bytes before",
        "cut off",
        "nothing",
    ],
)
def test_a_relay_that_does_not_say_ok_is_an_error_and_its_stream_is_reset(
    answer: bytes, expected: Any
) -> None:
    async def say(stream: Stream, request: Hop) -> None:
        await stream.write(answer)

    async def main() -> None:
        async with fake_relay(say) as (relay, asked), Host(listen=[], **BARE) as dialer:
            addr = behind(relay).with_p2p(NOBODY)
            with pytest.raises(DialError) as caught:
                await dialer.connect(addr)
            assert isinstance(cause_of(caught.value), expected)
            assert isinstance(cause_of(caught.value), Exception)
            with pytest.raises(ListenError):
                await dialer.swarm.listen(behind(relay))
            assert [request.type for request in asked] == [HopType.CONNECT, HopType.RESERVE]
            await eventually(lambda: not dialer.swarm.conns_to_peer(relay.peer_id)[0].num_streams)

    run(main())


def test_whoever_answers_must_be_the_target(caplog: pytest.LogCaptureFixture) -> None:
    """A relay that connects us with somebody else gains nothing."""

    async def main() -> None:
        async with relay_host() as true, Host(**BARE | {"listen": [behind(true)]}) as other:

            async def misdirect(stream: Stream, request: Hop) -> Stream:
                stop = await relay.new_stream(other.peer_id, STOP)
                return await cross(stream, stop, other)

            async def cross(stream: Stream, stop: Stream, whom: Host) -> Stream:
                from p2pcore._fast.splice import Splice
                from p2pcore.circuit import read_body

                await stop.write(Stop(StopType.CONNECT, peer=dialer.peer_id).encode())
                await read_body(stop)
                await stream.write(Hop(HopType.STATUS, status=Status.OK).encode())
                Splice(stream, stop, -1, 0, lambda error: None).start()  # type: ignore[arg-type]
                return stream

            async with fake_relay(grant) as (relay, _), Host(listen=[], **BARE) as dialer:
                await other.swarm.listen(behind(relay))
                relay.set_stream_handler(
                    "/libp2p/circuit/relay/0.2.0/hop", lambda stream: _read_then(misdirect, stream)
                )
                with pytest.raises(DialError) as caught:
                    await dialer.connect(behind(relay).with_p2p(NOBODY))
                assert isinstance(cause_of(caught.value), PeerIdMismatch)

    run(main())


async def _read_then(answer: Any, stream: Stream) -> Any:
    from p2pcore.circuit import read_body

    return await answer(stream, Hop.parse(await read_body(stream)))


def test_a_relay_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_DIAL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(limits, "RELAY_RESERVE_TIMEOUT_S", 0.05)

    async def mute(stream: Stream, request: Hop) -> None:
        await stream.read_exactly(1)

    async def main() -> None:
        async with fake_relay(mute) as (relay, _), Host(listen=[], **BARE) as dialer:
            with pytest.raises(DialError, match="deadline"):
                await dialer.connect(behind(relay).with_p2p(NOBODY))
            with pytest.raises(ListenError, match="deadline"):
                await dialer.swarm.listen(behind(relay))

    run(main())


# -- reservations ------------------------------------------------------------------------------------


async def grant(stream: Stream, request: Hop) -> None:
    """A relay that grants whatever it is asked, for an hour, without a voucher, as rust-libp2p does."""
    expire = int(time.time()) + 3600
    await stream.write(Hop(HopType.STATUS, reservation=Reservation(expire), status=Status.OK).encode())


def test_a_relay_without_vouchers_and_without_addresses_is_good_enough() -> None:
    async def main() -> None:
        async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
            assert one.addrs == [behind(relay)]

    run(main())


def test_the_addresses_a_relay_tells_are_ours_too_where_they_are_its_own() -> None:
    told: list[Multiaddr] = []

    async def answer(stream: Stream, request: Hop) -> None:
        reservation = Reservation(int(time.time()) + 3600, tuple(told))
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

    async def main() -> None:
        async with fake_relay(answer) as (relay, _):
            public = Multiaddr(f"/ip4/1.2.3.4/tcp/4001/p2p/{relay.peer_id}")
            told[:] = [
                public,
                Multiaddr("/ip4/1.2.3.5/tcp/1"),
                Multiaddr(f"/ip4/1.2.3.6/tcp/1/p2p/{NOBODY}"),
                public.encapsulate("/p2p-circuit").with_p2p(relay.peer_id),
            ]
            async with Host(**BARE | {"listen": [behind(relay)]}) as one:
                assert one.addrs == [behind(relay), public.encapsulate("/p2p-circuit")]

    run(main())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda relay, us, now: Reservation(now + 3600, (), b"no envelope"),
        lambda relay, us, now: Reservation(now + 3600, (), b""),
        lambda relay, us, now: Reservation(now + 3600, (), seal_voucher(PrivateKey.generate(), us, now + 9)),
        lambda relay, us, now: Reservation(now + 3600, (), seal_voucher(relay, NOBODY, now + 3600)),
        lambda relay, us, now: Reservation(now + 3600, (), seal_voucher(relay, us, now - 1)),
        lambda relay, us, now: Reservation(now - 1, (), seal_voucher(relay, us, now + 3600)),
        lambda relay, us, now: Reservation(0),
        lambda relay, us, now: None,
    ],
    ids=["garbage", "empty", "another signer", "another peer", "expired", "past", "no expiry", "none"],
)
def test_a_reservation_with_a_bad_voucher_or_in_the_past_is_none(spoil: Any) -> None:
    key = PrivateKey.generate()

    async def answer(stream: Stream, request: Hop) -> None:
        reservation = spoil(key, one.peer_id, int(time.time()))
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

    async def main() -> None:
        nonlocal one
        async with fake_relay(answer, private_key=key) as (relay, _), Host(listen=[], **BARE) as one:
            with pytest.raises(ListenError) as caught:
                await one.swarm.listen(behind(relay))
            assert isinstance(cause_of_listen(caught.value), IdentityError | RemoteProtocolError)
            assert one.addrs == []
            assert not one.relay.reservations
            assert STOP not in one.protocols

    one: Any = None
    run(main())


def cause_of_listen(error: ListenError) -> BaseException:
    ((_, cause),) = error.causes
    return cause


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def test_a_reservation_is_renewed_two_minutes_before_it_expires_and_not_sooner() -> None:
    async def main() -> None:
        clock = Clock()
        async with fake_relay(grant) as (relay, asked), Host(listen=[], **BARE) as one:
            one.relay._now = clock
            await one.swarm.listen(behind(relay))
            keeper = one.relay.reservations[0]
            clock.ahead = 3600 - limits.RELAY_REFRESH_S - 10
            keeper.look()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(asked) == 1
            clock.ahead += 11
            keeper.look()
            await eventually(lambda: len(asked) == 2)
            assert keeper.is_held
            assert one.addrs == [behind(relay)]

    run(main())


def test_a_short_reservation_is_renewed_at_three_quarters_of_its_life() -> None:
    async def answer(stream: Stream, request: Hop) -> None:
        reservation = Reservation(int(time.time()) + 100)
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

    async def main() -> None:
        clock = Clock()
        async with fake_relay(answer) as (relay, asked), Host(listen=[], **BARE) as one:
            one.relay._now = clock
            await one.swarm.listen(behind(relay))
            keeper = one.relay.reservations[0]
            clock.ahead = 76
            keeper.look()
            await eventually(lambda: len(asked) == 2)

    run(main())


def test_a_relay_whose_clock_is_far_off_is_asked_once_a_day() -> None:
    async def answer(stream: Stream, request: Hop) -> None:
        await stream.write(Hop(HopType.STATUS, reservation=Reservation(2**64 - 1), status=Status.OK).encode())

    async def main() -> None:
        clock = Clock()
        async with fake_relay(answer) as (relay, asked), Host(listen=[], **BARE) as one:
            one.relay._now = clock
            await one.swarm.listen(behind(relay))
            clock.ahead = limits.MAX_RESERVATION_S
            one.relay.reservations[0].look()
            await eventually(lambda: len(asked) == 2)

    run(main())


def test_a_refused_renewal_is_tried_again_and_the_address_is_told_until_it_expires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RELAY_RETRY_MIN_S", 0.01)
    monkeypatch.setattr(limits, "RELAY_RETRY_MAX_S", 0.02)
    refuse = False

    async def answer(stream: Stream, request: Hop) -> None:
        if refuse:
            await stream.write(Hop(HopType.STATUS, status=Status.RESERVATION_REFUSED).encode())
        else:
            await grant(stream, request)

    async def main() -> None:
        nonlocal refuse
        clock = Clock()
        async with fake_relay(answer) as (relay, asked), Host(listen=[], **BARE) as one:
            one.relay._now = clock
            await one.swarm.listen(behind(relay))
            refuse, clock.ahead = True, 3590
            one.relay.reservations[0].look()
            await eventually(lambda: len(asked) > 3)
            assert one.addrs == [behind(relay)]
            clock.ahead = 3601
            assert one.addrs == [], "what has expired leads nowhere"
            refuse, clock.ahead = False, 0
            await eventually(lambda: one.relay.reservations[0].is_held)
            assert one.addrs == [behind(relay)]

    run(main())


def test_a_relay_that_dies_and_comes_back_is_used_again_and_peers_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RELAY_RETRY_MIN_S", 0.01)
    monkeypatch.setattr(limits, "RELAY_RETRY_MAX_S", 0.05)
    key = PrivateKey.generate()

    async def main() -> None:
        async with Host(**BARE | IDENTIFY | ECHO) as peer:
            async with relay_host(private_key=key) as relay:
                addr = relay.addrs[0]
                listen = [behind(relay), "/ip4/127.0.0.1/tcp/0"]
                one = Host(**BARE | ECHO | IDENTIFY | {"listen": listen})
                await one.start()
                await one.connect(peer.addrs_with_peer[0])
                told = await peer.identify(await conn_to(peer, one.peer_id))
                assert told.listen_addrs == tuple(one.addrs) == (behind(relay), one.addrs[1])
            await eventually(lambda: len(one.addrs) == 1)
            await eventually(lambda: info(peer, one.peer_id).listen_addrs == tuple(one.addrs))
            async with relay_host(private_key=key, listen=[addr]) as relay, Host(listen=[], **BARE) as dialer:
                await eventually(lambda: len(one.addrs) == 2)
                await eventually(lambda: info(peer, one.peer_id).listen_addrs == tuple(one.addrs))
                assert await dialer.echo(one.addrs_with_peer[0], b"back") == b"back"
                await one.close()

    async def conn_to(host: Host, peer: PeerId) -> Any:
        await eventually(lambda: host.swarm.best_conn(peer))
        return host.swarm.best_conn(peer)

    def info(host: Host, peer: PeerId) -> Any:
        return host.swarm.conns_to_peer(peer)[0].info

    run(main())


# -- listeners -----------------------------------------------------------------------------------------


def test_a_bare_circuit_listener_takes_what_comes_through_any_reservation() -> None:
    async def main() -> None:
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

    run(main())


def test_a_second_listener_or_reservation_at_one_relay_is_refused() -> None:
    async def main() -> None:
        async with relayed() as r:
            with pytest.raises(ListenError, match="already"):
                await r.target.swarm.listen(behind(r.relay))
            with pytest.raises(OSError, match="already"):
                await r.target.relay.reserve(behind(r.relay))
            with pytest.raises(AddressError):
                await r.target.relay.reserve(behind(r.relay).with_p2p(NOBODY))

    run(main())


def test_closing_a_listener_really_ends_it() -> None:
    """2.10: go-libp2p's closed nothing, then everything."""

    async def main() -> None:
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

    def addr_of(r: Relayed) -> Multiaddr:
        return behind(r.relay).with_p2p(r.target.peer_id)

    run(main())


def test_draining_ends_relayed_and_direct_connections_and_leaves_no_task() -> None:
    async def main() -> None:
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

    run(main())


def test_a_node_that_closes_in_the_middle_of_everything_leaves_no_task() -> None:
    async def main() -> None:
        async with tasks_unchanged(), relayed(UNLIMITED, ECHO) as r:
            dials = [asyncio.ensure_future(r.dialer.swarm.dial_addr(r.addr)) for _ in range(5)]
            await asyncio.sleep(0)
            await r.target.close()
            await asyncio.gather(*dials, return_exceptions=True)

    run(main())


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
def test_a_bad_stop_message_is_answered_with_its_status(data: bytes, status: Status) -> None:
    async def main() -> None:
        async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
            assert (await ask_stop(relay, one.peer_id, data)).status is status
            assert one.swarm.num_conns == 1

    run(main())


def test_a_circuit_from_a_peer_that_is_no_relay_of_ours_is_refused() -> None:
    async def main() -> None:
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

    run(main())


def test_a_node_that_does_not_listen_behind_relays_does_not_speak_the_stop_protocol() -> None:
    async def main() -> None:
        async with Host(**BARE) as one:
            assert STOP not in one.protocols

    run(main())


def test_a_dialler_that_is_not_who_the_relay_says_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    from p2pcore._fast.splice import Splice
    from p2pcore.circuit import read_body

    async def main() -> None:
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

    run(main())


def test_nothing_is_upgraded_until_the_target_has_answered_and_limits_make_it_limited() -> None:
    async def main() -> None:
        async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
            stream = await relay.new_stream(one.peer_id, STOP)
            await stream.write(Stop(StopType.CONNECT, peer=NOBODY, limit=Limit()).encode())
            assert await stream.read_exactly(5) == OK.encode()
            await stream.write(b"not multistream at all" * 9)
            with pytest.raises((StreamReset, AssertionError)):
                assert await stream.read_exactly(20) == b""

    run(main())


class Waiting:
    """Stands for a connection that is offered; only its identity matters."""


def listener(closed: list[RelayListener]) -> RelayListener:
    async def close(each: RelayListener) -> None:
        closed.append(each)

    return RelayListener(CIRCUIT, close)


def test_a_circuit_that_nobody_accepts_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_ACCEPT_TIMEOUT_S", 0.02)

    async def main() -> None:
        one = listener([])
        assert await one.offer(Waiting()) is False  # type: ignore[arg-type]
        accepting = asyncio.ensure_future(one.accept())
        offered: Any = Waiting()
        assert await one.offer(offered) is True
        assert await accepting is offered

    run(main())


def test_only_so_many_circuits_wait_to_be_accepted_and_they_are_taken_in_turn() -> None:
    async def main() -> None:
        one = listener([])
        offers: list[Any] = [Waiting() for _ in range(limits.MAX_RELAY_WAITING)]
        waiting = [asyncio.ensure_future(one.offer(each)) for each in offers]
        await asyncio.sleep(0)
        assert await one.offer(Waiting()) is False  # type: ignore[arg-type]
        assert [await one.accept() for _ in offers] == offers
        assert all(await asyncio.gather(*waiting))

    run(main())


def test_a_listener_that_finishes_gives_out_what_waits_and_one_that_closes_refuses_it() -> None:
    async def main() -> None:
        closed: list[RelayListener] = []
        one = listener(closed)
        offers: list[Any] = [Waiting(), Waiting()]
        waiting = [asyncio.ensure_future(one.offer(each)) for each in offers]
        await asyncio.sleep(0)
        one.finish()
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

    run(main())


def test_an_accept_that_waits_is_ended_by_close_and_a_cancelled_one_takes_nothing() -> None:
    async def main() -> None:
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

    run(main())


def test_a_host_takes_no_other_proxy_addresses() -> None:
    async def main() -> None:
        async with Host(listen=[], **BARE) as one:
            with pytest.raises(ListenError) as caught:
                await one.swarm.listen("/ip4/127.0.0.1/udp/1")
            assert isinstance(cause_of_listen(caught.value), NoTransport)
            assert replace(UNLIMITED, circuit_s=1).limit == Limit(1, 0)

    run(main())
