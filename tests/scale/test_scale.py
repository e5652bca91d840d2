"""The scale checks of bench/, small: many connections on one process, over workers, in a storm.

What depends on a quiet machine (CPU per accept) is measured by bench/scale.py alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import run

BENCH = Path(__file__).parent.parent.parent / "bench"
NOT_HERE = {"CPU per accept, many to few", "idle CPU", "memory after closing, to the start"}
NOT_HERE |= {"memory after it, to the start"}  # shares of a small growth

pytestmark = [pytest.mark.slow, pytest.mark.source]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """bench/scale.py as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    import scale

    monkeypatch.setattr(scale, "IDLE_WATCH_S", 1.0)
    yield scale
    for name in ("scale", "scale_node"):
        sys.modules.pop(name, None)


def assert_holds(figures: list[Any]) -> None:
    missed = [each for each in figures if not each.holds and each.name not in NOT_HERE]
    assert missed == []


def test_a_process_holds_connections_answers_pings_and_forgets_them(scale: Any) -> None:
    figures = run(scale.check_held(800, 4))
    assert_holds(figures)
    idle = next(each for each in figures if each.name == "idle CPU")
    assert idle.value < 20  # no timer, no task for each connection


def test_workers_share_connections_evenly(scale: Any) -> None:
    figures = run(scale.check_workers(800, 2))
    uneven = {"least of a worker, to even": 0.75, "most of a worker, to even": 1.25}  # chance weighs more
    for each in figures:
        if each.name in uneven:
            assert abs(each.value - 1) < abs(uneven[each.name] - 1)
        else:
            assert each.holds, each


def test_honest_peers_are_served_in_a_storm_of_silent_ones(scale: Any) -> None:
    assert_holds(run(scale.check_storm(300, 400)))


def test_a_missed_bound_is_seen(scale: Any) -> None:
    assert not scale.Figure("x", "y", 2.0, "", most=1.0).holds
    assert not scale.Figure("x", "y", 2.0, "", least=3.0).holds
    assert scale.Figure("x", "y", 2.0, "", least=2.0, most=2.0).holds
