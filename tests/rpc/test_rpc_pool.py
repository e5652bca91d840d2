"""The streams of a client: used again, bounded, closed when nobody needs them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import looped, settle
from p2pcore import limits
from p2pcore.codes import RpcCode
from p2pcore.errors import RpcError
from p2pcore.rpc.pool import Pool
from virtual_time import virtual


class FakeStream:
    def __init__(self) -> None:
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True

    def reset(self, code: int = 0) -> None:
        self.is_closed = True


class Opened:
    """A pool, and the streams it has opened."""

    def __init__(self, most: int = 2, idle_s: float = 10) -> None:
        self.streams: list[Any] = []
        self.pool = Pool(self.open, most, idle_s)

    async def open(self) -> Any:
        self.streams.append(FakeStream())
        return self.streams[-1]

    async def use(self) -> Any:
        return self.pool.maybe_take() or (await self.pool.take())[0]


@looped
async def test_a_stream_that_comes_back_is_used_again_the_last_one_first() -> None:
    opened = Opened()
    one, two = await opened.use(), await opened.use()
    opened.pool.give(one)
    opened.pool.give(two)
    assert await opened.use() is two
    assert await opened.use() is one
    assert len(opened.streams) == opened.pool.num_open == 2


@looped
async def test_callers_beyond_the_limit_wait_in_order() -> None:
    opened = Opened(most=1)
    first = await opened.use()
    tasks = [asyncio.create_task(opened.use()) for _ in range(2)]
    await settle()
    assert opened.pool.num_waiting == 2
    opened.pool.give(first)
    await settle()
    assert [task.done() for task in tasks] == [True, False]
    assert opened.pool.maybe_take() is None, "it belongs to the caller that waited"
    opened.pool.drop()
    assert await tasks[1] is opened.streams[1]
    assert len(opened.streams) == 2


@looped
async def test_a_caller_learns_whether_its_stream_is_new() -> None:
    opened = Opened(most=1)
    first, is_new = await opened.pool.take()
    assert is_new
    waits = asyncio.create_task(opened.pool.take())
    await settle()
    opened.pool.give(first)
    assert await waits == (first, False)


@looped
async def test_a_stream_that_has_ended_is_not_given_out() -> None:
    opened = Opened()
    stream = await opened.use()
    opened.pool.give(stream)
    stream.reset()
    assert await opened.use() is not stream
    assert opened.pool.num_open == 1


@pytest.mark.parametrize("is_given_first", [True, False])
@looped
async def test_a_caller_that_is_cancelled_passes_on_what_it_was_given(is_given_first: bool) -> None:
    for ends in (Pool.give, lambda pool, _: pool.drop()):
        opened = Opened(most=1)
        first = await opened.use()
        one, two = (asyncio.create_task(opened.use()) for _ in range(2))
        await settle()
        if is_given_first:
            ends(opened.pool, first)
            one.cancel()
        else:
            one.cancel()
            ends(opened.pool, first)
        assert await two in opened.streams
        assert one.cancelled()
        assert opened.pool.num_waiting == 0
        three = asyncio.create_task(opened.use())
        await settle()
        three.cancel()
        await settle()
        assert opened.pool.num_waiting == 0


@looped
async def test_an_opening_that_fails_frees_its_place() -> None:
    opened = Opened(most=1)

    async def fail() -> Any:
        raise ConnectionError

    opened.pool._open = fail
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await opened.use()
    assert opened.pool.num_open == 0


@looped
async def test_too_many_waiting_callers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_MAX_WAITING", 1)
    opened = Opened(most=1)
    await opened.use()
    waits = asyncio.create_task(opened.use())
    await settle()
    with pytest.raises(RpcError) as caught:
        await opened.use()
    assert caught.value.code is RpcCode.RESOURCE_EXHAUSTED
    waits.cancel()


@virtual
async def test_streams_that_no_call_uses_are_closed_and_those_in_use_stay() -> None:
    opened = Opened(most=3, idle_s=10)
    streams = [await opened.use() for _ in range(3)]
    for stream in streams:
        opened.pool.give(stream)
    for _ in range(8):  # one call every 5 s: one stream is enough
        await asyncio.sleep(5)
        opened.pool.give(await opened.use())
    assert [stream.is_closed for stream in streams] == [True, True, False]
    assert opened.pool.num_open == 1
    await asyncio.sleep(21)
    assert streams[2].is_closed
    assert opened.pool._timer is None, "an idle client has no timer"


@looped
async def test_a_closed_pool_keeps_nothing() -> None:
    opened = Opened()
    idle, used = await opened.use(), await opened.use()
    opened.pool.give(idle)
    opened.pool.close()
    assert (idle.is_closed, used.is_closed) == (True, False)
    opened.pool.give(used)
    assert used.is_closed
    assert opened.pool.num_open == 0
