"""Rows, targets, medians and the page: nothing is better on paper than it was measured.

Comes in: results made by hand. Goes out: claims about ratios, cells and what is said of missing figures.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.source
results_module = pytest.importorskip("results", reason="bench/ is not there")

import quiet  # noqa: E402
import render  # noqa: E402
import rows  # noqa: E402
import works  # noqa: E402
from peers import Cores  # noqa: E402

UP = next(row for row in rows.ROWS if row.key == "up")
DIALER = next(row for row in rows.ROWS if row.key == "conn16_dialer")
IMPORT = next(row for row in rows.ROWS if row.key == "import")


def made(**rates: list[float]) -> Any:
    """Results of as many rounds as there are rates of `up`, by contender."""
    rounds = max(map(len, rates.values()), default=3)
    found = results_module.Results(
        "2026-01-02 03:04 UTC", rounds, "abc", {"processor": "any"}, {"p2pcore": "1"}
    )
    for name, values in rates.items():
        for value in values:
            found.add("up", name, {"MB_s": value, "dialer_us": 1.0, "listener_us": 2.0})
    return found


# -- rows and targets ------------------------------------------------------------------------------


def test_every_row_takes_its_figure_from_a_work_and_has_a_key_of_its_own() -> None:
    assert {row.work for row in rows.ROWS} == {work.name for work in works.WORKS}
    keys = [row.key for row in rows.ROWS]
    assert len(set(keys)) == len(keys)


def test_notes_are_about_rows() -> None:
    assert set(render.load_notes()) <= {row.key for row in rows.ROWS}


@pytest.mark.parametrize(
    ("target", "value", "ratio", "met"),
    [
        (rows.times(1.5), 0.0, 1.5, True),
        (rows.times(1.5), 9e9, 1.49, False),
        (rows.share(0.55), 9e9, 0.55, True),
        (rows.share(0.55), 0.0, 0.56, False),
        (rows.times(1.5), 9e9, None, False),
        (rows.up_to(5), 5.0, None, True),
        (rows.up_to(5), 5.1, 0.1, False),
        (rows.up_to(3, 0.25), 3.2, None, True),
        (rows.up_to(3, 0.25), 3.3, None, False),
        (rows.from_(200), 199.0, 9.0, False),
    ],
)
def test_a_target_is_met_or_not(target: Any, value: float, ratio: float | None, met: bool) -> None:
    assert target.is_met(value, ratio) is met


# -- medians and ratios ----------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_medians_and_its_range_that_of_the_rounds() -> None:
    found = made(python=[300, 100, 200], go=[100, 100, 50])
    assert found.median(UP, "python") == 200
    assert found.ratio(UP) == 2.0
    assert found.ratio_range(UP) == (1.0, 4.0)


@pytest.mark.parametrize("rates", [{}, {"python": [1.0]}, {"go": [1.0]}, {"python": [1.0], "go": [0.0]}])
def test_without_both_sides_there_is_no_ratio(rates: dict[str, list[float]]) -> None:
    found = made(**rates)
    assert found.ratio(UP) is None
    assert render.is_reached(found, UP) is None


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    found = made(python=[1.0, 2.0])
    found.failures.append({"work": "up", "contender": "go", "what": "gone"})
    found.save(tmp_path / "deep" / "one.json")
    assert results_module.Results.load(tmp_path / "deep" / "one.json") == found
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.json"]


# -- what must not be told -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{Path.home()}/.cache/peer failed", "~/.cache/peer failed"),
        ("no /usr/lib/x/y.so here", "no … here"),
        ("at /ip4/127.0.0.1/tcp/1/p2p/Q: refused", "at /ip4/127.0.0.1/tcp/1/p2p/Q: refused"),
    ],
)
def test_paths_are_not_told_and_addresses_are(text: str, told: str) -> None:
    assert results_module.without_paths(text) == told


def test_the_machine_is_described_without_its_name() -> None:
    text = json.dumps(results_module.machine(Cores(0, 1)))
    assert "cores 0 and 1" in text
    assert platform.node() not in text
    assert str(Path.home()) not in text


# -- the page --------------------------------------------------------------------------------------


def cells(page: str, title: str) -> list[str]:
    """The cells of the first line of the page whose first cell is `title`."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_missed_target_is_in_the_table_and_in_the_list() -> None:
    page = render.document(made(python=[140.0], go=[100.0]))
    assert cells(page, "bulk up") == ["bulk up", "140 MB/s", "100 MB/s", "1.40×", "≥ 1.5×", "**no**"]
    assert "- **bulk up**: 1.40×, target ≥ 1.5×." in page


def test_a_reached_target_is_not_in_the_list() -> None:
    page = render.document(made(python=[160.0], go=[100.0]))
    assert cells(page, "bulk up")[-1] == "yes"
    assert "- **bulk up**" not in page


def test_what_we_lack_is_not_there_yet_and_what_broke_failed() -> None:
    found = made(python=[160.0], go=[100.0])
    found.absent = {"up_tls": {"python": "no tls"}}
    found.failures = [{"work": "small", "contender": "python", "what": "stuck"}]
    page = render.document(found)
    assert cells(page, "bulk up over TLS")[1] == "not there yet"
    assert cells(page, "writes of 1 KiB")[1] == "failed"
    assert cells(page, "bulk down")[-1] == "not measured"
    assert "- small, p2pcore: stuck" in page
    assert "1 of " in page


def test_every_row_and_every_plot_is_on_the_page_even_without_figures() -> None:
    page = render.document(made())
    for row in rows.ROWS:
        assert cells(page, row.title)
    for group in rows.GROUPS:
        assert f"(benchmarks/{group.key}.svg)" in page


def test_another_peer_has_a_column_of_its_own() -> None:
    page = render.document(made(python=[160.0], go=[100.0], zig=[120.0]))
    assert cells(page, "row")[-1] == "zig"
    assert cells(page, "bulk up")[-1] == "120 MB/s"


# -- the limit, and how quiet it was ----------------------------------------------------------------


def test_a_share_is_of_what_the_limit_does_whether_more_or_less_is_better() -> None:
    found = made(python=[100.0], limit=[400.0], go=[50.0])
    assert found.share(UP, "python") == 0.25
    found.samples["conn16"] = {"python": [{"dialer_us": 200.0}], "limit": [{"dialer_us": 150.0}]}
    assert found.share(DIALER, "python") == 0.75
    assert found.share(DIALER, "go") is None


def test_the_page_begins_with_the_limit() -> None:
    page = render.document(made(python=[100.0], limit=[400.0], go=[50.0]))
    head, _, rest = page.partition("## All rows")
    first = head.split("\n\n")[1]
    assert first.startswith(
        "p2pcore reaches 25% to 100% of what the machine can do at all, 100% in the median of 3"
    )
    assert cells(head, "bulk up") == ["bulk up", "400 MB/s", "25%", "12%"]
    assert cells(rest, "bulk up")[-1] == "400 MB/s (25%)"


def test_a_row_that_reaches_one_of_two_targets_is_missed_and_the_other_target_is_named() -> None:
    row = next(row for row in rows.ROWS if row.key == "strangers")
    found = made()
    found.samples["strangers"] = {
        name: [{"listener_us": value}] for name, value in (("python", 70.0), ("go", 200.0), ("rust", 100.0))
    }
    assert [found.meets(row, target) for target in row.targets] == [True, False]
    assert render.is_reached(found, row) is False
    page = render.document(found)
    assert f"- **{row.title}**: 0.70×, target ≤ 0.65× rust-libp2p." in page
    assert f"- **{row.title}**: 0.35×" not in page
    del found.samples["strangers"]["rust"]
    assert render.is_reached(found, row) is None


@pytest.mark.parametrize(("others", "said"), [(0.04, "yes"), (0.06, "**no**"), (None, "**no**")])
def test_a_row_is_quiet_if_other_work_was_little_in_its_worst_sample(others: float | None, said: str) -> None:
    found = made(python=[100.0, 110.0])
    if others is not None:
        for sample, value in zip(found.samples["up"]["python"], (0.0, others), strict=True):
            sample["others"] = value
    page = render.document(found)
    _, _, rest = page.partition("## How quiet the machine was")
    assert cells(rest, "bulk up")[1] == said
    assert cells(rest, "bulk up")[3] == "10%"


def test_other_work_is_what_the_machine_did_and_we_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, ours, clock = iter([100.0, 112.0]), iter([5.0, 15.0]), iter([0.0, 4.0])
    monkeypatch.setattr(quiet, "STAT", Path(__file__))
    monkeypatch.setattr(quiet, "_busy_s", lambda: next(machine))
    monkeypatch.setattr(quiet, "_own_s", lambda: next(ours))
    monkeypatch.setattr("quiet.time.monotonic", lambda: next(clock))
    assert quiet.Watch().others() == {"others": 0.5}


def test_where_nobody_knows_of_other_work_there_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quiet, "STAT", tmp_path / "stat")
    assert quiet.Watch().others() == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0005, "0"),
        (0.02, "0.02"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert render.number(value) == text


def test_a_plot_of_the_same_results_has_the_same_bytes(tmp_path: Path) -> None:
    plots = pytest.importorskip("plots", reason="matplotlib is not installed")
    found = made(python=[150.0, 160.0], go=[100.0, 110.0])
    for name in ("first", "second"):
        plots.write(found, tmp_path / name)
    for group in rows.GROUPS:
        first, second = (tmp_path / name / "benchmarks" / f"{group.key}.svg" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert plots.bound(found, UP) == pytest.approx(105.0 * 1.5)
    assert plots.bound(found, DIALER) is None
    assert plots.bound(found, IMPORT) == 60.0
