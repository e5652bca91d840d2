"""FirstBytes: a call at a socket's first byte or its end, and no task, transport or call before."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from harness import eventually, looped, settle
from nodes import make_node, num_descriptors, open_socket
from p2pcore.aio.first_bytes import FirstBytes
from p2pcore.limits import BEGUN_PER_TURN, EAGER_UPGRADES

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll"),
]


class Pair:
    """Two connected sockets; `ours` is an item."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@asynccontextmanager
async def pairs(count: int) -> AsyncIterator[list[Pair]]:
    made = [Pair() for _ in range(count)]
    yield made
    for pair in made:
        pair.close()


@looped
async def test_an_item_is_heard_once_at_its_first_byte_or_its_end() -> None:
    heard: list[Pair] = []
    first = FirstBytes(heard.append)
    async with pairs(3) as (speaks, ends, silent):
        for pair in (speaks, ends, silent):
            assert first.add(pair.ours.fileno(), pair)
        await settle(20)
        assert heard == []
        speaks.theirs.send(b"one")
        speaks.theirs.send(b"two")
        await eventually(lambda: heard == [speaks])
        ends.theirs.close()
        await eventually(lambda: heard == [speaks, ends])
        await settle(20)
        assert heard == [speaks, ends]
        assert speaks.ours.recv(6) == b"onetwo"
        first.close()


@looped
async def test_who_was_removed_or_closed_is_never_heard() -> None:
    before = num_descriptors()
    heard: list[Pair] = []
    first = FirstBytes(heard.append)
    async with pairs(3) as (removed, closed, other):
        for pair in (removed, closed):
            first.add(pair.ours.fileno(), pair)
        first.remove(removed.ours.fileno())
        first.remove(removed.ours.fileno())
        removed.theirs.send(b"x")
        closed.theirs.send(b"x")
        first.close()
        first.close()
        await settle(20)
        assert heard == []
        first.remove(other.ours.fileno())
    assert num_descriptors() == before


@looped
async def test_an_item_may_remove_another_that_has_also_spoken() -> None:
    heard: list[Pair] = []

    def hear(pair: Pair) -> None:
        heard.append(pair)
        for other in made:
            first.remove(other.ours.fileno())

    first = FirstBytes(hear)
    async with pairs(2) as made:
        for pair in made:
            first.add(pair.ours.fileno(), pair)
            pair.theirs.send(b"x")
        await eventually(lambda: heard)
        await settle(20)
        assert len(heard) == 1
        first.close()


@looped
async def test_very_many_that_speak_at_once_do_not_hold_the_loop_up() -> None:
    heard: list[Pair] = []
    first = FirstBytes(heard.append)
    async with pairs(3 * BEGUN_PER_TURN) as made:
        for pair in made:
            first.add(pair.ours.fileno(), pair)
            pair.theirs.send(b"x")
        most = 0
        while len(heard) < len(made):
            was = len(heard)
            await asyncio.sleep(0)
            most = max(most, len(heard) - was)
        assert 0 < most <= BEGUN_PER_TURN
        first.close()


@looped
async def test_a_descriptor_that_cannot_be_watched_is_refused() -> None:
    first: FirstBytes[int] = FirstBytes(print)
    file = os.open(__file__, os.O_RDONLY)  # epoll takes no files of a disk
    assert not first.add(file, 1)
    os.close(file)
    first.close()


@looped
async def test_silent_peers_of_a_busy_listener_have_no_task_and_speak_later() -> None:
    node, dialler = make_node(), make_node()
    async with node.listening() as listener:
        silent = [await open_socket(listener.multiaddr) for _ in range(EAGER_UPGRADES + 20)]
        await eventually(lambda: listener.num_upgrading == len(silent))
        assert _tasks_of("_upgrade") == EAGER_UPGRADES
        ours, theirs = await asyncio.gather(dialler.dial(listener.multiaddr), listener.accept())
        assert theirs.remote_peer == dialler.peer
        ours.abort()
        theirs.abort()
        for sock in silent:
            sock.close()
        await eventually(lambda: not listener.num_upgrading)
        assert sum(listener.failures.values()) == len(silent)


@looped
async def test_silent_peers_end_at_their_deadline_and_with_their_listener() -> None:
    node = make_node(accept_timeout=0.3)
    async with node.listening() as listener:
        silent = [await open_socket(listener.multiaddr) for _ in range(EAGER_UPGRADES + 20)]
        await eventually(lambda: listener.failures["timeout"] == len(silent))
        assert not listener.num_upgrading
        late = [await open_socket(listener.multiaddr) for _ in range(EAGER_UPGRADES + 20)]
        await eventually(lambda: listener.num_upgrading)
    loop = asyncio.get_running_loop()
    for sock in silent + late:
        try:
            assert await asyncio.wait_for(loop.sock_recv(sock, 1), 5) == b""
        except ConnectionResetError:
            pass
        sock.close()


def _tasks_of(name: str) -> int:
    """Tasks of the coroutine with this name."""
    names: list[Callable[..., object] | None] = [task.get_coro() for task in asyncio.all_tasks()]  # type: ignore[misc]
    return sum(getattr(each, "__name__", "") == name for each in names)
