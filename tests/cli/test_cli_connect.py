"""`p2pcore connect`: standard input and output on a protocol of a peer; ends, exit statuses."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable

import pytest
from cli_driver import COMMAND, Cli, Result, assert_fails

from harness import looped
from p2pcore import Host, Stream

PROTOCOL = "/test-connect/1"


def test_what_is_sent_comes_back_whole_and_the_end_is_passed_on(cli: Cli, node: str) -> None:
    data = bytes(range(256)) * 4096
    command = [*COMMAND, "connect", node, "/echo/1.0.0"]
    result = subprocess.run(command, input=data, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, data, b"")


def test_machines_get_a_summary_in_the_place_of_the_bytes(cli: Cli, node: str) -> None:
    result = cli.run("connect", node, "/echo/1.0.0", "--json", stdin=b"12345")
    told = json.loads(result.out)
    assert (told["event"], told["sent"], told["received"], told["protocol"]) == (
        "summary",
        5,
        5,
        "/echo/1.0.0",
    )
    assert node.endswith(told["peer"])


def test_a_protocol_that_the_peer_does_not_speak_is_a_failure(cli: Cli, node: str) -> None:
    assert_fails(cli.run("connect", node, "/no/such"), 1, "the peer does not speak /no/such")


@pytest.mark.parametrize("protocol", ["chat", "", "/a\nb", "/" + "x" * 2000])
def test_what_is_no_protocol_is_wrong_usage(cli: Cli, node: str, protocol: str) -> None:
    assert_fails(cli.run("connect", node, protocol), 2, "is no protocol id")


def test_nobody_at_the_target_is_status_3(cli: Cli, node: str) -> None:
    target = f"/ip4/127.0.0.1/tcp/1/p2p/{node.rpartition('/')[2]}"
    assert_fails(cli.run("connect", target, "/echo/1.0.0"), 3, "connection refused")


async def against(
    cli: Cli, handler: Callable[[Stream], Awaitable[None]], stdin: int = subprocess.PIPE
) -> Result:
    """How `connect` ends against `handler`, with a standard input that stays open."""
    async with Host() as host:
        host.set_stream_handler(PROTOCOL, handler)
        running = cli.start("connect", str(host.addrs_with_peer[0]), PROTOCOL, stdin=stdin)
        try:
            if stdin == subprocess.PIPE:
                assert running.process.stdin is not None
                running.process.stdin.write(b"hello")
                running.process.stdin.flush()
            return await asyncio.to_thread(running.outcome)
        finally:
            running.kill()


@looped
async def test_what_the_peer_sends_after_our_end_still_comes_out(cli: Cli) -> None:
    async def late(stream: Stream) -> None:
        while await stream.read():
            pass
        for _ in range(3):
            await stream.write(b"later\n")

    result = await against(cli, late, subprocess.DEVNULL)
    assert result == Result(0, "later\n" * 3, "")


@looped
async def test_a_reset_of_the_peer_is_a_failure_and_what_came_before_is_out(cli: Cli) -> None:
    async def reset(stream: Stream) -> None:
        await stream.read_exactly(5)
        await stream.write(b"before")
        await asyncio.sleep(0.1)
        stream.reset(0x42)

    result = await against(cli, reset)
    assert (result.status, result.out) == (1, "before")
    assert "reset by the peer" in result.err


def test_ctrl_c_ends_it_with_130(cli: Cli, node: str) -> None:
    running = cli.start("connect", node, "/echo/1.0.0", stdin=subprocess.PIPE)
    try:
        assert running.process.stdin is not None
        running.process.stdin.write(b"line\n")
        running.process.stdin.flush()
        assert running.line() == "line"
        running.process.send_signal(signal.SIGINT)
        assert running.wait().status == 130
    finally:
        running.kill()
