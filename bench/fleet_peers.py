"""Peers of the fleet checks: a process with many hosts that obeys commands, a line of JSON each on stdin.

Comes in: how many, the addresses of the machines. Goes out: a line of JSON for each command, see `Peers`.
Each peer has its own identity, serves requests and subscribes to the news.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter
from typing import Any

from fleet_node import ASK, NEWS
from p2pcore import Host, Multiaddr, P2PError, Stream, run

DIALS = 50


class Peers:
    """Each public coroutine is a command."""

    def __init__(self, addrs: list[str], count: int) -> None:
        self.addrs = [Multiaddr(addr) for addr in addrs]
        self.hosts = [Host(listen=(), identify=False, ping=False, metrics=False) for _ in range(count)]
        self.got: Counter[int] = Counter()
        self.heard: dict[bytes, list[float]] = {}
        self.ended: Counter[str] = Counter()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        for host in self.hosts:
            host.set_stream_handler(ASK, self._answer)

    async def start(self) -> dict[str, Any]:
        for host in self.hosts:
            await host.start()
        gc.freeze()  # a collection of so many hosts takes seconds, and connections would time out meanwhile
        gc.disable()
        return {"peers": [str(host.peer_id) for host in self.hosts]}

    async def _answer(self, stream: Stream) -> None:
        async for message in stream.msgs(100):
            self.got[int(message)] += 1
            await stream.write_msg(message)

    async def dial(self) -> dict[str, Any]:
        """Connects all that are not connected, to the machines in turn, and subscribes them."""
        began = time.monotonic()
        left = iter(range(len(self.hosts)))
        failed: Counter[str] = Counter()

        async def work() -> None:
            for number in left:
                if not self.hosts[number].swarm.num_conns:
                    try:
                        await self._join(number)
                    except (P2PError, OSError, EOFError) as error:
                        failed[repr(error)[:200]] += 1

        await asyncio.gather(*(work() for _ in range(DIALS)))
        return {"failed": dict(failed), "seconds": time.monotonic() - began}

    async def _join(self, number: int) -> None:
        host = self.hosts[number]
        for turn in range(len(self.addrs)):
            addr = self.addrs[(number + turn) % len(self.addrs)]
            try:
                await host.connect(addr, ignore_backoff=True)
                break
            except (P2PError, OSError):
                if turn == len(self.addrs) - 1:
                    raise
        stream = await host.new_stream(host.swarm.conns()[0], NEWS)
        await stream.read_msg()
        self._tasks[number] = asyncio.get_running_loop().create_task(self._listen(stream))

    async def _listen(self, stream: Stream) -> None:
        try:
            while True:
                message = await stream.read_msg()
                self.heard.setdefault(message, []).append(time.monotonic())
        except (P2PError, OSError, EOFError) as error:
            self.ended[repr(error)[:200]] += 1

    async def connected(self) -> dict[str, Any]:
        return {"connected": sum(host.swarm.num_conns > 0 for host in self.hosts)}

    async def ends(self) -> dict[str, Any]:
        """Why subscriptions ended, since the last time."""
        ended, self.ended = self.ended, Counter()
        return dict(ended)

    async def leave(self, count: int) -> dict[str, Any]:
        """The first `count` peers that are connected leave."""
        for host in [host for host in self.hosts if host.swarm.num_conns][:count]:
            for conn in host.swarm.conns():
                await conn.close()
        return {}

    async def arrived(self) -> dict[str, Any]:
        """How often each request has arrived."""
        return {"got": dict(self.got)}

    async def news(self, message: str) -> dict[str, Any]:
        """How many peers got it, and when the last did (time.monotonic)."""
        heard = self.heard.get(message.encode(), [])
        return {"count": len(heard), "last": max(heard, default=0.0)}


async def main(addrs: list[str], count: int) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    peers = Peers(addrs, count)
    async for line in reader:
        name, arguments = json.loads(line)
        print(json.dumps(await getattr(peers, name)(**arguments)), flush=True)
    for host in peers.hosts:
        await host.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("addrs", nargs="+")
    given = parser.parse_args()
    run(main(given.addrs, given.count))
