"""Table against a plain dict: look-ups by first words, deletions, expiry in the order of the puts."""

from __future__ import annotations

import asyncio

from hypothesis import given, strategies as st

from p2pcore.aio.table import ExpiryTimer, Table, is_under
from p2pcore.limits import TABLE_MAX_EXPIRED
from virtual_time import virtual

KEYS = st.lists(st.sampled_from(["a", "b", "aa"]), min_size=1, max_size=3).map(".".join)
STEPS = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=1), st.integers(0, 3)), max_size=40)


@given(STEPS, KEYS, st.none() | st.integers(1, 9))
def test_a_table_is_a_dict_with_prefixes_and_expiry(
    steps: list[tuple[str, bytes | None, int]], prefix: str, expiry: int | None
) -> None:
    now = 0.0
    table = Table(lambda: now, expiry)
    plain: dict[str, bytes] = {}
    times: dict[str, float] = {}
    for key, value, wait in steps:
        now += wait
        over = {each for each in plain if expiry is not None and times[each] + expiry <= now}
        gone = table.expire()
        assert set(gone) == over
        assert [times[each] for each in gone] == sorted(times[each] for each in gone)
        plain = {each: data for each, data in plain.items() if each not in over}
        assert table.put(key, value) == (plain.get(key) != value)
        plain.pop(key, None)
        if value is not None:
            plain[key], times[key] = value, now
        assert table.get(prefix) == {each: data for each, data in plain.items() if is_under(each, prefix)}
        due = min((times[each] for each in plain), default=None)
        assert table.next_expiry() == (None if expiry is None or due is None else due + expiry)
        assert len(table) == len(plain)
    assert sorted(table.clear()) == sorted(plain)
    assert (table.get(prefix), table.next_expiry(), len(table)) == ({}, None, 0)


def test_a_table_that_was_emptied_keeps_nothing() -> None:
    table = Table(lambda: 0.0)
    for n in range(100):
        table.put(f"a.{n}.b.c", b"")
    for n in range(100):
        table.put(f"a.{n}.b.c", None)
    assert table._tree == {}
    assert table._put_at == {}


@virtual
async def test_entries_that_expire_together_go_a_bounded_number_at_a_turn_and_are_found_no_more() -> None:
    loop = asyncio.get_running_loop()
    table = Table(loop.time, 1.0)
    turns: list[int] = []

    def due() -> None:
        turns.append(len(table.expire()))
        timer.set()

    timer = ExpiryTimer(table, due)
    for n in range(2 * TABLE_MAX_EXPIRED + 1):
        table.put(f"a.{n}", b"")
    timer.set()
    await asyncio.sleep(1.0)
    assert table.get("a") == {}
    await asyncio.sleep(0.1)
    assert turns == [TABLE_MAX_EXPIRED, TABLE_MAX_EXPIRED, 1]
    assert len(table) == 0


def test_an_entry_that_is_put_again_when_its_time_is_over_is_there() -> None:
    now = 0.0
    table = Table(lambda: now, 1.0)
    table.put("a", b"1")
    now = 2.0
    assert table.get("a") == {}
    assert not table.put("a", b"1")  # whoever watches has not been told that it went
    assert table.get("a") == {"a": b"1"}
