"""A client with calls back to back, while workers are replaced or end: it loses no call."""

from __future__ import annotations

import asyncio

import worker_hosts
from harness import HANG_S, eventually, looped, seconds
from p2pcore import Host, Multiaddr, Supervisor
from worker_hosts import WHO


async def who(client: Host, addr: Multiaddr) -> int:
    """The process that answers one call. Raises whatever cuts the call, or refuses it."""
    stream = await client.new_stream(addr, WHO)
    pid = int(await stream.read())
    await stream.close()
    return pid


@looped
async def test_a_rolling_restart_costs_a_client_with_calls_back_to_back_none_of_them() -> None:
    async with (
        Supervisor(worker_hosts.make, workers=2, drain_s=HANG_S) as supervisor,
        Host(listen=(), ping=False) as client,
    ):
        addr = supervisor.addrs_with_peer[0]
        before = set(supervisor.pids)
        answered = [await who(client, addr)]
        await eventually(lambda: client.info_of(client.swarm.conns()[0]))
        restarting = asyncio.create_task(supervisor.restart())
        while not restarting.done():
            answered.append(await who(client, addr))
        await restarting
        answered.append(await who(client, addr))
        assert answered[0] in before
        assert answered[-1] not in before
        assert set(supervisor.pids).isdisjoint(before)


@looped
async def test_readiness_of_a_supervisor_goes_before_its_workers_drain() -> None:
    async with Supervisor(worker_hosts.make, workers=1, drain_delay_s=0.5) as supervisor:
        assert not supervisor.is_draining
        draining = asyncio.create_task(supervisor.drain(seconds(20)))
        await asyncio.sleep(0)
        assert supervisor.is_draining
        async with Host(listen=(), ping=False) as client:
            assert await who(client, supervisor.addrs_with_peer[0]) in supervisor.pids
        await draining


@looped
async def test_a_kill_cuts_the_delay_of_a_supervisor_short() -> None:
    async with Supervisor(worker_hosts.make, workers=1, drain_delay_s=3600) as supervisor:
        draining = asyncio.create_task(supervisor.drain())
        await asyncio.sleep(0)
        supervisor.kill()
        await draining
