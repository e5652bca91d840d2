"""Intake: a bound on quick work, slow work that keeps nobody out, and a share for each block of addresses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import eventually, looped, settle
from p2pcore.aio.descriptors import descriptors_of
from p2pcore.aio.intake import Bounds, Intake, Why
from p2pcore.aio.threshold import Threshold
from virtual_time import virtual

pytestmark = pytest.mark.filterwarnings("error")


class Work:
    """An intake of strings such as "a1", whose first letter is the block. Items run until `end`."""

    def __init__(
        self,
        maximum: int,
        slow_after: float = 0.1,
        max_slow: int = 10,
        max_waiting: int = 10,
        max_silence: float = 0.0,
    ) -> None:
        self.begun: list[str] = []
        self.offered_at: dict[str, float] = {}
        self.dropped: list[tuple[str, Why]] = []
        self.queue = Threshold(1)
        self._ends: dict[str, asyncio.Future[bool]] = {}
        bounds = Bounds(maximum, slow_after, max_slow, max_waiting, max_silence)
        self.intake: Intake[str] = Intake(
            self._run, lambda item, why: self.dropped.append((item, why)), bounds, self.queue
        )

    async def _run(self, item: str, offered_at: float) -> None:
        self.begun.append(item)
        self.offered_at[item] = offered_at
        end = self._ends[item] = asyncio.get_running_loop().create_future()
        has_worked = False
        try:
            has_worked = await end
        finally:
            self.intake.release(item, has_worked)

    def offer(self, *items: str) -> list[bool]:
        return [self.intake.offer(item, item[0]) for item in items]

    async def end(self, *items: str, has_worked: bool = True) -> None:
        for item in items:
            self._ends[item].set_result(has_worked)
        await settle()

    async def close(self) -> list[str]:
        items, tasks = self.intake.close()
        if tasks:
            await asyncio.wait(tasks)
        return items


def many(block: str, count: int, first: int = 0) -> list[str]:
    return [f"{block}{number}" for number in range(first, first + count)]


@virtual
async def test_only_so_many_items_are_quick_and_the_others_wait_their_turn() -> None:
    work = Work(2, slow_after=3600.0)
    assert work.offer("a1", "a2", "a3") == [True] * 3
    await settle()
    assert work.begun == ["a1", "a2"]
    assert (work.intake.num_running, work.intake.num_waiting) == (2, 1)
    await work.end("a1")
    assert work.begun == ["a1", "a2", "a3"]
    await work.close()


@virtual
async def test_slow_items_go_on_and_keep_nobody_out() -> None:
    work = Work(1, max_slow=3)
    work.offer(*many("a", 4))
    await asyncio.sleep(1)
    assert work.begun == many("a", 4)
    assert (work.intake.num_running, work.dropped) == (4, [])
    await work.close()


@virtual
async def test_of_too_many_slow_items_the_oldest_of_the_largest_block_ends() -> None:
    work = Work(1, max_slow=3)
    work.offer("b0")
    work.offer(*many("a", 6))
    await asyncio.sleep(2)
    assert work.dropped == [("a0", Why.TOO_MANY_SLOW), ("a1", Why.TOO_MANY_SLOW), ("a2", Why.TOO_MANY_SLOW)]
    assert work.intake.num_running == 4
    await work.end("b0")
    assert work.intake.num_running == 3
    await work.close()


@virtual
async def test_without_slow_items_nothing_is_put_aside() -> None:
    work = Work(1, slow_after=0.0, max_slow=0)
    work.offer("a1", "a2", "b1")
    await asyncio.sleep(5)
    assert work.begun == ["a1"]
    await work.close()


@virtual
async def test_blocks_take_turns() -> None:
    work = Work(1, slow_after=3600.0)
    work.offer(*many("a", 4), "b0", "c0")
    await settle()
    for item in ("a0", "a1", "b0", "c0", "a2"):
        await work.end(item)
    assert work.begun == ["a0", "a1", "b0", "c0", "a2", "a3"]
    await work.close()


@virtual
async def test_a_new_block_begins_at_once_though_another_has_all_slots() -> None:
    work = Work(4, slow_after=3600.0, max_waiting=50)
    work.offer(*many("a", 20))
    await settle()
    assert work.offer("b0") == [True]
    await settle()
    assert work.begun == [*many("a", 4), "b0"]
    assert work.dropped == []
    assert work.offer(*many("b", 5, 1)) == [True] * 5
    await settle()
    assert work.begun == [*many("a", 4), "b0", "b1"]  # as soon as both have two slots, they wait
    await work.close()


@virtual
async def test_where_too_many_wait_the_largest_block_is_refused_and_gives_a_place() -> None:
    work = Work(1, slow_after=3600.0, max_slow=4, max_waiting=6)
    assert work.offer(*many("a", 7)) == [True] * 7
    assert work.offer("a7") == [False]
    assert work.offer("b0", "c0", "d0") == [True] * 3
    assert work.dropped == [(f"a{number}", Why.TOO_MANY_OF_BLOCK) for number in (6, 5, 4)]
    assert work.intake.num_waiting == 6
    await work.close()


@virtual
async def test_one_block_that_seems_honest_is_held_back_and_not_refused() -> None:
    work = Work(2, slow_after=3600.0, max_waiting=3)
    accepted = 0

    async def accept() -> None:
        nonlocal accepted
        for item in many("a", 300):
            await work.intake.wait()
            assert work.offer(item) == [True]
            accepted += 1

    accepting = asyncio.ensure_future(accept())
    await settle()
    assert accepted == 5
    for item in many("a", 299):
        await work.end(item)
    await accepting
    await work.end("a299")
    assert (work.begun, work.dropped) == (many("a", 300), [])
    await work.intake.wait_empty()


@virtual
async def test_beside_another_block_or_with_many_slow_items_nobody_is_held_back() -> None:
    work = Work(2, max_slow=8, max_waiting=2)
    work.offer(*many("a", 4))
    waiting = asyncio.ensure_future(work.intake.wait())
    await settle()
    assert not waiting.done()
    await asyncio.sleep(0.15)  # two are slow, two begin
    await waiting
    assert work.offer("a4", "a5") == [True] * 2
    waiting = asyncio.ensure_future(work.intake.wait())
    await settle()
    assert not waiting.done()
    await asyncio.sleep(0.15)
    await waiting
    assert work.offer("a6", "a7") == [True] * 2  # four are slow: more than a fourth of all places
    await work.intake.wait()
    await work.close()
    two = Work(2, slow_after=3600.0, max_waiting=2)
    two.offer("a0", "a1", "b0", "b1", "a2")
    await two.intake.wait()
    await two.close()


@virtual
async def test_a_block_whose_items_fail_may_wait_with_few() -> None:
    work = Work(2, slow_after=3600.0, max_waiting=1000)
    for item in many("a", 200):
        work.offer(item)
        await settle()
        await work.end(item, has_worked=False)
    assert work.offer(*many("a", 6, 200)) == [True] * 4 + [False] * 2
    assert work.offer("b0", "b1") == [True] * 2
    await work.close()


@virtual
async def test_while_held_nothing_begins() -> None:
    work = Work(5)
    work.queue.acquire()
    assert work.offer("a1", "a2") == [True] * 2
    await asyncio.sleep(10)
    assert work.begun == []
    work.queue.release()
    work.intake.go_on()
    await settle()
    assert work.begun == ["a1", "a2"]
    assert work.offered_at["a1"] <= asyncio.get_running_loop().time() - 10
    await work.close()


@virtual
async def test_few_waiting_items_begin_in_one_turn() -> None:
    work = Work(500, slow_after=3600.0, max_waiting=500)
    work.queue.acquire()
    work.offer(*many("a", 200))
    work.queue.release()
    work.intake.go_on()
    counts = []
    for _ in range(12):
        before = work.intake.num_running
        await asyncio.sleep(0)
        counts.append(work.intake.num_running - before)
    assert max(counts) <= 32
    assert sum(counts) == 200
    await work.close()


@virtual
async def test_wait_empty_returns_when_the_last_item_has_left() -> None:
    work = Work(1, slow_after=3600.0)
    await work.intake.wait_empty()
    work.offer("a1", "a2")
    waiting = asyncio.ensure_future(work.intake.wait_empty())
    await settle()
    await work.end("a1")
    assert not waiting.done()
    await work.end("a2")
    await waiting


@virtual
async def test_close_gives_all_items_back_and_ends_their_tasks() -> None:
    work = Work(2, max_slow=5)
    work.offer(*many("a", 5))
    await asyncio.sleep(0.15)
    assert sorted(await work.close()) == many("a", 5)
    assert (work.intake.num_running, work.intake.num_waiting) == (0, 0)
    await asyncio.sleep(1)
    assert work.dropped == []


@virtual
async def test_one_who_gives_up_waiting_leaves_the_others() -> None:
    work = Work(1, slow_after=3600.0)
    work.offer("a1")
    first, second = (asyncio.ensure_future(work.intake.wait_empty()) for _ in range(2))
    await settle()
    second.cancel()
    await settle()
    await work.end("a1")
    await first


@virtual
async def test_where_descriptors_run_short_the_largest_block_gives_one() -> None:
    small, large = Work(1, max_slow=50), Work(1, max_slow=50)
    descriptors = descriptors_of(asyncio.get_running_loop())
    assert not descriptors.relieve()
    small.offer("b1", "b2")
    large.offer("c1", *many("a", 4))
    await asyncio.sleep(1)
    assert descriptors.relieve()
    assert descriptors.relieve()
    assert (small.dropped, large.dropped) == ([], [("a0", Why.NO_DESCRIPTOR), ("a1", Why.NO_DESCRIPTOR)])
    await small.close()
    await large.close()


@virtual
async def test_many_quick_handshakes_of_a_block_go_before_connections_few_after_them() -> None:
    work = Work(100)
    descriptors = descriptors_of(asyncio.get_running_loop())
    spared: list[int] = []
    descriptors.add_spare(lambda: not spared.append(1))
    work.offer("b0", *many("a", 17))
    await settle()
    assert [descriptors.relieve() for _ in range(3)] == [True] * 3
    assert (work.dropped, len(spared)) == ([(f"a{n}", Why.NO_DESCRIPTOR) for n in (0, 1)], 1)
    await work.close()


@virtual
async def test_single_handshakes_go_after_connections_that_are_spared() -> None:
    work = Work(1)
    closed: list[int] = []

    def close_one() -> bool:
        if len(closed) == 2:
            return False
        closed.append(1)
        return True

    descriptors = descriptors_of(asyncio.get_running_loop())
    descriptors.add_spare(close_one)
    work.offer("a1", "b1")
    await asyncio.sleep(1)
    assert [descriptors.relieve() for _ in range(5)] == [True] * 4 + [False]
    assert (len(closed), [item for item, _ in work.dropped]) == (2, ["a1", "b1"])
    descriptors.remove_spare(close_one)
    descriptors.remove_spare(close_one)
    await work.close()


@looped
async def test_an_intake_that_nobody_uses_holds_no_place_among_the_descriptors() -> None:
    descriptors = descriptors_of(asyncio.get_running_loop())

    def use() -> None:
        Work(1)

    use()
    await eventually(lambda: not _holders(descriptors))


def _holders(descriptors: Any) -> list[Any]:
    import gc

    gc.collect()
    return list(descriptors._holders)


# -- silent peers ------------------------------------------------------------------------------


class Quiet(str):
    """An item whose peer is silent until `speak`."""

    __slots__ = ("_first",)

    def wait_first(self, first: Any) -> bool:
        self._first = first
        return True

    def speak(self) -> None:
        self._first._heard(self)


def quiet(block: str, count: int, first: int = 0) -> list[str]:
    return [Quiet(item) for item in many(block, count, first)]


@pytest.fixture
def never_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pcore.aio.intake.EAGER_UPGRADES", 0)


@virtual
async def test_a_silent_item_begins_when_it_speaks(never_eager: None) -> None:
    work = Work(2, max_silence=15.0)
    items = quiet("a", 3)
    assert work.offer(*items) == [True] * 3
    await asyncio.sleep(1.0)
    assert work.begun == []
    assert work.intake.num_running == 3
    for item in items:
        item.speak()  # type: ignore[attr-defined]
    await settle()
    assert work.begun == items[:2]
    assert work.intake.num_waiting == 1
    assert {work.offered_at[item] for item in work.begun} == {0.0}  # their deadline counts from the offer
    await work.end(*items[:2])
    await work.end(items[2])
    assert work.intake.num_running == work.intake.num_waiting == 0
    assert work.dropped == []


@virtual
async def test_silent_items_end_at_their_deadline_the_oldest_first(never_eager: None) -> None:
    work = Work(2, max_slow=200, max_silence=15.0)
    first, later = quiet("a", 100), quiet("b", 50)
    work.offer(*first)
    await asyncio.sleep(5.0)
    work.offer(*later)
    await asyncio.sleep(10.5)
    assert work.dropped == [(item, Why.TIMEOUT) for item in first]
    await asyncio.sleep(5.0)
    assert work.dropped[100:] == [(item, Why.TIMEOUT) for item in later]
    await work.intake.wait_empty()


@virtual
async def test_silent_items_that_came_at_once_end_at_their_deadline_too(never_eager: None) -> None:
    work = Work(2, max_slow=1000, max_silence=15.0)
    items = quiet("a", 300)
    work.offer(*items)
    await asyncio.sleep(15.2)
    assert work.dropped == [(item, Why.TIMEOUT) for item in items]
    await work.intake.wait_empty()


@virtual
async def test_of_too_many_silent_items_the_block_with_the_most_loses_one(never_eager: None) -> None:
    work = Work(20, max_slow=10, max_silence=15.0)
    honest = quiet("b", 3)
    work.offer(*honest)
    await asyncio.sleep(0.2)
    for turn in range(20):
        work.offer(*quiet("a", 5, 5 * turn))
        await asyncio.sleep(0.2)
    assert {why for _, why in work.dropped} == {Why.TOO_MANY_SLOW}
    assert not {item for item, _ in work.dropped} & set(honest)
    assert work.intake.num_running <= 2 * 10
    honest[0].speak()  # type: ignore[attr-defined]
    await settle()
    assert work.begun == [honest[0]]
    assert len(await work.close()) <= 2 * 10


@virtual
async def test_silent_items_are_bounded_even_in_one_turn(never_eager: None) -> None:
    work = Work(20, max_slow=10, max_silence=15.0)
    work.offer(*quiet("a", 1000))
    assert work.intake.num_running == 2 * 10  # ten that are slow, and ten that have just come
    assert len(work.dropped) == 980
    await work.close()


@virtual
async def test_a_silent_item_goes_when_descriptors_run_out(never_eager: None) -> None:
    work = Work(2, max_silence=15.0)
    items = quiet("a", 5)
    work.offer(*items)
    assert work.intake.burden == 5  # at once: each holds a descriptor
    assert descriptors_of(asyncio.get_running_loop()).relieve()
    assert work.dropped == [(items[0], Why.NO_DESCRIPTOR)]
    assert await work.close() == items[1:]


@virtual
async def test_an_item_that_speaks_when_its_block_has_too_many_waiting_is_dropped(never_eager: None) -> None:
    work = Work(1, max_waiting=2, max_silence=15.0)
    items = quiet("a", 4)
    work.offer(*items)
    for item in items:
        item.speak()  # type: ignore[attr-defined]
    assert work.dropped == [(items[3], Why.TOO_MANY_OF_BLOCK)]
    assert work.intake.num_running == 1
    await work.close()


@virtual
async def test_while_a_block_with_many_silent_items_floods_its_new_ones_are_refused(
    never_eager: None,
) -> None:
    work = Work(2, max_slow=8, max_silence=15.0)
    for turn in range(50):
        work.offer(*quiet("a", 2, 2 * turn))
        await asyncio.sleep(0.2)
    assert work.offer(*quiet("a", 4, 100)) == [True, True, False, False]
    assert len(work.dropped) > 4  # most items fail, and an honest block has none of them
    assert work.offer(*quiet("b", 2)) == [True, True]
    await asyncio.sleep(0.2)  # the flood has ended: others at that address get in again
    assert work.offer(*quiet("a", 1, 104)) == [True]
    await work.close()
