"""Options of a node by file and by environment: which goes first, what is shown, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_driver import Cli, assert_fails

from p2pcore.cli.configured import configurable, strangers
from p2pcore.cli.listen_command import command as listen


def write(cli: Cli, text: str) -> None:
    (cli.directory / "node.toml").write_text(text)


def shown(cli: Cli, *args: str, **variables: str) -> dict[str, Any]:
    result = cli.run("config", "--json", *args, **variables)
    assert result.status == 0, result
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_an_argument_goes_before_a_variable_and_that_before_the_file_and_that_before_the_default(
    cli: Cli,
) -> None:
    write(cli, "max-conns = 1\nmax-streams = 2\ndrain = 3\n")
    args = ("--config", "node.toml", "--max-conns", "10")
    found = shown(cli, *args, P2PCORE_MAX_CONNS="100", P2PCORE_MAX_STREAMS="20")
    assert found["max-conns"] == {"value": 10, "source": "argument"}
    assert found["max-streams"] == {"value": 20, "source": "$P2PCORE_MAX_STREAMS"}
    assert found["drain"] == {"value": 3.0, "source": "node.toml"}
    assert found["drain-delay"] == {"value": 0.0, "source": "default"}


def test_every_option_of_a_node_can_stand_in_a_file(cli: Cli) -> None:
    keys = set(shown(cli))
    assert keys == set(configurable(listen))
    assert {"addr", "key", "max-conns", "drain", "admin", "workers", "verbose", "no-tls-verify"} <= keys
    assert not {"config", "json", "help"} & keys


def test_values_have_the_types_of_toml(cli: Cli) -> None:
    write(
        cli,
        'addr = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"]\nmemory = "64MiB"\nrelay = true\n'
        'perf = false\nverbose = 2\nno_tls_verify = true\nsecurity = "tls,noise"\ndrain = 2.5\n',
    )
    found = {key: row["value"] for key, row in shown(cli, "--config", "node.toml").items()}
    assert found["addr"] == ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"]
    assert (found["memory"], found["relay"], found["perf"], found["verbose"]) == (64 * 2**20, True, False, 2)
    assert (found["no-tls-verify"], found["security"], found["drain"]) == (True, ["tls", "noise"], 2.5)


def test_a_variable_can_switch_off_what_the_file_switches_on(cli: Cli) -> None:
    write(cli, "relay = true\nperf = true\n")
    found = shown(cli, P2PCORE_CONFIG="node.toml", P2PCORE_RELAY="off", P2PCORE_PERF="")
    assert found["relay"] == {"value": False, "source": "$P2PCORE_RELAY"}
    assert found["perf"] == {"value": True, "source": "node.toml"}


def test_addresses_given_as_arguments_replace_those_of_the_file(cli: Cli) -> None:
    write(cli, 'addr = "/ip4/127.0.0.1/tcp/1"\n')
    found = shown(cli, "--config", "node.toml", "--addr", "/ip4/127.0.0.1/tcp/2")
    assert found["addr"]["value"] == ["/ip4/127.0.0.1/tcp/2"]
    found = shown(cli, P2PCORE_ADDR="/ip4/127.0.0.1/tcp/3 /ip4/127.0.0.1/tcp/4")
    assert found["addr"]["value"] == ["/ip4/127.0.0.1/tcp/3", "/ip4/127.0.0.1/tcp/4"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("max-con = 1", "node.toml: no option is named 'max-con'; the nearest one is 'max-conns'"),
        ("zzzzzz = 1", "no option is named 'zzzzzz'\n"),
        ("config = 'x'", "no option is named 'config'"),
        ("json = true", "no option is named 'json'"),
        ("[listen]\nperf = true", "no option is named 'listen'"),
        ("max-conns = -1", "node.toml: max-conns: '-1' is not"),
        ("max-conns = true", "max-conns must be a text or a number, not True"),
        ("max-conns = [1]", "max-conns must be a text or a number"),
        ("perf = 1", "perf must be true or false, not 1"),
        ("verbose = 99", "verbose must be a whole number from 0 to 9, not 99"),
        ("addr = [1]", "addr must be a text or a list of texts"),
        ("addr = 'x'", "node.toml: addr: 'x' is not a multiaddr"),
        ("perf = ", "node.toml is not TOML"),
        (f"max-conns = {'9' * 5000}", "node.toml is not TOML"),
        (f"max-conns = 0x{'f' * 6000}", "the number of 'max-conns' has too many digits"),
        (f"perf = 0x{'f' * 6000}", "the number of 'perf' has too many digits"),
        (f"max-conns = {'[' * 5000}", "node.toml is not TOML"),
        ('key = "a\\u0000b"', "invalid argument"),
        ("max-conns = 1979-05-27", "must be a text or a number"),
        ("tls-cert = 'a'", "--tls-cert and --tls-key must be given together"),
        ("key = 'missing.key'", "missing.key: no such file"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_before_anything_starts(cli: Cli, text: str, why: str) -> None:
    write(cli, text)
    for command in (("config", "--check"), ("listen",)):
        result = cli.run(*command, "--config", "node.toml")
        assert_fails(result, 2 if "together" in why else 1, why.rstrip("\n"))
        if why.endswith("\n"):
            assert "nearest" not in result.err


def test_a_file_that_is_not_there_is_an_error(cli: Cli) -> None:
    assert_fails(cli.run("listen", "--config", "no.toml"), 1, "no.toml: no such file or directory")
    (cli.directory / "node.toml").write_bytes(b"\xff\xfe")
    assert_fails(cli.run("config", "--config", "node.toml"), 1, "node.toml is not TOML")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("P2PCORE_WORKERS", "x", "$P2PCORE_WORKERS: workers: 'x' is not a number of workers"),
        ("P2PCORE_PERF", "maybe", "$P2PCORE_PERF must be true or false, not 'maybe'"),
        ("P2PCORE_VERBOSE", "-1", "$P2PCORE_VERBOSE must be a whole number"),
    ],
)
def test_what_is_wrong_in_a_variable_is_said_with_its_name(cli: Cli, name: str, value: str, why: str) -> None:
    assert_fails(cli.run("config", "--check", **{name: value}), 1, why)


def test_a_check_that_passes_says_nothing(cli: Cli) -> None:
    write(cli, "perf = true\n")
    result = cli.run("config", "--check", "--config", "node.toml")
    assert (result.status, result.out, result.err) == (0, "", "")


def test_people_see_a_line_for_each_option(cli: Cli) -> None:
    write(cli, "max-conns = 7\n")
    lines = cli.run("config", "--config", "node.toml").out.splitlines()
    assert len(lines) == len(configurable(listen))
    assert [line.split() for line in lines if line.startswith("max-conns")] == [
        ["max-conns", "7", "node.toml"]
    ]


def test_a_variable_that_is_nearly_an_option_is_warned_of() -> None:
    options = list(configurable(listen).values())
    environment = {"P2PCORE_DRAIN_DELY": "1", "P2PCORE_DEBUG": "1", "P2PCORE_MAX_CONNS": "1", "PATH": ""}
    assert strangers(options, environment) == [
        "$P2PCORE_DRAIN_DELY is no option; the nearest one is $P2PCORE_DRAIN_DELAY"
    ]


def test_a_node_runs_from_a_file(cli: Cli) -> None:
    made = json.loads(cli.run("id", "new", "--out", "node.key", "--json").out)
    write(cli, 'key = "node.key"\nadmin = "node.sock"\naddr = "/ip4/127.0.0.1/tcp/0"\n')
    running = cli.start("listen", "--config", "node.toml")
    try:
        assert running.line().endswith(made["peer_id"])
        assert cli.run("status", "--admin", "node.sock").status == 0
        assert running.end().status == 0
    finally:
        running.kill()
