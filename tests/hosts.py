"""Two connected hosts on the loopback, for tests that need real connections.

Comes in: options of either host. Goes out: a Pair. Everything is closed at the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from harness import eventually
from p2pcore import Conn, Host

BARE: dict[str, Any] = {"ping": False, "identify": False}
"""Options of a host that serves nothing and does not identify its peers."""


@dataclass
class Pair:
    """`dialer` has connected to `server`; each one's view of the connection."""

    dialer: Host
    server: Host
    conn: Conn
    server_conn: Conn


@asynccontextmanager
async def pair(
    server: dict[str, Any] | None = None, dialer: dict[str, Any] | None = None
) -> AsyncIterator[Pair]:
    """Two hosts; by default they serve nothing and do not identify each other."""
    async with Host(**BARE | (server or {})) as one, Host(**{"listen": ()} | BARE | (dialer or {})) as two:
        conn = await two.connect(one.addrs_with_peer[0])
        await eventually(lambda: one.swarm.num_conns)
        yield Pair(two, one, conn, one.swarm.conns()[0])
