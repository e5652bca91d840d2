"""A host as observable instruments of OpenTelemetry.

Comes in: a host, a reader in memory. Goes out: what the reader collects.
"""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from harness import eventually, looped
from hosts import pair
from p2pcore.contrib.otel import instrument


def collected(reader: InMemoryMetricReader) -> dict[str, dict[tuple[tuple[str, Any], ...], float]]:
    """Values by attributes, by name."""
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, dict[tuple[tuple[str, Any], ...], float]] = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = {
                    tuple(sorted(each.attributes.items())): each.value for each in metric.data.data_points
                }
                found.setdefault(metric.name, {}).update(points)
    return found


@looped
async def test_a_reader_collects_counters_gauges_and_histograms() -> None:
    async with pair() as both:
        reader = InMemoryMetricReader()
        instrument(both.server, MeterProvider([reader]))
        found = await asyncio.to_thread(collected, reader)
        assert sum(found["libp2p_swarm_connections_opened_total"].values()) == 1
        assert found["p2pcore_connections"] == {(("dir", "inbound"),): 1, (("dir", "outbound"),): 0}
        assert sum(found["libp2p_swarm_connection_duration_seconds_count"].values()) == 0
        await both.conn.close()
        await eventually(lambda: not both.server.swarm.num_conns)
        found = await asyncio.to_thread(collected, reader)
        assert sum(found["libp2p_swarm_connection_duration_seconds_count"].values()) == 1
        assert sum(found["libp2p_swarm_connection_duration_seconds_sum"].values()) > 0
        assert found["p2pcore_connections"][("dir", "inbound"),] == 0


@looped
async def test_a_named_host_has_an_attribute() -> None:
    async with pair() as both:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        instrument(both.server, provider, "a")
        instrument(both.dialer, provider, "b")
        found = collected(reader)
        hosts = {dict(attributes)["host"] for attributes in found["p2pcore_stream_handlers"]}
        assert hosts == {"a", "b"}
