"""A node and those who attack it, in one process: small versions of bench/attacks that count.

Comes in: limits and options of a host. Goes out: the host, an Arena for its attackers, honest echoes.
Loopback addresses count as all others: nothing is exempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attacks import place
from attacks.arena import Arena
from harness import HANG_S, seconds
from p2pcore import Host, Limits, Multiaddr, TcpOptions

ECHO = "/echo/1.0.0"
MESSAGE = b"honest" * 4


@asynccontextmanager
async def node(limits: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Host]:
    """A host that serves echo, for which loopback addresses are not exempt."""
    counted = Limits(**{"exempt": ()} | (limits or {}))
    async with Host(echo=True, ping=False, limits=counted, **{"identify": False} | options) as host:
        yield host


def arena(host: Host, **settings: int | str) -> Arena:
    """What attackers of `host` get; the attack has as much time as a test."""
    made = Arena(
        str(host.addrs_with_peer[0]), seconds(HANG_S), {name: str(value) for name, value in settings.items()}
    )
    made.start()
    return made


@asynccontextmanager
async def honest(number: int = 0, **options: Any) -> AsyncIterator[Host]:
    """A peer from an address block of its own."""
    source = TcpOptions(dial_from=place.honest(number))
    async with Host(listen=(), identify=False, tcp=source, **options) as host:
        yield host


async def echoes(host: Host, target: Multiaddr) -> bool:
    """Whether an honest echo comes back, on a new connection if `target` is an address."""
    stream = await host.new_stream(target, ECHO)
    await stream.write(MESSAGE)
    back = await stream.read_exactly(len(MESSAGE))
    await stream.close()
    return back == MESSAGE
