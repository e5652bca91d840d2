"""A relay of several workers: reservations on any, circuits to any, limits for all together, workers that die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import worker_hosts
from harness import eventually, looped
from hosts import BARE
from p2pcore import Conn, DialError, Host, Multiaddr, P2PError, RelayOptions, RelayRefused, StreamReset, Supervisor
from p2pcore.relay.ledger import Ledger
from p2pcore.relay.messages import Hop, HopType, Status
from relays import UNLIMITED, ask_hop
from worker_hosts import WHO

RESERVE = Hop(HopType.RESERVE)


class Relay:
    """A relay of several workers, and hosts that are connected to the worker that a test wants."""

    def __init__(self, supervisor: Supervisor, stack: AsyncExitStack) -> None:
        self.supervisor = supervisor
        self._stack = stack

    @property
    def addr(self) -> Multiaddr:
        return self.supervisor.addrs_with_peer[0]

    @property
    def ledger(self) -> Ledger:
        ledger = self.supervisor._relay.ledger
        assert ledger is not None
        return ledger

    async def host(self, pid: int | None = None, **more: Any) -> tuple[Host, int]:
        """A host with one connection to the relay: to worker `pid`, if given; and that worker's pid."""
        host = await self._stack.enter_async_context(Host(**BARE | {"listen": []} | more))
        for _ in range(200):
            conn = await host.swarm.dial_addr(self.addr)
            stream = await conn.new_stream(WHO)
            found = int(await stream.read())
            await stream.close()
            if pid in (None, found):
                return host, found
            await conn.close()
        raise AssertionError(f"no connection to worker {pid}")

    async def target(self, pid: int | None = None, **more: Any) -> tuple[Host, Multiaddr, int]:
        """A host that has reserved a place, its address through the relay, and the worker that has it."""
        host, found = await self.host(pid, echo=True, listen=["/p2p-circuit"], **more)
        await host.relay.reserve(self.addr.encapsulate("/p2p-circuit"))
        return host, self.addr.encapsulate(f"/p2p-circuit/p2p/{host.peer_id}"), found

    def others(self, pid: int) -> list[int]:
        return [each for each in self.supervisor.pids if each != pid]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def relaying(workers: int = 2, options: RelayOptions = UNLIMITED) -> AsyncIterator[Relay]:
    async with (
        Supervisor(worker_hosts.relaying, (options,), workers=workers) as supervisor,
        AsyncExitStack() as stack,
    ):
        yield Relay(supervisor, stack)


@looped
async def test_a_circuit_runs_from_any_worker_to_any_other() -> None:
    async with relaying(4) as relay:
        pids = relay.supervisor.pids
        targets = [await relay.target(pid) for pid in pids]
        dialers = [await relay.host(pid) for pid in pids]
        data = os.urandom(300_000)
        for dialer, _ in dialers:
            for _, addr, _ in targets:
                conn = await dialer.connect(addr)
                assert await dialer.echo(conn, data) == data
                assert not conn.is_direct
        await eventually(lambda: relay.ledger.num_circuits == 16)
        assert relay.ledger.num_reservations == 4
        for dialer, _ in dialers:
            for target, _, _ in targets:
                await dialer.close_peer(target.peer_id)
        await eventually(lambda: relay.ledger.num_circuits == 0)
        for target, _, _ in targets:
            await target.close()
        await eventually(lambda: relay.ledger.num_reservations == 0)
        assert not relay.ledger._ends
