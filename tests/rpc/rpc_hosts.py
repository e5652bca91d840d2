"""A service and a client of it on two connected hosts, and the methods that tests of calls use.

Comes in: options of either side. Goes out: a Shop. Everything is closed at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hosts import BARE
from p2pcore import Host, rpc

NAME = "/shop/1.0.0"
NUMBER = rpc.Codec[int](lambda value: str(value).encode(), int)
TEXT = rpc.Codec[str](str.encode, bytes.decode)
ECHO = rpc.Method("echo", rpc.BYTES, rpc.BYTES)
LENGTH = rpc.Method("length", TEXT, NUMBER)
WAIT = rpc.Method("wait", TEXT, TEXT)
COUNT = rpc.StreamMethod("count", NUMBER, NUMBER)


@dataclass
class Shop:
    """A service, its host, a client of it, and the client's host."""

    service: rpc.Service
    server: Host
    client: rpc.Client
    dialer: Host
    begun: list[str] = field(default_factory=list)
    """The requests of `wait` that run or have run, in order."""
    cancelled: list[str] = field(default_factory=list)
    """Those of them that were cancelled."""
    lefts: list[float | None] = field(default_factory=list)
    """The seconds that each of them had left."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """Each of them answers when its event is set."""
    made: list[int] = field(default_factory=list)
    """The items that `count` has made."""

    async def wait(self, request: str, call: rpc.Call) -> str:
        self.begun.append(request)
        self.lefts.append(call.left_s)
        gate = self.gates.setdefault(request, asyncio.Event())
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        return f"{request} is done"

    async def count(self, most: int, call: rpc.Call) -> AsyncIterator[int]:
        try:
            for i in range(most):
                self.made.append(i)
                yield i
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append("count")
            raise


async def echo(request: bytes, call: rpc.Call) -> bytes:
    return request


async def length(request: str, call: rpc.Call) -> int:
    return len(request)


@asynccontextmanager
async def shop(
    *,
    service: dict[str, Any] | None = None,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    dialer: dict[str, Any] | None = None,
) -> AsyncIterator[Shop]:
    """A service with ECHO, LENGTH, WAIT and COUNT."""
    offered = rpc.Service(NAME, **service or {})
    async with (
        Host(**BARE | (server or {})) as one,
        Host(**{"listen": ()} | BARE | (dialer or {})) as two,
        rpc.Client(two, one.addrs_with_peer[0], NAME, **client or {}) as caller,
    ):
        made = Shop(offered, one, caller, two)
        offered.method(ECHO)(echo)
        offered.method(LENGTH)(length)
        offered.method(WAIT)(made.wait)
        offered.method(COUNT)(made.count)
        offered.serve(one)
        yield made
        for gate in made.gates.values():
            gate.set()
