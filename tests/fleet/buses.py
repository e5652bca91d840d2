"""The buses that the conformance suite runs on, each with an engine that a test can take away.

Comes in: nothing. Goes out: kits. A new bus adds its kit to KITS, and nothing else to the suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from remote_bus import WHO, RemoteBus

from harness import eventually
from hosts import BARE
from nats_server import NatsServer
from p2pcore import Conn, Host
from p2pcore.fleet.bus import Bus
from p2pcore.fleet.memory_bus import MemoryBus, MemoryEngine
from p2pcore.fleet.nats_bus import NatsBus
from p2pcore.fleet.workers_bus import WorkersBus
from p2pcore.workers.hub import Hub
from p2pcore.workers.hub_client import HubClient


class Kit(Protocol):
    """One engine, for one test, and buses on it as several processes have them."""

    def buses(self, count: int) -> AbstractAsyncContextManager[list[Bus]]:
        """`count` buses that are up. They are closed at the end. May be asked for again."""

    async def stop(self) -> None:
        """The engine dies. Returns at once; the buses may not know yet."""

    async def start(self) -> None:
        """It is started again; its entries are there. Returns at once; the buses may not know yet."""


class MemoryKit:
    """Kit of the bus in memory."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()

    @asynccontextmanager
    async def buses(self, count: int) -> AsyncIterator[list[Bus]]:
        """See `Kit`."""
        made: list[Bus] = [MemoryBus(self.engine) for _ in range(count)]
        try:
            yield made
        finally:
            for bus in made:
                await bus.close()

    async def stop(self) -> None:
        """See `Kit`."""
        self.engine.stop()

    async def start(self) -> None:
        """See `Kit`."""
        self.engine.start()


class NatsKit:
    """Kit of the bus over NATS, with a server of its own."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.server = NatsServer(request.getfixturevalue("tmp_path"))
        request.addfinalizer(self.server.kill)
        self.server.start()
        self.server.wait_ready()

    @asynccontextmanager
    async def buses(self, count: int) -> AsyncIterator[list[Bus]]:
        """See `Kit`."""
        made = [NatsBus(self.server.url) for _ in range(count)]
        async with AsyncExitStack() as stack:
            for bus in made:
                await stack.enter_async_context(bus)
            await eventually(lambda: all(bus.is_up for bus in made))
            yield list(made)

    async def stop(self) -> None:
        """See `Kit`."""
        self.server.kill()

    async def start(self) -> None:
        """See `Kit`."""
        self.server.start()


class WorkersKit:
    """Kit of the bus between workers: a hub as a supervisor has it, and the real sockets to its workers."""

    def __init__(self) -> None:
        self.hub = Hub()

    @asynccontextmanager
    async def buses(self, count: int) -> AsyncIterator[list[Bus]]:
        """See `Kit`."""
        async with AsyncExitStack() as stack:
            stack.callback(self.hub.close)
            yield [await stack.enter_async_context(worker_bus(self.hub)) for _ in range(count)]

    async def stop(self) -> None:
        """See `Kit`."""
        pytest.skip(
            "its engine is the supervisor, with which all workers end: tests/fleet/test_workers_bus.py"
        )

    async def start(self) -> None:
        """See `Kit`."""


@asynccontextmanager
async def worker_bus(hub: Hub) -> AsyncIterator[WorkersBus]:
    """The bus of a worker that has a seat at `hub`."""
    _, theirs = await hub.seat()
    links = theirs.pop()
    client = await HubClient.connected(theirs.pop())
    worker: Any = SimpleNamespace(hub=client)
    bus = WorkersBus(worker)
    try:
        yield bus
    finally:
        await bus.close()
        client.close()
        links.close()


class ProcessesKit:
    """The same in real worker processes, which this process drives."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._thread, self._supervisor = request.getfixturevalue("worker_processes")

    @asynccontextmanager
    async def buses(self, count: int) -> AsyncIterator[list[Bus]]:
        """See `Kit`. The buckets are empty at first."""
        self._thread.result(self._forget())
        async with Host(**BARE | {"listen": []}) as host:
            conns = await self._conns(host)
            made = [RemoteBus(conn) for conn in conns[:count]]
            for bus in made:
                await bus.start()
            try:
                yield list(made)
            finally:
                for bus in made:
                    await bus.leave()

    async def _conns(self, host: Host) -> list[Conn]:
        """A connection to each worker."""
        found: dict[bytes, Conn] = {}
        while len(found) < len(self._supervisor.pids):
            conn = await host.swarm.dial_addr(self._supervisor.addrs_with_peer[0])
            async with await conn.new_stream(WHO) as stream:
                found.setdefault(await stream.read(), conn)
        return list(found.values())

    async def _forget(self) -> None:
        for bucket in self._supervisor.hub._buckets.values():
            bucket.close()
        self._supervisor.hub._buckets.clear()

    async def stop(self) -> None:
        """See `Kit`."""
        pytest.skip("its engine is the supervisor, with which all workers end")

    async def start(self) -> None:
        """See `Kit`."""


KITS: dict[str, Callable[[pytest.FixtureRequest], Kit]] = {
    "memory": lambda request: MemoryKit(),
    "nats": NatsKit,
    "workers": lambda request: WorkersKit(),
    "worker processes": ProcessesKit,
}
"""Makes the kit of a test. It may skip the test, with the reason."""
