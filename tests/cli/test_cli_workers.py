"""`p2pcore listen --workers N`: its addresses, its events, its end."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from cli_driver import LIMIT_S, Cli, Result, Running, assert_fails

from harness import seconds

ADDR = re.compile(r"/ip4/127\.0\.0\.1/tcp/[1-9]\d*/p2p/12D3KooW\w+")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_addresses_are_printed_once_and_a_signal_ends_it_well(cli: Cli, number: int) -> None:
    listener = cli.start("listen", "--workers", "2")
    addr = listener.line()
    assert ADDR.fullmatch(addr)
    assert cli.run("ping", addr, "-n", "1").status == 0
    assert listener.end(number) == Result(0, "", "")


def test_verbose_shows_workers_and_connections_after_the_address(cli: Cli) -> None:
    listener = cli.start("listen", "--workers", "2", "-v")
    addr = listener.line()
    begun = [listener.line(), listener.line()]
    assert all(re.fullmatch(r"\* worker [01] \(pid \d+\) started", line) for line in begun)
    assert cli.run("ping", addr, "-n", "1").status == 0
    assert re.fullmatch(r"\+ 12D3KooW\w+ /ip4/127.0.0.1/tcp/\d+ /noise /yamux/1.0.0", listener.line())
    assert listener.line().startswith("- 12D3KooW")
    result = listener.end()
    assert (result.status, result.err) == (0, "")
    assert result.out.count("draining") == 2
    assert result.out.count("exited with status 0") == 2


def test_machines_get_events_and_a_lost_worker_is_one_warning(cli: Cli) -> None:
    listener = cli.start("listen", "--workers", "1", "-v", "--json")
    assert json.loads(listener.line())["event"] == "listening"
    first = json.loads(listener.line())
    assert first == {"event": "worker_started", "worker": 0, "pid": first["pid"]}
    os.kill(first["pid"], signal.SIGKILL)
    lost = json.loads(listener.line())
    assert (lost["event"], lost["status"], lost["restart_s"]) == ("worker_exited", -9, 0.1)
    assert json.loads(listener.line())["event"] == "worker_started"
    result = listener.end()
    assert result.status == 0
    assert re.fullmatch(r"p2pcore: warning: worker 0 \(pid \d+\) was ended by SIGKILL; .*\n", result.err)


def test_a_second_signal_ends_it_although_a_stream_goes_on(cli: Cli) -> None:
    listener = cli.start("listen", "--workers", "1", "--drain", "3600", "-v")
    addr = listener.line()
    listener.line()
    ping = cli.start("ping", addr, "-n", "0", "-i", "100")
    try:
        ping.line()
        listener.line()
        listener.process.send_signal(signal.SIGINT)
        while "draining" not in listener.line():
            pass
        result = listener.end()
        assert (result.status, result.err) == (0, "")
    finally:
        ping.kill()


@pytest.mark.parametrize("option", ["--relay", "--relay-unlimited"])
def test_the_workers_are_one_relay(cli: Cli, option: str) -> None:
    relay = cli.start("listen", "--workers", "3", option)
    circuit = f"{relay.line()}/p2p-circuit"
    targets = [cli.start("listen", "--addr", circuit) for _ in range(2)]
    try:
        for target in targets:
            addr = target.line()
            for _ in range(3):  # each time from another worker, perhaps
                assert cli.run("ping", addr, "-n", "1").status == 0
    finally:
        for target in targets:
            target.kill()
    assert relay.end().status == 0


def started(node: Running, index: int) -> int:
    """Waits until this worker has started. Returns: its process id."""
    while (found := re.fullmatch(rf"\* worker {index} \(pid (\d+)\) started", node.line())) is None:
        pass
    return int(found[1])


def test_workers_are_reached_through_a_relay_also_when_the_worker_that_held_it_was_killed(cli: Cli) -> None:
    relay = cli.start("listen", "--relay")
    circuit = f"{relay.line()}/p2p-circuit"
    node = cli.start("listen", "--workers", "2", "-v", "--addr", "/ip4/127.0.0.1/tcp/0", "--addr", circuit)
    try:
        direct, relayed = node.line(), node.line()
        assert (circuit in relayed, circuit in direct) == (True, False)
        pid = started(node, 0)
        for addr in (direct, relayed):
            assert cli.run("ping", addr, "-n", "1").status == 0
        os.kill(pid, signal.SIGKILL)
        assert started(node, 0) != pid
        assert cli.run("ping", relayed, "-n", "1").status == 0
    finally:
        node.kill()
        relay.kill()


def test_a_closed_standard_output_ends_it(cli: Cli) -> None:
    listener = cli.start("listen", "--workers", "1", "-v")
    addr = listener.line()
    listener.line()
    assert listener.process.stdout is not None
    listener.process.stdout.close()
    cli.run("ping", addr, "-n", "1")
    assert listener.process.wait(seconds(LIMIT_S)) == 141


CIRCUIT = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit"


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("--workers", "0"), 2, "not a number of workers"),
        (("--workers", "257"), 2, "from 1 to 256"),
        (("--workers", "two"), 2, "not a number of workers"),
        (("--workers", "2", "--drain", "-1"), 2, "is not a number of seconds"),
        (("--workers", "2", "--addr", CIRCUIT), 1, "a relay leads to one worker only: listen on another"),
        (("--workers", "2", "--psk", "nothing"), 1, "listen: nothing: no such file"),
        (("--workers", "2", "--addr", "/ip4/192.0.2.1/tcp/0"), 1, "no interface of this machine has it"),
        (("--workers", "2", "--addr", "/ip4/127.0.0.1/udp/0/quic-v1"), 1, "no transport for such an address"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, args: tuple[str, ...], status: int, text: str) -> None:
    assert_fails(cli.run("listen", *args), status, text)


def test_a_signal_shows_the_part_of_each_worker_of_the_limits(cli: Cli) -> None:
    listener = cli.start("listen", "--workers", "2", "--json", "--max-conns", "10", "--memory", "64MiB")
    try:
        assert json.loads(listener.line())["event"] == "listening"
        listener.process.send_signal(signal.SIGUSR1)
        seen: dict[tuple[int, str], int] = {}
        while not {(0, "memory"), (1, "memory")} <= seen.keys():
            event = json.loads(listener.line())
            if event["event"] == "limit":
                seen[event["worker"], event["limit"]] = event["maximum"]
        for worker in (0, 1):
            assert seen[worker, "max_conns"] == 5
            assert seen[worker, "memory"] == 32 << 20
        assert listener.end().status == 0
    finally:
        listener.kill()
