"""One plot for each group of rows. A row is a panel, a contender a bar, a round a dot, the target a line.

Comes in: `Results`. Goes out: SVG, the same bytes for the same results.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl

from results import Results, title
from rows import GROUPS, LIMIT, OURS, Group, Row

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {
    OURS: "#2f6fb2",
    "go": "#3aa6a0",
    "js": "#d9a441",
    "rust": "#b5563c",
    "multiaddr": "#7f7f7f",
    "websockets": "#7f7f7f",
    LIMIT: "#444444",
}
OTHER_COLOUR = "#8d6bb0"
TARGET_COLOUR = "#222222"
PANEL_WIDTH, BAR_HEIGHT, FRAME_HEIGHT = 3.4, 0.3, 1.0
COLUMNS = 3
TITLE_WIDTH = 40
"""Characters of a line of a panel's title."""

STYLE: dict[str, object] = {
    "svg.hashsalt": "p2pcore",
    "svg.fonttype": "path",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def bound(results: Results, row: Row) -> float | None:
    """Where the target lies on the axis of the row; None if there is no target."""
    if row.target is None:
        return None
    if not row.target.of_ratio:
        return row.target.bound
    other = row.target.of or row.baseline
    base = results.median(row, other) if other else None
    return None if base is None else base * row.target.bound


def _panel(axes: Axes, results: Results, row: Row) -> None:
    names = [name for name in results.contenders() if results.values(row, name)]
    for place, name in enumerate(names):
        values = results.values(row, name)
        axes.barh(place, results.median(row, name) or 0.0, color=COLOURS.get(name, OTHER_COLOUR), height=0.7)
        axes.scatter(
            values,
            [place] * len(values),
            s=7,
            color="#ffffff",
            edgecolors="#444444",
            linewidths=0.6,
            zorder=3,
        )
    axes.set_yticks(range(len(names)), [title(name) for name in names])
    axes.set_ylim(len(names) - 0.4 if names else 0.6, -0.6)
    where = bound(results, row)
    if where is not None:
        axes.axvline(where, color=TARGET_COLOUR, linestyle="--", linewidth=1)
    axes.set_xlim(left=0)
    axes.set_title(textwrap.fill(row.title, TITLE_WIDTH), loc="left")
    axes.set_xlabel(f"{row.unit or 'number'}, {'more' if row.higher else 'less'} is better")
    axes.locator_params(axis="x", nbins=5)


def draw(results: Results, group: Group, path: Path) -> None:
    """Writes the plot of a group."""
    measured = [row for row in group.rows if any(results.values(row, name) for name in results.contenders())]
    columns = min(COLUMNS, max(1, len(measured)))
    lines = max(1, -(-len(measured) // columns))
    height = FRAME_HEIGHT + BAR_HEIGHT * max(1, len(results.contenders()))
    with mpl.rc_context():
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type, unused-ignore]
        figure, grid = plt.subplots(
            lines,
            columns,
            figsize=(PANEL_WIDTH * columns, height * lines),
            squeeze=False,
            layout="constrained",
        )
        panels = list(grid.flat)
        for axes, row in zip(panels, measured, strict=False):
            _panel(axes, results, row)
        for axes in panels[len(measured) :]:
            axes.set_axis_off()
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def write(results: Results, docs: Path) -> None:
    """Writes benchmarks/*.svg into `docs`, one for each group of rows."""
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        draw(results, group, folder / f"{group.key}.svg")
