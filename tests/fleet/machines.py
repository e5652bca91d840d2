"""Processes that open streams to one another's peers, in one process: a host and an opener for each.

Comes in: how many. Goes out: workers of one supervisor, with its hub and real sockets between them; or
processes that a bus connects. Only the processes are not real; test_workers_fleet.py has those.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from buses import Kit

from hosts import BARE
from p2pcore import Host
from p2pcore.fleet.bus import Bus, Subscription
from p2pcore.fleet.open import Opener
from p2pcore.fleet.pipes import Pipes
from p2pcore.workers.hub import Hub
from p2pcore.workers.hub_client import HubClient
from p2pcore.workers.links import Links, WorkerLinks


@dataclass
class Mate:
    """One process.

    Attributes:
        name: its id in the fleet. links: to the others. opener: opens streams through them.
        lose: takes away what connects it to the others.
        stop_serving: it opens nothing for others any more.
        kill: what the kernel does to a process that is killed: its sockets are closed.
    """

    name: str
    host: Host
    links: Links[Any]
    opener: Opener | Pipes
    lose: Callable[[], Awaitable[None]]
    stop_serving: Callable[[], Awaitable[None]]
    kill: Callable[[], Awaitable[None]]

    @property
    def num_link_streams(self) -> int:
        return self.links.num_streams


@asynccontextmanager
async def machine(count: int, hub: Hub | None = None) -> AsyncIterator[list[Mate]]:
    """`count` workers of one supervisor."""
    hub = hub or Hub()
    async with AsyncExitStack() as stack:
        stack.callback(hub.close)
        yield [await _worker(hub, f"w{number}", stack) for number in range(count)]


async def _worker(hub: Hub, name: str, stack: AsyncExitStack) -> Mate:
    host = await stack.enter_async_context(Host(**BARE))
    ticket, (hub_sock, links_sock) = await hub.seat()
    client = await HubClient.connected(hub_sock)
    stack.callback(client.close)
    links = WorkerLinks(client, links_sock, ticket.number, host.peer_id)
    stack.push_async_callback(links.close)
    worker: Any = SimpleNamespace(hub=client, links=links)
    opener = Opener(host.swarm, worker, name)
    await opener.start()
    stack.callback(opener.close)

    async def lose() -> None:
        client.close()

    async def stop_serving() -> None:
        opener.close()

    async def kill() -> None:
        client.close()
        await links.close()

    return Mate(name, host, links, opener, lose, stop_serving, kill)


@asynccontextmanager
async def machines(count: int, kit: Kit) -> AsyncIterator[list[Mate]]:
    """`count` processes on one bus."""
    async with kit.buses(count) as buses, AsyncExitStack() as stack:
        made = []
        for number, bus in enumerate(buses):
            host = await stack.enter_async_context(Host(**BARE))
            pipes = Pipes(host.swarm, bus, "test.pipe.{}".format, f"p{number}")
            stack.push_async_callback(pipes.close)
            listening = await bus.subscribe(f"test.pipe.p{number}", pipes.deliver)
            made.append(_process(f"p{number}", host, bus, pipes, listening))
        yield made


def _process(name: str, host: Host, bus: Bus, pipes: Pipes, listening: Subscription) -> Mate:
    async def lose() -> None:
        await bus.close()
        pipes.away()

    async def stop_serving() -> None:
        listening.close()
        await pipes.close()

    async def kill() -> None:
        await bus.close()
        await pipes.close()

    return Mate(name, host, pipes._links, pipes, lose, stop_serving, kill)
