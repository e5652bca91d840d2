"""`p2pcore listen`: its addresses, its events, its end; and the command as a whole."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys

import pytest
from cli_driver import COMMAND, ENVIRONMENT, LIMIT_S, Cli, Result, assert_fails

import p2pcore
from harness import seconds

ADDR = re.compile(r"/ip[46]/[0-9a-f.:]+/tcp/([1-9]\d*)/p2p/(12D3KooW\w+)")
PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listens_until_a_signal_and_ends_well(cli: Cli, number: int) -> None:
    listener = cli.start("listen")
    addr = listener.line()
    assert ADDR.fullmatch(addr)
    assert cli.run("ping", addr, "-n", "1").status == 0
    assert listener.end(number) == Result(0, "", "")


def test_ends_well_while_a_peer_is_connected(cli: Cli) -> None:
    listener = cli.start("listen", "-v", "--drain", "0")
    ping = cli.start("ping", listener.line(), "-n", "0", "-i", "100")
    try:
        ping.line()
        result = listener.end()
        assert (result.status, result.err) == (0, "")
    finally:
        ping.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_process_drains_too(cli: Cli, number: int) -> None:
    """A stream that is open at the signal is served to its end; the listener ends when it has ended."""
    listener = cli.start("listen")
    echo = cli.start("echo", listener.line(), stdin=subprocess.PIPE)
    stdin = echo.process.stdin
    assert stdin is not None
    try:
        stdin.write(b"before\n")
        stdin.flush()
        assert echo.line() == "before"
        listener.process.send_signal(number)
        for _ in range(3):  # the first goes out before the signal has come, perhaps
            stdin.write(b"after\n")
            stdin.flush()
            assert echo.line() == "after"
        assert listener.process.poll() is None
        assert echo.wait() == Result(0, "", "")  # ends its standard input
        assert listener.wait() == Result(0, "", "")
    finally:
        echo.kill()
        listener.kill()


def test_a_drain_lasts_no_longer_than_asked_for(cli: Cli) -> None:
    listener = cli.start("listen", "--drain", "0.2")
    echo = cli.start("echo", listener.line(), stdin=subprocess.PIPE)
    stdin = echo.process.stdin
    assert stdin is not None
    try:
        stdin.write(b"before\n")
        stdin.flush()
        assert echo.line() == "before"
        assert listener.end() == Result(0, "", "")
    finally:
        echo.kill()


def test_a_second_signal_ends_a_drain(cli: Cli) -> None:
    listener = cli.start("listen", "--drain", "3600", "-vvv")
    echo = cli.start("echo", listener.line(), stdin=subprocess.PIPE)
    stdin = echo.process.stdin
    assert stdin is not None
    try:
        stdin.write(b"before\n")
        stdin.flush()
        assert echo.line() == "before"
        while listener.process.poll() is None:
            listener.process.send_signal(signal.SIGTERM)
        assert listener.wait().status == 0
    finally:
        echo.kill()


def test_several_addresses_and_a_key(cli: Cli) -> None:
    made = json.loads(cli.run("id", "new", "--out", "key", "--json").out)
    assert stat.S_IMODE((cli.directory / "key").stat().st_mode) == 0o600
    addrs = ("--addr", "/ip4/127.0.0.1/tcp/0", "--addr", "/ip4/127.0.0.1/tcp/0")
    listener = cli.start("listen", "--key", "key", *addrs)
    found = [ADDR.fullmatch(listener.line()), ADDR.fullmatch(listener.line())]
    assert listener.end() == Result(0, "", "")
    assert {match[2] for match in found if match} == {made["peer_id"]}
    assert len({match[1] for match in found if match}) == 2


def test_verbose_shows_connections_come_and_go(cli: Cli) -> None:
    listener = cli.start("listen", "-v")
    assert cli.run("ping", listener.line(), "-n", "1").status == 0
    came, went = listener.line(), listener.line()
    assert re.fullmatch(r"\+ 12D3KooW\w+ /ip4/127.0.0.1/tcp/\d+ /noise /yamux/1.0.0", came)
    assert re.fullmatch(r"- 12D3KooW\w+ /ip4/127.0.0.1/tcp/\d+ after \d+\.\d s", went)
    result = listener.end()
    assert (result.status, result.err) == (0, "")
    assert "max_conns" in result.out


def test_machines_get_events(cli: Cli) -> None:
    listener = cli.start("listen", "-v", "--json")
    first = json.loads(listener.line())
    assert first["event"] == "listening"
    assert cli.run("ping", first["addr"], "-n", "1").status == 0
    came, went = json.loads(listener.line()), json.loads(listener.line())
    assert (came["event"], came["direction"], came["security"]) == ("connected", "inbound", "/noise")
    assert (went["event"], went["peer"]) == ("disconnected", came["peer"])
    result = listener.end()
    assert (result.status, result.err) == (0, "")
    assert "max_conns" in result.out


def test_perf_is_served_only_when_asked_for(cli: Cli) -> None:
    listener = cli.start("listen")
    assert_fails(cli.run("perf", listener.line()), 1, "the peer does not speak /perf/1.0.0")
    assert listener.end() == Result(0, "", "")


def test_a_port_in_use(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        text = f"cannot listen on {taken}: address already in use"
        assert_fails(cli.run("listen", "--addr", taken), 1, text)
        listener = cli.start("listen", "--addr", taken, "--addr", "/ip4/127.0.0.1/tcp/0")
        assert ADDR.fullmatch(listener.line())
        result = listener.end()
    assert result.status == 0
    assert result.err.count("\n") == 1
    assert taken in result.err


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("--addr", "/ip4/192.0.2.1/tcp/0"), 1, "no interface of this machine has it"),
        (("--addr", "/ip4/127.0.0.1/udp/0/quic-v1"), 1, "no transport for such an address"),
        (("--addr", "/dns4/localhost/tcp/0"), 2, "not a host name"),
        (("--addr", "/ip4/127.0.0.1/tcp/80x"), 2, "tcp '80x'"),
        (("--addr", "/ip4/127.0.0.1/tcp/70000"), 2, "tcp '70000'"),
        (("--addr", "127.0.0.1:80"), 2, "'127.0.0.1:80' is not a multiaddr"),
        (("--addr",), 2, "requires an argument"),
        (
            ("--addr", f"/ip4/127.0.0.1/tcp/0/p2p/{PEER}"),
            2,
            "listen on /ip4/127.0.0.1/tcp/0; the peer id comes from --key",
        ),
        (("--key", "nothing"), 1, "nothing: no such file or directory"),
        (("extra",), 2, "unexpected extra argument"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, args: tuple[str, ...], status: int, text: str) -> None:
    assert_fails(cli.run("listen", *args), status, text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_further_signals_end_at_once_and_as_the_first_one(cli: Cli, number: int) -> None:
    listener = cli.start("listen")
    listener.line()
    while listener.process.poll() is None:  # they come at every moment of its end
        listener.process.send_signal(number)
    assert listener.wait() == Result(0, "", "")


def test_ctrl_c_while_a_relay_says_nothing(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(seconds(LIMIT_S))
        relay = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/{PEER}"
        listener = cli.start("listen", "--addr", f"{relay}/p2p-circuit")
        conn, _ = server.accept()
        with conn:
            assert listener.end() == Result(0, "", "")


# -- the command as a whole --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "status", "text"),
    [
        ({"_P2PCORE_COMPLETE": "zsh_source"}, 0, "compdef"),
        ({"_P2PCORE_COMPLETE": "bash_complete", "COMP_WORDS": "p2pcore li", "COMP_CWORD": "1"}, 0, "listen"),
        ({"_P2PCORE_COMPLETE": "no_such_shell"}, 1, ""),
    ],
)
def test_shell_completion(cli: Cli, variables: dict[str, str], status: int, text: str) -> None:
    done = subprocess.run(
        COMMAND, env=ENVIRONMENT | variables, capture_output=True, timeout=seconds(LIMIT_S), check=False
    )
    assert (done.returncode, done.stderr) == (status, b"")
    assert text in done.stdout.decode()


def test_version(cli: Cli) -> None:
    assert cli.run("--version") == Result(0, f"p2pcore {p2pcore.__version__}\n", "")


def test_no_arguments_is_help(cli: Cli) -> None:
    result = cli.run()
    assert "Commands:" in result.out + result.err  # click 8.1 prints it as a result, later ones as an error
    assert "Traceback" not in result.err


def test_help_is_quick() -> None:
    heavy = ("rich", "uvloop", "asyncio", "cryptography", "nacl", "google.protobuf", "p2pcore.host")
    check = (
        "import sys; from p2pcore.cli import main; main(['--help']); "
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, timeout=seconds(LIMIT_S), check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_each_command_has_the_help_it_is_listed_with(cli: Cli) -> None:
    from p2pcore.cli.app import COMMANDS, commands

    assert [commands.get_command(None, name) is not None for name in COMMANDS] == [True] * len(COMMANDS)  # type: ignore[arg-type]
    for name in COMMANDS:
        result = cli.run(name, "--help")
        assert (result.status, result.err) == (0, "")
        if name not in ("id", "psk"):
            assert "--json" in result.out


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run(
        [*COMMAND, "id", "show", "nothing"],
        env={**ENVIRONMENT, "P2PCORE_DEBUG": "1"},
        capture_output=True,
        timeout=seconds(LIMIT_S),
        check=False,
    )
    assert b"Traceback" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--security", "nois"), "no security protocol is named 'nois'; possible are noise"),
        (("--muxers", "yamux,,"), "no multiplexer is named ''; possible are yamux"),
        (("--muxers", "yamux,yamux"), "'yamux,yamux' names a multiplexer twice"),
    ],
)
def test_names_that_are_not_there(cli: Cli, arguments: tuple[str, ...], text: str) -> None:
    assert_fails(cli.run("listen", *arguments), 2, text)


# -- limits ------------------------------------------------------------------------------------


def test_a_signal_shows_how_much_of_each_limit_is_used(cli: Cli) -> None:
    listener = cli.start("listen", "--max-conns", "10", "--max-streams", "100", "--memory", "16MiB")
    try:
        assert ADDR.fullmatch(listener.line())
        listener.process.send_signal(signal.SIGUSR1)
        rows = [listener.line().split()]
        while rows[-1][0] != "memory":
            rows.append(listener.line().split())
        assert rows[0] == ["limit", "used", "peak", "maximum", "refused"]
        assert ["max_conns", "0", "0", "10", "0"] in rows
        assert ["max_streams", "0", "0", "100", "0"] in rows
        assert rows[-1] == ["memory", "0.0", "MiB", "0.0", "MiB", "16.0", "MiB", "0"]
        assert listener.end() == Result(0, "", "")  # without -v, nothing at the end
    finally:
        listener.kill()


def test_verbose_shows_limits_at_the_end_and_machines_get_objects(cli: Cli) -> None:
    listener = cli.start("listen", "-v", "--json", "--max-conns", "10")
    addr = json.loads(listener.line())["addr"]
    assert cli.run("ping", addr, "-n", "1").status == 0
    result = listener.end()
    events = [json.loads(line) for line in result.out.splitlines()]
    limits = {event["limit"]: event for event in events if event["event"] == "limit"}
    assert limits["max_conns"] == {
        "event": "limit",
        "limit": "max_conns",
        "used": 0,
        "peak": 1,
        "maximum": 10,
        "refused": 0,
    }
    assert len(limits) == next(event["count"] for event in events if event["event"] == "limits")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--max-conns", "0"), "'0' is not a whole number from 1 to 2147483647"),
        (("--max-conns", "many"), "'many' is not a whole number"),
        (("--max-streams", "0"), "'0' is not a whole number from 1 to 2147483647"),
        (("--max-streams", "99999999999"), "'99999999999' is not a whole number from 1 to 2147483647"),
        (("--memory", "1000"), "1000 is less than 1 MiB"),
        (("--memory", "much"), "'much' is no size"),
    ],
)
def test_limits_that_cannot_be_are_one_line(cli: Cli, args: tuple[str, ...], text: str) -> None:
    assert_fails(cli.run("listen", *args), 2, text)


def test_a_node_that_is_full_takes_no_more(cli: Cli) -> None:
    listener = cli.start("listen", "--max-conns", "1")
    addr = listener.line()
    ping = cli.start("ping", addr, "-n", "0", "-i", "100")
    try:
        ping.line()
        more = cli.start("ping", addr, "-n", "1")
        assert "1 of 1 connections (Limits.max_conns)" in listener.error_line()
        more.kill()
    finally:
        ping.kill()
        listener.kill()
