"""Threshold: holds back new work, never finished work, and notices when it is released too often."""

from __future__ import annotations

import asyncio

import pytest

from harness import looped
from p2pcore.aio.threshold import Threshold
from p2pcore.errors import LocalProtocolError


@looped
async def test_wait_returns_at_once_below_the_maximum() -> None:
    threshold = Threshold(2)
    threshold.acquire()
    await threshold.wait()


@looped
async def test_wait_holds_back_at_the_maximum_until_one_is_released() -> None:
    threshold = Threshold(2)
    for _ in range(3):
        threshold.acquire()
    waiters = [asyncio.ensure_future(threshold.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    threshold.release()  # 3 -> 2: still full
    await asyncio.sleep(0)
    assert threshold.is_full
    assert not any(waiter.done() for waiter in waiters)
    threshold.release()
    await asyncio.gather(*waiters)
    assert threshold.count == 1


def test_acquire_never_waits_and_may_go_over_the_maximum() -> None:
    threshold = Threshold(1)
    for _ in range(5):
        threshold.acquire()
    assert threshold.count == 5


@looped
async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    threshold = Threshold(1)
    threshold.acquire()
    cancelled, other = asyncio.ensure_future(threshold.wait()), asyncio.ensure_future(threshold.wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    threshold.release()
    await other
    await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    assert not threshold._waiters


def test_underflow_is_an_error() -> None:
    threshold = Threshold(1)
    threshold.acquire()
    threshold.release()
    with pytest.raises(LocalProtocolError):
        threshold.release()
    assert threshold.count == 0


def test_a_maximum_below_one_is_refused() -> None:
    with pytest.raises(ValueError):
        Threshold(0)


@looped
async def test_wait_empty_returns_when_everything_has_been_released() -> None:
    threshold = Threshold(1)
    await threshold.wait_empty()
    for _ in range(3):
        threshold.acquire()
    waiting = asyncio.ensure_future(threshold.wait_empty())
    for _ in range(2):
        threshold.release()
        await asyncio.sleep(0)
        assert not waiting.done()
    threshold.release()
    await waiting
