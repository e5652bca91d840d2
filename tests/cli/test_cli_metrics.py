"""`p2pcore listen` with --metrics, --access-log and --log-format.

Comes in: the command as a process of its own. Goes out: answers of its HTTP port, lines of its logs.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cli_driver import Cli, assert_fails

from harness import HANG_S, seconds


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=seconds(HANG_S)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def lines_of(path: Path, count: int) -> list[str]:
    """The lines of a file once there are so many."""
    end = time.monotonic() + seconds(HANG_S)
    while time.monotonic() < end:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    raise AssertionError(f"{path} has {lines}")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_metrics_and_health_are_served(cli: Cli, workers: tuple[str, ...]) -> None:
    port = free_port()
    listener = cli.start("listen", "--metrics", f"127.0.0.1:{port}", *workers)
    addr = listener.line()
    assert cli.run("ping", addr, "-n", "1").status == 0
    status, text = get(port, "/metrics")
    assert status == 200
    assert re.search(r'^libp2p_swarm_connections_opened_total\{dir="inbound",.*\} 1$', text, re.M)
    assert ("p2pcore_worker_up" in text) is bool(workers)
    assert get(port, "/readyz")[0] == 200
    assert get(port, "/healthz")[0] == 200
    assert listener.end(signal.SIGTERM).status == 0


def test_connections_and_streams_are_logged_as_json(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    options = ("--access-log", str(log), "--access-streams", "--log-format", "json")
    listener = cli.start("listen", *options)
    assert cli.run("ping", listener.line(), "-n", "1").status == 0
    lines = lines_of(log, 2)
    assert listener.end().status == 0
    records = [json.loads(line) for line in lines]
    events = [record["event"] for record in records]
    assert "connection" in events
    assert "/ipfs/ping/1.0.0" in [record.get("protocol") for record in records]
    assert {record["logger"] for record in records} == {"p2pcore.access"}


def test_the_access_log_is_text_by_default_and_goes_to_standard_error(cli: Cli) -> None:
    listener = cli.start("listen", "--access-log", "-")
    assert cli.run("ping", listener.line(), "-n", "1").status == 0
    result = listener.end()
    assert result.status == 0
    assert "inbound connection" in result.err
    assert result.out == ""


def test_wrong_options_are_named(cli: Cli, tmp_path: Path) -> None:
    assert_fails(cli.run("listen", "--metrics", "9464"), 2, "'9464' is not an address")
    assert_fails(cli.run("listen", "--access-streams"), 2, "--access-streams needs --access-log")
    missing = tmp_path / "no" / "file"
    assert_fails(cli.run("listen", "--access-log", str(missing)), 1, f"{missing}: No such file")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert_fails(cli.run("listen", "--metrics", address), 1, f"cannot serve metrics on {address}")
