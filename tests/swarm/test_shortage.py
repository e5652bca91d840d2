"""What a swarm does while memory or descriptors are short: it accepts nothing, and gives connections up."""

from __future__ import annotations

import asyncio

from harness import eventually, looped
from p2pcore import Host, Limits, Stream
from p2pcore.aio.descriptors import descriptors_of

MEMORY = 1 << 20


@looped
async def test_no_connection_is_accepted_while_memory_is_tight() -> None:
    go_on = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await go_on.wait()
        while await stream.read():
            pass

    async with Host(limits=Limits(memory=MEMORY), identify=False) as server:
        server.set_stream_handler("/slow", slow)
        where = server.addrs_with_peer[0]
        async with Host(listen=(), identify=False) as client, Host(listen=(), identify=False) as other:
            for _ in range(4):
                await (await client.new_stream(where, "/slow")).write(bytes(220_000))
            await eventually(lambda: server.counters().get("accepting paused: memory") == 1)
            dial = asyncio.ensure_future(other.connect(where))
            await asyncio.sleep(0.2)
            assert server.swarm.num_conns == 1
            go_on.set()
            await dial
            assert server.swarm.num_conns == 2


@looped
async def test_connections_are_given_up_where_descriptors_run_out() -> None:
    async with Host(identify=False) as server, Host(listen=(), identify=False) as client:
        descriptors = descriptors_of(asyncio.get_running_loop())
        assert not descriptors.relieve()
        await client.connect(server.addrs_with_peer[0])
        await eventually(lambda: server.swarm.num_conns)
        assert descriptors.relieve()
        await eventually(lambda: not server.swarm.num_conns)
    assert not descriptors.relieve()
