"""The relay service: every status, every cap, every limit, and what ends a circuit."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from harness import eventually, looped, run
from hosts import BARE
from p2pcore import (
    DialError,
    Host,
    Multiaddr,
    PeerId,
    PrivateKey,
    RelayOptions,
    RelayRefused,
    Stream,
    StreamReset,
    limits,
)
from p2pcore._fast.codec import varint
from p2pcore.relay.ledger import NotPermitted
from p2pcore.relay.messages import (
    HOP,
    STOP,
    Hop,
    HopType,
    Limit,
    Reservation,
    Status,
    Stop,
    StopType,
    check_voucher,
    read_body,
)
from p2pcore.relay.service import RelayService
from relays import UNLIMITED, ask, ask_hop, behind, relay_host, relayed

NOBODY = PrivateKey.from_seed(bytes([7]) * 32).peer_id()
RESERVE = Hop(HopType.RESERVE)


def connect_to(peer: PeerId) -> Hop:
    return Hop(HopType.CONNECT, peer=peer)


@asynccontextmanager
async def clients(relay: Host, count: int) -> AsyncIterator[list[Host]]:
    """Hosts that only dial."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Host(listen=[], **BARE)) for _ in range(count)]


async def answers_ok(stream: Stream) -> Stream:
    """A stop handler that agrees, and then lets nobody touch the stream."""
    await read_body(stream)
    await stream.write(Stop(StopType.STATUS, status=Status.OK).encode())
    return stream


# -- reservations --------------------------------------------------------------------------------


@looped
async def test_a_reservation_has_an_expiry_our_addresses_a_right_voucher_and_the_limits() -> None:
    async with relay_host(RelayOptions()) as relay, clients(relay, 1) as (one,):
        answer = await ask_hop(one, relay.addrs_with_peer[0], RESERVE)
        assert answer.status is Status.OK
        assert answer.limit == Limit(120, 131072)
        granted = answer.reservation
        assert granted is not None
        assert granted.addrs == tuple(relay.addrs_with_peer)
        now = relay.relay_service._now()  # type: ignore[union-attr]
        assert now + 3590 < granted.expire <= now + 3600
        assert granted.voucher is not None
        assert check_voucher(granted.voucher, relay.peer_id, one.peer_id, now) == granted.expire
        assert relay.relay_service.num_reservations == 1  # type: ignore[union-attr]


@looped
async def test_a_relay_without_limits_tells_none() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        assert (await ask_hop(one, relay.addrs_with_peer[0], RESERVE)).limit is None


@looped
async def test_it_answers_a_client_that_does_not_end_its_half() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        answer = await ask_hop(one, relay.addrs_with_peer[0], RESERVE, end=False)
        assert answer.status is Status.OK


@looped
async def test_a_renewal_replaces_the_reservation_and_counts_once() -> None:
    options = replace(UNLIMITED, max_reservations=1, max_reservations_per_ip=1)
    async with relay_host(options) as relay, clients(relay, 1) as (one,):
        for _ in range(3):
            assert (await ask_hop(one, relay.addrs_with_peer[0], RESERVE)).status is Status.OK
        assert relay.relay_service.num_reservations == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("cap", ["max_reservations", "max_reservations_per_ip"])
@looped
async def test_one_reservation_more_than_the_cap_is_refused_and_one_that_ends_makes_room(cap: str) -> None:
    options = RelayOptions(**{cap: 2})
    async with relay_host(options) as relay, clients(relay, 3) as hosts:
        service, addr = relay.relay_service, relay.addrs_with_peer[0]
        assert service is not None
        statuses = [(await ask_hop(host, addr, RESERVE)).status for host in hosts]
        assert statuses == [Status.OK, Status.OK, Status.RESERVATION_REFUSED]
        assert (await ask_hop(hosts[0], addr, RESERVE)).status is Status.OK, "a renewal still goes"
        await hosts[0].swarm.close_peer(relay.peer_id)
        await eventually(lambda: service.num_reservations == 1)
        assert (await ask_hop(hosts[2], addr, RESERVE)).status is Status.OK
        assert service.refused == {"RESERVATION_REFUSED": 1}


@looped
async def test_who_may_not_reserve_is_told_so() -> None:
    seen: list[Any] = []

    def may_reserve(peer: PeerId, addr: Multiaddr | None) -> bool:
        seen.append((peer, addr))
        return False

    async with relay_host(RelayOptions(may_reserve=may_reserve)) as relay, clients(relay, 1) as (one,):
        answer = await ask_hop(one, relay.addrs_with_peer[0], RESERVE)
        assert answer.status is Status.PERMISSION_DENIED
        assert seen == [(one.peer_id, one.swarm.conns()[0].local_multiaddr)]


@pytest.mark.parametrize("fault", [KeyError, asyncio.CancelledError])
@looped
async def test_a_callback_that_raises_does_not_grant(fault: type[BaseException]) -> None:
    def raises(*args: object) -> bool:
        raise fault("the database is down")

    options = RelayOptions(may_reserve=raises, may_connect=raises)
    async with relay_host(options) as relay, clients(relay, 1) as (one,):
        for request in (RESERVE, connect_to(NOBODY)):
            answer = await ask_hop(one, relay.addrs_with_peer[0], request)
            assert answer.status is Status.PERMISSION_DENIED


@looped
async def test_nothing_is_asked_of_a_relay_through_a_relay() -> None:
    async with (
        relay_host() as first,
        relay_host(listen=[behind(first)]) as second,
        clients(first, 1) as (one,),
    ):
        through = second.addrs_with_peer[0]
        for request in (RESERVE, connect_to(NOBODY)):
            assert (await ask_hop(one, through, request)).status is Status.PERMISSION_DENIED


@looped
async def test_a_reservation_ends_when_its_time_is_up_and_takes_its_circuits_with_it() -> None:
    async with relayed() as r:
        later = 0.0
        r.service._now = lambda: 1e9 + later
        answer = await ask_hop(r.target, r.relay.peer_id, RESERVE)
        assert answer.reservation is not None
        assert answer.reservation.expire == int(1e9) + 3600
        conn = await r.dialer.connect(r.addr)
        assert r.service.num_circuits == 1
        later = 3601.0
        async with Host(listen=[], **BARE) as other:
            status = (await ask_hop(other, r.relay.addrs_with_peer[0], connect_to(r.target.peer_id))).status
        assert status is Status.NO_RESERVATION
        await eventually(lambda: conn.is_closed)
        assert r.service.num_reservations == r.service.num_circuits == 0


@looped
async def test_the_coarse_timer_ends_what_has_expired_and_runs_only_while_there_is_something() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        service = relay.relay_service
        assert service is not None
        assert service._sweep is None
        await ask_hop(one, relay.addrs_with_peer[0], RESERVE)
        assert service._sweep is not None
        service._sweep.cancel()
        service._swept()
        assert service._sweep is not None
        service._now = lambda: 1e12
        service._sweep.cancel()
        service._swept()
        assert service._sweep is None
        assert service.num_reservations == 0


# -- circuits ------------------------------------------------------------------------------------


@looped
async def test_a_circuit_to_a_peer_without_a_reservation_is_refused() -> None:
    async with relay_host() as relay, clients(relay, 2) as (one, other):
        await other.connect(relay.addrs_with_peer[0])
        for target in (NOBODY, other.peer_id):
            answer = await ask_hop(one, relay.addrs_with_peer[0], connect_to(target))
            assert answer.status is Status.NO_RESERVATION


@looped
async def test_a_circuit_to_the_source_or_to_the_relay_itself_is_refused() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        await ask_hop(one, relay.addrs_with_peer[0], RESERVE)
        for target in (one.peer_id, relay.peer_id):
            answer = await ask_hop(one, relay.addrs_with_peer[0], connect_to(target))
            assert answer.status is Status.PERMISSION_DENIED


@looped
async def test_who_may_not_connect_is_told_so() -> None:
    seen: list[Any] = []

    def may_connect(source: PeerId, addr: Multiaddr | None, target: PeerId) -> bool:
        seen.append((source, target))
        return False

    async with relayed(replace(UNLIMITED, may_connect=may_connect)) as r:
        with pytest.raises(DialError) as caught:
            await r.dialer.connect(r.addr)
        refused = caught.value.causes[0][1]
        assert isinstance(refused, RelayRefused)
        assert refused.status == Status.PERMISSION_DENIED
        assert seen == [(r.dialer.peer_id, r.target.peer_id)]


def test_more_circuits_than_a_peer_or_an_ip_may_have_are_refused_and_ended_ones_make_room() -> None:
    async def main(options: RelayOptions) -> None:
        async with relayed(options) as r:
            conns = [await r.dialer.swarm.dial_addr(r.addr) for _ in range(2)]
            with pytest.raises(DialError, match="RESOURCE_LIMIT_EXCEEDED"):
                await r.dialer.swarm.dial_addr(r.addr)
            await conns[0].close()
            await eventually(lambda: r.service.num_circuits == 1)
            await r.dialer.swarm.dial_addr(r.addr)
            await r.dialer.swarm.close_peer(r.target.peer_id)
            await eventually(lambda: r.service.num_circuits == 0)
            assert not r.service._ends
            assert not r.service._board.ledger._ends
            assert not r.service._board.ledger._sources

    run(main(replace(UNLIMITED, max_circuits_per_peer=2)))
    run(main(replace(UNLIMITED, max_circuits_per_ip=2)))


@pytest.mark.parametrize(
    "answer",
    [
        Stop(StopType.STATUS, status=Status.PERMISSION_DENIED).encode(),
        Stop(StopType.STATUS, status=Status.UNUSED).encode(),
        bytes.fromhex("080120cd01"),
        Stop(StopType.STATUS).encode(),
        Stop(StopType.CONNECT, peer=NOBODY).encode(),
        b"\x02\xff\xff",
        varint.encode(4097) + bytes(4097),
        b"\x20short",
        b"",
    ],
    ids=["refused", "unused", "unknown", "no status", "connect", "garbage", "too long", "cut off", "nothing"],
)
@looped
async def test_a_target_that_answers_anything_but_ok_is_a_failed_connection(answer: bytes) -> None:
    async def serve(stream: Stream) -> None:
        await read_body(stream)
        await stream.write(answer)

    async with relay_host() as relay, clients(relay, 2) as (one, target):
        target.set_stream_handler(STOP, serve)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        told = await ask_hop(one, relay.addrs_with_peer[0], connect_to(target.peer_id))
        assert told.status is Status.CONNECTION_FAILED
        assert not relay.relay_service._ends  # type: ignore[union-attr]
        assert not relay.relay_service._board.ledger._ends  # type: ignore[union-attr]


@looped
async def test_a_target_that_does_not_speak_the_stop_protocol_is_a_failed_connection() -> None:
    async with relay_host() as relay, clients(relay, 2) as (one, target):
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        told = await ask_hop(one, relay.addrs_with_peer[0], connect_to(target.peer_id))
        assert told.status is Status.CONNECTION_FAILED


@looped
async def test_a_target_that_does_not_answer_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_STOP_HANDSHAKE_TIMEOUT_S", 0.05)

    async def mute(stream: Stream) -> None:
        await stream.read_exactly(4096)

    async with relay_host() as relay, clients(relay, 2) as (one, target):
        target.set_stream_handler(STOP, mute)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        told = await ask_hop(one, relay.addrs_with_peer[0], connect_to(target.peer_id))
        assert told.status is Status.CONNECTION_FAILED


@looped
async def test_the_target_is_told_who_comes_and_both_are_told_the_limits() -> None:
    asked: list[Stop] = []

    async def serve(stream: Stream) -> Stream:
        asked.append(Stop.parse(await read_body(stream)))
        await stream.write(Stop(StopType.STATUS, status=Status.OK).encode())
        return stream

    async with (
        relay_host(RelayOptions(circuit_s=7, circuit_bytes=9)) as relay,
        clients(relay, 2) as hosts,
    ):
        one, target = hosts
        target.set_stream_handler(STOP, serve)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        stream = await one.new_stream(relay.addrs_with_peer[0], HOP)
        await stream.write(connect_to(target.peer_id).encode())
        told = Hop.parse(await read_body(stream))
        assert told == Hop(HopType.STATUS, limit=Limit(7, 9), status=Status.OK)
        assert asked == [Stop(StopType.CONNECT, peer=one.peer_id, limit=Limit(7, 9))]


@looped
async def test_what_follows_a_status_and_a_connect_at_once_is_the_circuits() -> None:
    got: list[bytes] = []

    async def serve(stream: Stream) -> None:
        await read_body(stream)
        await stream.write(Stop(StopType.STATUS, status=Status.OK).encode() + b"hello")
        got.append(await stream.read_exactly(7))

    async with relay_host() as relay, clients(relay, 2) as (one, target):
        target.set_stream_handler(STOP, serve)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        stream = await one.new_stream(relay.addrs_with_peer[0], HOP)
        await stream.write(connect_to(target.peer_id).encode() + b"at once")
        assert Hop.parse(await read_body(stream)).status is Status.OK
        assert await stream.read_exactly(5) == b"hello"
        await eventually(lambda: got == [b"at once"])


@looped
async def test_the_bytes_of_a_circuit_are_cut_at_the_limit_each_way() -> None:
    async with relay_host(RelayOptions(circuit_bytes=1000)) as relay, clients(relay, 2) as (one, target):
        target.set_stream_handler(STOP, answers_ok)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        stream = await one.new_stream(relay.addrs_with_peer[0], HOP)
        await stream.write(connect_to(target.peer_id).encode())
        assert Hop.parse(await read_body(stream)).status is Status.OK
        await stream.write(bytes(1000))
        service = relay.relay_service
        assert service is not None
        await eventually(lambda: next(iter(service._circuits)).passed == (1000, 0))
        await stream.write(b"x")
        with pytest.raises(StreamReset):
            await stream.read()
        await eventually(lambda: service.num_circuits == 0)
        assert service.num_bytes == 1000


@looped
async def test_the_time_of_a_circuit_is_cut() -> None:
    async with relayed(RelayOptions(circuit_s=1)) as r:
        conn = await r.dialer.connect(r.addr)
        await eventually(lambda: conn.is_closed)
        await eventually(lambda: r.service.num_circuits == 0)


@looped
async def test_a_target_that_goes_ends_its_circuits_and_its_reservation() -> None:
    async with relayed() as r:
        conn = await r.dialer.connect(r.addr)
        for each in r.relay.swarm.conns_to_peer(r.target.peer_id):
            each.abort()
        await eventually(lambda: conn.is_closed)
        await eventually(lambda: r.service.num_circuits == 0)


@looped
async def test_a_source_that_goes_ends_its_circuits_and_leaves_the_reservation() -> None:
    async with relayed() as r:
        await r.dialer.connect(r.addr)
        await r.dialer.swarm.close_peer(r.relay.peer_id)
        await eventually(lambda: r.service.num_circuits == 0)
        assert r.service.num_reservations == 1
        await eventually(lambda: not r.target.swarm.conns_to_peer(r.dialer.peer_id))


@looped
async def test_a_second_connection_to_the_relay_keeps_the_reservation_when_the_first_ends() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        first = await one.swarm.dial_addr(relay.addrs_with_peer[0])
        await one.swarm.dial_addr(relay.addrs_with_peer[0])
        await ask_hop(one, first, RESERVE)
        await first.close()
        await eventually(lambda: relay.swarm.num_conns == 1)
        service = relay.relay_service
        assert service is not None
        assert service.num_reservations == 1
        await one.swarm.close_peer(relay.peer_id)
        await eventually(lambda: service.num_reservations == 0)


@looped
async def test_closing_the_relay_ends_circuits_and_leaves_nothing() -> None:
    before = len(asyncio.all_tasks())
    async with relayed() as r:
        conn = await r.dialer.connect(r.addr)
        service: RelayService = r.service
        service.close()
        service.close()
        await eventually(lambda: conn.is_closed)
        assert service.num_circuits == service.num_reservations == 0
        assert HOP not in r.relay.protocols
        assert service._sweep is None
    gc.collect()
    assert len(asyncio.all_tasks()) == before


# -- circuits that other processes of the same relay open -------------------------------------------


@looped
async def test_a_stream_for_another_process_ends_with_the_reservation() -> None:
    async with relay_host() as relay, clients(relay, 1) as (target,):
        target.set_stream_handler(STOP, answers_ok)
        service: Any = relay.relay_service
        with pytest.raises(NotPermitted, match="NO_RESERVATION"):
            await service.open_for(NOBODY, target.peer_id)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        stop, ended = await service.open_for(NOBODY, target.peer_id)
        assert not stop.is_closed
        assert service._ends == {target.peer_id: 1}
        service._now = lambda: 1e12
        service._drop_expired()
        assert isinstance(stop.close_reason, StreamReset)
        ended()
        assert not service._ends
        assert not service._stops
        with pytest.raises(NotPermitted, match="NO_RESERVATION"):
            await service.open_for(NOBODY, target.peer_id)


class SlowBoard:
    """A board of several processes that does not answer."""

    def __init__(self) -> None:
        self.told: list[object] = []

    async def reserve(self, peer: PeerId, ip: str, expire: float) -> None:
        self.told.append("reserve")
        await asyncio.Event().wait()

    async def open(self, number: int, source: PeerId, ip: str, target: PeerId) -> None:
        self.told.append("open")
        await asyncio.Event().wait()

    def release(self, peer: PeerId) -> None:
        self.told.append(peer)

    def closed(self, number: int, num_bytes: int) -> None:
        self.told.append((number, num_bytes))


@looped
async def test_what_was_perhaps_counted_elsewhere_is_given_back_when_the_peer_gives_up() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        service: Any = relay.relay_service
        board = SlowBoard()
        service.share(board)
        for request, given_back in ((RESERVE, one.peer_id), (connect_to(NOBODY), (1, 0))):
            stream = await one.new_stream(relay.addrs_with_peer[0], HOP)
            await stream.write(request.encode())
            await eventually(lambda: len(board.told) % 2)
            stream.reset()
            await eventually(lambda: board.told[-1] == given_back)  # noqa: B023 - it is awaited here
        assert (service.num_reservations, service.num_circuits, dict(service._ends)) == (0, 0, {})


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (varint.encode(4097) + bytes(4097), Status.MALFORMED_MESSAGE),
        (b"\xff\xff\xff\xff\x0f", Status.MALFORMED_MESSAGE),
        (b"\x80\x00", Status.MALFORMED_MESSAGE),
        (b"\x02\xff\xff", Status.MALFORMED_MESSAGE),
        (b"\x00", Status.MALFORMED_MESSAGE),
        (b"\x10short", Status.MALFORMED_MESSAGE),
        (b"", Status.MALFORMED_MESSAGE),
        (b"\x02\x08\x07", Status.MALFORMED_MESSAGE),
        (Hop(HopType.STATUS, status=Status.OK).encode(), Status.UNEXPECTED_MESSAGE),
        (Hop(HopType.CONNECT).encode(), Status.MALFORMED_MESSAGE),
        (bytes.fromhex("0608011202") + b"\x0a\x00", Status.MALFORMED_MESSAGE),
        (bytes.fromhex("0908011205") + b"\x0a\x03bad", Status.MALFORMED_MESSAGE),
    ],
    ids=[
        "over 4096",
        "endless length",
        "long form",
        "no protobuf",
        "no type",
        "cut off",
        "nothing",
        "unknown type",
        "status",
        "no peer",
        "empty peer",
        "bad peer",
    ],
)
@looped
async def test_a_bad_request_is_answered_with_its_status(data: bytes, status: Status) -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        assert (await ask_hop(one, relay.addrs_with_peer[0], data)).status is status
        assert relay.relay_service.refused == {status.name: 1}  # type: ignore[union-attr]
        assert (await ask_hop(one, relay.addrs_with_peer[0], RESERVE)).status is Status.OK


@looped
async def test_a_peer_that_asks_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_STREAM_TIMEOUT_S", 0.05)

    async with relay_host() as relay, clients(relay, 1) as (one,):
        with pytest.raises(StreamReset):
            await ask(one, relay.addrs_with_peer[0], HOP, b"\x02", end=False)


@looped
async def test_as_many_addresses_are_told_as_the_message_has_room_for() -> None:
    async with relay_host() as relay, clients(relay, 1) as (one,):
        relay.swarm.announce = lambda addrs: [
            *addrs,
            *(Multiaddr(f"/dns/{'x' * 60}.{'y' * 60}{n}/tcp/1") for n in range(99)),
        ]
        answer = await ask_hop(one, relay.addrs_with_peer[0], RESERVE)
        assert answer.status is Status.OK
        granted: Reservation | None = answer.reservation
        assert granted is not None
        assert 10 < len(granted.addrs) < 64
        assert all(addr.peer_id == relay.peer_id for addr in granted.addrs)
