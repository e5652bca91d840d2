"""Streams on which the peer says nothing: no task waits for them, they count, and each ends in time.

Comes in: streams that are only opened. Goes out: what runs, what is counted, and what the peer is told.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from harness import eventually, looped, seconds, settle
from hosts import pair
from p2pcore import Limits, Stream, codes, limits
from p2pcore.errors import RefusedByPeer, StreamReset
from p2pcore.swarm.silent_streams import SilentStreams
from p2pcore.upgrade.multistream import HEADER, encode

ECHO = HEADER + encode("/echo/1.0.0")


async def silent(p: Any, count: int) -> list[Stream]:
    """`count` streams that the server knows, and on which nothing was said."""
    before = p.server.swarm.num_handlers_running
    streams = [await p.conn.open_stream() for _ in range(count)]
    await eventually(lambda: p.server.swarm.num_handlers_running == before + count)
    return streams


def num_tasks(p: Any) -> int:
    return len(p.server.swarm._streams._tasks)


def share(p: Any) -> Any:
    return p.server.swarm.ledger.share(p.dialer.peer_id)


async def code_of(stream: Stream) -> int:
    with pytest.raises(StreamReset) as caught:
        await stream.read()
    assert caught.value.remote
    return caught.value.code


async def nothing_left(p: Any) -> None:
    await eventually(lambda: p.server.swarm.num_handlers_running == 0)
    assert share(p).handlers == 0
    await eventually(lambda: p.conn.num_streams == 0)


@looped
async def test_a_silent_stream_has_no_task_and_is_served_when_the_peer_speaks() -> None:
    async with pair({"echo": True}) as p:
        before = len(asyncio.all_tasks())
        streams = await silent(p, 50)
        assert len(asyncio.all_tasks()) == before
        assert num_tasks(p) == 0
        assert share(p).handlers == 50
        for stream in streams:
            await stream.write(ECHO + b"hello")
        for stream in streams:
            assert await stream.read_exactly(len(ECHO)) == ECHO
            assert await stream.read_exactly(5) == b"hello"
            await stream.close()
        await nothing_left(p)


@looped
async def test_a_proposal_may_come_byte_by_byte() -> None:
    async with pair({"echo": True}) as p:
        (stream,) = await silent(p, 1)
        for byte in ECHO + b"hello":
            await stream.write(bytes([byte]))
            await settle()
        assert await stream.read_exactly(len(ECHO) + 5) == ECHO + b"hello"
        assert share(p).handlers <= 1


@looped
async def test_a_silent_stream_costs_two_objects() -> None:
    async with pair({"echo": True}) as p:
        await silent(p, 10)
        gc.collect()
        before = len(gc.get_objects())
        streams = await silent(p, 200)
        gc.collect()
        # One is the dialer's stream, which this test holds, and one the server's.
        assert len(gc.get_objects()) - before < 2.5 * len(streams)


@pytest.mark.parametrize("count", [1, 3 * limits.OVERDUE_PER_TURN])
@looped
async def test_streams_that_stay_silent_are_reset_in_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_NEGOTIATION_TIMEOUT_S", seconds(0.3))

    async with pair({"echo": True}) as p:
        streams = await silent(p, count)
        await asyncio.sleep(seconds(0.15))
        (late,) = await silent(p, 1)
        for stream in streams:
            assert await code_of(stream) == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
        await late.write(ECHO + b"in time")
        assert await late.read_exactly(len(ECHO) + 7) == ECHO + b"in time"
        await late.close()
        await nothing_left(p)


@pytest.mark.parametrize("how", ["reset", "fin", "lost", "closed"])
@looped
async def test_a_silent_stream_that_ends_counts_no_more(how: str) -> None:
    async with pair({"echo": True}) as p:
        streams = await silent(p, 100)
        for stream in streams:
            if how == "reset":
                stream.reset()
            elif how == "fin":
                await stream.close_write()
        if how == "fin":
            for stream in streams:
                assert await code_of(stream) == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
        elif how == "lost":
            p.conn.session.abort()
        elif how == "closed":
            await p.conn.close()
        await nothing_left(p)
        assert num_tasks(p) == 0
        if how in ("lost", "closed"):
            await eventually(lambda: p.server.swarm.ledger.num_peers <= 1)


@looped
async def test_silent_streams_are_held_to_the_limit_of_handlers() -> None:
    async with pair({"echo": True, "limits": Limits(max_handlers_per_peer=10)}) as p:
        streams = await silent(p, 10)
        refused = await p.conn.open_stream()
        with pytest.raises(RefusedByPeer):
            await refused.read()
        streams[0].reset()
        await eventually(lambda: share(p).handlers == 9)
        assert await p.dialer.echo(p.conn, b"room again") == b"room again"


@looped
async def test_a_silent_stream_that_speaks_while_the_node_refuses_is_told_to_go_elsewhere() -> None:
    async with pair({"echo": True}) as p:
        speaks, _ = await silent(p, 2)
        p.server.swarm._streams.refuse()
        await speaks.write(ECHO)
        assert await code_of(speaks) == codes.STREAM_SHUTDOWN
        await eventually(lambda: p.server.swarm.num_handlers_running == 1)


@looped
async def test_a_node_that_closes_lets_silent_streams_go() -> None:
    async with pair({"echo": True}) as p:
        await silent(p, 100)
        await p.server.close()
        assert p.server.swarm.num_handlers_running == 0


@looped
async def test_a_stream_that_brings_its_proposal_is_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual client: nothing is set aside."""
    held: list[Stream] = []
    monkeypatch.setattr(SilentStreams, "add", lambda _, stream: held.append(stream))
    async with pair({"echo": True}) as p:
        for _ in range(20):
            assert await p.dialer.echo(p.conn, b"at once") == b"at once"
        assert not held
