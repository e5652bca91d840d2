"""Dialling over time: who waits for whom and how long, what is left alone, and what is told. No second
passes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from harness import looped
from p2pcore import Host, limits
from p2pcore.dialing.backoff import pause
from p2pcore.errors import (
    AddressError,
    AddressInBackoff,
    BlackHoleSuspected,
    DialError,
    HandshakeError,
    ResolutionError,
    SwarmClosed,
)
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import FakeConn, FakeTransport, addr, make_swarm, peer
from virtual_time import now, virtual

THEM = peer(1)
REFUSED = ConnectionRefusedError("refused")
V6 = Multiaddr("/ip6/2001:4860::1/tcp/1")
V4 = Multiaddr("/ip4/1.2.3.4/tcp/1")


class TimedTransport(FakeTransport):
    """Notes when each address was dialled; each takes `seconds` and then fails, unless it is in `good`."""

    def __init__(self, seconds: float = 10.0, good: tuple[Multiaddr, ...] = ()) -> None:
        super().__init__("tcp", "ws")
        self.seconds = seconds
        self.good = good
        self.began: dict[Multiaddr, float] = {}

    async def dial(self, target: Multiaddr, expected: Any) -> FakeConn:
        self.began[target] = now()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if target not in self.good:
            raise REFUSED
        return await super().dial(target, expected)


def timed(seconds: float, good: tuple[Multiaddr, ...] = (), **options: Any) -> tuple[Any, TimedTransport]:
    tcp = TimedTransport(seconds, good)
    swarm, _ = make_swarm(**options)
    swarm._transports._items[:] = [tcp]
    return swarm, tcp


async def fails(dial: Any) -> DialError:
    with pytest.raises(DialError) as caught:
        await dial
    return caught.value


# -- ranking -----------------------------------------------------------------------------------


@virtual
async def test_addresses_are_started_as_they_are_ranked() -> None:
    swarm, tcp = timed(10)
    relay = FakeTransport("p2p-circuit", is_proxy=True)
    swarm.add_transport(relay)
    rest = [addr(port, "1.2.3.4") for port in (2, 3)]
    await fails(swarm.dial_peer(THEM, [*rest, V4, V6, addr(9)]))
    assert tcp.began == pytest.approx({V6: 0, addr(9): 0, V4: 0.25, rest[0]: 0.5, rest[1]: 0.5})
    await swarm.close()


@virtual
async def test_the_next_batch_starts_at_once_when_nothing_is_in_flight() -> None:
    swarm, tcp = timed(0.01)
    late = addr(2, "1.2.3.4")
    await fails(swarm.dial_peer(THEM, [V4, V6, late]))
    assert tcp.began == pytest.approx({V6: 0, V4: 0.01, late: 0.02})
    await swarm.close()


@virtual
async def test_a_relay_is_given_less_haste_than_a_direct_address_and_not_dialled_once_that_works() -> None:
    swarm, _ = timed(0.4, (V4,))
    relay = FakeTransport("p2p-circuit", is_proxy=True)
    swarm.add_transport(relay)
    relayed = Multiaddr(f"/ip4/5.6.7.8/tcp/1/p2p/{peer(3)}/p2p-circuit")
    assert (await swarm.dial_peer(THEM, [relayed, V4])).remote_peer == THEM
    assert (now(), relay.dialled) == (0.4, [])
    await swarm.close()


@virtual
async def test_an_address_that_joins_late_is_ranked_from_then_on() -> None:
    swarm, tcp = timed(10)
    first = asyncio.create_task(swarm.dial_peer(THEM, [V4]))
    await asyncio.sleep(3)
    second = asyncio.create_task(swarm.dial_peer(THEM, [V4, V6, addr(5, "1.2.3.4")]))
    await asyncio.wait([first, second])
    assert tcp.began == pytest.approx({V4: 0, V6: 3, addr(5, "1.2.3.4"): 3.25})
    await swarm.close()


# -- limits ------------------------------------------------------------------------------------


@virtual
async def test_at_most_max_dials_are_under_way_and_the_others_wait_in_line() -> None:
    peers = [peer(number) for number in range(1, 8)]
    places = [addr(number) for number in range(1, 8)]
    swarm, tcp = timed(1, tuple(places), max_dials=3)
    dials = [swarm.dial_peer(them, [where]) for them, where in zip(peers, places, strict=True)]
    conns = await asyncio.gather(*dials)
    assert [conn.remote_peer for conn in conns] == peers
    assert tcp.most_running == 3
    assert [tcp.began[where] for where in places] == [0, 0, 0, 1, 1, 1, 2], "first come, first served"
    await swarm.close()


@virtual
async def test_who_gives_up_waiting_in_line_is_passed_over() -> None:
    swarm, tcp = timed(1, (addr(1), addr(3)), max_dials=1)
    one, two, three = (asyncio.create_task(swarm.dial_peer(peer(n), [addr(n)])) for n in (1, 2, 3))
    await asyncio.sleep(0.5)
    two.cancel()
    await asyncio.wait([one, two, three])
    assert two.cancelled()
    assert tcp.began == {addr(1): 0, addr(3): 1}
    await swarm.close()


@virtual
async def test_the_time_in_line_is_not_taken_from_the_address() -> None:
    swarm, _ = timed(4, (addr(1), addr(2)), max_dials=1)
    await asyncio.gather(swarm.dial_peer(peer(1), [addr(1)]), swarm.dial_peer(peer(2), [addr(2)]))
    assert now() == 8 > limits.DIAL_TIMEOUT_LOCAL_S
    await swarm.close()


@virtual
async def test_waiting_in_line_ends_with_the_dial() -> None:
    swarm, _ = timed(1000, max_dials=1)
    await swarm._dialer._slots.acquire(peer(9))
    failure = await fails(swarm.dial_peer(THEM, [addr(2)]))
    assert "no connection after 60 s" in str(failure)
    assert now() == limits.DIAL_PEER_TIMEOUT_S
    await swarm.close()


@virtual
async def test_relayed_dials_take_no_place_in_line() -> None:
    swarm, _ = timed(1000, max_dials=1)
    relay = FakeTransport("p2p-circuit", is_proxy=True)
    swarm.add_transport(relay)
    await swarm._dialer._slots.acquire(peer(9))
    conn = await swarm.dial_peer(THEM, [f"/ip4/5.6.7.8/tcp/1/p2p/{peer(3)}/p2p-circuit"])
    assert conn.remote_peer == THEM
    await swarm.close()


# -- back-off ----------------------------------------------------------------------------------


@virtual
async def test_an_address_that_failed_is_left_alone_for_a_while() -> None:
    swarm, tcp = timed(1)
    for failures in range(3):
        await fails(swarm.dial_peer(THEM, [addr(1)]))
        assert tcp.began.pop(addr(1)) == pytest.approx(now() - 1)
        failure = await fails(swarm.dial_peer(THEM, [addr(1)]))
        ((where, why),) = failure.causes
        assert (where, type(why)) == (addr(1), AddressInBackoff)
        assert isinstance(why, AddressInBackoff)
        assert why.wait_s == pytest.approx(pause(failures))
        assert tcp.began == {}
        await asyncio.sleep(pause(failures))
    await swarm.close()


@virtual
async def test_only_the_address_in_back_off_is_left_out() -> None:
    swarm, tcp = timed(1, (addr(2),))
    await fails(swarm.dial_peer(THEM, [addr(1)]))
    tcp.began.clear()
    await swarm.dial_peer(THEM, [addr(1), addr(2)])
    assert list(tcp.began) == [addr(2)]
    await swarm.close()


@virtual
async def test_an_inbound_connection_clears_no_back_off() -> None:
    swarm, tcp = timed(1)
    await fails(swarm.dial_peer(THEM, [addr(1)]))
    inbound = swarm.add_conn(FakeConn(THEM))
    await inbound.close()
    tcp.began.clear()
    await fails(swarm.dial_peer(THEM, [addr(1)]))
    assert tcp.began == {}, "a peer that dials us and cannot be dialled is not dialled at full rate"
    await swarm.close()


@pytest.mark.parametrize("how", ["ignore_backoff", "force_direct"])
@virtual
async def test_back_off_is_ignored_on_request_and_success_clears_it(how: str) -> None:
    swarm, tcp = timed(1)
    await fails(swarm.dial_peer(THEM, [addr(1)]))
    tcp.good = (addr(1),)
    conn = await swarm.dial_peer(THEM, [addr(1)], **{how: True})
    await conn.close()
    await swarm.dial_peer(THEM, [addr(1)])
    await swarm.close()


@virtual
async def test_a_dial_of_an_address_alone_ignores_back_off_and_adds_to_it() -> None:
    swarm, tcp = timed(1)
    for _ in range(2):
        tcp.began.clear()
        await fails(swarm.dial_addr(addr(1).with_p2p(THEM)))
        assert list(tcp.began) == [addr(1)]
    failure = await fails(swarm.dial_peer(THEM, [addr(1)]))
    assert isinstance(failure.causes[0][1], AddressInBackoff)
    await swarm.close()


@virtual
async def test_a_dial_that_was_given_up_adds_no_back_off() -> None:
    swarm, tcp = timed(2, (addr(2),))
    tcp.good = (addr(1),)
    caller = asyncio.create_task(swarm.dial_peer(THEM, [addr(2)]))
    await asyncio.sleep(1)
    caller.cancel()
    await asyncio.wait([caller])
    await (await swarm.dial_peer(THEM, [addr(1), addr(2)])).close()
    assert len(swarm._dialer.backoff) == 0, "not by the caller, and not by the faster address"
    await swarm.close()


@virtual
async def test_a_caller_that_ignores_back_off_may_join_one_that_does_not() -> None:
    swarm, tcp = timed(1)
    await fails(swarm.dial_peer(THEM, [addr(1)]))
    tcp.good = (addr(1),)
    patient = asyncio.create_task(swarm.dial_peer(THEM, [addr(1), addr(2)]))
    await asyncio.sleep(0.5)
    conn = await swarm.dial_peer(THEM, [addr(1)], ignore_backoff=True)
    assert await patient is conn
    await swarm.close()


# -- black holes -------------------------------------------------------------------------------


@virtual
async def test_ipv6_that_never_works_is_left_out_until_it_does() -> None:
    swarm, tcp = timed(0.1, (V4,))
    for number in range(limits.BLACK_HOLE_WINDOW):
        await fails(swarm.dial_addr(Multiaddr(f"/ip6/2001:4860::{number + 1:x}/tcp/1")))
    failure = await fails(swarm.dial_peer(THEM, [V6]))
    why = failure.causes[0][1]
    assert isinstance(why, BlackHoleSuspected)
    assert why.kind == "IPv6"
    assert (await swarm.dial_peer(THEM, [V6, V4])).remote_peer == THEM
    tcp.good = (V4, V6)
    await swarm.dial_addr(V6)
    assert not swarm._dialer.black_holes.is_blocked("IPv6")
    await swarm.close()


@virtual
async def test_who_answers_badly_was_reached() -> None:
    swarm, tcp = make_swarm()
    failure = HandshakeError("forged")
    failure.stage = "security handshake"
    tcp.errors[V6] = failure
    for _ in range(limits.BLACK_HOLE_WINDOW):
        await fails(swarm.dial_addr(V6))
    assert not swarm._dialer.black_holes.is_blocked("IPv6")
    await swarm.close()


# -- direct, relayed ---------------------------------------------------------------------------


@virtual
async def test_a_direct_connection_is_made_beside_a_relayed_one_on_request() -> None:
    swarm, tcp = make_swarm(FakeTransport("p2p-circuit", is_proxy=True))
    relayed = f"/ip4/5.6.7.8/tcp/1/p2p/{peer(3)}/p2p-circuit"
    limited = swarm.add_conn(FakeConn(THEM, is_limited=True, at=relayed))
    assert await swarm.dial_peer(THEM, [addr(1)]) is limited
    direct = await swarm.dial_peer(THEM, [relayed, addr(1)], force_direct=True)
    assert direct.is_direct
    assert tcp.dialled == [addr(1)]
    assert await swarm.dial_peer(THEM, force_direct=True) is direct
    await direct.close()
    failure = await fails(swarm.dial_peer(THEM, [relayed], force_direct=True))
    assert isinstance(failure.causes[0][1], AddressError)
    await swarm.close()


# -- names -------------------------------------------------------------------------------------


class Names:
    """Resolves one name, slowly."""

    def __init__(self, *ips: str) -> None:
        self.ips = ips

    async def addresses(self, name: str, version: int) -> list[str]:
        await asyncio.sleep(1)
        if name != "a.example":
            raise ResolutionError(f"{name}: no such name")
        return [ip for ip in self.ips if (":" in ip) == (version == 6)]

    async def texts(self, name: str) -> list[str]:
        raise ResolutionError("none")


@virtual
async def test_names_are_resolved_ranked_and_reported_with_the_rest() -> None:
    swarm, tcp = timed(5, resolver=Names("1.2.3.4", "2001:4860::1"))
    given = ["/dns/a.example/tcp/1", "/dns4/b.example/tcp/1"]
    failure = await fails(swarm.dial_peer(THEM, given))
    assert tcp.began == pytest.approx({V6: 1, V4: 1.25})
    kinds = {str(where): type(why) for where, why in failure.causes}
    assert kinds == {
        str(V6): ConnectionRefusedError,
        str(V4): ConnectionRefusedError,
        given[1]: ResolutionError,
    }
    await swarm.close()


@virtual
async def test_an_address_with_a_name_and_no_peer_is_dialled_wherever_it_leads() -> None:
    swarm, tcp = timed(5, (V4,), resolver=Names("1.2.3.4", "2001:4860::1"))
    conn = await swarm.dial_addr("/dns/a.example/tcp/1")
    assert (conn.remote_peer, list(tcp.began)) == (tcp.answers, [V6, V4])
    failure = await fails(swarm.dial_addr("/dns/b.example/tcp/1"))
    assert isinstance(failure.causes[0][1], ResolutionError)
    await swarm.close()


@virtual
async def test_a_connection_that_comes_while_a_name_is_resolved_is_taken() -> None:
    swarm, tcp = timed(5, resolver=Names("1.2.3.4"))
    dial = asyncio.create_task(swarm.dial_peer(THEM, ["/dns/a.example/tcp/1"]))
    await asyncio.sleep(0.5)
    conn = swarm.add_conn(FakeConn(THEM))
    assert await dial is conn
    assert tcp.began == {}
    await swarm.close()


@virtual
async def test_a_swarm_closed_while_a_name_is_resolved_does_not_dial() -> None:
    swarm, tcp = timed(5, resolver=Names("1.2.3.4"))
    name = "/dns4/a.example/tcp/1"
    dials = [asyncio.create_task(dial) for dial in (swarm.dial_peer(THEM, [name]), swarm.dial_addr(name))]
    await asyncio.sleep(0.5)
    await swarm.close()
    results = await asyncio.gather(*dials, return_exceptions=True)
    assert [type(result) for result in results] == [SwarmClosed, SwarmClosed]
    assert tcp.began == {}


@virtual
async def test_a_swarm_closed_while_it_dials_a_name_ends_the_dial() -> None:
    swarm, tcp = timed(5, (V4,), resolver=Names("1.2.3.4"))
    dial = asyncio.create_task(swarm.dial_addr("/dns4/a.example/tcp/1"))
    await asyncio.sleep(2)
    assert tcp.running == 1
    await swarm.close()
    with pytest.raises(SwarmClosed):
        await dial
    await asyncio.sleep(0)
    assert tcp.running == 0


# -- what is told ------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
@virtual
async def test_a_swarm_closed_while_it_dials_an_address_ends_the_dial(named: bool) -> None:
    swarm, tcp = timed(10)
    target = addr(1).with_p2p(THEM) if named else addr(1)
    dial = asyncio.create_task(swarm.dial_addr(target))
    await asyncio.sleep(1)
    await swarm.close()
    with pytest.raises(SwarmClosed):
        await dial
    assert (now(), tcp.running) == (1, 0)


@virtual
async def test_a_dial_error_shows_sixteen_causes_keeps_a_hundred_and_counts_the_rest() -> None:
    swarm, _ = timed(0.001)
    failure = await fails(swarm.dial_peer(THEM, [addr(port) for port in range(1, 301)]))
    assert (len(failure.causes), failure.num_skipped) == (limits.MAX_DIAL_ADDRS, 200)
    text = str(failure)
    assert text.count("refused") == limits.MAX_DIAL_CAUSES_SHOWN
    assert text.startswith(f"cannot dial {THEM}: all addresses failed: /ip4/127.0.0.1/tcp/1: refused; ")
    assert text.endswith("; and 284 more addresses")
    await swarm.close()


@virtual
async def test_dials_are_counted() -> None:
    swarm, _ = timed(0.001, (addr(1),))
    await swarm.dial_addr(addr(1))
    await fails(swarm.dial_addr(addr(2)))
    counters = swarm.counters()
    assert (counters["dials worked"], counters["dials failed"]) == (1, 1)
    assert (counters["connections opened"], counters["connections closed"]) == (1, 0)
    await swarm.close()


@looped
async def test_over_real_sockets_the_address_that_answers_is_found_and_the_other_left_alone() -> None:
    mute = socket.socket()
    mute.bind(("127.0.0.1", 0))  # and never listens
    async with Host(identify=False) as server, Host(listen=(), identify=False) as dialer:
        dead = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}/p2p/{server.peer_id}"
        for options, kind in (
            ({}, ConnectionRefusedError),
            ({}, AddressInBackoff),
            ({"ignore_backoff": True}, ConnectionRefusedError),
        ):
            failure = await fails(dialer.connect(dead, **options))
            assert type(failure.causes[0][1]) is kind
        conn = await dialer.connect(dead, server.addrs[0])
        assert conn.remote_multiaddr == server.addrs[0]
    mute.close()
