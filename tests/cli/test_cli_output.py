"""A node never waits for whoever reads its output: lines wait, then they are dropped and counted."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from cli_driver import Cli, Running

from harness import looped, seconds
from hosts import BARE
from p2pcore import Host
from p2pcore.cli.lines import MAX_WAITING, Lines

PIPE_BYTES = 4096
"""The smallest pipe: about 30 lines fill it."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Ends to read and to write; the test closes the first."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield read, write
    os.close(write)


def lines_to(descriptor: int, failed: list[OSError] | None = None) -> Lines:
    return Lines(descriptor, lambda count: f"lost {count}", (failed if failed is not None else []).append)


def read_all(read: int, num_lines: int) -> list[str]:
    data = b""
    while data.count(b"\n") < num_lines:
        data += os.read(read, 65536)
    return data.decode().splitlines()


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    lines = lines_to(pipe[1])
    sent = [f"{number} {'x' * 100}" for number in range(500)]
    for line in sent:
        lines.put(line)
    assert read_all(pipe[0], 500) == sent
    lines.flush()
    os.close(pipe[0])


def test_what_nobody_reads_is_dropped_and_counted(pipe: tuple[int, int]) -> None:
    lines = lines_to(pipe[1])
    sent = [f"{number} {'x' * 100}" for number in range(3 * MAX_WAITING)]
    for line in sent:
        lines.put(line)
        assert lines._queue.qsize() <= MAX_WAITING
    kept = read_all(pipe[0], lines._num_put)
    lines.put("next")
    kept += read_all(pipe[0], lines._num_put - len(kept))
    # The thread may free places between two puts: then a count stands among the lines too.
    counts = [int(line.removeprefix("lost ")) for line in kept if line.startswith("lost ")]
    assert sum(counts) == len(sent) - (len(kept) - len(counts) - 1)
    assert sum(counts) >= MAX_WAITING
    assert [line for line in kept if line in set(sent)] == [line for line in sent if line in set(kept)]
    assert kept[-1] == "next"
    lines.flush()
    os.close(pipe[0])


def test_the_end_waits_for_no_reader_and_a_closed_pipe_is_told_once(pipe: tuple[int, int]) -> None:
    failed: list[OSError] = []
    lines = lines_to(pipe[1], failed)
    for _ in range(200):
        lines.put("x" * 100)
    lines.flush()  # returns, although nobody reads
    os.close(pipe[0])
    for _ in range(2 * MAX_WAITING):
        lines.put("y")
    lines.flush()
    assert [error.errno for error in failed] == [errno.EPIPE]


def test_an_output_that_is_not_used_has_no_thread() -> None:
    before = threading.active_count()
    lines_to(1).flush()
    assert threading.active_count() == before


def narrow(listener: Running) -> None:
    """Makes the pipes of a program as small as they can be."""
    for file in (listener.process.stdout, listener.process.stderr):
        assert file is not None
        fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@pytest.mark.parametrize("more", [(), ("--workers", "1"), ("--json",)], ids=["one process", "worker", "json"])
@looped
async def test_a_node_whose_output_nobody_reads_serves_and_ends(cli: Cli, more: tuple[str, ...]) -> None:
    listener = cli.start("listen", "-vvv", "--drain", "0", *more)
    try:
        line = listener.line()
        narrow(listener)
        addr = line if line.startswith("/") else line.partition('"addr": "')[2].partition('"')[0]
        async with Host(listen=(), **BARE | {"ping": True}) as host:
            for _ in range(100):
                conn = await host.swarm.dial_addr(addr)
                await host.ping(conn)
                await conn.close()
        listener.process.send_signal(signal.SIGTERM)
        assert listener.process.wait(seconds(20)) == 0
    finally:
        listener.kill()
