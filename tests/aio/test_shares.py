"""Shares: counts, the largest block, the oldest and newest of a block; compared with a simple model."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, strategies as st

from p2pcore.aio.shares import Shares


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3))))
def test_it_counts_as_a_list_would(steps: list[tuple[bool, int, int]]) -> None:
    shares: Shares[int] = Shares()
    model: list[tuple[int, int]] = []
    for adds, item, block in steps:
        known = [each for each, _ in model]
        if adds and item not in known:
            shares.add(item, block, 0.0)
            model.append((item, block))
        elif not adds and item in known:
            assert shares.remove(item) == dict(model)[item]
            model = [each for each in model if each[0] != item]
        counts = Counter(block for _, block in model)
        assert list(shares.places) == [each for each, _ in model]
        assert {block: list(items) for block, items in shares.blocks.items()} == {
            block: [each for each, its in model if its == block] for block in counts
        }
        assert shares.most == max(counts.values(), default=0)
        if model:
            largest = shares.largest()
            assert counts[largest] == shares.most
            of_it = [each for each, block in model if block == largest]
            assert (shares.oldest(largest), shares.newest(largest)) == (of_it[0], of_it[-1])


def test_of_equal_blocks_the_one_that_has_been_so_large_for_longest_is_the_largest() -> None:
    shares: Shares[str] = Shares()
    for item in ("a1", "b1", "c1", "b2", "a2"):
        shares.add(item, item[0], 0.0)
    assert shares.largest() == "b"
    shares.remove("b1")
    assert shares.largest() == "a"
    shares.remove("a1")
    assert shares.largest() == "c"


def test_a_block_that_is_sent_back_comes_last() -> None:
    shares: Shares[str] = Shares()
    for item in ("a1", "a2", "b1"):
        shares.add(item, item[0], 7.0)
    shares.send_back("a")
    assert list(shares.blocks) == ["b", "a"]
    assert shares.since("a2") == 7.0
