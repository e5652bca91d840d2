"""Hosts in memory, and the network between them that a test makes as bad as it likes.

Comes in: options of hosts, conditions, a seed. Goes out: real hosts, whose connections are secured and
multiplexed as over sockets. Everything happens on one event loop. Never opens a socket.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from p2pcore import options
from p2pcore._fast.chain.memory import MemoryWire, memory_pair
from p2pcore.host import Host
from p2pcore.swarm.events import ConnOpened
from p2pcore.testing.links import Conditions, Link, Route
from p2pcore.transports.memory import MemoryTransport
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

_ANY = Multiaddr("/memory/1")


class Network:
    """A network of hosts in this process.

    Args:
        conditions: between all hosts for which `set` gives no others; by default bytes arrive at once.
        seed: decides what chance decides. On the virtual clock, the same test with the same seed has the same
            delays.

    Raises: TypeError: `conditions` is something else.
    """

    def __init__(self, conditions: Conditions | None = None, seed: int = 0) -> None:
        self._conditions = options.given("conditions", conditions, Conditions)
        self.seed = seed
        self._hosts: list[Host] = []
        self._routes: dict[frozenset[PeerId | None], Route] = {}
        self._peers: dict[Multiaddr, PeerId] = {}
        self._num_conns = 0

    # -- hosts ---------------------------------------------------------------------------------

    def host(self, **arguments: Any) -> Host:
        """A host of this network, not started: `async with network.host() as host`.

        Args:
            arguments: as of Host. By default it listens on /memory/0, a free number.

        Raises: the errors of Host.
        """
        host = Host(**{"listen": (Multiaddr("/memory/0"),)} | arguments)
        transport = host.swarm.transport_for_dialing(_ANY)
        assert isinstance(transport, MemoryTransport)
        transport.wires = partial(self._connect, host.peer_id)
        self._hosts.append(host)
        return host

    @asynccontextmanager
    async def pair(
        self, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None
    ) -> AsyncIterator[tuple[Host, Host]]:
        """Two hosts: the first has connected to the second, and both know it. Both are closed at the end.

        Args:
            a, b: arguments of each Host.

        Raises: the errors of Host and Host.connect. ValueError: `b` does not listen in memory.
        """
        async with self.host(**(b or {})) as two, self.host(**(a or {})) as one:
            addr = next((addr for addr in two.addrs_with_peer if str(addr).startswith("/memory/")), None)
            if addr is None:
                raise ValueError(f"b must listen on a memory address such as /memory/0, not on {two.addrs}")
            with two.events(ConnOpened) as opened:
                await one.connect(addr)
                await anext(opened)
            yield one, two

    @property
    def open_hosts(self) -> list[Host]:
        """The hosts that nobody has closed, also those that have not started."""
        return [host for host in self._hosts if not host.swarm.is_closed]

    # -- what is between them ------------------------------------------------------------------

    def set(self, a: Host, b: Host, conditions: Conditions) -> None:
        """From now on these conditions hold between `a` and `b`, also for open connections."""
        options.instance("conditions", conditions, Conditions)
        self._route(_between(a, b)).conditions = conditions

    def cut(self, a: Host, b: Host) -> int:
        """Breaks the connections between `a` and `b`, as a reset of TCP does. New ones are possible.

        Returns: how many were open.
        """
        wires = [wire for wire, _ in self._route(_between(a, b)).conns if not wire.is_closed]
        for wire in wires:
            wire.cut()
        return len(wires)

    def silence(self, a: Host, b: Host) -> None:
        """From now on nothing arrives between `a` and `b`, as if somebody had pulled the cable."""
        self._route(_between(a, b)).is_silent = True

    def heal(self, a: Host, b: Host) -> None:
        """Ends `silence`. What connections still want to say arrives now, in order."""
        route = self._route(_between(a, b))
        route.is_silent = False
        for _, links in route.conns:
            for link in links:
                link.go_on()

    def _route(self, between: frozenset[PeerId | None]) -> Route:
        return self._routes.setdefault(between, Route(self._conditions))

    def _connect(
        self, dialler: PeerId, loop: asyncio.AbstractEventLoop, addr: Multiaddr
    ) -> tuple[MemoryWire, MemoryWire]:
        """The wires of a new connection from `dialler` to whoever listens on `addr`."""
        route = self._route(frozenset((dialler, self._listener(addr))))
        self._num_conns += 1

        def link(way: str) -> Link:
            chance = random.Random(f"{self.seed} {self._num_conns} {way}")
            return Link(loop, route, chance, lambda: ours.cut())

        links = (link("there"), link("back"))
        ours, theirs = memory_pair(loop, links)
        route.add(ours, links)
        return ours, theirs

    def _listener(self, addr: Multiaddr) -> PeerId | None:
        """The host of this network that listens on `addr`; None: it is no host of this network."""
        if addr not in self._peers:
            self._peers = {each: host.peer_id for host in self.open_hosts for each in host.addrs}
        return self._peers.get(addr)


def connected_pair(
    conditions: Conditions | None = None,
    *,
    a: dict[str, Any] | None = None,
    b: dict[str, Any] | None = None,
    seed: int = 0,
) -> AbstractAsyncContextManager[tuple[Host, Host]]:
    """Two connected hosts in memory: `async with connected_pair() as (a, b)`. See Network, Network.pair."""
    return Network(conditions, seed).pair(a, b)


def _between(a: Host, b: Host) -> frozenset[PeerId | None]:
    return frozenset((a.peer_id, b.peer_id))
