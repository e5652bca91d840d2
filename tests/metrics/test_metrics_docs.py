"""docs/metrics.md and docs/logging.md list what there is: metrics, alerts, loggers.

Comes in: the documents and the source. Goes out: what one has and the other has not.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from p2pcore.metrics.names import SPECS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.source


def cells(page: str, column: int) -> list[list[str]]:
    rows = re.findall(r"^\| (.*) \|$", (ROOT / "docs" / page).read_text(), re.M)
    return [row.split(" | ") for row in rows if len(row.split(" | ")) > column]


def test_the_page_has_each_metric_with_its_kind_labels_and_help() -> None:
    shown = {row[0].strip("`"): row[1:] for row in cells("metrics.md", 3) if row[0].startswith("`")}
    expected = {
        name: [spec.kind, ", ".join(spec.labels), spec.help]
        for name, spec in SPECS.items()
        if not name.startswith("process_")
    }
    assert shown == expected


def test_the_page_has_each_alert() -> None:
    rules = yaml.safe_load((ROOT / "dashboards" / "alerts.yml").read_text())["groups"][0]["rules"]
    shown = {row[0] for row in cells("metrics.md", 2) if row[0].startswith("P2P")}
    assert shown == {rule["alert"] for rule in rules}


def test_the_page_has_each_logger() -> None:
    shown = {row[0].strip("`") for row in cells("logging.md", 1) if row[0].startswith("`p2pcore.")}
    found: set[str] = set()
    for path in (*ROOT.glob("src/**/*.py"), *ROOT.glob("src/**/*.pyx")):
        found |= set(re.findall(r'getLogger\("(p2pcore\.\w+)"\)', path.read_text()))
    assert shown == found
