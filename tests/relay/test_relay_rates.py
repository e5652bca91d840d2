"""What a source may cost a relay and its target: rates of circuits and of reservations, bytes over a time."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import replace

from harness import eventually, looped
from hosts import BARE
from p2pcore import Host, P2PError, PeerId, PrivateKey, RelayOptions, Stream, limits
from p2pcore.relay.conn import RelayedConn
from p2pcore.relay.ledger import Ledger, NotPermitted
from p2pcore.relay.messages import HOP, STOP, Hop, HopType, Status, Stop, StopType, read_body
from p2pcore.relay.rates import Rates
from relays import UNLIMITED, ask_hop, behind, fake_relay, grant, relay_host, relayed
from virtual_time import virtual

RESERVE = Hop(HopType.RESERVE)
OTHERS = [PrivateKey.from_seed(bytes([seed]) * 32).peer_id() for seed in range(3)]


async def open_and_reset(host: Host, relay: Host, target: Host) -> None:
    """Asks for a circuit, and takes it back when the relay has answered."""
    with suppress(P2PError):
        stream = await host.new_stream(relay.addrs_with_peer[0], HOP)
        await stream.write(Hop(HopType.CONNECT, peer=target.peer_id).encode())
        await read_body(stream)
        stream.reset()


@looped
async def test_circuits_opened_and_reset_are_charged_to_their_source_and_others_get_theirs() -> None:
    offered = 0

    async with (
        relayed(replace(UNLIMITED, circuits_per_min_per_peer=20)) as r,
        Host(listen=[], **BARE) as attacker,
    ):
        serve_stop = r.target.relay.serve_stop

        async def counted(stream: Stream) -> Stream | None:
            nonlocal offered
            offered += 1
            return await serve_stop(stream)

        r.target.set_stream_handler(STOP, counted)
        for _ in range(10):
            await asyncio.gather(*(open_and_reset(attacker, r.relay, r.target) for _ in range(10)))
        assert offered == 20, "the target sees no more of it"
        assert r.service.refused["RESOURCE_LIMIT_EXCEEDED"] == 80
        for _ in range(10):  # the honest client: one circuit after another
            conn = await r.dialer.swarm.dial_addr(r.addr)
            await conn.close()
        assert len(r.relay.swarm.conns_to_peer(r.target.peer_id)) == 1


@looped
async def test_one_address_cannot_hold_all_circuits_to_a_target() -> None:
    ledger = Ledger(RelayOptions())
    first, second, target = OTHERS

    ledger.reserve(None, target, "192.0.2.9", time.time() + 3600)
    numbers = itertools.count()

    def take(source: PeerId, ip: str) -> int:
        """How many circuits `source` gets."""
        for count in range(100):
            try:
                ledger.open(None, next(numbers), source, ip, target)
            except NotPermitted:
                return count
        raise AssertionError

    assert take(first, "192.0.2.1") == 12, "an honest source needs one"
    assert take(second, "192.0.2.1") == 0, "another id of the same address gets no more"
    assert take(second, "192.0.2.2") == 2
    assert take(second, "192.0.2.3") == 1


@virtual
async def test_the_busiest_honest_source_is_never_refused() -> None:
    rates = Rates(RelayOptions())
    source, target, ip = OTHERS[0], OTHERS[1], "192.0.2.1"
    for _ in range(1000):  # an hour of 16 circuits at a time that live for 2 seconds and pass 4 KiB
        for _ in range(limits.RELAY_MAX_CIRCUITS_PER_PEER):
            assert rates.open(source, ip, target) is None
        await asyncio.sleep(2.0)
        for _ in range(limits.RELAY_MAX_CIRCUITS_PER_PEER):
            rates.ended(source, ip, 4096)


@virtual
async def test_many_sources_cannot_make_a_target_close_its_connection_to_the_relay() -> None:
    rates = Rates(RelayOptions())
    opened = 0
    for number in range(100_000):
        if rates.open(OTHERS[number % 2], str(number), OTHERS[2]) is None:  # one address each
            rates.ended(OTHERS[number % 2], str(number), 0)
            opened += 1
    assert opened <= limits.RELAY_CIRCUITS_PER_MIN_PER_TARGET < limits.RESET_STREAMS_BURST
    assert limits.RELAY_CIRCUITS_PER_MIN_PER_TARGET / 60 < limits.RESET_STREAMS_PER_S


@virtual
async def test_peers_of_one_address_share_its_rate_and_a_refusal_takes_nothing_from_the_peer() -> None:
    rates = Rates(replace(UNLIMITED, circuits_per_min_per_peer=3, circuits_per_min_per_ip=4))
    first, second, target = OTHERS
    assert [rates.open(first, "ip", target) for _ in range(3)] == [None] * 3
    assert f"{first} opens too many circuits" in str(rates.open(first, "ip", target))
    assert rates.open(second, "ip", target) is None
    assert "peers from ip open too many" in str(rates.open(second, "ip", target))
    assert [rates.open(second, "elsewhere", target) for _ in range(2)] == [None] * 2


@looped
async def test_renewals_are_bounded_and_a_refused_one_leaves_the_reservation() -> None:
    async with (
        relay_host(replace(UNLIMITED, reservations_per_min_per_peer=5)) as relay,
        Host(listen=[], **BARE) as one,
        Host(listen=[], **BARE) as other,
    ):
        told = [(await ask_hop(one, relay.addrs_with_peer[0], RESERVE)).status for _ in range(8)]
        assert told == [Status.OK] * 5 + [Status.RESERVATION_REFUSED] * 3
        assert relay.relay_service is not None
        assert relay.relay_service.num_reservations == 1
        assert (await ask_hop(other, relay.addrs_with_peer[0], RESERVE)).status is Status.OK


@virtual
async def test_reservations_of_one_address_are_bounded_together() -> None:
    rates = Rates(replace(UNLIMITED, reservations_per_min_per_peer=2, reservations_per_min_per_ip=3))
    assert [rates.reserve(OTHERS[0], "ip") for _ in range(2)] == [None] * 2
    assert rates.reserve(OTHERS[1], "ip") is None
    assert "peers from ip reserve too often" in str(rates.reserve(OTHERS[1], "ip"))
    assert rates.reserve(OTHERS[1], "elsewhere") is None


@virtual
async def test_a_client_that_renews_each_second_is_not_refused() -> None:
    rates = Rates(RelayOptions())
    for _ in range(600):
        assert [rates.reserve(peer, "ip") for peer in OTHERS] == [None] * 3
        await asyncio.sleep(1.0)


@looped
async def test_the_limit_of_bytes_is_not_evaded_by_opening_again() -> None:
    options = RelayOptions(circuit_bytes=1000, max_circuits_per_peer=2)
    async with (
        relay_host(options) as relay,
        Host(listen=[], **BARE) as one,
        Host(listen=[], **BARE) as target,
    ):

        async def answer(stream: Stream) -> Stream:
            await read_body(stream)
            await stream.write(Stop(StopType.STATUS, status=Status.OK).encode() + bytes(1000))
            return stream

        target.set_stream_handler(STOP, answer)
        await ask_hop(target, relay.addrs_with_peer[0], RESERVE)
        service = relay.relay_service
        assert service is not None

        async def pass_bytes(num_bytes: int) -> Status | None:
            stream = await one.new_stream(relay.addrs_with_peer[0], HOP)
            await stream.write(Hop(HopType.CONNECT, peer=target.peer_id).encode())
            status = Hop.parse(await read_body(stream)).status
            if status is Status.OK:
                await stream.read_exactly(1000)
                await stream.write(bytes(num_bytes))
                await eventually(lambda: next(iter(service._circuits)).passed == (num_bytes, 1000))
                stream.reset()
                await eventually(lambda: not service.num_circuits)
            return status

        assert [await pass_bytes(1000) for _ in range(4)] == [Status.OK] * 2 + [
            Status.RESOURCE_LIMIT_EXCEEDED
        ] * 2
        assert service.num_bytes == 4000


@virtual
async def test_bytes_come_back_with_the_time_and_for_a_circuit_that_did_not_use_them() -> None:
    rates = Rates(RelayOptions(circuit_bytes=1000, circuit_s=10, max_circuits_per_peer=2))
    source, target, _ = OTHERS
    for _ in range(50):
        assert rates.open(source, "ip", target) is None
        rates.ended(source, "ip", 0)
    assert [rates.open(source, "ip", target) for _ in range(2)] == [None] * 2
    for _ in range(2):
        rates.ended(source, "ip", 2000)
    assert "has passed too many bytes" in str(rates.open(source, "ip", target))
    await asyncio.sleep(5.0)
    assert rates.open(source, "ip", target) is None


@virtual
async def test_peers_of_one_address_share_its_bytes() -> None:
    options = RelayOptions(circuit_bytes=1000, max_circuits_per_peer=2, max_circuits_per_ip=3)
    rates = Rates(options)
    first, second, target = OTHERS
    assert [rates.open(first, "ip", target) for _ in range(2)] == [None] * 2
    assert rates.open(second, "ip", target) is None
    assert "peers from ip have passed too many bytes" in str(rates.open(second, "ip", target))


@looped
async def test_no_circuit_runs_within_another_one() -> None:
    async with fake_relay(grant) as (relay, _), Host(**BARE | {"listen": [behind(relay)]}) as one:
        stop = await relay.new_stream(one.peer_id, STOP)
        await stop.write(Stop(StopType.CONNECT, peer=relay.peer_id).encode())
        await read_body(stop)
        circuit = RelayedConn(stop, stop.conn, False)  # the relay itself is at its other end
        nested = relay.swarm.add_conn(await relay.relay._upgrader.upgrade_outbound(circuit, one.peer_id))
        await eventually(lambda: len(one.swarm.conns_to_peer(relay.peer_id)) == 2)
        request = Stop(StopType.CONNECT, peer=OTHERS[0])
        stream = await nested.new_stream(STOP, True)
        await stream.write(request.encode())
        assert Stop.parse(await read_body(stream)).status is Status.PERMISSION_DENIED
