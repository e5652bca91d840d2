"""The gates' own logic, on made-up figures: what fails, what is skipped, how callgrind's profile is read."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gates", reason="there is no bench/ here")

from gates import allocations, baseline, table
from gates.callgrind import calls, self_cost, system_calls
from gates.verdict import INTERPRETER, PRIMITIVES, Figure, Outcome, Verdict, compare

HERE = {
    "python": "CPython 3.11",
    "arch": "x86_64",
    "system": "Linux",
    "simd": "avx2",
    "optimization": "plain",
    "uvloop": "1",
}


def judge(
    value: float, base: float | None, *, slack: float = 0.0, needs: tuple[str, ...] = (), **there: str
) -> Verdict:
    """The verdict on one row."""
    figure = Figure("row", value, "instructions", slack, needs)
    values = {} if base is None else {"row": base}
    (verdict,) = compare([figure], values, HERE, HERE | there)
    return verdict


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (1000, Outcome.OK),
        (1050, Outcome.OK),
        (1051, Outcome.WORSE),
        (2000, Outcome.WORSE),
        (950, Outcome.OK),
        (949, Outcome.BETTER),
    ],
)
def test_more_than_five_per_cent_over_its_baseline_a_row_fails(value: float, outcome: Outcome) -> None:
    verdict = judge(value, 1000)
    assert verdict.outcome is outcome
    assert verdict.is_failure == (outcome is Outcome.WORSE)


def test_a_baseline_of_zero_fails_beyond_its_slack() -> None:
    assert judge(0.0, 0.0, slack=0.02).outcome is Outcome.OK
    assert judge(0.02, 0.0, slack=0.02).outcome is Outcome.OK
    assert judge(1.0, 0.0, slack=0.02).outcome is Outcome.WORSE
    assert judge(0.001, 0.0).outcome is Outcome.WORSE


def test_a_new_row_does_not_fail() -> None:
    verdict = judge(1000, None)
    assert verdict.outcome is Outcome.NEW
    assert not verdict.is_failure


def test_a_row_that_is_not_measured_any_more_fails() -> None:
    verdicts = compare([], {"gone": 5.0}, HERE, HERE)
    assert [(each.name, each.outcome, each.is_failure) for each in verdicts] == [
        ("gone", Outcome.MISSING, True)
    ]


@pytest.mark.parametrize("key", ["python", "arch", "system"])
def test_another_python_or_machine_skips_with_the_reason(key: str) -> None:
    verdict = judge(2000, 1000, **{key: "other"})
    assert verdict.outcome is Outcome.SKIPPED
    assert not verdict.is_failure
    assert key in verdict.reason
    assert "other" in verdict.reason


def test_other_versions_of_libraries_skip_nothing() -> None:
    assert judge(2000, 1000, uvloop="2").outcome is Outcome.WORSE


def test_another_processor_skips_the_rows_of_primitives_only() -> None:
    assert judge(2000, 1000, needs=PRIMITIVES, simd="none").outcome is Outcome.SKIPPED
    assert judge(2000, 1000, needs=INTERPRETER, simd="none").outcome is Outcome.WORSE
    assert judge(2000, 1000, needs=PRIMITIVES).outcome is Outcome.WORSE


def test_an_interpreter_built_otherwise_skips_the_rows_of_instructions_only() -> None:
    built = {"optimization": "enable-optimizations"}
    assert judge(2000, 1000, needs=INTERPRETER, **built).outcome is Outcome.SKIPPED
    assert judge(2000, 1000, **built).outcome is Outcome.WORSE


def test_a_failure_names_row_figure_baseline_and_ratio() -> None:
    there = HERE | {"uvloop": "2"}
    (text, note) = table.conclusions([judge(1234, 1000)], HERE, there)
    assert text.startswith("FAILED row: 1,234 instructions, baseline 1,000, 1.234 times as much")
    assert "uvloop is 1, of the baseline 2" in note


def test_an_improvement_says_how_to_keep_it() -> None:
    (text,) = table.conclusions([judge(500, 1000)], HERE, HERE)
    assert "make gates-baseline" in text


def test_skipped_rows_are_counted_by_reason() -> None:
    verdicts = [judge(1, 2, python="CPython 3.12"), judge(3, 3, python="CPython 3.12")]
    (text,) = table.conclusions(verdicts, HERE, HERE)
    assert text == "2 rows skipped: python is CPython 3.11, of the baseline CPython 3.12"


def test_the_table_has_a_line_for_each_row() -> None:
    verdicts = compare([Figure("a", 1.5, "bytes"), Figure("b", 2e6, "bytes")], {"a": 1.0, "c": 1}, HERE, HERE)
    head, *lines = table.lines(verdicts)
    assert head.split() == ["row", "now", "baseline", "ratio", "unit"]
    assert [line.split() for line in lines] == [
        ["a", "1.50", "1.00", "1.500", "bytes", "WORSE"],
        ["b", "2,000,000", "-", "bytes", "new"],
        ["c", "-", "1.00", "MISSING"],
    ]


def test_a_baseline_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.write([Figure("a", 1.234, "bytes"), Figure("b", 0.0, "objects")], HERE, path)
    read = baseline.load(path)
    assert read.environment == HERE
    assert read.values == {"a": 1.23, "b": 0.0}


def test_without_a_baseline_every_row_is_new(tmp_path: Path) -> None:
    read = baseline.load(tmp_path / "none.json")
    (verdict,) = compare([Figure("a", 1, "bytes")], read.values, HERE, read.environment)
    assert verdict.outcome is Outcome.NEW


def test_the_committed_baseline_has_rows_of_each_kind_and_its_environment() -> None:
    committed = baseline.load()
    assert set(baseline.environment()) == set(committed.environment)
    assert "idle connection, listener: resident bytes" in committed.values
    assert "stream: 1KiB written and read" in committed.values
    assert committed.values["frame of 1KiB read: objects left"] <= 0.02
    assert all(value >= 0 for value in committed.values.values())


PROFILE = """\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir

ob=(1) /usr/bin/python3.11
fl=(1) ceval.c
fn=(1) eval
10 100
+2 5
cob=(2) /usr/lib/libsodium.so.23
cfi=(2) scalar.c
cfn=(2) multiply
calls=3 40
12 9000
* 1

ob=(2)
fl=(2)
fn=(2)
40 9000

ob=(1)
fl=(1)
fn=(3) other
-3 7

totals: 9113
"""


def test_instructions_belong_to_the_library_they_ran_in() -> None:
    costs = self_cost(PROFILE.splitlines())
    assert costs == {"/usr/bin/python3.11": 113, "/usr/lib/libsodium.so.23": 9000}


def test_calls_of_a_function_are_added_up() -> None:
    assert calls(PROFILE.splitlines()) == {"multiply": 3}
    assert calls([*PROFILE.splitlines(), "cfn=(2)", "calls=4 40", "12 1"]) == {"multiply": 7}


@pytest.mark.parametrize(
    ("totals", "count"), [("9113 12 40", 12), ("9113 12", 12), ("9113", 0)], ids=["all", "two", "one"]
)
def test_system_calls_are_a_sum_of_the_profile(totals: str, count: int) -> None:
    lines = PROFILE.replace("events: Ir", "events: Ir sysCount sysTime").replace("9113", totals).splitlines()
    assert system_calls(lines) == count
    assert self_cost(lines) == {"/usr/bin/python3.11": 113, "/usr/lib/libsodium.so.23": 9000}


def test_reading_the_clock_is_no_system_call() -> None:
    lines = PROFILE.replace("events: Ir", "events: Ir sysCount").replace("9113", "9113 12").splitlines()
    lines += ["cfn=(9) clock_gettime@@GLIBC_2.17", "calls=5 40", "12 1"]
    assert allocations._counts(lines)[allocations.SYSTEM_CALLS] == 7


def test_a_profile_without_totals_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no totals"):
        system_calls(PROFILE.partition("totals")[0].splitlines())
