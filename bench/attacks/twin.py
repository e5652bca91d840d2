"""A busy honest client: `python -m attacks.twin ADDR...`; it does each work at every address, in turns.

Comes in: addresses of nodes, names of works, a number of rounds. Goes out: a JSON line for each work: its
seconds at each node, round by round, and what failed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from attacks import place
from p2pcore import Conn, Host, Multiaddr, P2PError, Stream, TcpOptions, run

ECHO = "/echo/1.0.0"
MESSAGE = bytes(32)
STREAMS, TIMEOUTS, OFFICE, CALLS, UPDATES = 1000, 500, 300, 1000, 40
OFFICE_HOSTS = 300
PATIENCE_S = 60.0

Failure = (P2PError, OSError, TimeoutError)


class Twin:
    """The works. Each returns how many things were refused."""

    def __init__(self, hosts: list[Host]) -> None:
        self._hosts = hosts

    @asynccontextmanager
    async def _conn(self, addr: Multiaddr) -> AsyncIterator[Conn]:
        conn = await self._hosts[0].swarm.dial_addr(addr)
        try:
            yield conn
        finally:
            await conn.close()

    async def streams(self, addr: Multiaddr) -> int:
        """1,000 streams at once on one connection, each with an echo."""
        async with self._conn(addr) as conn:
            return await _failures(_call(conn) for _ in range(STREAMS))

    async def timeouts(self, addr: Multiaddr) -> int:
        """500 calls that the client gives up together, then 500 that it does not."""
        async with self._conn(addr) as conn:
            streams = await asyncio.gather(*(_begun(conn) for _ in range(TIMEOUTS)))
            for stream in streams:
                stream.reset()
            return await _failures(_call(conn) for _ in range(TIMEOUTS))

    async def office(self, addr: Multiaddr) -> int:
        """300 peers connect at once from one address, as behind the router of an office."""
        conns: list[Conn] = []

        async def one(host: Host) -> None:
            conn = await host.swarm.dial_addr(addr)
            conns.append(conn)
            await _call(conn)

        failed = await _failures(one(host) for host in self._hosts[:OFFICE])
        await asyncio.gather(*(conn.close() for conn in conns))
        return failed

    async def calls(self, addr: Multiaddr) -> int:
        """1,000 calls, one after another."""
        async with self._conn(addr) as conn:
            return sum([await _failures([_call(conn)]) for _ in range(CALLS)])

    async def updates(self, addr: Multiaddr) -> int:
        """40 updates of identify, each pushed and read to its end."""
        host = Host(listen=(), tcp=TcpOptions(dial_from=place.honest(0)))
        async with host:
            conn = await host.swarm.dial_addr(addr)
            told = await host.identify(conn)
            failed = sum([await _failures([self._push(conn, number)]) for number in range(UPDATES)])
            return failed + (not told.protocols)

    async def _push(self, conn: Conn, number: int) -> None:
        stream = await conn.new_stream("/ipfs/id/push/1.0.0")
        agent = f"twin/{number}".encode()
        await stream.write(bytes([len(agent) + 2, 0x32, len(agent)]) + agent)
        await stream.close_write()
        await stream.read()  # a refused push is reset


async def _begun(conn: Conn) -> Stream:
    stream = await conn.new_stream(ECHO)
    await stream.write(MESSAGE)
    return stream


async def _call(conn: Conn) -> None:
    stream = await _begun(conn)
    try:
        await stream.read_exactly(len(MESSAGE))
    finally:
        await stream.close()


async def _failures(works: Iterable[Awaitable[None]]) -> int:
    done = await asyncio.gather(*works, return_exceptions=True)
    wrong = [each for each in done if isinstance(each, BaseException)]
    for each in wrong:
        WHY[f"{type(each).__name__}: {str(each)[:100]}"] += 1
    return len(wrong)


WHY: Counter[str] = Counter()
"""The texts of failures."""
WORKS = ("streams", "timeouts", "office", "calls", "updates")


async def _main(options: argparse.Namespace) -> None:
    source = TcpOptions(dial_from=place.honest(0))
    twin = Twin([Host(listen=(), identify=False, tcp=source) for _ in range(OFFICE_HOSTS)])
    for name in options.works:
        work: Callable[[Multiaddr], Awaitable[int]] = getattr(twin, name)
        took: list[list[float]] = [[] for _ in options.addrs]
        failed = [0 for _ in options.addrs]
        for number in range(options.rounds):
            for at in sorted(range(len(options.addrs)), reverse=bool(number % 2)):
                gc.collect()
                began = time.monotonic()
                async with asyncio.timeout(PATIENCE_S):
                    failed[at] += await work(Multiaddr(options.addrs[at]))
                took[at].append(time.monotonic() - began)
                await asyncio.sleep(options.pause)
        print(json.dumps({"work": name, "took": took, "failed": failed, "why": dict(WHY)}), flush=True)
        WHY.clear()
    os._exit(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addrs", nargs="+")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each work")
    run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
