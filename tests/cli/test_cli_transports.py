"""`p2pcore listen` on everything but plain TCP, and dialling it: shared ports, certificates, UNIX, relays."""

from __future__ import annotations

import json
import os
import socket
import stat

import pytest
from cli_driver import Cli, Result, assert_fails


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_tcp_and_secure_websocket_on_one_port(cli: Cli) -> None:
    base = f"/ip4/127.0.0.1/tcp/{free_port()}"
    addrs = ("--addr", base, "--addr", f"{base}/tls/ws")
    listener = cli.start("listen", *addrs, "--tls-self-signed")
    tcp, secure = listener.line(), listener.line()
    assert secure.startswith(f"{base}/tls/ws/p2p/")
    assert cli.run("ping", tcp, "-n", "1").status == 0
    assert cli.run("ping", secure, "-n", "1", "--no-tls-verify").status == 0
    assert_fails(cli.run("ping", secure, "-n", "1"), 1, "the TLS certificate of 127.0.0.1 is not trusted")
    assert listener.end() == Result(0, "", "")


def test_port_zero_for_several_kinds_is_one_port_when_asked_for(cli: Cli) -> None:
    addrs = ("--addr", "/ip4/127.0.0.1/tcp/0", "--addr", "/ip4/127.0.0.1/tcp/0/ws")
    listener = cli.start("listen", *addrs, "--share-port")
    tcp, web = listener.line(), listener.line()
    assert tcp.split("/")[4] == web.split("/")[4]
    for addr in (tcp, web):
        assert cli.run("ping", addr, "-n", "1").status == 0
    assert listener.end() == Result(0, "", "")


def test_security_and_muxers_by_name(cli: Cli) -> None:
    listener = cli.start("listen", "--security", "tls,noise", "--muxers", "mplex,yamux", "-v", "--json")
    addr = json.loads(listener.line())["addr"]
    for security, muxer in (("tls", "yamux"), ("noise", "mplex")):
        assert cli.run("ping", addr, "-n", "1", "--security", security, "--muxers", muxer).status == 0
        came, _ = json.loads(listener.line()), listener.line()
        assert came["security"].startswith(f"/{security}")
        assert came["muxer"].startswith(f"/{muxer}")
    refused = cli.run("ping", addr, "-n", "1", "--security", "plaintext")
    assert_fails(refused, 1, "the peer does not speak /plaintext/2.0.0")
    result = listener.end()
    assert (result.status, result.err) == (0, "")


def test_a_unix_socket(cli: Cli) -> None:
    arguments = ("--addr", f"/unix{cli.directory}/sock", "--unix-mode", "600", "-v", "--json")
    listener = cli.start("listen", *arguments)
    addr = json.loads(listener.line())["addr"]
    assert stat.S_IMODE((cli.directory / "sock").lstat().st_mode) == 0o600
    assert cli.run("ping", addr, "-n", "1").status == 0
    came, gone = json.loads(listener.line()), json.loads(listener.line())
    assert came["addr"] is gone["addr"] is None
    result = listener.end()
    assert (result.status, result.err) == (0, "")
    assert not (cli.directory / "sock").exists()


def test_a_node_reached_through_a_relay(cli: Cli) -> None:
    relay = cli.start("listen", "--relay")
    hidden = cli.start("listen", "--addr", f"{relay.line()}/p2p-circuit")
    addr = hidden.line()
    assert "/p2p-circuit/p2p/" in addr
    assert cli.run("ping", addr, "-n", "1").status == 0
    assert hidden.end() == Result(0, "", "")
    assert relay.end() == Result(0, "", "")


def test_a_node_whose_relay_starts_later_says_that_it_waits_and_prints_its_address_then(cli: Cli) -> None:
    assert cli.run("id", "new", "--out", "key").status == 0
    first = cli.start("listen", "--relay", "--key", "key")
    relay_addr = first.line()
    assert first.end() == Result(0, "", "")
    hidden = cli.start("listen", "--addr", f"{relay_addr}/p2p-circuit")
    try:
        said = [hidden.error_line(), hidden.error_line()]
        assert any("no reservation" in line for line in said)
        assert f"p2pcore: waiting until the relay reserves a place for {relay_addr}/p2p-circuit" in said
        port = relay_addr.partition("/p2p/")[0]
        relay = cli.start("listen", "--relay", "--key", "key", "--addr", port)
        assert relay.line() == relay_addr
        addr = hidden.line()
        assert addr.startswith(f"{relay_addr}/p2p-circuit/p2p/")
        assert cli.run("ping", addr, "-n", "1").status == 0
        assert hidden.end() == Result(0, "", "")
        assert relay.end() == Result(0, "", "")
    finally:
        hidden.kill()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--addr", "/ip4/127.0.0.1/tcp/0/tls/ws"), 2, "needs a certificate: --tls-cert and --tls-key"),
        (("--addr", "/p2p-circuit"), 2, "RELAY/p2p-circuit is expected"),
        (("--addr", "/ip4/127.0.0.1/tcp/1/p2p-circuit"), 2, "RELAY/p2p-circuit is expected"),
        (("--tls-ca", "nowhere"), 1, "nowhere: no such file"),
        (("--tls-ca", os.devnull), 1, "there is no certificate (PEM) in this file"),
        (("--tls-cert", "x"), 2, "--tls-cert and --tls-key must be given together"),
        (
            ("--tls-cert", "x", "--tls-key", "y", "--tls-self-signed"),
            2,
            "--tls-self-signed and --tls-cert cannot",
        ),
        (
            ("--addr", "/ip4/127.0.0.1/tcp/0/tls/ws", "--tls-cert", "x", "--tls-key", "y"),
            1,
            "x: no such file",
        ),
        (("--unix-mode", "rw"), 2, "are not permissions in octal"),
        (("--unix-mode", "1777"), 2, "are not permissions in octal"),
        (("--tls-ca", "nowhere", "--addr", "/p2p-circuit/x"), 2, "/p2p-circuit"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    cli: Cli, arguments: tuple[str, ...], status: int, text: str
) -> None:
    assert_fails(cli.run("listen", *arguments), status, text)
