"""The alerts and the page of metrics, as promtool of Prometheus sees them (Debian: the package prometheus).

Comes in: dashboards/alerts.yml, its unit tests in alerts_test.yml, the page of a real host. Goes out: what
promtool says. Skipped without it; that each alert has unit tests is looked at everywhere.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import looped
from hosts import pair
from p2pcore import MetricsServer
from p2pcore.metrics import text
from p2pcore.metrics.family import Buckets, family
from p2pcore.metrics.names import HISTOGRAM, SPECS
from system_tools import said_by

DASHBOARDS = Path(__file__).parents[2] / "dashboards"

pytestmark = pytest.mark.source


def promtool(*words: str | Path, page: str = "") -> tuple[int, str]:
    """(its exit status, what it prints)."""
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    return said_by([command, *words], page=page)


def load(name: str) -> Any:
    return yaml.safe_load((DASHBOARDS / name).read_text())


def alerts() -> set[str]:
    return {rule["alert"] for group in load("alerts.yml")["groups"] for rule in group["rules"]}


def test_every_alert_has_a_unit_test_in_which_it_fires() -> None:
    cases = [case for test in load("alerts_test.yml")["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts()


def test_promtool_takes_the_alerts() -> None:
    status, said = promtool("check", "rules", DASHBOARDS / "alerts.yml")
    assert status == 0, said
    assert f"{len(alerts())} rules found" in said


def test_alerts_fire_when_they_should_and_only_then() -> None:
    status, said = promtool("test", "rules", DASHBOARDS / "alerts_test.yml")
    assert status == 0, said


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads((DASHBOARDS / "p2pcore.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", "5m", each)}
        for number, each in enumerate(expressions)
    ]
    assert len(rules) > 30
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    status, said = promtool("check", "rules", path)
    assert status == 0, said


@pytest.mark.parametrize("broken", ["vector(1) < 0", "vector(1)"])
def test_the_unit_tests_see_alerts_that_never_fire_or_always(tmp_path: Path, broken: str) -> None:
    rules = load("alerts.yml")
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = broken
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(DASHBOARDS / "alerts_test.yml", tmp_path)
    status, said = promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert status != 0
    assert {alert for alert in alerts() if f"alertname: {alert}," in said} == alerts()


@looped
async def test_the_page_of_a_real_host_is_as_promtool_wants_it() -> None:
    async with (
        pair({"ping": True, "identify": True}) as both,
        MetricsServer(both.server, "127.0.0.1:0") as server,
    ):
        await both.dialer.ping(both.conn)
        page = (await server.ask("/metrics")).body.decode()
    assert "p2pcore_connections" in page
    assert promtool("check", "metrics", page=page) == (0, "")


def test_every_name_is_as_promtool_wants_it() -> None:
    histogram = Buckets((1.0,), (1, 1), 1.0)
    families = []
    for name, spec in SPECS.items():
        labels = tuple("x" for _ in spec.labels)
        families.append(family(name, {labels: histogram if spec.kind == HISTOGRAM else 1}))
    assert promtool("check", "metrics", page=text.render(families)) == (0, "")
    status, said = promtool("check", "metrics", page="# HELP wrong x\n# TYPE wrong counter\nwrong 1\n")
    assert (status, "_total" in said) == (3, True), "nothing is checked"
