"""What systemd is told, and when: a stand-in for it receives the datagrams."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import HANG_S, eventually, looped, seconds
from hosts import BARE
from p2pcore import Host, limits
from p2pcore.admin import Systemd


class Manager:
    """Receives what services tell."""

    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(name, raising=False)

    def told(self) -> list[dict[str, str]]:
        """What has come."""
        found = []
        while True:
            try:
                data = self.sock.recv(4096)
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in data.decode().split("\n")))

    def next(self, key: str) -> dict[str, str]:
        """The next message that has `key`; fails if none comes."""
        while True:
            assert select.select([self.sock], [], [], seconds(HANG_S))[0], f"no {key} came"
            message = dict(line.split("=", 1) for line in self.sock.recv(4096).decode().split("\n"))
            if key in message:
                return message


@pytest.fixture(params=["file", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    address = (
        str(tmp_path / "notify")
        if request.param == "file"
        else f"@p2pcore-test-{os.getpid()}-{tmp_path.name}"
    )
    made = Manager(address, monkeypatch)
    yield made
    made.sock.close()


@looped
async def test_a_host_tells_ready_then_stopping_when_it_drains(manager: Manager) -> None:
    async with Host(**BARE) as host, Systemd(host, 7):
        ready = manager.told()
        assert ready[0] == {"READY": "1", "STATUS": "serving 0 connections, 0 handlers"}
        await asyncio.sleep(0)
        await host.drain(1)
        await asyncio.sleep(0.01)
        stopping = manager.told()
        assert stopping[0] == {
            "STOPPING": "1",
            "STATUS": "draining",
            "EXTEND_TIMEOUT_USEC": str(int((7 + limits.WORKER_EXIT_S) * 1e6)),
        }
    assert not any("STOPPING" in message for message in manager.told())


@looped
async def test_a_host_that_just_ends_tells_stopping_too(manager: Manager) -> None:
    async with Host(**BARE) as host, Systemd(host, 0):
        manager.told()
    assert "STOPPING" in manager.told()[0]


@looped
async def test_the_status_has_numbers(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SYSTEMD_STATUS_S", 0.01)
    async with Host(**BARE) as host, Host(listen=(), **BARE) as dialer, Systemd(host, 0):
        await dialer.connect(host.addrs_with_peer[0])
        found: list[str] = []
        await eventually(
            lambda: (
                found.extend(m.get("STATUS", "") for m in manager.told())
                or "serving 1 connections, 0 handlers" in found
            )
        )


@looped
async def test_signs_of_life_come_from_the_event_loop_and_stop_when_it_is_stuck(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    async with Host(**BARE) as host, Systemd(host, 0):
        alive: list[dict[str, str]] = []
        await eventually(lambda: alive.extend(m for m in manager.told() if "WATCHDOG" in m) or len(alive) > 5)
        manager.told()
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is stuck
        assert manager.told() == []


@pytest.mark.parametrize(("usec", "pid"), [("1000", "1"), ("", None), ("0", None), ("x", None)])
@looped
async def test_no_sign_of_life_without_a_wish_for_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None
) -> None:
    manager = Manager(str(tmp_path / "notify"), monkeypatch)
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    async with Host(**BARE) as host, Systemd(host, 0):
        await asyncio.sleep(0.05)
    assert not any("WATCHDOG" in message for message in manager.told())
    manager.sock.close()


@looped
async def test_nothing_happens_without_systemd_or_with_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    async with Host(**BARE) as host, Systemd(host, 0) as systemd:
        assert systemd._tasks == []
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    async with Host(**BARE) as host, Systemd(host, 0):
        pass


def test_the_command_with_workers_tells_ready_reloading_ready_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Manager(str(tmp_path / "notify"), monkeypatch)
    command = [sys.executable, "-m", "p2pcore.cli", "listen", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
    try:
        assert manager.next("READY")["STATUS"] == "serving with 1 workers"
        process.send_signal(signal.SIGHUP)
        began = int(manager.next("RELOADING")["MONOTONIC_USEC"])
        assert 0 <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6 - began < seconds(HANG_S) * 1e6
        manager.next("READY")
        process.send_signal(signal.SIGTERM)
        manager.next("STOPPING")
        assert process.wait(seconds(HANG_S)) == 0
    finally:
        process.kill()
        process.wait()
        manager.sock.close()


def test_the_command_alone_tells_ready_and_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(str(tmp_path / "notify"), monkeypatch)
    process = subprocess.Popen([sys.executable, "-m", "p2pcore.cli", "listen"], stdout=subprocess.DEVNULL)
    try:
        manager.next("READY")
        process.send_signal(signal.SIGTERM)
        assert int(manager.next("STOPPING")["EXTEND_TIMEOUT_USEC"]) == 15_000_000
        assert process.wait(seconds(HANG_S)) == 0
    finally:
        process.kill()
        process.wait()
        manager.sock.close()
