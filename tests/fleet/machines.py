"""Workers of one machine in one process: a hub, real sockets between them, and a host and an opener for each.

Comes in: how many. Goes out: machines. Nothing of a real supervisor is replaced but its processes; those are
tested in test_open_workers.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hosts import BARE
from p2pcore import Host
from p2pcore.fleet.open import Opener
from p2pcore.workers.hub import Hub
from p2pcore.workers.hub_client import HubClient
from p2pcore.workers.links import Links


@dataclass
class Mate:
    """One worker. `name`: the id of its process in the fleet."""

    name: str
    host: Host
    hub: HubClient
    links: Links
    opener: Opener

    @property
    def num_link_streams(self) -> int:
        return sum(session.num_streams for session in self.links._all)

    async def die(self) -> None:
        """What the kernel does to a process that is killed: its sockets are closed."""
        self.hub.close()
        await self.links.close()


@asynccontextmanager
async def machine(count: int, hub: Hub | None = None) -> AsyncIterator[list[Mate]]:
    """`count` workers of one supervisor."""
    hub = hub or Hub()
    async with AsyncExitStack() as stack:
        stack.callback(hub.close)
        yield [await mate(hub, f"w{number}", stack) for number in range(count)]


async def mate(hub: Hub, name: str, stack: AsyncExitStack) -> Mate:
    host = await stack.enter_async_context(Host(**BARE))
    ticket, (hub_sock, links_sock) = await hub.seat()
    client = await HubClient.connected(hub_sock)
    stack.callback(client.close)
    links = Links(client, links_sock, ticket.number, host.peer_id)
    stack.push_async_callback(links.close)
    worker: Any = SimpleNamespace(hub=client, links=links)
    opener = Opener(host.swarm, worker, name)
    await opener.start()
    stack.callback(opener.close)
    return Mate(name, host, client, links, opener)
