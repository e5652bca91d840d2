"""Accepting pauses: peers wait in the backlog, and counters say why and how long."""

from __future__ import annotations

import asyncio

import pytest

from harness import looped, settle
from nodes import make_node
from p2pcore import Host
from p2pcore._fast.loop.ledger import CALM, FULL, TIGHT
from p2pcore.swarm.pauses import Pauses
from p2pcore.swarm.swarm import Swarm
from swarm_fakes import FakeTransport
from virtual_time import virtual


def test_counters_tell_how_often_and_how_long_each_reason_was_one() -> None:
    now = 100.0
    pauses = Pauses(lambda: now)
    assert (pauses.counters(), pauses.is_paused) == ({}, False)
    pauses.pause("memory")
    now = 101.5
    pauses.pause("memory")
    pauses.pause("an upgrade")
    now = 102.0
    assert pauses.counters() == {
        "accepting paused: memory": 1,
        "milliseconds paused: memory": 2000,
        "accepting paused: an upgrade": 1,
        "milliseconds paused: an upgrade": 500,
    }
    pauses.resume("memory")
    now = 110.0
    assert pauses.is_paused
    pauses.resume("an upgrade")
    pauses.resume("an upgrade")
    assert not pauses.is_paused
    pauses.pause("memory")
    now = 111.0
    assert pauses.counters()["milliseconds paused: memory"] == 3000
    assert pauses.counters()["accepting paused: memory"] == 2


async def swarm_with(count: int) -> tuple[Swarm, FakeTransport]:
    transport = FakeTransport("tcp")
    swarm = Swarm(make_node().peer, [transport])
    await swarm.listen(*(f"/ip4/127.0.0.1/tcp/{port}" for port in range(4000, 4000 + count)))
    return swarm, transport


def paused(transport: FakeTransport) -> list[bool]:
    return [listener.is_paused for listener in transport.listeners]


@looped
async def test_all_listeners_pause_later_ones_included_until_no_reason_is_left() -> None:
    swarm, transport = await swarm_with(2)
    swarm.pause_accepting()
    swarm.pause_accepting("an upgrade")
    assert paused(transport) == [True, True]
    await swarm.add_listen_addr("/ip4/127.0.0.1/tcp/5000")
    assert paused(transport) == [True, True, True]
    swarm.resume_accepting()
    assert paused(transport) == [True, True, True]
    swarm.resume_accepting("an upgrade")
    assert paused(transport) == [False, False, False]
    assert swarm.counters()["accepting paused: memory"] == 1
    await swarm.close()


@virtual
async def test_tight_memory_pauses_for_a_second_at_most_each_time() -> None:
    swarm, transport = await swarm_with(1)
    swarm._memory_changed(CALM, TIGHT)
    assert paused(transport) == [True]
    await asyncio.sleep(0.9)
    assert paused(transport) == [True]
    await asyncio.sleep(0.2)
    assert paused(transport) == [False]
    swarm._memory_changed(TIGHT, FULL)
    assert paused(transport) == [True]
    swarm._memory_changed(FULL, TIGHT)
    assert paused(transport) == [True]  # memory is tight still
    swarm._memory_changed(TIGHT, CALM)
    assert paused(transport) == [False]
    assert swarm.counters()["accepting paused: memory"] == 2
    swarm._memory_changed(CALM, TIGHT)
    await swarm.close()


ADDRS = {
    "tcp": ["/ip4/127.0.0.1/tcp/0"],
    "websocket": ["/ip4/127.0.0.1/tcp/0/ws"],
    "memory": ["/memory/0"],
    "unix": [],
}


@pytest.mark.parametrize("kind", ADDRS)
@looped
async def test_who_dials_during_a_pause_is_served_after_it(kind: str, tmp_path: object) -> None:
    listen = ADDRS[kind] or [f"/unix{tmp_path}/sock"]
    async with Host(listen=listen) as host, Host(listen=()) as dialler:
        host.swarm.pause_accepting()
        dialling = asyncio.ensure_future(dialler.ping(host.addrs_with_peer[0]))
        await settle(50)
        assert (host.swarm.num_conns, dialling.done()) == (0, False)
        host.swarm.resume_accepting()
        await dialling
        host.swarm.pause_accepting()
        await dialler.ping(host.addrs_with_peer[0])  # what is connected goes on
        host.swarm.resume_accepting()


@looped
async def test_a_node_that_pauses_can_drain_and_close() -> None:
    for accept_queued in (True, False):
        host = Host()
        await host.start()
        host.swarm.pause_accepting()
        await host.drain(0.5, accept_queued=accept_queued)
