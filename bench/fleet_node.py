"""One machine of the fleet checks: a supervisor of two workers, each with a part of the fleet.

Comes in: the address of NATS, a name, a folder for sockets. Goes out: the addresses of the machine, in a line
of JSON. Each worker obeys commands on a UNIX socket in the folder, see `Node`; a line of JSON each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from p2pcore import Host, Limits, Stream, Supervisor, Worker, run
from p2pcore.admin.status import rss_bytes
from p2pcore.errors import NotDelivered
from p2pcore.fleet import BusMessage, Fleet
from p2pcore.fleet.nats_bus import NatsBus

ASK = "/bench-fleet/ask/1"
NEWS = "/bench-fleet/news/1"
WORKERS = 2
LINE_BYTES = 1 << 26
OPEN = Limits(max_conns=None, max_conns_per_subnet=None, max_conns_per_site=None, conn_rate_per_subnet=None)


class Node:
    """What a worker does when it is told. Each public coroutine is a command."""

    def __init__(self, worker: Worker, host: Host, fleet: Fleet, bus: NatsBus) -> None:
        self._worker = worker
        self._host = host
        self._fleet = fleet
        self._bus = bus

    async def news(self, stream: Stream) -> None:
        """The handler of a subscriber."""
        await self._fleet.subscribe("news", stream)
        await stream.write_msg(b"welcome")
        while await stream.read():
            pass

    # -- commands ------------------------------------------------------------------------------

    async def state(self) -> dict[str, Any]:
        parts = self._fleet._parts
        assert parts is not None
        return {
            "process": self._fleet.process,
            "pid": os.getpid(),
            "up": self._fleet.is_up,
            "processes": len(self._fleet.processes()),
            "connected": self._fleet.num_connected(),
            "here": parts.presence.num_peers,
            "conns": self._host.swarm.num_conns,
            "written": parts.presence.num_written,
            "subscribers": parts.topics.num_subscribers,
            "counters": self._host.counters(),
            "dropped": dict(parts.topics.dropped),
            "rss": rss_bytes(),
            "cpu_s": time.process_time(),
        }

    async def peers(self) -> dict[str, Any]:
        return {"peers": [str(peer) for peer in self._host.swarm.peers()]}

    async def where(self, peers: list[str], at_once: int = 50) -> dict[str, Any]:
        """The processes of each peer, joined by commas."""
        gate = asyncio.Semaphore(at_once)

        async def one(peer: str) -> str:
            async with gate:
                return ",".join(sorted(place.process for place in await self._fleet.where(peer)))

        return {"places": await asyncio.gather(*map(one, peers))}

    async def ask(
        self,
        peers: list[str],
        count: int,
        first: int,
        at_once: int,
        timeout_s: float,
        pause_s: float = 0.0,
        in_turn: bool = False,
    ) -> dict[str, Any]:
        """`count` requests to random peers, or to each in turn, with numbers from `first` on."""
        left = iter(range(first, first + count))
        done: list[Any] = []

        async def work() -> None:
            for number in left:
                peer = peers[(number - first) % len(peers)] if in_turn else random.choice(peers)
                began = time.perf_counter()
                outcome, arrived = "delivered", True
                try:
                    answer = await self._fleet.request(peer, ASK, b"%d" % number, timeout_s=timeout_s)
                    if answer != b"%d" % number:
                        outcome = "wrong answer"
                except NotDelivered as error:
                    outcome, arrived = error.reason.name, error.may_have_arrived
                done.append((number, outcome, arrived, 1000 * (time.perf_counter() - began)))
                if pause_s:
                    await asyncio.sleep(pause_s)

        cpu_s = time.process_time()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return {"done": done, "cpu_s": time.process_time() - cpu_s}

    async def round_trips(self, process: str, count: int, at_once: int) -> dict[str, Any]:
        """The bus alone: milliseconds of requests that another process answers at once."""
        left, done = iter(range(count)), []

        async def work() -> None:
            for _ in left:
                began = time.perf_counter()
                await self._bus.request(f"bench.echo.{process}", b"x" * 100, timeout_s=30)
                done.append(1000 * (time.perf_counter() - began))

        await asyncio.gather(*(work() for _ in range(at_once)))
        return {"ms": done}

    async def publish(self, message: str) -> dict[str, Any]:
        began = time.monotonic()
        await self._fleet.publish("news", message.encode())
        return {"at": began}

    # -- the socket ----------------------------------------------------------------------------

    @asynccontextmanager
    async def served(self, folder: Path) -> AsyncIterator[None]:
        def answer(message: BusMessage) -> None:
            if message.answer is not None:
                message.answer(message.data)

        await self._bus.subscribe(f"bench.echo.{self._fleet.process}", answer)
        path = folder / f"{self._fleet.process}.sock"
        server = await asyncio.start_unix_server(self._obey, path, limit=LINE_BYTES)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # the worker has drained; asyncio would print a traceback
            async for line in reader:
                name, arguments = json.loads(line)
                result = await getattr(self, name)(**arguments)
                writer.write(json.dumps(result).encode() + b"\n")
                await writer.drain()
        writer.close()


def make(worker: Worker, url: str, machine: str, folder: str) -> Host:
    """The factory."""
    host = worker.host(identify=False, limits=OPEN)
    bus = NatsBus(url)
    fleet = Fleet(host, bus, machine=machine, worker=worker)
    node = Node(worker, host, fleet, bus)
    host.set_stream_handler(NEWS, node.news)
    for beside in (bus, fleet, node.served(Path(folder))):
        worker.beside(beside)
    return host


async def main(url: str, machine: str, folder: str) -> None:
    async with Supervisor(
        make, workers=WORKERS, args=(url, machine, folder), listen=["/ip4/127.0.0.1/tcp/0"]
    ) as supervisor:
        print(json.dumps([str(addr) for addr in supervisor.addrs_with_peer]), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("machine")
    parser.add_argument("folder")
    given = parser.parse_args()
    run(main(given.url, given.machine, given.folder))
