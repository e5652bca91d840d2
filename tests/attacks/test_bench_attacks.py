"""bench/attacks: its table is sound, its bounds are judged right, and a short row runs to its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attacks import attacker, render, rows
from attacks.rows import ROWS, Bound
from harness import HANG_S, seconds

BENCH = Path(__file__).resolve().parents[2] / "bench"

LONGEST_S = 95
"""What was begun may take a minute and a half; other rows take less than half a minute."""

pytestmark = pytest.mark.source


def test_every_row_has_a_name_of_its_own_an_attack_and_bounds() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.attack in attacker.ATTACKS
        assert row.bounds
        assert (row.seconds or 0) <= LONGEST_S


def test_every_attack_has_a_row() -> None:
    assert {row.attack for row in ROWS} == set(attacker.ATTACKS)


def test_a_bound_is_missed_above_below_and_without_its_figure() -> None:
    bound = Bound("x", least=1, most=2)
    assert bound.holds({"x": 1})
    assert bound.holds({"x": 2})
    assert not bound.holds({"x": 0.9})
    assert not bound.holds({"x": 2.1})
    assert not bound.holds({"y": 1})


def test_the_page_shows_what_was_missed_and_what_ended() -> None:
    row = ROWS[0]
    ended = {
        "row": row.name,
        "node": "p2pcore",
        "figures": {},
        "failure": "gone",
        "when": "then",
        "commit": "abc",
    }
    text = render.page({"machine": {"memory": "1 GB"}, "rows": [ended]})
    assert "it ended" in text
    assert text.count("**no**") == len(row.bounds)
    assert rows.ROWS[1].title not in text


@pytest.mark.slow
def test_a_short_row_runs_to_its_end() -> None:
    command = [sys.executable, "-m", "attacks", "bad-proposals-1", "--loopback", "--json"]
    done = subprocess.run(
        [*command, "--rest", "0.5", "--attack", "1", "--settle", "0"],
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=seconds(HANG_S),
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert "failure" not in found
    assert found["figures"]["held done"] > 0
    assert found["figures"]["attacker streams"] > 0
