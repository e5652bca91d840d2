"""ping, identify, echo and perf against a node, for people and for machines; and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import re
import signal
import socket
import subprocess

import pytest
from cli_driver import COMMAND, LIMIT_S, Cli, Result, assert_fails

from harness import run, seconds
from p2pcore import Host, IdentifyOptions, PublicKey, Stream

OTHER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


def objects(result: Result) -> list[dict[str, object]]:
    assert (result.status, result.err) == (0, ""), result
    return [json.loads(line) for line in result.out.splitlines()]


def without_peer(node: str) -> str:
    return node.rpartition("/p2p/")[0]


# -- what they do ------------------------------------------------------------------------------


def test_ping_shows_each_round_trip_and_a_summary(cli: Cli, node: str) -> None:
    result = cli.run("ping", node, "-n", "3", "-i", "0")
    lines = result.out.splitlines()
    assert result.status == 0
    assert [bool(re.fullmatch(r"\d: \d+\.\d{3} ms", line)) for line in lines] == [True, True, True, False]
    assert re.fullmatch(r"3 answered, rtt min/avg/max/mdev = (\d+\.\d{3}/?){4} ms", lines[-1])


def test_ping_for_machines(cli: Cli, node: str) -> None:
    *pings, summary = objects(cli.run("ping", node, "-n", "4", "-i", "0", "--json"))
    assert [each["number"] for each in pings] == [1, 2, 3, 4]
    times = [float(str(each["rtt_ms"])) for each in pings]
    mean = sum(times) / 4
    assert summary["count"] == 4
    assert summary["peer"] == node.rpartition("/")[2]
    assert summary["min_ms"] == pytest.approx(min(times))
    assert summary["max_ms"] == pytest.approx(max(times))
    assert summary["avg_ms"] == pytest.approx(mean)
    assert summary["mdev_ms"] == pytest.approx((sum((t - mean) ** 2 for t in times) / 4) ** 0.5)


def test_any_peer_lets_the_id_be_left_out(cli: Cli, node: str) -> None:
    assert cli.run("ping", without_peer(node), "-n", "1", "--any-peer").status == 0


def test_identify_shows_every_field(cli: Cli, node: str) -> None:
    (fields,) = objects(cli.run("identify", node, "--json"))
    assert fields["peer"] == node.rpartition("/")[2]
    assert fields["key_type"] == "ed25519"
    assert str(fields["agent_version"]).startswith("p2pcore/")
    assert fields["protocol_version"] == "ipfs/0.1.0"
    assert fields["protocols"] == [
        "/echo/1.0.0",
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
        "/perf/1.0.0",
    ]
    assert fields["listen_addrs"] == fields["signed_addrs"] == [without_peer(node)]
    assert fields["observed_addr"] == fields["local_addr"]
    assert fields["remote_addr"] == without_peer(node)
    assert (fields["security"], fields["muxer"], fields["early_muxer"]) == ("/noise", "/yamux/1.0.0", True)
    shown = cli.run("identify", node).out
    for name, value in fields.items():
        assert name.replace("_", " ") in shown
        if isinstance(value, str) and "addr" not in name:
            assert value in shown


def test_a_key_gives_the_client_its_id(cli: Cli, node: str) -> None:
    made = json.loads(cli.run("id", "new", "--out", "key", "--json").out)
    listener = cli.start("listen", "--json", "-v")
    try:
        addr = json.loads(listener.line())["addr"]
        assert cli.run("ping", addr, "-n", "1", "--key", "key").status == 0
        assert json.loads(listener.line())["peer"] == made["peer_id"]
    finally:
        listener.kill()


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_echo_gives_every_byte_back(cli: Cli, node: str, size: int) -> None:
    data = hashlib.shake_128(b"echo").digest(size)
    done = subprocess.run(
        [*COMMAND, "echo", node], input=data, capture_output=True, timeout=seconds(LIMIT_S), check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def test_echo_for_machines_counts(cli: Cli, node: str) -> None:
    (summary,) = objects(cli.run("echo", node, "--json", stdin=b"x" * 100_000))
    assert summary["bytes"] == 100_000


def test_perf_measures_both_ways(cli: Cli, node: str) -> None:
    up, down = objects(cli.run("perf", node, "-u", "1MiB", "-d", "2MB", "--json"))
    assert (up["direction"], up["bytes"]) == ("upload", 1 << 20)
    assert (down["direction"], down["bytes"]) == ("download", 2_000_000)
    assert float(str(up["MB_s"])) > 0
    (only,) = objects(cli.run("perf", node, "-u", "0", "-d", "1k", "--json"))
    assert (only["direction"], only["bytes"]) == ("download", 1000)
    text = cli.run("perf", node, "-u", "1000", "-d", "0").out
    assert re.fullmatch(r"upload: 1000 bytes in \d+\.\d{3} s = \d+\.\d MB/s\n", text)


@pytest.mark.slow
def test_perf_shows_the_rate_of_each_second(cli: Cli, node: str) -> None:
    perf = cli.start("perf", node, "-u", "1TiB", "-d", "0", "--json")
    first, second = json.loads(perf.line()), json.loads(perf.line())
    assert (first["event"], first["direction"]) == ("interval", "upload")
    assert first["bytes"] > 0
    assert second["at_s"] > first["at_s"] >= 1
    assert perf.end() == Result(130, "", "")


def test_perf_draws_on_a_terminal_only(cli: Cli, node: str) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as terminal:
        argv = [*COMMAND, "perf", node, "-u", "1MB", "-d", "1MB"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal)
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while data := os.read(ours, 65536):
            drawn += data
    os.close(ours)
    out, _ = process.communicate(timeout=seconds(LIMIT_S))
    assert process.returncode == 0
    assert b"1.0/1.0 MB" in drawn
    assert [line.split(b":")[0] for line in out.splitlines()] == [b"upload", b"download"]


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ping", "identify", "echo", "perf"])
def test_a_wrong_peer_id(cli: Cli, node: str, command: str) -> None:
    result = cli.run(command, f"{without_peer(node)}/p2p/{OTHER}")
    assert_fails(result, 1, f"the peer there is {node.rpartition('/')[2]}, not {OTHER}")


@pytest.mark.parametrize("command", ["ping", "identify", "echo", "perf"])
def test_nobody_there(cli: Cli, command: str) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody can answer there
        bound.bind(("127.0.0.1", 0))
        addr = f"/ip4/127.0.0.1/tcp/{bound.getsockname()[1]}"
        assert_fails(
            cli.run(command, f"{addr}/p2p/{OTHER}"), 3, f"cannot connect to {addr}: connection refused"
        )


def test_somebody_else_there(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        addr = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/{OTHER}"
        ping = cli.start("ping", addr)
        conn, _ = server.accept()
        assert conn.recv(65536)  # unread bytes would turn the end into a reset
        conn.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        conn.close()
        assert_fails(ping.wait(), 1, "does not speak multistream-select")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nonsense", "'nonsense' is not a multiaddr"),
        (OTHER, "is not a multiaddr"),
        ("", "'' is not a multiaddr"),
        ("/ip4/127.0.0.1/tcp/1", "has no /p2p/PEER_ID at its end"),
        (f"/ip4/1.2.3/tcp/1/p2p/{OTHER}", "ip4 '1.2.3'"),
        (f"/ip4/127.0.0.1/tcp/1x/p2p/{OTHER}", "tcp '1x'"),
        (f"/ip4/127.0.0.1/tcp/0/p2p/{OTHER}", "port 0 cannot be dialled"),
        ("/ip4/127.0.0.1/tcp/1/p2p/xyz", "p2p 'xyz'"),
        (f"/dns4/example.com/tcp/0/p2p/{OTHER}", "port 0 cannot be dialled"),
    ],
)
def test_a_bad_target(cli: Cli, target: str, text: str) -> None:
    assert_fails(cli.run("ping", target), 2, text)


@pytest.mark.parametrize("name", ["dns", "dns4"])
def test_a_host_name_is_resolved(cli: Cli, node: str, name: str) -> None:
    target = node.replace("/ip4/127.0.0.1/", f"/{name}/localhost/")
    assert cli.run("ping", target, "-n", "1", "-i", "0").status == 0


def test_a_name_that_leads_nowhere_is_told(cli: Cli) -> None:
    assert_fails(cli.run("ping", f"/dns4/nowhere.invalid/tcp/1/p2p/{OTHER}"), 3, "cannot resolve")


@pytest.mark.parametrize(
    "target",
    [f"/ip4/127.0.0.1/udp/1/quic-v1/p2p/{OTHER}", f"/ip4/127.0.0.1/p2p/{OTHER}", f"/p2p/{OTHER}"],
)
def test_no_transport(cli: Cli, target: str) -> None:
    assert_fails(cli.run("ping", target), 1, "no transport for such an address")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("ping",), "Missing argument 'TARGET'"),
        (("ping", "NODE", "more"), "unexpected extra argument"),
        (("ping", "NODE", "-n", "x"), "'x' is not a whole number"),
        (("ping", "NODE", "-n", "-1"), "'-1' is not a whole number"),
        (("ping", "NODE", "-n", "9" * 30), "is not a whole number"),
        (("ping", "NODE", "-i", "-1"), "'-1' is not a number of seconds"),
        (("ping", "NODE", "-i", "nan"), "'nan' is not a number of seconds"),
        (("ping", "NODE", "-i", "1e9"), "'1e9' is not a number of seconds"),
        (("ping", "NODE", "--bogus"), "No such option"),
        (("perf", "NODE", "-u", "-5"), "'-5' is no size"),
        (("perf", "NODE", "-u", "1e3"), "'1e3' is no size"),
        (("perf", "NODE", "-u", "5XB"), "'5XB' is no size"),
        (("perf", "NODE", "-u", "iB"), "'iB' is no size"),
        (("perf", "NODE", "-d", "2TiB"), "2TiB is more than 1 TiB"),
        (("perf", "NODE", "-u", "0", "-d", "0"), "nothing to do"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("--bogus",), "No such option"),
    ],
)
def test_wrong_usage(cli: Cli, args: tuple[str, ...], text: str) -> None:
    node = f"/ip4/127.0.0.1/tcp/1/p2p/{OTHER}"
    assert_fails(cli.run(*(node if arg == "NODE" else arg for arg in args)), 2, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nothing", "nothing: no such file or directory"),
        (".", ".: is a directory"),
        ("/dev/zero", "more than 65536 bytes"),
        ("garbage", "garbage: no key"),
        ("public", "this is a public key; a private key is needed"),
        ("either", "may be private or public"),
    ],
)
def test_a_bad_key_file(cli: Cli, path: str, text: str) -> None:
    (cli.directory / "garbage").write_bytes(bytes(range(255, 0, -1)))
    either = "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
    (cli.directory / "either").write_text(either)
    (cli.directory / "public").write_text(PublicKey.from_protobuf(bytes.fromhex(either)).to_pem())
    assert_fails(cli.run("ping", f"/ip4/127.0.0.1/tcp/1/p2p/{OTHER}", "--key", path), 1, text)


@pytest.mark.parametrize("command", ["echo", "perf"])
def test_a_protocol_the_peer_does_not_have(cli: Cli, command: str) -> None:

    async def main() -> Result:
        async with Host(echo=False, perf=False) as host:
            target = str(host.addrs_with_peer[0])
            return await asyncio.to_thread(cli.run, command, target, stdin=b"hello")

    assert_fails(run(main()), 1, f"the peer does not speak /{command}/1.0.0")


def test_a_peer_that_goes_away(cli: Cli) -> None:
    listener = cli.start("listen")
    try:
        ping = cli.start("ping", listener.line(), "-n", "0", "-i", "0.01")
        ping.line()
        listener.process.kill()
        result = ping.wait()
        assert (result.status, result.err.count("\n")) == (1, 1), result
        assert "answered, rtt" in result.out.splitlines()[-1]
    finally:
        listener.kill()


def test_a_peer_that_lies_in_its_echo(cli: Cli) -> None:

    async def liar(stream: Stream) -> None:
        await stream.write((await stream.read()).upper())

    async def main() -> Result:
        async with Host() as host:
            host.set_stream_handler("/echo/1.0.0", liar)
            target = str(host.addrs_with_peer[0])
            return await asyncio.to_thread(cli.run, "echo", target, "--json", stdin=b"hello")

    assert_fails(run(main()), 1, "the bytes that came back are not the bytes that were sent")


def test_what_a_peer_says_cannot_drive_the_terminal(cli: Cli) -> None:

    async def main() -> Result:
        async with Host(identify=IdentifyOptions(agent_version="evil\x1b[2J\r\n[red]")) as host:
            return await asyncio.to_thread(cli.run, "identify", str(host.addrs_with_peer[0]))

    result = run(main())
    assert result.status == 0
    assert "evil\\x1b[2J\\r\\n[red]" in result.out
    assert "\x1b" not in result.out


# -- how they end ------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_ping_with_its_summary(cli: Cli, node: str, number: int, status: int) -> None:
    ping = cli.start("ping", node, "-n", "0", "-i", "100")
    assert ping.line().startswith("1: ")
    result = ping.end(number)
    assert (result.status, result.err) == (status, "")
    assert result.out.startswith("1 answered")


def test_a_signal_ends_echo_that_waits_for_input(cli: Cli, node: str) -> None:
    echo = cli.start("echo", node, stdin=subprocess.PIPE)
    assert echo.process.stdin is not None
    echo.process.stdin.write(b"hello\n")
    echo.process.stdin.flush()
    assert echo.line() == "hello"
    assert echo.end() == Result(130, "", "")


def test_a_signal_ends_a_dial_that_gets_no_answer(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ping = cli.start("ping", f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/{OTHER}")
        conn, _ = server.accept()
        with conn:
            assert conn.recv(1)
            assert ping.end() == Result(130, "", "")


def test_a_peer_that_stands_still_does_not_hold_up_the_end(cli: Cli) -> None:
    listener = cli.start("listen")
    try:
        ping = cli.start("ping", listener.line(), "-n", "0", "-i", "100")
        ping.line()
        listener.process.send_signal(signal.SIGSTOP)
        result = ping.end()
        assert (result.status, result.err) == (130, "")
    finally:
        listener.kill()


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("ping", "NODE", "-n", "0", "-i", "0"), 141),
        (("echo", "NODE"), 141),
        (("id", "new"), 141),
        (("--help",), 0),
        (("addr", "--help"), 0),
        (("id", "new", "--help"), 0),
        (("--version",), 0),
    ],
)
def test_a_closed_pipe_is_no_error_to_talk_about(
    cli: Cli, node: str, args: tuple[str, ...], status: int
) -> None:
    argv = [*COMMAND, *(node if arg == "NODE" else arg for arg in args)]
    with open("/dev/zero", "rb") as zeros:
        process = subprocess.Popen(argv, stdin=zeros, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=seconds(LIMIT_S))
    assert (process.returncode, err) == (status, b"")


def test_a_full_disk_is_one_line(cli: Cli) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "id", "new"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=seconds(LIMIT_S),
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        b"p2pcore id new: cannot write to standard output: no space left on device\n",
    )


def test_closed_standard_descriptors_do_no_harm(cli: Cli, node: str) -> None:
    command = " ".join(COMMAND)
    done = subprocess.run(
        ["sh", "-c", f"{command} id show - <&-"], capture_output=True, timeout=seconds(LIMIT_S), check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        b"p2pcore id show: -: the file is empty; a key was expected\n",
    )
    done = subprocess.run(
        ["sh", "-c", f"{command} ping {node} -n 1 <&- >&- 2>&-"], timeout=seconds(LIMIT_S), check=False
    )
    assert done.returncode == 0


# -- through a relay ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["--relay", "--relay-unlimited"])
def test_a_node_behind_a_relay_is_reached_from_the_command_line(cli: Cli, kind: str) -> None:
    relay = cli.start("listen", kind)
    named = relay.line().replace("/ip4/127.0.0.1", "/dns4/localhost")
    behind = cli.start("listen", "--addr", f"{named}/p2p-circuit")
    try:
        target = behind.line()
        assert "/p2p-circuit/p2p/12D3KooW" in target
        assert cli.run("ping", target, "-n", "1").status == 0
        plain = cli.run("echo", target, stdin=b"hello")
        if kind == "--relay":
            assert_fails(plain, 1, "the relay limits this connection")
            plain = cli.run("echo", target, "--allow-limited", stdin=b"hello")
        assert plain == Result(0, "hello", "")
        ended = behind.end()  # it has printed the address by name, and what the relay itself said
        assert (ended.status, ended.err) == (0, "")
        assert_fails(cli.run("ping", target, "-n", "1"), 3, "NO_RESERVATION (204)")
        assert relay.end() == Result(0, "", "")
    finally:
        behind.kill()
        relay.kill()
