"""A turn: one holder at a time, whoever dies, stands still, or loses the bus."""

from __future__ import annotations

import asyncio
import json

import pytest

from p2pcore.aio.turn import Turn
from p2pcore.errors import BusDown
from p2pcore.limits import FLEET_TURN_LOOK_S, FLEET_TURN_MAX_BYTES
from virtual_time import now, virtual

EXPIRY_S = 10.0


class Table:
    """A table with one cell. `writes`: how often it was swapped."""

    def __init__(self, value: bytes | None = None) -> None:
        self.value = value
        self.writes = 0

    def cell(self) -> Cell:
        return Cell(self)


class Cell:
    """The way of one process to the table. `loses_answers`: it writes, and says BusDown."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.is_up = True
        self.loses_answers = False

    async def get(self) -> bytes | None:
        await asyncio.sleep(0.001)
        if not self.is_up:
            raise BusDown("away")
        return self.table.value

    async def swap(self, expected: bytes | None, value: bytes) -> bool:
        await asyncio.sleep(0.001)
        if not self.is_up:
            raise BusDown("away")
        if self.table.value != expected:
            return False
        self.table.value = value
        self.table.writes += 1
        if self.loses_answers:
            raise BusDown("nobody knows")
        return True


def turn(cell: Cell, holder: str = "we", timeout_s: float = 3600.0) -> Turn:
    return Turn(cell, "t", holder, expiry_s=EXPIRY_S, timeout_s=timeout_s)


@virtual
async def test_of_many_only_one_has_it_and_each_gets_it() -> None:
    table, holders, most, done = Table(), 0, 0, 0

    async def one() -> None:
        nonlocal holders, most, done
        async with turn(table.cell()) as mine:
            holders += 1
            most = max(most, holders)
            for _ in range(4):
                await asyncio.sleep(4)
                await mine.hold()
                assert mine.is_held
            holders -= 1
            done += 1

    await asyncio.gather(*(one() for _ in range(20)))
    assert (most, done) == (1, 20)
    assert not table.value
    assert now() < 20 * 16 + 20 * 3 * FLEET_TURN_LOOK_S + 1  # given back, not waited out


@virtual
async def test_a_holder_keeps_it_for_longer_than_the_expiry() -> None:
    table = Table()
    async with turn(table.cell()) as mine:
        for _ in range(100):
            await asyncio.sleep(1)
            assert mine.is_held
        with pytest.raises(TimeoutError, match="first has it"):
            async with turn(Table(_by("first")).cell(), timeout_s=5):
                pass
    assert not mine.is_held


def _by(holder: str, **more: object) -> bytes:
    return json.dumps({"holder": holder, "token": "x", "beat": 1, "expiry_s": 60.0} | more).encode()


@virtual
async def test_who_waits_says_once_for_whom(caplog: pytest.LogCaptureFixture) -> None:
    async with turn(Table(_by("the other machine")).cell()):
        assert caplog.messages == ["waiting for the turn 't': the other machine has it"]


@virtual
async def test_a_holder_that_dies_loses_it_after_its_own_expiry_and_no_sooner() -> None:
    table = Table(_by("dead", expiry_s=33.0))
    began = now()
    async with turn(table.cell()):
        assert 33 <= now() - began < 33 + 2 * FLEET_TURN_LOOK_S


@virtual
async def test_who_cannot_renew_knows_that_it_is_lost_before_another_has_it() -> None:
    table = Table()
    cell = table.cell()
    async with turn(cell) as mine:
        cell.is_up = False
        async with turn(table.cell(), "other") as other:
            assert not mine.is_held
            assert other.is_held
            cell.is_up = True
            await asyncio.sleep(2 * EXPIRY_S)
            assert not mine.is_held, "it has taken the turn of the other"
            assert other.is_held
            waiting = asyncio.ensure_future(mine.hold())
            await asyncio.sleep(2 * EXPIRY_S)
            assert not waiting.done()
        await waiting
        assert mine.is_held


@virtual
async def test_a_write_whose_answer_is_lost_is_found_again() -> None:
    table = Table()
    cell = table.cell()
    cell.loses_answers = True
    waiting = asyncio.ensure_future(turn(cell).__aenter__())
    await asyncio.sleep(0.1)
    assert table.writes == 1
    assert not waiting.done()
    cell.loses_answers = False
    mine = await waiting
    assert now() < EXPIRY_S
    await mine.__aexit__(None, None, None)
    assert not table.value


@virtual
async def test_a_table_that_forgets_is_written_again_by_the_holder() -> None:
    table = Table()
    async with turn(table.cell()) as mine:
        table.value = None
        await asyncio.sleep(EXPIRY_S / 2)
        assert table.value
        assert mine.is_held


@virtual
async def test_the_wait_has_a_bound_also_without_a_bus_and_leaves_nothing() -> None:
    table = Table()
    cell = table.cell()
    cell.is_up = False
    with pytest.raises(TimeoutError, match=r"no turn 't' in 5 s"):
        async with turn(cell, timeout_s=5):
            pass
    cell.is_up = True
    waiting = asyncio.ensure_future(turn(cell).__aenter__())
    await asyncio.sleep(0.0015)  # in the middle of a swap
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not table.value
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    "value", [b"{", b"7", b"\xff", b'{"expiry_s": 1e999}', b'{"expiry_s": -1}', b"x" * FLEET_TURN_MAX_BYTES]
)
def test_what_cannot_be_read_counts_as_a_holder_that_dies(value: bytes) -> None:
    @virtual
    async def main() -> None:
        began = now()
        async with turn(Table(value).cell()):
            assert EXPIRY_S <= now() - began < EXPIRY_S + 2 * FLEET_TURN_LOOK_S

    main()
