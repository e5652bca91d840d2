"""The deadlines of many waits: each one in time, with one timer for all."""

from __future__ import annotations

import asyncio
from typing import Any

from p2pcore.aio.deadlines import Deadlines, end_stream
from virtual_time import now, virtual


class FakeStream:
    def __init__(self, late: list[tuple[float, FakeStream]]) -> None:
        self._late = late

    def set_deadline(self, seconds: float | None) -> None:
        assert seconds == 0
        self._late.append((round(now(), 2), self))


def made() -> tuple[Deadlines[Any], list[Any], list[Any]]:
    """Deadlines, what was late and when, and four streams."""
    late: list[Any] = []
    return Deadlines(end_stream), late, [FakeStream(late) for _ in range(4)]


@virtual
async def test_a_call_that_takes_too_long_is_ended_at_its_deadline_in_any_order() -> None:
    deadlines, late, streams = made()
    for stream, at in zip(streams, (30.0, 10.0, 20.0, 10.0), strict=True):
        deadlines.watch(stream, at)
    await asyncio.sleep(60)
    assert late == [(10, streams[1]), (10, streams[3]), (20, streams[2]), (30, streams[0])]
    assert deadlines._timer is None


@virtual
async def test_a_call_that_has_ended_is_left_alone() -> None:
    deadlines, late, streams = made()
    for stream in streams:
        deadlines.watch(stream, 10)
    for stream in streams[1:]:
        deadlines.forget(stream)
        deadlines.forget(stream)
    await asyncio.sleep(20)
    assert late == [(10, streams[0])]


@virtual
async def test_deadlines_at_rest_have_no_timer() -> None:
    deadlines, late, streams = made()
    deadlines.watch(streams[0], 10)
    deadlines.rest()
    assert deadlines._timer is not None, "a call needs it"
    deadlines.forget(streams[0])
    deadlines.rest()
    assert deadlines._timer is None
    deadlines.watch(streams[1], 20)
    await asyncio.sleep(30)
    assert late == [(20, streams[1])]


@virtual
async def test_calls_that_end_in_time_share_one_timer() -> None:
    timers = 0

    class Counted(Deadlines[Any]):
        __slots__ = ()

        def _set_timer(self, at: float) -> None:
            nonlocal timers
            timers += 1
            super()._set_timer(at)

    _, late, streams = made()
    counted = Counted(end_stream)
    for i in range(1000):
        counted.watch(streams[0], now() + 30)
        await asyncio.sleep(0.05 if i % 2 else 0)
        counted.forget(streams[0])
    assert timers <= 2
    assert not late


@virtual
async def test_a_client_without_calls_has_no_timer_for_long() -> None:
    deadlines, late, streams = made()
    deadlines.watch(streams[0], 5)
    deadlines.forget(streams[0])
    await asyncio.sleep(6)
    assert (deadlines._timer, late) == (None, [])
