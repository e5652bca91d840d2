"""The metrics of workers, added up by their supervisor: real processes that are killed, stopped and replaced.

Comes in: a supervisor of three workers, connections. Goes out: samples.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import worker_hosts
from harness import eventually, looped, run, seconds
from hosts import BARE
from p2pcore import Host, ListenError, MetricsServer, Supervisor, limits
from p2pcore.metrics.family import Buckets, Family
from p2pcore.metrics.http_server import Answer
from p2pcore.workers import serve

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


# -- serve(metrics=...) ------------------------------------------------------------------------

LIMIT_S = 30
PROGRAM = """
import sys
from p2pcore.workers import serve

def make(worker):
    return worker.host(echo=True)

def show(supervisor):
    print(*supervisor.addrs_with_peer, flush=True)

if __name__ == "__main__":
    serve(make, workers=3, metrics=sys.argv[1], on_start=show)
"""


def answer(path: Path, request: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(seconds(LIMIT_S))
        sock.connect(str(path))
        sock.sendall(f"GET {request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def test_serve_shows_the_sums_of_all_workers_at_one_address(tmp_path: Path) -> None:
    program, metrics = tmp_path / "program.py", tmp_path / "metrics"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), f"unix:{metrics}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    addr = process.stdout.readline().strip()

    async def dial() -> None:
        for _ in range(9):  # each time another peer
            async with Host(listen=(), **BARE) as dialer:
                assert await dialer.echo(addr, b"x") == b"x"

    try:
        run(dial(), LIMIT_S)
        shown = answer(metrics, "/metrics").splitlines()
        ready = answer(metrics, "/readyz")
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=seconds(LIMIT_S))
    assert 'p2pcore_streams_opened_total{dir="inbound",protocol="/echo/1.0.0"} 9' in shown
    assert sorted(line for line in shown if line.startswith("p2pcore_worker_up")) == [
        f'p2pcore_worker_up{{worker="{number}"}} 1' for number in range(3)
    ]
    assert ready.startswith("HTTP/1.1 200 ")
    assert (process.returncode, out, err) == (0, "", "")
    assert not metrics.exists()


def test_serve_refuses_an_address_for_metrics_before_it_starts_workers(tmp_path: Path) -> None:
    def fail(supervisor: Supervisor) -> None:
        raise AssertionError("workers serve")

    with pytest.raises(ValueError, match="nowhere"):
        serve(worker_hosts.make, workers=1, metrics="nowhere", on_start=fail)
    missing = f"unix:{tmp_path}/missing/metrics"
    with pytest.raises(ListenError, match="cannot serve metrics on unix:"):
        serve(worker_hosts.make, workers=1, metrics=missing, on_start=fail)
