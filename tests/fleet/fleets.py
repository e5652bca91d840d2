"""Fleets of several processes in one: each a host in memory, with a bus of its own on one engine.

Comes in: how many. Goes out: a Yard with the fleets, and peers that connect to any of them. A process that
dies is one whose task ends without a word, and whose connections break.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hosts import BARE
from p2pcore import Host, PeerId, Stream
from p2pcore.fleet import Fleet, MemoryBus, MemoryEngine
from p2pcore.fleet.serving import Serving
from p2pcore.testing import Network

ECHO = "/test-echo/1.0.0"
TAKE = "/test-take/1.0.0"
TOPIC = "/test-topic/1.0.0"
HANG_S = 9000.0
"""Of the virtual clock. The timers of a fleet never end, so a test that hangs is not noticed by the loop."""


@dataclass
class Peer:
    """A peer of the fleet: a host that serves ECHO and TAKE. `got`: the messages that came, in order."""

    host: Host
    got: list[bytes] = field(default_factory=list)

    @property
    def id(self) -> PeerId:
        return self.host.peer_id

    async def echo(self, stream: Stream) -> None:
        async for message in stream.msgs():
            self.got.append(message)
            await stream.write_msg(b"echo " + message)

    async def take(self, stream: Stream) -> None:
        self.got.append(await stream.read_msg())


@dataclass
class Yard:
    """An engine, fleets on it, and the network where their peers are."""

    engine: MemoryEngine
    network: Network
    stack: AsyncExitStack
    fleets: list[Fleet] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    buses: list[MemoryBus] = field(default_factory=list)

    async def fleet(self, **options: Any) -> Fleet:
        """One process more."""
        host = await self.stack.enter_async_context(self.network.host(**BARE))
        bus = MemoryBus(self.engine)
        number = len(self.fleets)
        fleet = Fleet(host, bus, **{"machine": f"m{number}"} | options)
        self.fleets.append(fleet)
        self.hosts.append(host)
        self.buses.append(bus)
        await self.stack.enter_async_context(fleet)
        return fleet

    async def peer(self, *at: int) -> Peer:
        """A new peer that is connected to these processes."""
        host = await self.stack.enter_async_context(self.network.host(**BARE | {"listen": ()}))
        peer = Peer(host)
        host.set_stream_handler(ECHO, peer.echo)
        host.set_stream_handler(TAKE, peer.take)
        for each in at:
            await self.connect(peer, each)
        return peer

    async def connect(self, peer: Peer, at: int) -> None:
        await peer.host.connect(self.hosts[at].addrs_with_peer[0])
        await until(lambda: self.hosts[at].swarm.conns_to_peer(peer.id))

    async def stand_still(self, at: int) -> None:
        """The process hears and says nothing any more. Its connections, and all that it subscribed, stay."""
        parts = self.fleets[at]._parts
        assert parts is not None
        member = parts.member
        assert member._task is not None
        member._task.cancel()
        await asyncio.gather(member._task, return_exceptions=True)
        assert member._ticking is not None
        member._ticking.cancel()
        member.is_up = False
        parts.serving.__class__ = _Silent
        for call in self.buses[at]._calls:
            call._function = lambda *_: None

    async def kill(self, at: int) -> None:
        """The process dies: its bus is gone, nobody says goodbye, and its connections break."""
        await self.stand_still(at)
        parts = self.fleets[at]._parts
        assert parts is not None
        parts.member._leave()
        await self.buses[at].close()
        for conn in self.hosts[at].swarm.conns():
            conn.abort()


class _Silent(Serving):
    """Orders that are never answered."""

    __slots__ = ()

    def _end(self, *_: object) -> None:
        pass


@asynccontextmanager
async def yard(count: int, **options: Any) -> AsyncIterator[Yard]:
    """`count` processes that know each other."""
    async with asyncio.timeout(HANG_S), AsyncExitStack() as stack:
        made = Yard(MemoryEngine(), Network(), stack)
        for _ in range(count):
            await made.fleet(**options)
        await until(lambda: all(len(each.processes()) == count for each in made.fleets))
        yield made


async def until(condition: Callable[[], object]) -> None:
    """Returns once `condition()` is true; the clock may jump meanwhile."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never becomes true")


async def until_found(found: Callable[[], Awaitable[object]], expected: object) -> float:
    """Returns once `await found()` is `expected`: the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(10_000):
        if await found() == expected:
            return loop.time() - began
        await asyncio.sleep(0.01)
    raise AssertionError(f"it never becomes {expected}")
