"""Hosts in a registry of prometheus_client.

Comes in: hosts. Goes out: what the registry generates.
"""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from harness import looped
from hosts import pair
from p2pcore.contrib.prometheus import Collector
from p2pcore.metrics.text import render


@looped
async def test_a_registry_shows_what_the_host_shows() -> None:
    async with pair({"echo": True}) as both:
        await both.dialer.echo(both.conn, b"x")
        registry = CollectorRegistry(auto_describe=True)
        registry.register(Collector(both.server))
        theirs = {
            each.name: each for each in text_string_to_metric_families(generate_latest(registry).decode())
        }
        ours = {
            each.name: each
            for each in text_string_to_metric_families(render(both.server.metrics.own_families()))
        }
        assert set(ours) <= set(theirs)
        for name, family in ours.items():
            if "lag" not in name and "memory" not in name:
                shown = {
                    (each.name, tuple(sorted(each.labels.items()))): each.value for each in family.samples
                }
                found = {
                    (each.name, tuple(sorted(each.labels.items()))): each.value
                    for each in theirs[name].samples
                }
                assert shown == found, name


@looped
async def test_two_hosts_share_a_registry_without_a_duplicate() -> None:
    async with pair() as both:
        registry = CollectorRegistry(auto_describe=True)
        registry.register(Collector({"a": both.server, "b": both.dialer}))
        series: list[tuple[str, tuple[tuple[str, str], ...]]] = []
        for family in registry.collect():
            series += [(each.name, tuple(sorted(each.labels.items()))) for each in family.samples]
        assert len(set(series)) == len(series)
        hosts = {dict(labels)["host"] for name, labels in series if name == "p2pcore_connections"}
        assert hosts == {"a", "b"}


def test_without_the_package_one_line_says_what_to_install() -> None:
    for module, package in (("prometheus", "prometheus_client"), ("otel", "opentelemetry.metrics")):
        code = (
            f"import sys; sys.modules[{package.split('.')[0]!r}] = None\n"
            "import p2pcore\np2pcore.Host\n"
            f"import p2pcore.contrib.{module}"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: p2pcore.contrib.{module} needs ")
        assert "pip install" in last
