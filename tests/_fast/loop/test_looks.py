"""What is due together is done a part in each turn of the loop, so that nobody else waits for all of it."""

from __future__ import annotations

import asyncio

import pytest

from _fast.chains import SYN, WU, RawYamux, frame
from harness import eventually, looped, settle
from p2pcore import limits
from p2pcore._fast.loop.deadline import Deadline
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.stream import Stream

PER_TURN = limits.OVERDUE_PER_TURN


@looped
async def test_deadlines_that_run_out_together_are_spread_over_turns() -> None:
    loop = asyncio.get_running_loop()
    ended: list[int] = []

    async def wait(number: int) -> None:
        with pytest.raises(TimeoutError), Deadline(loop, loop.time()):
            await loop.create_future()
        ended.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(10 * PER_TURN)]
    most = before = 0
    while len(ended) < len(tasks):
        await asyncio.sleep(0)
        most, before = max(most, len(ended) - before), len(ended)
    assert most <= PER_TURN
    assert sorted(ended) == list(range(len(tasks)))
    assert loop_state(loop).num_watched == 0


@looped
async def test_a_deadline_let_go_during_a_look_counts_no_more() -> None:
    """The one in front ends the one behind it, whose part of the look has not come yet."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()

    async def first() -> None:
        with pytest.raises(TimeoutError), Deadline(loop, loop.time()):
            await loop.create_future()
        if not passed.done():
            passed.set_result(None)

    async def last() -> str:
        with Deadline(loop, loop.time()):
            await passed
            return "in time"

    tasks = [asyncio.create_task(first()) for _ in range(3 * PER_TURN)]
    assert await asyncio.create_task(last()) == "in time"
    await asyncio.gather(*tasks)


@looped
async def test_connections_that_end_together_are_spread_over_turns() -> None:
    """Each has so many streams that their ends are most of a turn's work."""
    num_streams = limits.TURN_WORK // limits.END_WORK
    peers = [RawYamux() for _ in range(6)]
    streams: list[Stream] = []
    for peer in peers:
        peer.session.set_stream_handler(streams.append)
    for peer in peers:
        peer.deliver(b"".join(frame(WU, SYN, 2 * number + 1) for number in range(num_streams)))
    await eventually(lambda: len(streams) == len(peers) * num_streams)
    await settle()
    for peer in peers[:3]:
        peer.deliver_eof()
    for peer in peers[3:]:
        peer.wire.connection_lost(ConnectionResetError())
    left = sum(not stream.is_closed for stream in streams)
    while left:
        await asyncio.sleep(0)
        now = sum(not stream.is_closed for stream in streams)
        assert left - now <= num_streams
        left = now
