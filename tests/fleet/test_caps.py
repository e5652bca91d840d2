"""Caps of a fleet: all processes together stay within them, and each may use what the others leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleets import Peer, Yard, until, yard

from harness import eventually, looped
from p2pcore import Conn, Host
from p2pcore.fleet import Fleet, FleetCaps, MemoryBus
from p2pcore.fleet.caps import Caps
from p2pcore.limits import FLEET_EXPIRY_S
from virtual_time import virtual


def caps_of(fleet: Fleet) -> Caps:
    assert fleet._parts is not None
    assert fleet._parts.caps is not None
    return fleet._parts.caps


async def dial(made: Yard, peer: Peer, at: int) -> Conn:
    """One connection more from `peer`; it may be closed by now."""
    conn = await peer.host.swarm.dial_addr(made.hosts[at].addrs_with_peer[0])
    await asyncio.sleep(0.1)
    return conn


def num_conns(made: Yard, peer: Peer) -> list[int]:
    return [len(host.swarm.conns_to_peer(peer.id)) for host in made.hosts]


def reports(made: Yard) -> dict[str, bytes]:
    return made.engine._buckets["p2pcore-caps"].table.get("conns")


async def settled(made: Yard) -> None:
    await asyncio.sleep(1)
    for fleet in made.fleets:
        assert caps_of(fleet)._num_processes == len(made.fleets)


@virtual
async def test_one_process_may_use_the_whole_cap_of_a_peer() -> None:
    async with yard(1, caps=FleetCaps(per_peer=3)) as made:
        peer = await made.peer()
        conns = [await dial(made, peer, 0) for _ in range(5)]
        assert [conn.is_closed for conn in conns] == [False, False, False, True, True]
        assert num_conns(made, peer) == [3]
        await conns[0].close()
        await asyncio.sleep(0.1)
        assert not (await dial(made, peer, 0)).is_closed
        assert 'p2pcore_fleet_capped_total{cap="peer"} 2' in made.hosts[0].metrics.text()


@pytest.mark.parametrize("most", [1, 4, 12])
def test_all_processes_together_stay_within_a_cap(most: int) -> None:
    @virtual
    async def main() -> None:
        async with yard(3, caps=FleetCaps(per_peer=most)) as made:
            await settled(made)
            peer = await made.peer()
            for n in range(2 * most + 6):
                await dial(made, peer, n % 3)
                assert sum(num_conns(made, peer)) <= most
            assert sum(num_conns(made, peer)) >= most - 2 * (most // 6)

    main()


@virtual
async def test_a_process_may_use_what_the_others_do_not_but_for_their_shares() -> None:
    async with yard(3, caps=FleetCaps(per_peer=12)) as made:
        await settled(made)
        peer = await made.peer()
        for _ in range(14):
            await dial(made, peer, 0)
        assert num_conns(made, peer) == [8, 0, 0]  # the others have a share of two each
        for _ in range(4):
            await dial(made, peer, 1)
            await dial(made, peer, 2)
        assert num_conns(made, peer) == [8, 2, 2]


@virtual
async def test_what_stays_within_its_share_is_not_reported() -> None:
    async with yard(2, caps=FleetCaps(per_peer=8)) as made:
        await settled(made)
        peer = await made.peer()
        await dial(made, peer, 0)
        await dial(made, peer, 0)
        assert reports(made) == {}
        third = await dial(made, peer, 0)
        assert list(reports(made).values()) == [b"3"]
        await third.close()
        await asyncio.sleep(0.2)
        assert reports(made) == {}


@virtual
async def test_connections_of_the_same_moment_are_trimmed_to_the_cap_and_no_further() -> None:
    async with yard(3, caps=FleetCaps(per_peer=2)) as made:
        await settled(made)
        peer = await made.peer()
        await asyncio.gather(
            *(peer.host.swarm.dial_addr(host.addrs_with_peer[0]) for host in made.hosts for _ in range(2))
        )
        await asyncio.sleep(1)
        assert sum(num_conns(made, peer)) == 2


@virtual
async def test_what_was_within_a_share_is_reported_when_more_processes_make_the_share_smaller() -> None:
    async with yard(1, caps=FleetCaps(per_peer=12)) as made:
        peer = await made.peer()
        for _ in range(5):
            await dial(made, peer, 0)
        assert reports(made) == {}
        for _ in range(2):
            await made.fleet(caps=FleetCaps(per_peer=12))
        await settled(made)
        assert list(reports(made).values()) == [b"5"]
        for _ in range(12):
            await dial(made, peer, 1)
        assert num_conns(made, peer) == [5, 5, 0]  # the third one has a share of two


@virtual
async def test_a_process_that_died_gives_its_part_back_and_its_reports_go_after_an_hour() -> None:
    async with yard(2, caps=FleetCaps(per_peer=2)) as made:
        await settled(made)
        peer = await made.peer()
        await dial(made, peer, 1)
        await dial(made, peer, 1)
        assert (await dial(made, peer, 0)).is_closed
        await made.kill(1)
        await asyncio.sleep(3)
        assert not (await dial(made, peer, 0)).is_closed
        await asyncio.sleep(FLEET_EXPIRY_S)
        assert not any(key.endswith(made.fleets[1].process) for key in reports(made))


@virtual
async def test_a_process_that_leaves_takes_its_reports_with_it() -> None:
    async with yard(2, caps=FleetCaps(per_peer=1)) as made:
        await settled(made)
        peer = await made.peer()
        await dial(made, peer, 1)
        assert len(reports(made)) == 1
        await made.fleets[1].close()
        assert reports(made) == {}
        await asyncio.sleep(1)
        assert not (await dial(made, peer, 0)).is_closed


@virtual
async def test_without_the_engine_the_last_reports_hold_and_return_with_it() -> None:
    async with yard(2, caps=FleetCaps(per_peer=2)) as made:
        await settled(made)
        peer = await made.peer()
        await dial(made, peer, 1)
        await dial(made, peer, 1)
        made.engine.stop()
        await asyncio.sleep(10)
        assert (await dial(made, peer, 0)).is_closed
        made.engine.start(forget=True)
        await asyncio.sleep(1)
        assert list(reports(made).values()) == [b"2"]
        assert (await dial(made, peer, 0)).is_closed


@looped
async def test_peers_from_one_subnet_count_together_and_private_ones_only_if_asked() -> None:
    exempt, counted = FleetCaps(per_subnet=1), FleetCaps(per_subnet=1, exempt_private=False)
    one, two, host, other = Host(listen=()), Host(listen=()), Host(), Host()
    first, strict = Fleet(host, MemoryBus(), caps=exempt), Fleet(other, MemoryBus(), caps=counted)
    async with host, other, one, two, first, strict:
        for peer in (one, two):
            await peer.connect(host.addrs_with_peer[0])
            await peer.connect(other.addrs_with_peer[0])
        await eventually(lambda: caps_of(strict).closed["net"] == 1 and other.swarm.num_conns == 1)
        assert host.swarm.num_conns == 2


@virtual
async def test_nothing_is_left_of_connections_that_ended() -> None:
    async with yard(2, caps=FleetCaps(per_peer=2)) as made:
        await settled(made)
        for n in range(10):
            peer = await made.peer(n % 2)
            await peer.host.close()
        await until(lambda: not any(host.swarm.num_conns for host in made.hosts))
        await asyncio.sleep(1)
        for fleet in made.fleets:
            caps = caps_of(fleet)
            assert (caps._mine, caps._theirs, caps._reported, caps._changed) == ({}, {}, {}, {})
        assert reports(made) == {}


@pytest.mark.parametrize("wrong", [{"per_peer": 0}, {"per_subnet": "x"}, {"exempt_private": 1}])
def test_wrong_caps_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        FleetCaps(**wrong)
