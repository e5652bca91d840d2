"""Pace: how much each of many keys may use in a time."""

from __future__ import annotations

from p2pcore.aio.pace import Pace


def used(pace: Pace[str], key: str, now: float, cost: float = 1.0) -> int:
    """Takes as often as there is room. Returns: how often."""
    count = 0
    while pace.has_room(key, now, cost):
        pace.spend(key, now, cost)
        count += 1
    return count


def test_a_key_may_use_all_at_once_and_again_after_the_period() -> None:
    pace = Pace[str](600, 60.0)
    assert used(pace, "a", 5.0) == 600
    assert used(pace, "a", 5.0) == 0
    assert used(pace, "a", 6.0) == 10
    assert used(pace, "a", 7.0 + 60.0) == 600


def test_one_key_takes_nothing_from_another() -> None:
    pace = Pace[str](3, 60.0)
    used(pace, "a", 0.0)
    assert used(pace, "b", 0.0) == 3


def test_what_was_not_used_is_given_back() -> None:
    pace = Pace[str](2000, 120.0)
    for _ in range(100):
        assert pace.has_room("a", 0.0, 1000)
        pace.spend("a", 0.0, 1000)
        pace.give_back("a", 1000)
    assert used(pace, "a", 0.0, 1000) == 2


def test_a_bucket_emptied_in_parts_takes_its_whole_size() -> None:
    pace = Pace[str](7, 1.0)
    assert used(pace, "a", 1e6) == 7


def test_only_so_many_keys_are_remembered_and_the_one_used_last_is_among_them() -> None:
    pace = Pace[str](1, 60.0, max_keys=10)
    for number in range(100):
        pace.spend("a", 0.0)
        pace.spend(str(number), 0.0)
    assert len(pace) == 10
    assert not pace.has_room("a", 0.0)
    assert pace.has_room("0", 0.0)
