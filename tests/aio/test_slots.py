"""Slots: a bound on quick work, slow work that keeps nobody out, an end for the oldest of too much of it."""

from __future__ import annotations

import asyncio

from harness import looped, seconds, settle
from p2pcore.aio.slots import Slots


@looped
async def test_only_so_many_items_are_quick_at_once() -> None:
    slots: Slots[int] = Slots(2, 3600.0, 10, lambda item: None)
    for item in (1, 2):
        await slots.wait()
        slots.enter(item)
    waiting = asyncio.ensure_future(slots.wait())
    await settle(5)
    assert not waiting.done()
    slots.release(1)
    slots.release(1)
    await waiting
    assert len(slots) == 1


@looped
async def test_slow_items_go_on_and_keep_nobody_out() -> None:
    ended: list[int] = []
    slots: Slots[int] = Slots(1, seconds(0.001), 3, ended.append)
    for item in range(4):
        await slots.wait()
        slots.enter(item)
    assert len(slots) == 4
    assert ended == []


@looped
async def test_of_too_many_slow_items_the_oldest_is_ended() -> None:
    ended: list[int] = []
    slots: Slots[int] = Slots(1, seconds(0.001), 2, ended.append)
    for item in range(6):
        await slots.wait()
        slots.enter(item)
    assert ended == [0, 1, 2]
    assert len(slots) == 3


@looped
async def test_without_slow_items_nothing_is_put_aside() -> None:
    slots: Slots[int] = Slots(1, 0.0, 0, lambda item: None)
    slots.enter(1)
    waiting = asyncio.ensure_future(slots.wait())
    await settle(5)
    assert not waiting.done()
    slots.release(1)
    await waiting


@looped
async def test_wait_empty_returns_when_the_last_item_has_left() -> None:
    slots: Slots[int] = Slots(5, 3600.0, 10, lambda item: None)
    await slots.wait_empty()
    for item in (1, 2):
        slots.enter(item)
    waiting = asyncio.ensure_future(slots.wait_empty())
    for item in (1, 2):
        await asyncio.sleep(0)
        assert not waiting.done()
        slots.release(item)
    await waiting


@looped
async def test_everybody_who_waits_is_woken() -> None:
    slots: Slots[int] = Slots(1, 3600.0, 10, lambda item: None)
    slots.enter(1)
    waiting = [asyncio.ensure_future(wait()) for wait in (slots.wait, slots.wait_empty, slots.wait)]
    await settle()
    slots.release(1)
    await asyncio.gather(*waiting)


@looped
async def test_one_who_gives_up_leaves_the_others_waiting() -> None:
    slots: Slots[int] = Slots(1, 3600.0, 10, lambda item: None)
    slots.enter(1)
    first, second = (asyncio.ensure_future(slots.wait()) for _ in range(2))
    await settle()
    second.cancel()
    await settle()
    assert second.cancelled()
    slots.release(1)
    await first
