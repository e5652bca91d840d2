"""The metrics of workers, added up by their supervisor: real processes that are killed, stopped and replaced.

Comes in: a supervisor of three workers, connections. Goes out: samples.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import worker_hosts
from harness import eventually, looped, seconds
from hosts import BARE
from p2pcore import Host, MetricsServer, Supervisor, limits
from p2pcore.metrics.family import Buckets, Family
from p2pcore.metrics.http_server import Answer

Samples = dict[tuple[str, ...], Any]


@asynccontextmanager
async def serving(workers: int) -> AsyncIterator[tuple[Supervisor, Host]]:
    async with (
        Supervisor(worker_hosts.make, workers=workers) as supervisor,
        Host(listen=(), **BARE) as dialer,
    ):
        yield supervisor, dialer


async def connect(supervisor: Supervisor, dialer: Host, count: int) -> None:
    target = supervisor.addrs_with_peer[0]
    for _ in range(count):
        conn = await dialer.swarm.dial_addr(target)
        assert await dialer.echo(conn, b"x") == b"x"


def counts(families: list[Family]) -> dict[str, float]:
    """Every counter, and every bucket of a histogram, by name and labels."""
    found: dict[str, float] = {}
    for each in families:
        for labels, sample in each.samples.items():
            if isinstance(sample, Buckets):
                found |= {
                    f"{each.name} {labels} {number}": count for number, count in enumerate(sample.counts)
                }
            elif each.spec.kind == "counter":
                found[f"{each.name} {labels}"] = sample
    return found


def samples(families: list[Family], name: str) -> Samples:
    return next((each.samples for each in families if each.name == name), {})


@looped
async def test_no_counter_falls_when_a_worker_is_killed_or_replaced() -> None:
    async with serving(3) as (supervisor, dialer):
        opened = "libp2p_swarm_connections_opened_total"
        await connect(supervisor, dialer, 12)
        before = await supervisor.metrics.families()
        assert sum(samples(before, opened).values()) == 12
        assert len(samples(before, "p2pcore_worker_up")) == 3
        os.kill(supervisor.pids[0], signal.SIGKILL)
        for _ in range(20):
            families = await supervisor.metrics.families()
            now = counts(families)
            assert {name: count for name, count in counts(before).items() if now.get(name, 0) < count} == {}
            before = families
            await asyncio.sleep(0.02)
        await eventually(lambda: len(supervisor.pids) == 3)
        await supervisor.restart(0)
        await connect(supervisor, dialer, 3)
        after = await supervisor.metrics.families()
        now = counts(after)
        assert {name: count for name, count in counts(before).items() if now.get(name, 0) < count} == {}
        assert sum(samples(after, opened).values()) == 15
        starts = samples(after, "p2pcore_worker_starts_total")[()]
        assert starts in (6, 7), "3 at first, 1 after the kill, then 3, or 2 if one is too young"
        up = samples(after, "p2pcore_worker_up")
        assert {labels for labels in up if "draining" not in labels[0]} == {("0",), ("1",), ("2",)}
        assert ("supervisor",) in samples(after, "process_resident_memory_bytes")


@looped
async def test_a_worker_that_is_stopped_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(2) as (supervisor, dialer):
        await connect(supervisor, dialer, 4)
        before = await supervisor.metrics.families()
        pid = supervisor.pids[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(seconds(limits.WORKER_METRICS_S + 2)):
                families = await supervisor.metrics.families()
        finally:
            os.kill(pid, signal.SIGCONT)
        up = samples(families, "p2pcore_worker_up")
        assert sorted(up.values()) == [0, 1]
        (down,) = [labels for labels, is_up in up.items() if not is_up]
        assert down not in {labels[:1] for labels in samples(families, "p2pcore_connections")}
        now = counts(families)
        assert {name: count for name, count in counts(before).items() if now.get(name, 0) < count} == {}
    assert limits.WORKER_METRICS_S + 0.2 <= 1.2


@looped
async def test_a_supervisor_is_ready_while_a_worker_serves() -> None:
    supervisor = Supervisor(worker_hosts.make, workers=1)
    server = MetricsServer(supervisor, "127.0.0.1:0")

    async def asked(path: str) -> tuple[Answer, Any]:
        answer = await server.ask(path)
        return answer, json.loads(answer.body)

    answer, body = await asked("/readyz")
    assert (answer.status, body["status"]) == (503, "workers")
    assert (await server.ask("/healthz")).status == 200, "it may still start"
    async with supervisor:
        assert (await server.ask("/readyz")).status == 200
        text = (await server.ask("/metrics")).body.decode()
        assert 'p2pcore_worker_up{worker="0"} 1' in text
        assert text.count("# TYPE process_cpu_seconds_total ") == 1
    answer, body = await asked("/readyz")
    assert (answer.status, body["status"]) == (503, "draining")
    answer, body = await asked("/healthz")
    assert (answer.status, body["checks"]["workers"]) == (503, "no worker lives")
