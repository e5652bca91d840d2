"""Descriptors from a supervisor to a worker: none is lost while the worker sleeps, and none leaks."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from harness import eventually, looped
from p2pcore import limits
from p2pcore.workers.descriptors import DescriptorQueue, DescriptorReader


def num_open() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def one() -> Iterator[socket.socket]:
    """A socket to pass on."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


@looped
async def test_each_comes_with_its_number_once_the_worker_reads_and_is_not_inherited(
    one: socket.socket,
) -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    got: list[tuple[socket.socket, int, bool]] = []
    queue = DescriptorQueue(ours)
    count = 400  # more than the kernel queues
    for number in range(count):
        assert queue.send(one, number, number % 2 == 1)
    assert queue._queue, "the kernel has taken all: the test proves nothing"
    reader = DescriptorReader(theirs, lambda *each: got.append(each))
    await eventually(lambda: len(got) == count)
    assert [(number, is_client) for _, number, is_client in got] == [(n, n % 2 == 1) for n in range(count)]
    assert not any(sock.get_inheritable() for sock, _, _ in got)
    assert got[0][0].getsockname() == one.getsockname()
    for sock, _, _ in got:
        sock.close()
    queue.close()
    queue.close()
    reader.close()
    reader.close()


@looped
async def test_a_worker_that_sleeps_or_has_ended_holds_no_descriptors(
    one: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HUB_MAX_DESCRIPTORS", 3)
    before = num_open()
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    queue = DescriptorQueue(ours)
    sent = 0
    while queue.send(one, sent, True):
        sent += 1
    assert len(queue._queue) == 3
    theirs.close()
    await asyncio.sleep(0)
    await eventually(lambda: not queue._queue)
    assert not queue.send(one, 1, True)
    queue.close()
    assert num_open() == before


@looped
async def test_if_we_have_no_descriptor_left_none_is_sent(
    one: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(fd: int) -> int:
        raise OSError(24, "Too many open files")

    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    queue = DescriptorQueue(ours)
    monkeypatch.setattr(os, "dup", none_left)
    assert not queue.send(one, 1, True)
    queue.close()
    theirs.close()
