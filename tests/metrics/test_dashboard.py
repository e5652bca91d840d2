"""The dashboard and the alerts name only metrics and labels that exist.

Comes in: the files of dashboards/, the table of names, the expressions of go-libp2p's dashboard. Goes out:
names and labels that do not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from p2pcore.metrics.names import HISTOGRAM, SPECS

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
OF_THE_SERVER = {"job", "instance"}
"""Labels that Prometheus itself adds to each sample."""

_METRIC = re.compile(r"\b(?:libp2p|p2pcore|process)_\w+")
_SELECTED = re.compile(r"((?:libp2p|p2pcore|process)_\w+)\{(.*?)\}")
_GROUPED = re.compile(r"\b(?:by|on) \((.*?)\)")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")

GO = """
sum by (transport) (libp2p_swarm_connections_opened_total)
sum by (transport) (libp2p_swarm_connections_closed_total)
sum by (transport, security, muxer) (libp2p_swarm_connections_opened_total{dir="inbound"})
sum by (ip_version) (rate(libp2p_swarm_connections_opened_total{dir="outbound"}[5m]))
sum by (early_muxer) (libp2p_swarm_connections_opened_total)
sum by (key_type) (libp2p_swarm_key_types_total)
histogram_quantile(0.9, sum by (le) (rate(libp2p_swarm_handshake_latency_seconds_bucket[5m])))
libp2p_swarm_handshake_latency_seconds_bucket{transport="tcp"}
histogram_quantile(0.5, sum by (le, transport) (rate(libp2p_swarm_connection_duration_seconds_bucket[5m])))
sum by (error) (rate(libp2p_swarm_dial_errors_total{transport="tcp"}[5m]))
sum by (outcome) (rate(libp2p_swarm_dials_per_peer_total[5m]))
sum by (num_dials) (rate(libp2p_swarm_dials_per_peer_total{outcome="success"}[5m]))
histogram_quantile(0.9, sum by (le) (rate(libp2p_swarm_dial_latency_seconds_bucket{outcome="success"}[5m])))
sum by (le) (rate(libp2p_swarm_dial_ranking_delay_seconds_bucket[5m]))
libp2p_swarm_black_hole_filter_state{name="UDP"}
libp2p_swarm_black_hole_filter_success_fraction{name="IPv6"}
libp2p_swarm_black_hole_filter_next_request_allowed_after{name="UDP"}
"""
"""Queries as go-libp2p's dashboard of the swarm has them, without its variables."""


def panels() -> list[Any]:
    return list(json.loads((DASHBOARDS / "p2pcore.json").read_text())["panels"])


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression)."""
    dashboard = json.loads((DASHBOARDS / "p2pcore.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"${variable['name']}", variable["definition"]
    for group in yaml.safe_load((DASHBOARDS / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for test in yaml.safe_load((DASHBOARDS / "alerts_test.yml").read_text())["tests"]:
        for series in test["input_series"]:
            yield f"test: {test['name']}", series["series"]
    for number, line in enumerate(GO.split("\n")):
        yield f"go {number}", line


def labels_of(metric: str) -> set[str]:
    """The labels that a sample may have."""
    base = metric if metric in SPECS else _SUFFIX.sub("", metric)
    spec = SPECS[base]
    more = {"worker"} if spec.is_each else set()
    if spec.kind == HISTOGRAM:
        more |= {"le"}
    return {*spec.labels, *more, *OF_THE_SERVER}


def unknown(expression: str) -> list[str]:
    """What the expression names and nothing has."""
    metrics = set(_METRIC.findall(expression))
    found = [each for each in metrics if each not in SPECS and _SUFFIX.sub("", each) not in SPECS]
    known = [each for each in metrics if each not in found]
    for metric, selector in _SELECTED.findall(expression):
        names = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))
        found += [f"{metric}.{name}" for name in names if metric in known and name not in labels_of(metric)]
    possible = set().union(*map(labels_of, known)) if known else set()
    for group in _GROUPED.findall(expression):
        found += [name for name in re.findall(r"\w+", group) if name not in possible]
    return found


@pytest.mark.source
def test_every_expression_names_metrics_and_labels_that_exist() -> None:
    found = {where: wrong for where, text in expressions() if (wrong := unknown(text))}
    assert found == {}
    assert len(list(expressions())) > 50


@pytest.mark.parametrize(
    "wrong",
    [
        "p2pcore_no_such_metric",
        'p2pcore_connections{direction="in"}',
        "sum by (protocol) (p2pcore_connections)",
        "rate(p2pcore_loop_lag_seconds_buckets[5m])",
    ],
)
def test_a_wrong_name_is_found(wrong: str) -> None:
    assert unknown(wrong)


@pytest.mark.source
def test_a_histogram_is_queried_by_its_buckets() -> None:
    bare = {name for name, spec in SPECS.items() if spec.kind == HISTOGRAM}
    used = {name for _, text in expressions() for name in _METRIC.findall(text)}
    assert used & bare == set()


@pytest.mark.source
def test_panels_do_not_overlap_and_each_has_its_own_number() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
