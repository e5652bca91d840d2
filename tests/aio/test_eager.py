"""Awaits begun at once: done or waiting, cancelled, failed."""

from __future__ import annotations

import asyncio

import pytest

from harness import looped
from p2pcore.aio.eager import Begun


async def give(value: int, gate: asyncio.Event | None = None, log: list[str] | None = None) -> int:
    try:
        if gate is not None:
            await gate.wait()
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        if log is None:
            return -1
        log.append("cancelled")
        raise
    if value < 0:
        raise ValueError(value)
    return value


@looped
async def test_what_need_not_wait_is_done_at_once() -> None:
    begun = Begun(give(7))
    assert begun.is_done
    assert await begun == 7
    with pytest.raises(ValueError, match="-1"):
        Begun(give(-1))


@pytest.mark.parametrize("value", [7, -1])
@looped
async def test_what_waits_gives_its_result_later(value: int) -> None:
    gate = asyncio.Event()
    begun = Begun(give(value, gate))
    assert not begun.is_done
    asyncio.get_running_loop().call_soon(gate.set)
    if value < 0:
        with pytest.raises(ValueError, match="-1"):
            await begun
    else:
        assert await begun == 7


@pytest.mark.parametrize("swallows", [False, True])
@looped
async def test_a_cancellation_reaches_what_was_begun(swallows: bool) -> None:
    log: list[str] = []
    begun = Begun(give(7, asyncio.Event(), None if swallows else log))

    async def wait() -> int:
        return await begun

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if swallows:
        assert task.result() == -1
    else:
        assert task.cancelled()
        assert log == ["cancelled"]
