"""The supervisors of a fleet restart one after another, on a real bus and in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fleet_workers import make

from harness import HANG_S, eventually, looped, seconds
from hosts import BARE
from nats_server import NatsServer
from p2pcore import Host, Supervisor, limits
from p2pcore.aio.turn import Turn
from p2pcore.fleet import Fleet, MemoryBus, MemoryEngine, NatsBus
from p2pcore.workers.supervisor import WorkerEvent

LONG_S = seconds(HANG_S / 2)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[str]:
    server = NatsServer(tmp_path)
    server.start()
    try:
        server.wait_ready()
        yield server.url
    finally:
        server.kill()


class Watched:
    """Supervisors on one NATS, and what became of their workers, in order."""

    def __init__(self, nats: str, stack: AsyncExitStack) -> None:
        self._nats = nats
        self._stack = stack
        self.events: list[tuple[str, str, int]] = []

    async def supervisor(self, name: str, workers: int = 2) -> Supervisor:
        def on_event(event: WorkerEvent) -> None:
            self.events.append((name, event.kind, event.pid))

        return await self._stack.enter_async_context(
            Supervisor(make, (self._nats,), workers=workers, drain_s=1.0, on_event=on_event)
        )

    def kinds_of_others(self, pids: list[int]) -> list[str]:
        """What became of the workers that are not `pids`."""
        return [kind for _, kind, pid in self.events if pid not in pids]

    def draining_together(self) -> set[frozenset[str]]:
        """Which supervisors had workers that drained at the same moment."""
        draining: set[tuple[str, int]] = set()
        seen = set()
        for name, kind, pid in self.events:
            if kind == "draining":
                draining.add((name, pid))
            elif kind == "exited":
                draining.discard((name, pid))
            seen.add(frozenset(name for name, _ in draining))
        return seen - {frozenset()}


@looped
async def _together(nats: str) -> None:
    async with AsyncExitStack() as stack:
        watched = Watched(nats, stack)
        one, two = await watched.supervisor("one"), await watched.supervisor("two")
        before = {*one.pids, *two.pids}
        del watched.events[:]
        await asyncio.gather(one.restart(), two.restart())
        assert watched.draining_together() == {frozenset({"one"}), frozenset({"two"})}
        order = [name for name, kind, _ in watched.events if kind == "draining"]
        assert order in (["one", "one", "two", "two"], ["two", "two", "one", "one"])
        assert not before & {*one.pids, *two.pids}
        await asyncio.wait_for(one.restart(), LONG_S)  # the turn was given back


def test_supervisors_that_restart_at_the_same_moment_never_drain_at_the_same_time(nats: str) -> None:
    _together(nats)


def test_a_supervisor_waits_for_a_turn_that_another_has_and_ends_at_once_when_it_is_to_end(nats: str) -> None:
    @looped
    async def main() -> None:
        async with (
            AsyncExitStack() as stack,
            NatsBus(nats) as bus,
            Host(**BARE) as host,
            Fleet(host, bus) as fleet,
        ):
            watched = Watched(nats, stack)
            supervisor = await watched.supervisor("one", workers=1)
            states: list[str] = []
            supervisor.on_state = states.append
            async with fleet.turn("restart") as turn:
                restarting = asyncio.ensure_future(supervisor.restart())
                await asyncio.sleep(3 * limits.FLEET_TURN_LOOK_S)
                assert turn.is_held
                assert not restarting.done()
                assert states == []
            await asyncio.wait_for(restarting, LONG_S)
            assert states == ["restarting", "serving"]
            async with fleet.turn("restart"):
                restarting = asyncio.ensure_future(supervisor.restart())
                await asyncio.sleep(limits.FLEET_TURN_LOOK_S)
                await supervisor.drain()
                with pytest.raises(TimeoutError, match="they are to end"):
                    await asyncio.wait_for(restarting, LONG_S)
                await asyncio.wait_for(supervisor.restart(), LONG_S)  # there is no worker, and nothing to do

    main()


def test_the_old_worker_goes_on_if_the_turn_is_lost_before_it_drains(
    nats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @looped
    async def main() -> None:
        async def hold(self: Turn) -> None:
            if self.is_held:
                raise TimeoutError("lost")
            await before(self)

        before = Turn.hold
        monkeypatch.setattr(Turn, "hold", hold)
        async with AsyncExitStack() as stack:
            watched = Watched(nats, stack)
            supervisor = await watched.supervisor("one", workers=1)
            pids = supervisor.pids
            with pytest.raises(TimeoutError):
                await supervisor.restart()
            await eventually(lambda: watched.kinds_of_others(pids) == ["started", "draining", "exited"])
            assert supervisor.pids == pids

    main()


_HOLDER = """
import asyncio, sys
from p2pcore import Host, run
from p2pcore.fleet import Fleet, NatsBus

async def main():
    async with NatsBus(sys.argv[1]) as bus, Host(listen=[]) as host, Fleet(host, bus) as fleet:
        async with fleet.turn("restart", expiry_s=2.0):
            print("held", flush=True)
            await asyncio.sleep(3600)

run(main())
"""


def test_a_holder_that_is_killed_frees_the_turn(nats: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, nats], stdout=subprocess.PIPE)

    @looped
    async def main() -> None:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        async with NatsBus(nats) as bus, Host(**BARE) as host, Fleet(host, bus) as fleet:
            waiting = asyncio.ensure_future(fleet.turn("restart", timeout_s=LONG_S).__aenter__())
            await asyncio.sleep(2 * limits.FLEET_TURN_LOOK_S)
            assert not waiting.done()
            os.kill(holder.pid, signal.SIGKILL)
            turn = await waiting
            assert turn.is_held
            await turn.__aexit__(None, None, None)

    try:
        main()
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()


@looped
async def test_a_fleet_of_one_supervisor_has_no_turn() -> None:
    async with Supervisor(make, workers=1) as supervisor:
        assert [process.has_turn for process in supervisor._processes] == [False]
        await supervisor.restart()


@looped
async def test_turns_of_one_fleet_exclude_each_other_and_those_of_other_names_do_not() -> None:
    engine = MemoryEngine()
    async with AsyncExitStack() as stack:
        fleets = []
        for name in ("a", "a", "b"):
            host = await stack.enter_async_context(Host(**BARE))
            fleets.append(await stack.enter_async_context(Fleet(host, MemoryBus(engine), name=name)))
        one, two, other = fleets
        async with one.turn("x") as turn, one.turn("y"), other.turn("x"):
            assert turn.is_held
            with pytest.raises(TimeoutError, match=one.process):
                async with two.turn("x", timeout_s=0.05):
                    pass
        async with two.turn("x", timeout_s=0.05):
            pass
        for wrong in ({"name": "a b"}, {"name": "a", "expiry_s": 0}, {"name": "a", "timeout_s": 1e9}):
            with pytest.raises(ValueError):
                one.turn(**wrong)  # type: ignore[arg-type]
