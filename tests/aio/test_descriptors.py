"""Descriptors: the soft limit is raised, and a process that runs short closes what matters least."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import HANG_S, seconds
from p2pcore import limits
from p2pcore.aio import descriptors as module
from p2pcore.aio.descriptors import Descriptors, raise_limit, soft_limit

INFINITY = module.resource.RLIM_INFINITY


class Resource:
    """RLIMIT_NOFILE of a process that does not exist."""

    RLIMIT_NOFILE = module.resource.RLIMIT_NOFILE
    RLIM_INFINITY = INFINITY

    def __init__(self, soft: int, hard: int, is_allowed: bool = True) -> None:
        self.limits = (soft, hard)
        self.is_allowed = is_allowed

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if not self.is_allowed:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 20000, 20000),
        (1024, 1024, 1024),
        (20000, 20000, 20000),
        (1024, INFINITY, 1 << 20),
        (1024, 1 << 30, 1 << 20),
        (2 << 20, 4 << 20, 2 << 20),
        (INFINITY, INFINITY, INFINITY),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_may_be(
    soft: int, hard: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Resource(soft, hard)
    monkeypatch.setattr(module, "resource", system)
    limit = raise_limit()
    assert system.limits == (after, hard)
    assert limit == soft_limit() == (1 << 20 if after == INFINITY else min(after, 1 << 20))


def test_a_system_that_refuses_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resource", Resource(1024, 4096, is_allowed=False))
    assert raise_limit() == 1024


class Holder:
    def __init__(self, burden: int) -> None:
        self.burden = burden

    def evict(self) -> bool:
        if not self.burden:
            return False
        self.burden -= 1
        return True


@pytest.mark.parametrize(
    ("limit", "number", "closed"), [(1024, 959, 0), (1024, 960, 1), (1024, 975, 16), (64, 47, 0), (64, 50, 3)]
)
def test_as_many_are_closed_as_the_reserve_lacks(
    limit: int, number: int, closed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "resource", Resource(limit, limit))
    descriptors, holder = Descriptors(), Holder(900)
    descriptors.add(holder)
    descriptors.opened(number)
    assert holder.burden == 900 - closed


def test_no_connection_goes_while_the_handshakes_that_were_ended_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1.0]
    monkeypatch.setattr(module, "resource", Resource(1024, 1024))
    descriptors, holder = Descriptors(lambda: now[0]), Holder(21)
    descriptors.add(holder)
    closed: list[int] = []
    descriptors.add_spare(lambda: not closed.append(1))
    for number in range(960, 980):  # in one turn of the loop: nothing becomes free
        descriptors.opened(number)
    assert (holder.burden, len(closed)) == (1, 0)
    descriptors.opened(980)
    assert len(closed) == 1
    for number in range(5):
        descriptors.opened(number)  # as many have become free, and are in use again
    descriptors.opened(980)
    assert len(closed) == 1 + 5
    now[0] += 2 * limits.DESCRIPTOR_FREE_S  # all are free, and others took their numbers
    descriptors.opened(960)
    assert len(closed) == 1 + 5 + 1


def test_a_limit_that_was_raised_meanwhile_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    system = Resource(1024, 4096)
    monkeypatch.setattr(module, "resource", system)
    descriptors, holder = Descriptors(), Holder(9)
    descriptors.add(holder)
    system.limits = (4096, 4096)
    descriptors.opened(1000)
    assert holder.burden == 9


CHILD = """
import asyncio, os, resource, socket, sys
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200 if sys.argv[2] == "hard" else 4000))
from harness import eventually, run
from p2pcore import ConnOptions, Host, TcpOptions

async def main():
    async with Host(ping=True, conns=ConnOptions(raise_descriptors=sys.argv[2] != "off")) as host:
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == (4000 if sys.argv[2] == "on" else 200)
        if sys.argv[2] == "on":
            return print("ok")
        port = int(host.addrs[0]["tcp"])
        flood = os.fork()
        if not flood:
            try:
                socks = []
                for number in range(700):
                    sock = socket.socket()
                    sock.bind(("127.0.2.1", 0))
                    sock.connect(("127.0.0.1", port))
                    socks.append(sock)
                    if len(socks) > 150:
                        socks.pop(0)  # it goes on to be held by the node until that notices
            finally:
                os._exit(0)
        async with Host(listen=(), tcp=TcpOptions(dial_from="127.0.1.1")) as honest:
            for _ in range(20):
                await honest.ping(host.addrs_with_peer[0])
                await honest.swarm.close_peer(host.peer_id)
                os.close(os.dup(0))  # the program itself never lacks a descriptor
        os.waitpid(flood, 0)
        assert not any(name.startswith("accept errors") for name in host.counters()), host.counters()
        print("ok")

run(main())
"""


@pytest.mark.parametrize("how", ["on", "off", "hard"])
def test_a_host_raises_the_limit_unless_told_otherwise_and_lives_with_what_there_is(how: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), how],
        capture_output=True, text=True, timeout=seconds(2 * HANG_S), check=False,
    )  # fmt: skip
    assert result.stdout.strip() == "ok", result.stderr
