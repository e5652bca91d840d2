"""`p2pcore status` and `p2pcore top`: what they show of a running node, and how they end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_driver import COMMAND, ENVIRONMENT, LIMIT_S, Cli, Running, assert_fails

from harness import seconds
from p2pcore.cli.node_shown import change, duration


@pytest.fixture
def listener(cli: Cli) -> Iterator[Running]:
    running = cli.start("listen", "--admin", "node.sock")
    try:
        running.addr = running.line()  # type: ignore[attr-defined]
        yield running
    finally:
        running.kill()


def test_the_status_of_a_node_for_people_and_for_machines(cli: Cli, listener: Running) -> None:
    shown = cli.run("status", "--admin", "node.sock")
    assert shown.status == 0
    assert "state        serving, up " in shown.out
    assert listener.addr in shown.out  # type: ignore[attr-defined]
    told = json.loads(cli.run("status", "--json", P2PCORE_ADMIN="node.sock").out)
    assert (told["kind"], told["pid"], told["conns"]) == ("node", listener.process.pid, 0)


def test_a_status_of_several_processes_has_their_sum_and_each(cli: Cli) -> None:
    running = cli.start("listen", "--workers", "2", "--admin", "node.sock")
    try:
        running.line()
        told = json.loads(cli.run("status", "--admin", "node.sock", "--json").out)
        assert told["kind"] == "supervisor"
        assert [worker["index"] for worker in told["workers"]] == [0, 1]
        out = cli.run("status", "--admin", "node.sock").out
        assert all(str(worker["pid"]) in out for worker in told["workers"])
        assert running.end(signal.SIGTERM).status == 0
        assert not (cli.directory / "node.sock").exists()
    finally:
        running.kill()


def test_nobody_who_answers_is_status_3(cli: Cli, listener: Running) -> None:
    assert_fails(cli.run("status", "--admin", "other.sock"), 3, "no node answers at other.sock")
    listener.kill()  # leaves its socket
    assert_fails(cli.run("status", "--admin", "node.sock"), 3, "connection refused")
    assert_fails(cli.run("top", "--admin", "node.sock"), 3, "connection refused")


def test_the_socket_has_to_be_named(cli: Cli) -> None:
    assert_fails(cli.run("status"), 2, "--admin")


def test_a_socket_that_is_no_admin_socket_is_an_error(cli: Cli) -> None:
    running = cli.start("listen", "--addr", f"/unix{cli.directory}/peer.sock")
    try:
        running.line()
        assert_fails(cli.run("status", "--admin", "peer.sock"), 1, "")
    finally:
        running.kill()


def test_a_node_that_drains_is_not_ready_until_its_delay_is_over_and_serves_meanwhile(cli: Cli) -> None:
    running = cli.start("listen", "--admin", "node.sock", "--drain-delay", "30")
    try:
        addr = running.line()
        assert cli.run("status", "--admin", "node.sock", "--ready").status == 0
        running.process.send_signal(signal.SIGTERM)
        while (result := cli.run("status", "--admin", "node.sock", "--ready")).status == 0:
            pass
        assert (result.status, "the node is draining" in result.err) == (1, True)
        assert cli.run("ping", addr, "-n", "1").status == 0
        assert running.end(signal.SIGTERM).status == 0  # the second signal
    finally:
        running.kill()


def test_without_a_terminal_top_shows_one_look_with_rates(cli: Cli, listener: Running) -> None:
    result = cli.run("top", "--admin", "node.sock", "-i", "0.1")
    assert (result.status, result.err) == (0, "")
    assert "each second  0.0 opened" in result.out
    assert "traffic      0.000 MB/s in, 0.000 MB/s out" in result.out
    assert "\x1b" not in result.out


def test_top_prints_looks_for_machines_until_a_signal(cli: Cli, listener: Running) -> None:
    top = cli.start("top", "--admin", "node.sock", "-i", "0.1", "--json")
    try:
        first, second = json.loads(top.line()), json.loads(top.line())
        assert second["uptime_s"] > first["uptime_s"]
        assert top.end().status == 0
    finally:
        top.kill()


class Terminal:
    """`p2pcore top` on a terminal of its own."""

    def __init__(self, directory: Path) -> None:
        self.descriptor, theirs = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(self.descriptor)
        command = [*COMMAND, "top", "--admin", "node.sock", "-i", "0.1"]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env=ENVIRONMENT | {"TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def read(self) -> bool:
        """Reads what comes. Returns: False at the end."""
        ready, _, _ = select.select([self.descriptor], [], [], seconds(LIMIT_S))
        assert ready, "nothing came"
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # nobody has the other end
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)

    def until(self, text: str, times: int = 1) -> None:
        while self.shown.count(text) < times:
            assert self.read(), self.shown

    def to_the_end(self) -> int:
        while self.read():
            pass
        return self.process.wait(timeout=seconds(LIMIT_S))


@pytest.fixture
def terminal(cli: Cli, listener: Running) -> Iterator[Terminal]:
    made = Terminal(cli.directory)
    try:
        made.until("each second")  # it has drawn twice
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        os.close(made.descriptor)


ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_top_draws_until_a_key_and_leaves_the_terminal_as_it_was(terminal: Terminal, key: bytes) -> None:
    assert not termios.tcgetattr(terminal.descriptor)[3] & termios.ECHO
    terminal.until("connections", times=4)
    os.write(terminal.descriptor, key)
    status = terminal.to_the_end()
    assert status == 0, terminal.shown
    assert terminal.shown.count(ENTER) == terminal.shown.count(LEAVE) == 1


def test_top_ends_with_one_line_when_the_node_ends(terminal: Terminal, listener: Running) -> None:
    listener.process.terminate()
    assert terminal.to_the_end() == 1
    after = terminal.shown.rpartition(LEAVE)[2]
    assert "p2pcore top: the node has ended" in after
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3700, "1 h 1 min"),
        (90000, "1 d 1 h"),
        (86400, "1 d 0 h"),
    ],
)
def test_durations_have_their_two_largest_units(amount: float, text: str) -> None:
    assert duration(amount) == text


def test_rates_of_a_worker_that_was_replaced_are_never_negative() -> None:
    before = {"uptime_s": 1.0, "cpu_s": 9.0, "counters": {"connections opened": 9}, "workers": [{"pid": 5}]}
    now = {"uptime_s": 3.0, "cpu_s": 1.0, "counters": {"connections opened": 3}, "workers": [{"pid": 6}]}
    rates = change(before, now)
    assert rates is not None
    assert (rates.per_s["opened"], rates.cpu) == (0.0, {0: 0.0})
    assert change(now, now) is None
