"""Places of calls: bounds, order, turns among peers, and what a caller that gives up leaves behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from harness import looped, settle
from p2pcore import LimitExceeded, PeerId, PrivateKey
from p2pcore.codes import RpcCode
from p2pcore.errors import RpcError
from p2pcore.rpc.places import Bounds, Places

ANN, BOB, EVE = (PrivateKey.generate().peer_id() for _ in range(3))


class Calls:
    """Calls that run until `end`, in the order in which they got their places."""

    def __init__(self, bounds: Bounds) -> None:
        self.places = Places(bounds)
        self.ran: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def begin(self, name: str, peer: PeerId, size: int = 1) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, peer, size))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])
        await settle()

    async def _run(self, name: str, peer: PeerId, size: int) -> None:
        await self.places.enter(peer, size)
        try:
            self.ran.append(name)
            await self._ends[name].wait()
        finally:
            self.places.leave(peer)


def is_empty(places: Places) -> bool:
    tables = (places._running, places._queues, places._turns)
    return not any(tables) and (places.num_running, places.num_queued, places.queued_bytes) == (0, 0, 0)


@looped
async def test_calls_beyond_the_bound_run_in_order_as_others_end() -> None:
    calls = Calls(Bounds(running=2))
    for name in ("a", "b", "c", "d"):
        await calls.begin(name, ANN)
    assert (calls.ran, calls.places.num_running, calls.places.num_queued) == (["a", "b"], 2, 2)
    await calls.end("b")
    await calls.end("a")
    assert calls.ran == ["a", "b", "c", "d"]
    for name in ("c", "d"):
        await calls.end(name)
    assert is_empty(calls.places)


@looped
async def test_a_peer_at_its_own_bound_does_not_keep_others_waiting() -> None:
    calls = Calls(Bounds(running=3, running_per_peer=1))
    for name in ("a1", "a2", "a3"):
        await calls.begin(name, ANN)
    await calls.begin("b1", BOB)
    assert calls.ran == ["a1", "b1"]
    await calls.end("a1")
    assert calls.ran == ["a1", "b1", "a2"]


@looped
async def test_peers_take_turns_however_many_calls_one_has() -> None:
    calls = Calls(Bounds(running=1))
    for name in ("a1", "a2", "a3", "a4"):
        await calls.begin(name, ANN)
    await calls.begin("b1", BOB)
    await calls.begin("e1", EVE)
    for name in ("a1", "a2", "b1", "e1", "a3"):
        assert calls.ran[-1] == name
        await calls.end(name)
    assert calls.ran[-1] == "a4"


@looped
async def test_a_call_too_many_is_refused_at_once_with_both_numbers() -> None:
    for bounds, size, limit, used, most in (
        (Bounds(running=1, queued=1), 1, "queued", 2, 1),
        (Bounds(running=1, queued_per_peer=1), 1, "queued_per_peer", 2, 1),
        (Bounds(running=1, queued_bytes=9), 5, "queued_bytes", 10, 9),
    ):
        calls = Calls(bounds)
        await calls.begin("runs", ANN)
        await calls.begin("waits", ANN, size)
        with pytest.raises(RpcError) as caught:
            await calls.places.enter(ANN, size)
        assert caught.value.code is RpcCode.RESOURCE_EXHAUSTED
        cause = caught.value.__cause__
        assert isinstance(cause, LimitExceeded)
        assert (cause.limit, cause.used, cause.maximum) == (limit, used, most)
        await calls.end("runs")
        await calls.end("waits")
        assert is_empty(calls.places)


@looped
async def test_a_queue_of_none_refuses_what_cannot_run_now() -> None:
    calls = Calls(Bounds(running=1, queued=0))
    await calls.begin("a", ANN)
    with pytest.raises(RpcError):
        await calls.places.enter(BOB, 0)
    await calls.end("a")
    assert calls.places.try_enter(BOB)


@looped
async def test_who_gives_up_leaves_the_line_and_what_it_held() -> None:
    calls = Calls(Bounds(running=1))
    for name, peer in (("a", ANN), ("b", BOB), ("c", ANN)):
        await calls.begin(name, peer, size=7)
    await calls.cancel("b")
    assert (calls.places.num_queued, calls.places.queued_bytes) == (1, 7)
    await calls.end("a")
    assert calls.ran == ["a", "c"]
    await calls.end("c")
    assert is_empty(calls.places)


@pytest.mark.parametrize("is_given_first", [True, False])
@looped
async def test_a_call_cancelled_as_it_gets_its_place_passes_it_on(
    is_given_first: bool,
) -> None:
    places = Places(Bounds(running=1))
    assert places.try_enter(ANN)
    one, two = (asyncio.create_task(places.enter(ANN, 1)) for _ in range(2))
    await settle()
    if is_given_first:
        places.leave(ANN)
        one.cancel()
    else:
        one.cancel()
        places.leave(ANN)
    await two
    assert one.cancelled()
    assert (places.num_running, places.num_queued) == (1, 0)
    places.leave(ANN)
    assert is_empty(places)


@looped
async def test_lines_of_peers_that_come_and_give_up_grow_nothing() -> None:
    calls = Calls(Bounds(running=1))
    await calls.begin("a", ANN)
    for _ in range(100):
        await calls.begin("b", BOB)
        await calls.cancel("b")
    assert (len(calls.places._turns), len(calls.places._queues)) == (0, 0)


@looped
async def test_any_mixture_keeps_the_bounds_and_ends_empty() -> None:
    rng = random.Random(7)
    bounds = Bounds(running=4, running_per_peer=2, queued=20)
    calls = Calls(bounds)
    alive: list[str] = []
    for step in range(400):
        if alive and rng.random() < 0.5:
            name = alive.pop(rng.randrange(len(alive)))
            await (calls.cancel(name) if rng.random() < 0.4 else calls.end(name))
        elif calls.places.num_queued < bounds.queued:
            alive.append(f"{step}")
            await calls.begin(alive[-1], rng.choice((ANN, BOB, EVE)))
        running = calls.places._running
        assert calls.places.num_running == sum(running.values()) <= bounds.running
        assert max(running.values(), default=0) <= bounds.running_per_peer
        can_run = {peer for peer in calls.places._queues if running.get(peer, 0) < bounds.running_per_peer}
        assert calls.places.num_running == bounds.running or not can_run, "somebody waits for nothing"
    for name in alive:
        await calls.end(name)
    assert is_empty(calls.places)
