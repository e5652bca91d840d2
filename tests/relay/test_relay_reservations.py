"""Reservations: what makes one, when it is renewed, and what happens when the relay goes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from harness import eventually, looped, run, settle
from hosts import BARE
from p2pcore import (
    Host,
    IdentifyOptions,
    ListenError,
    Multiaddr,
    PeerId,
    PrivateKey,
    Stream,
    limits,
)
from p2pcore.errors import IdentityError, RemoteProtocolError
from p2pcore.relay.messages import (
    STOP,
    Hop,
    HopType,
    Reservation,
    Status,
    seal_voucher,
)
from p2pcore.swarm.events import AddrsChanged
from relays import (
    behind,
    fake_relay,
    grant,
    relay_host,
)

NOBODY = PrivateKey.from_seed(bytes([7]) * 32).peer_id()
ECHO = {"echo": True}
IDENTIFY = {"identify": IdentifyOptions(push_delay_s=0.0)}


# -- reservations ------------------------------------------------------------------------------------


@looped
async def test_a_relay_without_vouchers_and_without_addresses_is_good_enough() -> None:
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
        assert one.addrs == [behind(relay)]


@looped
async def test_the_addresses_a_relay_tells_are_ours_too_where_they_are_its_own() -> None:
    told: list[Multiaddr] = []

    async def answer(stream: Stream, request: Hop) -> None:
        reservation = Reservation(int(time.time()) + 3600, tuple(told))
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

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


@looped
async def test_addresses_that_cannot_be_continued_cost_us_none_of_the_others() -> None:
    """A relay may tell what it likes: a path, at whose end nothing can follow; or one with no room."""
    told: list[Multiaddr] = []

    async def answer(stream: Stream, request: Hop) -> None:
        reservation = Reservation(int(time.time()) + 3600, tuple(told))
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

    async with fake_relay(answer) as (relay, _):
        public = Multiaddr(f"/ip4/1.2.3.4/tcp/4001/p2p/{relay.peer_id}")
        told[:] = [
            Multiaddr(f"/unix/a/p2p/{relay.peer_id}"),
            Multiaddr("/udp/1" * (limits.MAX_MULTIADDR_COMPONENTS - 1) + f"/p2p/{relay.peer_id}"),
            Multiaddr("/udp/1" * (limits.MAX_MULTIADDR_COMPONENTS - 2) + f"/p2p/{relay.peer_id}"),
            public,
        ]
        async with Host(**BARE | {"listen": [behind(relay)]}) as one:
            assert one.addrs == [behind(relay), public.encapsulate("/p2p-circuit")]
            assert len(one.addrs_with_peer) == 2


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
            with pytest.raises((IdentityError, RemoteProtocolError)):
                await one.relay.reserve(behind(relay))
            assert one.addrs == []
            assert not one.relay.reservations
            assert STOP not in one.protocols

    one: Any = None
    run(main())


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@looped
async def test_a_reservation_is_renewed_two_minutes_before_it_expires_and_not_sooner() -> None:
    clock = Clock()
    async with fake_relay(grant) as (relay, asked), Host(listen=[], **BARE) as one:
        one.relay._now = clock
        await one.swarm.listen(behind(relay))
        keeper = one.relay.reservations[0]
        clock.ahead = 3600 - limits.RELAY_REFRESH_S - 10
        keeper.look()
        await settle(100)
        assert len(asked) == 1
        clock.ahead += 11
        keeper.look()
        await eventually(lambda: len(asked) == 2)
        assert keeper.is_held
        assert one.addrs == [behind(relay)]


@looped
async def test_a_short_reservation_is_renewed_at_three_quarters_of_its_life() -> None:
    async def answer(stream: Stream, request: Hop) -> None:
        reservation = Reservation(int(time.time()) + 100)
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

    clock = Clock()
    async with fake_relay(answer) as (relay, asked), Host(listen=[], **BARE) as one:
        one.relay._now = clock
        await one.swarm.listen(behind(relay))
        keeper = one.relay.reservations[0]
        clock.ahead = 76
        keeper.look()
        await eventually(lambda: len(asked) == 2)


@looped
async def test_a_relay_whose_clock_is_far_off_is_asked_once_a_day() -> None:
    async def answer(stream: Stream, request: Hop) -> None:
        await stream.write(Hop(HopType.STATUS, reservation=Reservation(2**64 - 1), status=Status.OK).encode())

    clock = Clock()
    async with fake_relay(answer) as (relay, asked), Host(listen=[], **BARE) as one:
        one.relay._now = clock
        await one.swarm.listen(behind(relay))
        clock.ahead = limits.MAX_RESERVATION_S
        one.relay.reservations[0].look()
        await eventually(lambda: len(asked) == 2)


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
        return host.info_of(host.swarm.conns_to_peer(peer)[0])

    run(main())


# -- the first attempt -------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["/ip4/127.0.0.1/tcp/0"]])
@pytest.mark.parametrize("why", ["down", "full", "mute", "no relay"])
@looped
async def test_a_relay_that_gives_nothing_at_the_start_is_tried_again(
    why: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELAY_RETRY_MIN_S", 0.01)
    monkeypatch.setattr(limits, "RELAY_RETRY_MAX_S", 0.05)
    monkeypatch.setattr(limits, "RELAY_RESERVE_TIMEOUT_S", 0.05)
    key = PrivateKey.generate()

    async def answer(stream: Stream, request: Hop) -> None:
        if why == "full":
            await stream.write(Hop(HopType.STATUS, status=Status.RESERVATION_REFUSED).encode())
        elif why == "mute":
            await stream.read_exactly(1)
        else:
            raise RemoteProtocolError("none")

    async with fake_relay(answer, private_key=key) as (relay, _):
        addr, circuit = relay.addrs[0], behind(relay)
        if why == "down":
            await relay.close()
        one = Host(**BARE | ECHO | {"listen": [circuit, *more]})
        events = one.events(AddrsChanged)
        await one.start()
        assert [result.error for result in one.listen_results] == [None] * (1 + len(more))
        assert len(one.addrs) == len(more), "what is not reserved is not told"
    async with relay_host(private_key=key, listen=[addr]), Host(listen=[], **BARE) as dialer:
        async for event in events:
            if circuit in event.addrs:  # type: ignore[attr-defined]
                break
        assert circuit in one.addrs
        assert await dialer.echo(circuit.with_p2p(one.peer_id), b"here") == b"here"
        await one.close()


@looped
async def test_what_a_listener_cannot_mean_is_still_an_error_at_once() -> None:
    async with relay_host() as relay, Host(listen=[], **BARE) as one:
        with pytest.raises(ListenError, match="another peer"):
            await one.swarm.listen(behind(relay).with_p2p(NOBODY))
        assert STOP not in one.protocols
        assert not one.relay.reservations


@looped
async def test_a_relay_that_does_not_answer_holds_a_start_up_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RELAY_CONNECT_TIMEOUT_S", 0.05)

    async def mute(stream: Stream, request: Hop) -> None:
        await stream.read_exactly(1)

    async with fake_relay(mute) as (relay, _), Host(listen=[behind(relay)], **BARE) as one:
        assert one.addrs == []


@looped
async def test_a_start_that_is_given_up_keeps_no_reservation_and_no_listener() -> None:
    async def mute(stream: Stream, request: Hop) -> None:
        await stream.read_exactly(1)

    async with fake_relay(mute) as (relay, asked), Host(listen=[], **BARE) as one:
        listening = asyncio.create_task(one.swarm.listen(behind(relay)))
        await eventually(lambda: asked)
        listening.cancel()
        await asyncio.wait([listening])
        assert not one.relay.reservations
        assert STOP not in one.protocols


@looped
async def test_a_host_closed_while_it_waits_for_its_first_reservation_ends() -> None:
    async def mute(stream: Stream, request: Hop) -> None:
        await stream.read_exactly(1)

    async with fake_relay(mute) as (relay, asked):
        one = Host(listen=[behind(relay)], **BARE)
        starting = asyncio.create_task(one.start())
        await eventually(lambda: asked)
        async with asyncio.timeout(limits.RELAY_CONNECT_TIMEOUT_S / 2):
            await one.close()
            await asyncio.wait([starting])
        starting.exception()


@looped
async def test_a_reservation_that_expires_is_told_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_RETRY_MIN_S", 60.0)  # no attempt before

    async def answer(stream: Stream, request: Hop) -> None:
        reservation = Reservation(int(time.time()) + 4)
        await stream.write(Hop(HopType.STATUS, reservation=reservation, status=Status.OK).encode())

    async with (
        fake_relay(answer) as (relay, asked),
        Host(**BARE | IDENTIFY) as peer,
        Host(**BARE | IDENTIFY | {"listen": [behind(relay), "/ip4/127.0.0.1/tcp/0"]}) as one,
    ):
        with one.events(AddrsChanged) as events:
            await one.connect(peer.addrs_with_peer[0])
            await eventually(lambda: peer.swarm.conns())
            (conn,) = peer.swarm.conns()
            assert behind(relay) in (await peer.identify(conn)).listen_addrs
            event = await anext(events)
            assert event.addrs == tuple(one.addrs)
            assert len(one.addrs) == 1
        await eventually(lambda: peer.info_of(conn).listen_addrs == tuple(one.addrs))
        assert len(asked) == 1


@looped
async def test_a_place_that_is_lost_costs_one_warning_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "RELAY_RETRY_MIN_S", 0.01)
    monkeypatch.setattr(limits, "RELAY_RETRY_MAX_S", 0.01)
    refusals: list[Status] = []
    is_full = False

    async def answer(stream: Stream, request: Hop) -> None:
        if not is_full:
            await grant(stream, request)
            return
        refusals.append(Status.RESERVATION_REFUSED)
        await stream.write(Hop(HopType.STATUS, status=Status.RESERVATION_REFUSED).encode())

    def told(level: int) -> list[str]:
        return [
            each.getMessage() for each in caplog.records if each.levelno == level and "reserv" in each.msg
        ]

    caplog.set_level(logging.INFO, "p2pcore.relay")
    async with fake_relay(answer) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
        for loss in (1, 2):
            is_full = True
            refusals.clear()
            await relay.close_peer(one.peer_id)
            await eventually(lambda: len(refusals) > 2)
            assert one.addrs == []
            assert len(told(logging.WARNING)) == loss
            assert "RESERVATION_REFUSED" in told(logging.WARNING)[-1]
            is_full = False
            await eventually(lambda: one.addrs)
            assert told(logging.INFO)[-1].endswith("holds again")
