"""A fleet that is used for long holds no more than one that has just been used."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest
from fleets import ECHO, TOPIC, Yard, yard

from p2pcore import Stream
from p2pcore.fleet import FleetCaps, NotDelivered
from virtual_time import virtual

NOBODY = "/nobody-has-this/1"


async def used(made: Yard) -> None:
    """Every part of the fleet is used, and what fails fails."""
    peers = [await made.peer(n % 3) for n in range(6)]
    await asyncio.sleep(0.2)
    for n, peer in enumerate(peers):
        for fleet in made.fleets:
            await fleet.request(peer.id, ECHO, b"1")
            await fleet.request(peer.id, ECHO, b"2", at_least_once_id=f"{id(peers)} {n}")
            with pytest.raises(NotDelivered):
                await fleet.request(peer.id, NOBODY, b"3")
    streams = [await peer.host.new_stream(peer.host.swarm.conns()[0], TOPIC) for peer in peers]
    for stream in streams:
        await stream.write_msg(b"news")
        await stream.read_msg()
    for fleet in made.fleets:
        await fleet.publish("news", b"4")
    for stream in streams:
        assert [await stream.read_msg() for _ in range(3)] == [b"4"] * 3
        await stream.close()
    made.engine.stop()
    await asyncio.sleep(2)
    made.engine.start()
    await made.fleets[0].block(peers[0].id)
    await made.fleets[0].unblock(peers[0].id)
    for peer in peers:
        await peer.host.close()
    await asyncio.sleep(125.1)  # what is remembered for a while is forgotten


def counts() -> Counter[str]:
    for _ in range(3):
        gc.collect()
    watched = ("p2pcore.fleet", "p2pcore.swarm", "p2pcore._fast.mux", "asyncio", "_asyncio")
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        if str(kind.__module__).startswith(watched):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    found["tasks"] = len(asyncio.all_tasks())
    return found


@virtual
async def test_what_was_used_again_and_again_is_let_go() -> None:
    async with yard(3, caps=FleetCaps(per_peer=2)) as made:
        for fleet, host in zip(made.fleets, made.hosts, strict=True):

            async def subscribe(stream: Stream, fleet=fleet) -> None:  # type: ignore[no-untyped-def]
                await fleet.subscribe((await stream.read_msg()).decode(), stream)
                await stream.write_msg(b"welcome")
                while await stream.read():
                    pass

            host.set_stream_handler(TOPIC, subscribe)
        await used(made)
        before = counts()
        for _ in range(2):
            await used(made)
        after = counts()
        grown = {
            name: (before[name], count)
            for name, count in after.items()
            if count > before[name] and ("fleet" in name or name == "tasks")
        }
        assert grown == {}
