"""Whole programs: the last bytes before an end, also over a slow path; a peer that is stopped.

Comes in: programs as users write them. Goes out: claims about what they print.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cases.slow_path import slow_path
from harness import HANG_S, eventually, looped, seconds
from hosts import BARE
from p2pcore import Host, Multiaddr, Stream

PROTOCOL = "/sink/1"
LAST = """
import sys
from p2pcore import Host, run

async def main():
    async with Host(listen=(), muxers=[sys.argv[2]], security=[sys.argv[3]]) as host:
        stream = await host.new_stream(sys.argv[1], "/sink/1")
        await stream.write(bytes(range(256)) * int(sys.argv[4]))
        await stream.close_write()
        if sys.argv[5] == "close":
            await stream.conn.close()

run(main())
"""
STOPPED = """
import asyncio
from p2pcore import Host, run

async def main():
    async with Host(echo=True) as host:
        print(host.addrs_with_peer[0], flush=True)
        await asyncio.Event().wait()

run(main())
"""
WRITER = """
import asyncio, os, signal, sys, time
from p2pcore import limits

scale = float(sys.argv[3])
limits.YAMUX_WINDOW_LOOK_S = limits.YAMUX_PONG_TIMEOUT_S = limits.YAMUX_WINDOW_GRACE_S = scale
from p2pcore import ConnectionClosed, Host, run

async def main():
    async with Host(listen=()) as host:
        stream = await host.new_stream(sys.argv[1], "/echo/1.0.0")
        await stream.write(b"x")
        await stream.read()
        os.kill(int(sys.argv[2]), signal.SIGSTOP)
        try:
            while True:
                await stream.write(bytes(65536))
        except ConnectionClosed as error:
            print(stream.conn.is_closed, error)

run(main())
"""


@contextlib.asynccontextmanager
async def sink(kind: dict[str, Any], got: list[bytes]) -> AsyncIterator[Multiaddr]:
    async def serve(stream: Stream) -> None:
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        got.append(b"".join(pieces))

    async with Host(listen=["/ip4/127.0.0.1/tcp/0"], **BARE, **kind) as host:
        host.set_stream_handler(PROTOCOL, serve)
        yield host.addrs_with_peer[0]


async def program(code: str, *args: object) -> str:
    """Runs `code` in a process of its own; what it printed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *map(str, args), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(seconds(HANG_S / 2)):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.parametrize("how", ["close", "leave"])
@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@pytest.mark.parametrize("security", ["noise", "tls"])
@looped
async def test_the_last_message_of_a_program_arrives(security: str, muxer: str, how: str) -> None:
    got: list[bytes] = []
    async with sink({"muxers": [muxer], "security": [security]}, got) as addr:
        await program(LAST, addr, muxer, security, 1000, how)
        await eventually(lambda: got)
    assert got == [bytes(range(256)) * 1000]


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_the_last_message_of_a_program_arrives_over_a_path_of_single_bytes(muxer: str) -> None:
    got: list[bytes] = []
    async with sink({"muxers": [muxer], "security": ["noise"]}, got) as addr, slow_path(addr) as slow:
        await program(LAST, slow, muxer, "noise", 20, "close")
        await eventually(lambda: got)
    assert got == [bytes(range(256)) * 20]


@looped
async def test_what_the_kernel_has_still_arrives_after_close_returned_on_a_path_slower_than_the_drain() -> (
    None
):
    got: list[bytes] = []
    async with sink({}, got) as addr, slow_path(addr, 64) as slow:
        await program(LAST, slow, "yamux", "noise", 1000, "close")
        await eventually(lambda: got)
    assert got == [bytes(range(256)) * 1000]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="stops a process as Linux does")
@looped
async def test_a_write_to_a_peer_whose_process_is_stopped_ends() -> None:
    peer = await asyncio.create_subprocess_exec(sys.executable, "-c", STOPPED, stdout=subprocess.PIPE)
    assert peer.stdout is not None
    try:
        addr = (await peer.stdout.readline()).decode().strip()
        out = await program(WRITER, addr, peer.pid, seconds(0.2))
    finally:
        os.kill(peer.pid, signal.SIGCONT)
        peer.kill()
        await peer.wait()
    assert out.startswith("True a write waits for the peer, which has not answered a yamux ping"), out
