"""Factories of workers that are a fleet, for tests in real processes; and what a test asks them.

Comes in: a Worker. Goes out: a host with a fleet on its supervisor's bus. On ASK it does what a test says.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from typing import Any

from p2pcore import Host, Stream, Worker
from p2pcore.errors import BusError, NotDelivered, P2PError, StreamReset
from p2pcore.fleet import Bus, Fleet, NatsBus, WorkersBus

ASK = "/test-ask/1"


def make(worker: Worker, nats: str | None = None) -> Host:
    """A host with a fleet on the supervisor's bus, or on that of a NATS server."""
    host = worker.host(echo=True)
    bus: Any = WorkersBus(worker)
    if nats is not None:
        bus = NatsBus(nats)
        worker.beside(bus)
    fleet = Fleet(host, bus)
    asked = _Asked(host, bus, fleet, worker)

    async def ask(stream: Stream) -> None:
        order: dict[str, Any] = json.loads(await stream.read_msg())
        try:
            answer = await getattr(asked, order.pop("do"))(stream, **order)
        except (BusError, NotDelivered, TimeoutError) as error:
            answer = {"error": type(error).__name__, "text": str(error)}
            if isinstance(error, NotDelivered):
                answer |= {"reason": error.reason.name, "may_have_arrived": error.may_have_arrived}
        if answer is not None:
            await stream.write_msg(json.dumps(answer).encode())

    host.set_stream_handler(ASK, ask)
    worker.beside(fleet)
    return host


class _Asked:
    """The orders of a test."""

    def __init__(self, host: Host, bus: Bus, fleet: Fleet, worker: Worker) -> None:
        self.host = host
        self.bus = bus
        self.fleet = fleet
        self.worker = worker
        self.heard: list[str] = []

    async def state(self, stream: Stream) -> Any:
        return {
            "pid": os.getpid(),
            "process": self.fleet.process,
            "processes": len(self.fleet.processes()),
            "connected": self.fleet.num_connected(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "links": len(self.worker.links._all),
            "link_streams": sum(each.num_streams for each in self.worker.links._all),
            "heard": self.heard,
        }

    async def where(self, stream: Stream, peer: str) -> Any:
        return [place.pid for place in await self.fleet.where(peer)]

    async def request(
        self, stream: Stream, peer: str, protocol: str, text: str, timeout_s: float = 10.0
    ) -> Any:
        answer = await self.fleet.request(peer, protocol, text.encode(), timeout_s=timeout_s)
        return {"answer": answer.decode()}

    async def subscribe(self, stream: Stream, subject: str) -> Any:
        """Answers nothing and keeps what it hears."""
        await self.bus.subscribe(subject, lambda message: self.heard.append(message.data.decode()[:20]))
        return {}

    async def bus_request(self, stream: Stream, subject: str, timeout_s: float) -> Any:
        return {"answer": (await self.bus.request(subject, b"", timeout_s=timeout_s)).decode()}

    async def flood(self, stream: Stream, subject: str, count: int, size: int) -> Any:
        for _ in range(count):
            await self.bus.publish(subject, bytes(size))
        return {}

    async def open(self, stream: Stream, peer: str, protocol: str) -> Any:
        """Passes everything on, both ways."""
        far = await self.fleet.open(peer, protocol, over_bus=True)
        await stream.write_msg(b"{}")
        try:
            await asyncio.gather(_pass(stream, far), _pass(far, stream))
        except (P2PError, OSError) as error:
            for each in (stream, far):
                each.reset(error.code if isinstance(error, StreamReset) else 0)
        except asyncio.CancelledError:  # the asker has gone
            far.reset()
            raise
        return None


async def _pass(one: Stream, other: Stream) -> None:
    async for chunk in one:
        await other.write(chunk)
    with suppress(P2PError):
        await other.close_write()
