"""Deadlines of a `with`: they end what is inside, and only that, and cost no timer each.

Comes in: tasks that wait. Goes out: TimeoutError where the deadline ended them, else what they came to.
"""

from __future__ import annotations

import asyncio

import pytest

from harness import looped, seconds, settle
from p2pcore._fast.loop.deadline import Deadline
from p2pcore._fast.loop.loop_state import loop_state


async def wait_within(at: float) -> str:
    with Deadline(asyncio.get_running_loop(), at):
        await asyncio.get_running_loop().create_future()
    return "not reached"


@looped
async def test_what_is_inside_ends_with_a_timeout() -> None:
    now = asyncio.get_running_loop().time()
    for at in (now - 1, now, now + seconds(0.01)):
        with pytest.raises(TimeoutError):
            await wait_within(at)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


@looped
async def test_what_ends_in_time_leaves_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    with Deadline(loop, loop.time() + 1000):
        await asyncio.sleep(0)
        assert loop_state(loop).num_watched == 1
    assert loop_state(loop).num_watched == 0
    with pytest.raises(KeyError), Deadline(loop, loop.time() + 1000):
        raise KeyError
    assert loop_state(loop).num_watched == 0


@looped
async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    task = asyncio.create_task(wait_within(asyncio.get_running_loop().time() + 1000))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@looped
async def test_a_cancellation_besides_the_deadline_wins() -> None:
    loop = asyncio.get_running_loop()

    async def cancelled_twice() -> None:
        task = asyncio.current_task()
        assert task is not None
        with Deadline(loop, loop.time() + seconds(0.01)):
            try:
                await loop.create_future()
            finally:
                task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_twice())


@looped
async def test_deadlines_within_one_another_end_the_right_one() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError), Deadline(loop, loop.time() + seconds(0.01)):
        await wait_within(loop.time() + 1000)
    with Deadline(loop, loop.time() + 1000):
        with pytest.raises(TimeoutError):
            await wait_within(loop.time() + seconds(0.01))
        await asyncio.sleep(0)


def test_a_deadline_is_for_a_task() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(RuntimeError), Deadline(loop, 0):
        pass
    loop.close()
    loop.close()
