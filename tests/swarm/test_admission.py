"""Limits on connections: hard, named when they are hit, and looked at before a handshake where that
suffices."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from harness import eventually, looped, settle
from p2pcore import (
    DialError,
    Direction,
    Host,
    LimitExceeded,
    Limits,
    Multiaddr,
    RefusedByPeer,
    Reserved,
    codes,
)
from p2pcore.errors import GoAway
from p2pcore.resources.options import UNLIMITED
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.events import Refused
from p2pcore.upgrade.listener import REFUSED
from swarm_fakes import FakeConn, addr, make_swarm, peer

THEM = peer(1)
PUBLIC = "/ip4/1.2.3.4/tcp/{}"


class Raw:
    """As much of a raw connection as admission looks at."""

    def __init__(self, remote: str | None) -> None:
        self.local_multiaddr = addr(1)
        self.remote_multiaddr = None if remote is None else Multiaddr(remote)


def limited(**fields: Any) -> Admission:
    """Only these limits."""
    return Admission(limits=replace(UNLIMITED, **fields))


def accepts(admission: Admission, remote: str | None) -> bool:
    return admission.admits(Raw(remote))  # type: ignore[arg-type]


@pytest.mark.parametrize("cap", ["max_conns", "max_conns_per_peer", "max_conns_per_subnet"])
@looped
async def test_a_cap_is_hard_named_when_hit_and_free_again_when_a_connection_ends(cap: str) -> None:
    swarm, _ = make_swarm(admission=limited(**{cap: 2}))
    conns = [FakeConn(THEM, at=PUBLIC.format(port)) for port in range(1, 6)]
    held = [swarm.add_conn(conn) for conn in conns[:2]]
    with pytest.raises(LimitExceeded) as caught:
        swarm.add_conn(conns[2])
    error = caught.value
    assert (error.limit, error.used, error.maximum, error.setting) == (cap, 2, 2, f"Limits.{cap}")
    assert (
        str(error)
        == {
            "max_conns": "2 of 2 connections (Limits.max_conns)",
            "max_conns_per_peer": f"2 of 2 connections with {THEM} (Limits.max_conns_per_peer)",
            "max_conns_per_subnet": "2 of 2 connections from 1.2.3.4 (Limits.max_conns_per_subnet)",
        }[cap]
    )
    assert conns[2].abort_code == codes.CONN_RESOURCE_LIMIT_EXCEEDED
    assert swarm.num_conns == 2
    await held[0].close()
    held[0].abort()
    swarm.add_conn(conns[3])
    with pytest.raises(LimitExceeded):
        swarm.add_conn(conns[4])
    await swarm.close()


@looped
async def test_the_caps_of_peers_and_addresses_are_apart() -> None:
    swarm, _ = make_swarm(admission=limited(max_conns_per_peer=1, max_conns_per_subnet=2))
    swarm.add_conn(FakeConn(peer(1), at=PUBLIC.format(1)))
    swarm.add_conn(FakeConn(peer(2), at=PUBLIC.format(2)))
    with pytest.raises(LimitExceeded, match="max_conns_per_subnet"):
        swarm.add_conn(FakeConn(peer(3), at=PUBLIC.format(3)))
    with pytest.raises(LimitExceeded, match="max_conns_per_peer"):
        swarm.add_conn(FakeConn(peer(1), at="/ip4/5.6.7.8/tcp/1"))
    swarm.add_conn(FakeConn(peer(3), at="/ip4/5.6.7.8/tcp/1"))
    await swarm.close()


@looped
async def test_outbound_and_private_connections_do_not_count_for_their_address() -> None:
    swarm, _ = make_swarm(admission=limited(max_conns_per_subnet=1))
    for number in range(1, 20):
        swarm.add_conn(FakeConn(peer(number), Direction.OUTBOUND, at=PUBLIC.format(number)))
        swarm.add_conn(FakeConn(peer(number), at=f"/ip4/10.0.0.1/tcp/{number}"))
        swarm.add_conn(FakeConn(peer(number), at=f"/ip6/::1/tcp/{number}"))
    swarm.add_conn(FakeConn(peer(1), at=PUBLIC.format(1)))
    with pytest.raises(LimitExceeded):
        swarm.add_conn(FakeConn(peer(1), at=PUBLIC.format(1)))
    swarm.add_conn(FakeConn(peer(1), Direction.OUTBOUND, at=PUBLIC.format(1)))
    await swarm.close()


@looped
async def test_full_caps_refuse_before_the_handshake() -> None:
    by_ip = limited(max_conns_per_subnet=1)
    swarm, _ = make_swarm(admission=by_ip)
    assert accepts(by_ip, PUBLIC.format(1))
    conn = swarm.add_conn(FakeConn(THEM, at=PUBLIC.format(1)))
    assert not accepts(by_ip, PUBLIC.format(2))
    assert accepts(by_ip, "/ip4/1.2.3.5/tcp/1")
    assert accepts(by_ip, "/ip4/127.0.0.1/tcp/1")
    assert accepts(by_ip, None)
    await conn.close()
    assert accepts(by_ip, PUBLIC.format(2))
    await swarm.close()


@looped
async def test_nothing_is_kept_of_connections_that_have_ended() -> None:
    admission = limited(max_conns=9, max_conns_per_peer=9, max_conns_per_subnet=9)
    swarm, _ = make_swarm(admission=admission)
    for number in range(1, 6):
        await swarm.add_conn(FakeConn(peer(number), at=PUBLIC.format(1))).close()
    assert admission._blocks.counts == {}
    assert [use.used for use in admission.uses()[:3]] == [0, 0, 0]
    assert [use.peak for use in admission.uses()[:3]] == [1, None, 1]
    await swarm.close()


@looped
async def test_a_full_host_keeps_peers_waiting_until_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    async with Host(limits=Limits(max_conns=1)) as server, Host(listen=()) as one, Host(listen=()) as two:
        conn = await one.connect(server.addrs_with_peer[0])
        await eventually(lambda: server.swarm.num_conns)
        assert caplog.messages == ["refused: 1 of 1 connections (Limits.max_conns); new connections wait"]
        waiting = asyncio.create_task(two.connect(server.addrs_with_peer[0]))
        await settle(10)
        assert not waiting.done()
        await conn.close()
        assert (await waiting).remote_peer == server.peer_id
        assert [use.refused for use in server.limits_report() if use.limit == "max_conns"] == [0]


@looped
async def test_a_full_host_that_has_places_for_others_refuses_at_accept_and_says_why() -> None:
    limits = Limits(max_conns=2, max_conns_per_peer=2, reserved=[Reserved(1, "203.0.113.0/24")])
    async with Host(limits=limits) as server, Host(listen=()) as one, Host(listen=()) as two:
        with server.events(Refused) as events:
            for _ in range(2):
                conn = await one.swarm.dial_addr(server.addrs_with_peer[0])
            await eventually(lambda: server.swarm.num_conns == 2)
            with pytest.raises(DialError):
                await two.connect(server.addrs_with_peer[0])
            event: Any = await anext(events)
            assert (event.error.limit, event.peer) == ("max_conns", None)
            assert server.counters()[f"upgrades failed: {REFUSED}"] == 1
            await conn.close()
            await eventually(lambda: server.swarm.num_conns == 1)
            await two.connect(server.addrs_with_peer[0], ignore_backoff=True)


@looped
async def test_a_peer_over_its_cap_is_told_with_the_code() -> None:
    caps = Limits(max_conns_per_peer=1)
    async with Host(limits=caps) as server, Host(listen=(), identify=False) as dialer:
        await dialer.connect(server.addrs_with_peer[0])
        await eventually(lambda: server.swarm.num_conns)
        ended: list[Any] = []
        (await dialer.swarm.dial_addr(server.addrs_with_peer[0])).add_close_callback(ended.append)
        await eventually(lambda: ended)
        assert isinstance(ended[0], RefusedByPeer)  # RM-T16
        assert isinstance(ended[0], GoAway)
        assert not isinstance(ended[0], LimitExceeded)
        assert ended[0].code == codes.CONN_RESOURCE_LIMIT_EXCEEDED
        assert server.swarm.num_conns == 1


@pytest.mark.parametrize("caps", [{"max_conns": 1}, {"max_conns_per_peer": 1}])
@looped
async def test_our_own_caps_are_looked_at_before_a_dial(caps: dict[str, int]) -> None:
    swarm, tcp = make_swarm(admission=limited(**caps))
    swarm.add_conn(FakeConn(THEM))
    with pytest.raises(DialError) as caught:
        await swarm.dial_addr(addr(1).with_p2p(THEM))
    assert isinstance(caught.value.cause, LimitExceeded)
    assert caught.value.cause.limit == next(iter(caps))
    assert tcp.dialled == []
    assert await swarm.dial_peer(THEM, [addr(1)]) is swarm.conns()[0]
    await swarm.close()
