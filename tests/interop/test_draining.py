"""A node of p2pcore drains while clients of go-libp2p and js-libp2p are busy with it.

Comes in: a client that calls without a pause, and one in the middle of a long call. Goes out: no call is cut
once it has begun, the drain does not wait for the deadline, and the client hears that it should go elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driver import OPERATION_TIMEOUT_S, Process

from harness import eventually, run, seconds
from p2pcore import Host, Stream

pytestmark = pytest.mark.interop

ECHO = "/echo/1.0.0"
MIB = 1 << 20
both = pytest.mark.parametrize("name", ["go", "js"])


class Calls:
    """The echo as a program writes it, which counts calls that have begun, and that have ended in order."""

    def __init__(self) -> None:
        self.begun = 0
        self.done = 0
        self.bytes = 0

    async def serve(self, stream: Stream) -> None:
        self.begun += 1
        while data := await stream.read():
            self.bytes += len(data)
            await stream.write(data)
        await stream.close()
        self.done += 1


@contextmanager
def client(peers: dict[str, Any], name: str, operation: str, host: Host, *more: str) -> Iterator[Process]:
    if not peers[name].command:
        pytest.skip(f"no {name} peer: {peers[name].reason}")
    process = Process(peers[name].command, operation, "-to", str(host.addrs_with_peer[0]), *more)
    try:
        yield process
    finally:
        process.close()


async def exit_of(process: Process) -> int:
    return await asyncio.to_thread(process.wait, OPERATION_TIMEOUT_S)


@both
def test_a_client_that_calls_without_a_pause_is_told_and_no_call_is_cut(
    peers: dict[str, Any], name: str
) -> None:
    calls = Calls()

    async def main() -> None:
        host = Host()
        host.set_stream_handler(ECHO, calls.serve)
        async with host:
            with client(peers, name, "stream", host, "-n", "10000000") as process:
                await eventually(lambda: calls.done > 100, OPERATION_TIMEOUT_S)
                deadline = seconds(60.0)
                before = asyncio.get_running_loop().time()
                cut = await host.drain(deadline)
                assert asyncio.get_running_loop().time() - before < deadline / 2
                assert await exit_of(process) == 1, "its next call must fail"
                assert cut == 0, process.describe()
        assert calls.begun == calls.done

    run(main(), 90.0)


@both
def test_a_long_call_goes_on_to_its_end(peers: dict[str, Any], name: str) -> None:
    calls = Calls()

    async def main() -> None:
        host = Host()
        host.set_stream_handler(ECHO, calls.serve)
        async with host:
            with client(peers, name, "echo", host, "-bytes", str(64 * MIB)) as process:
                await eventually(lambda: calls.bytes > MIB, OPERATION_TIMEOUT_S)
                cut = await host.drain(seconds(60.0))
                assert await exit_of(process) == 0, process.describe()
                assert cut == 0
        assert (calls.begun, calls.done, calls.bytes) == (1, 1, 64 * MIB)

    run(main(), 90.0)
