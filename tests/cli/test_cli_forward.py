"""`p2pcore forward` and `listen --serve`: local sockets joined to streams, with their ends and resets."""

from __future__ import annotations

import json
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_driver import Cli, Result, Running, assert_fails

from harness import HANG_S, seconds

PROTOCOL = "/test-forward/1"


def shout(sock: socket.socket) -> None:
    """Reads up to the end, and then answers in capitals: it needs half-closes."""
    data = b""
    while more := sock.recv(65536):
        data += more
    sock.sendall(data.upper())


def reset(sock: socket.socket) -> None:
    """Resets the connection after the first byte."""
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def service(path: Path | None, serve: Callable[[socket.socket], None] = shout) -> Iterator[str]:
    """A local service. Yields its address as --serve takes it."""
    if path is None:
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        address = f"unix:{path}"

    def run() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock:
                serve(sock)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(seconds(HANG_S))


def dial(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        sock = socket.create_connection((host, int(port)))
    sock.settimeout(seconds(HANG_S))
    return sock


def asked(address: str, request: bytes) -> bytes:
    """The answer to `request`, up to its end."""
    with dial(address) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer


def exchange(address: str) -> None:
    """Sends a byte to `address` and waits for an answer."""
    with dial(address) as sock:
        sock.sendall(b"x")
        sock.recv(1)


def assert_reset(address: str) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        exchange(address)


@contextmanager
def started(cli: Cli, *args: str) -> Iterator[tuple[Running, str]]:
    running = cli.start(*args)
    try:
        yield running, running.line()
    finally:
        running.kill()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_local_service_is_reached_through_a_peer_with_half_closes(cli: Cli, kind: str) -> None:
    path = cli.directory / "service.sock" if kind == "unix" else None
    local = "unix:forward.sock" if kind == "unix" else "0"
    with service(path) as address, started(cli, "listen", "--serve", f"{PROTOCOL}={address}") as (node, addr):
        with started(cli, "forward", local, addr, PROTOCOL) as (forward, where):
            assert asked(where, b"hello") == b"HELLO"
            big = b"x" * 3_000_000
            assert asked(where, big) == big.upper()
            assert forward.end(signal.SIGTERM) == Result(0, "", "")
            assert not (cli.directory / "forward.sock").exists()
        assert cli.run("connect", addr, PROTOCOL, stdin=b"netcat").out == "NETCAT"
        assert node.end().status == 0


def test_workers_serve_too_and_a_file_may_say_what(cli: Cli) -> None:
    with service(None) as address:
        (cli.directory / "node.toml").write_text(f'workers = 1\nserve = ["{PROTOCOL}={address}"]\n')
        with started(cli, "listen", "--config", "node.toml") as (_, addr):
            assert cli.run("connect", addr, PROTOCOL, stdin=b"abc").out == "ABC"
        shown = json.loads(cli.run("config", "--config", "node.toml", "--json").out)
        assert shown["serve"] == {"value": [f"{PROTOCOL}={address}"], "source": "node.toml"}


def test_a_reset_of_the_service_is_a_reset_for_the_client(cli: Cli) -> None:
    with (
        service(None, reset) as address,
        started(cli, "listen", "--serve", f"{PROTOCOL}={address}") as (_, addr),
        started(cli, "forward", "0", addr, PROTOCOL) as (_, where),
    ):
        assert_reset(where)


def test_a_service_that_is_gone_resets_and_warns(cli: Cli) -> None:
    with service(None) as address:
        pass
    with (
        started(cli, "listen", "--serve", f"{PROTOCOL}={address}") as (node, addr),
        started(cli, "forward", "0", addr, PROTOCOL) as (_, where),
    ):
        assert_reset(where)
        port = address.rpartition(":")[2]
        assert f"cannot connect {PROTOCOL} to /ip4/127.0.0.1/tcp/{port}" in node.error_line()


def test_a_peer_that_does_not_speak_the_protocol_resets_and_warns(cli: Cli, node: str) -> None:
    with started(cli, "forward", "0", node, "/no/such", "--json") as (forward, line):
        told = json.loads(line)
        assert (told["event"], told["peer"]) == ("forwarding", node)
        assert "the peer does not say that it speaks /no/such" in forward.error_line()
        assert_reset(told["local"])


def answer_of(address: str, request: bytes) -> bytes:
    """As `asked`; b"" if the connection is reset."""
    try:
        return asked(address, request)
    except ConnectionError:
        return b""


def test_a_node_that_was_started_again_is_dialled_again(cli: Cli) -> None:
    cli.run("id", "new", "--out", "node.key")
    with service(None) as address:
        listen = ("listen", "--key", "node.key", "--serve", f"{PROTOCOL}={address}", "--drain", "0")
        with (
            started(cli, *listen) as (node, addr),
            started(cli, "forward", "0", addr, PROTOCOL) as (_, where),
        ):
            assert asked(where, b"one") == b"ONE"
            assert node.end().status == 0
            with started(cli, *listen, "--addr", f"/ip4/127.0.0.1/tcp/{addr.split('/')[4]}"):
                while not (answer := answer_of(where, b"two")):  # it has not noticed yet
                    pass
                assert answer == b"TWO"


def test_nobody_at_the_target_is_status_3_and_what_is_no_address_is_2(cli: Cli, node: str) -> None:
    target = f"/ip4/127.0.0.1/tcp/1/p2p/{node.rpartition('/')[2]}"
    assert_fails(cli.run("forward", "0", target, PROTOCOL), 3, "connection refused")
    for local in ("host", "1:x", "unix:", "99999", "name:80", "/dns4/name/tcp/1", "/ip4/127.0.0.1/tcp/1/ws"):
        assert_fails(cli.run("forward", local, node, PROTOCOL), 2, "is no address")
    assert_fails(cli.run("listen", "--serve", "chat=1"), 2, "is no protocol id")
    assert_fails(cli.run("listen", "--serve", "/chat"), 2, "is no protocol id")


def test_an_address_in_use_is_a_failure(cli: Cli, node: str) -> None:
    with service(None) as address:
        result = cli.run("forward", address, node, "/echo/1.0.0")
        assert (result.status, result.err.count("\n")) == (1, 1)
        assert "in use" in result.err
