"""The block list of a fleet: applied everywhere, at once, for late comers, and lifted again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleets import Yard, until, yard

from harness import eventually, looped
from p2pcore import DialError, Host, IdentityError, LimitExceeded, PrivateKey
from p2pcore.errors import BusDown
from p2pcore.fleet import Fleet, MemoryBus, MemoryEngine
from virtual_time import virtual

STRANGER = PrivateKey.generate().peer_id()


async def refused(made: Yard, host: Host, at: int) -> bool:
    try:
        await host.connect(made.hosts[at].addrs_with_peer[0], ignore_backoff=True)
    except DialError:
        return True
    await asyncio.sleep(0.1)
    return not made.hosts[at].swarm.conns_to_peer(host.peer_id)


@virtual
async def test_a_blocked_peer_is_closed_and_refused_by_all_and_let_in_again() -> None:
    async with yard(3) as made:
        peer = await made.peer(1, 2)
        await made.fleets[0].block(peer.id, reason="it floods")
        await until(lambda: not any(host.swarm.num_conns for host in made.hosts))
        for at in range(3):
            assert await refused(made, peer.host, at)
            assert made.fleets[at].blocked == {str(peer.id): "it floods"}
        await made.fleets[1].unblock(str(peer.id))
        await asyncio.sleep(0.1)
        for at in range(3):
            assert not await refused(made, peer.host, at)
            assert made.fleets[at].blocked == {}


@looped
async def test_a_blocked_network_is_closed_and_refused_by_all() -> None:
    engine = MemoryEngine()
    one, two, peer = Host(), Host(), Host(listen=())
    async with one, two, peer, Fleet(one, MemoryBus(engine)) as first, Fleet(two, MemoryBus(engine)):
        await peer.connect(two.addrs_with_peer[0])
        await first.block("127.0.0.0/8")
        await eventually(lambda: not two.swarm.num_conns)
        for host in (one, two):
            try:
                conn = await peer.connect(host.addrs_with_peer[0], ignore_backoff=True)
                await eventually(lambda conn=conn: conn.is_closed)  # type: ignore[misc]
            except DialError:
                pass
            assert not host.swarm.num_conns
        await first.unblock("127.0.0.0/8")
        await eventually(lambda: not two.swarm.admission.blocker.blocked_subnets)
        await peer.connect(two.addrs_with_peer[0], ignore_backoff=True)


@virtual
async def test_addresses_and_networks_of_both_kinds_survive_their_keys() -> None:
    async with yard(1) as made:
        blocks = ["10.0.0.0/8", "192.168.1.1/32", "fe80::/10", "2001:db8::1/128", "::/0"]
        for block in blocks:
            await made.fleets[0].block(block)
        late = await made.fleet()
        await until(lambda: len(late.blocked) == 5)
        assert sorted(late.blocked) == sorted(blocks)
        assert made.hosts[1].swarm.admission.blocker.blocked_subnets == frozenset(blocks)
        for block in blocks:
            await late.unblock(block)
        await until(lambda: not made.fleets[0].blocked)
        assert made.hosts[0].swarm.admission.blocker.blocked_subnets == frozenset()


@virtual
async def test_a_process_that_comes_later_applies_the_list() -> None:
    async with yard(1) as made:
        peer = await made.peer()
        await made.fleets[0].block(peer.id)
        await made.fleet()
        assert await refused(made, peer.host, 1)


@virtual
async def test_what_the_program_has_blocked_itself_stays_blocked() -> None:
    async with yard(1) as made:
        peer = await made.peer()
        made.hosts[0].block_peer(peer.id)
        await made.fleets[0].block(peer.id)
        await made.fleets[0].unblock(peer.id)
        assert await refused(made, peer.host, 0)
        made.hosts[0].unblock_peer(peer.id)
        await made.fleets[0].block(peer.id)
        await made.fleets[0].unblock(peer.id)
        assert not await refused(made, peer.host, 0)
        made.hosts[0].block_peer(peer.id)
        await until(lambda: not peer.host.swarm.num_conns)
        await made.fleets[0].unblock(peer.id)
        assert await refused(made, peer.host, 0)


@virtual
async def test_while_the_engine_is_away_the_list_stays_and_changes_fail() -> None:
    async with yard(2) as made:
        peer = await made.peer()
        await made.fleets[0].block(peer.id)
        await asyncio.sleep(0.1)
        made.engine.stop()
        assert await refused(made, peer.host, 1)
        for call in (made.fleets[0].block, made.fleets[0].unblock):
            with pytest.raises(BusDown):
                await call(STRANGER)
        assert str(STRANGER) not in made.fleets[0].blocked
        made.engine.start()
        await asyncio.sleep(1)
        assert await refused(made, peer.host, 1)


@virtual
async def test_an_engine_that_finds_a_deleted_entry_again_does_not_block_again() -> None:
    async with yard(2) as made:
        told: list[bytes] = []
        bucket = await made.buses[0].bucket("p2pcore-blocks")
        await bucket.watch("peer", lambda key, value: told.append(value) if value else None)
        await made.fleets[0].block(STRANGER)
        await made.fleets[0].unblock(STRANGER)
        await asyncio.sleep(0.1)
        await bucket.put({f"peer.{STRANGER}": told[-1]})  # what was there last before it was deleted
        await asyncio.sleep(0.1)
        assert made.fleets[0].blocked == made.fleets[1].blocked == {}


@virtual
async def test_entries_that_are_nonsense_block_nobody() -> None:
    async with yard(1) as made:
        bucket = await made.buses[0].bucket("p2pcore-blocks")
        entries: dict[str, Any] = {
            "peer.x": b"nonsense",
            "peer.y": b"[]",
            "net.z": b'{"what": "10.0.0.0/8", "reason": ""}',
            "net.w": b'{"what": 7, "reason": ""}',
            "peer.v": b'{"what": "nonsense", "reason": ""}',
        }
        await bucket.put(entries)
        await asyncio.sleep(0.1)
        assert made.fleets[0].blocked == {}
        await bucket.put(dict.fromkeys(entries))
        await made.fleets[0].block(STRANGER)
        assert list(made.fleets[0].blocked) == [str(STRANGER)]


def test_wrong_arguments_are_refused_and_the_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pcore.fleet.blocks.FLEET_MAX_BLOCKS", 1)

    @virtual
    async def main() -> None:
        async with yard(1) as made:
            fleet = made.fleets[0]
            for wrong in ("10.0.0.0/99", "nonsense", 7, "a:b"):
                with pytest.raises((IdentityError, ValueError, TypeError)):
                    await fleet.block(wrong)  # type: ignore[arg-type]
            with pytest.raises(ValueError):
                await fleet.block(STRANGER, reason="x" * 201)
            await fleet.block(STRANGER)
            await fleet.block(STRANGER, reason="again")
            assert fleet.blocked == {str(STRANGER): "again"}
            with pytest.raises(LimitExceeded):
                await fleet.block("10.0.0.1")

    main()
