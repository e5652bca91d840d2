"""The dialling side of the scale checks: a process that holds many connections and obeys commands.

Comes in: an address, the number of hosts that dial; then one command in a line, see `Dialer`. Goes out: a
JSON object for each. Each host has its own identity and its own address in 127.0.0.0/8, and dials one
connection at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from p2pcore import Conn, Host, Multiaddr, P2PError, TcpOptions, limits, run

ECHO = "/echo/1.0.0"
PATIENCE_S = 60.0
SHOWN_FAILURES = 5


class Dialer:
    """The hosts, and the connections they hold."""

    def __init__(self, addr: str, hosts: list[Host]) -> None:
        self.addr = Multiaddr(addr)
        self.hosts = hosts
        self.held: list[Conn] = []
        self.streams: list[object] = []
        self.silent: list[socket.socket] = []

    async def dial(self, count: int, with_stream: int) -> dict[str, object]:
        """`count` more connections, every `with_stream`-th with an open stream (0: none)."""
        before, failed = len(self.held), 0
        left = iter(range(count))

        async def work(host: Host) -> None:
            nonlocal failed
            for number in left:
                try:
                    conn = await host.swarm.dial_addr(self.addr)
                    self.held.append(conn)
                    if with_stream and number % with_stream == 0:
                        await self._open(conn)
                except (P2PError, OSError) as error:
                    failed += 1
                    if failed <= SHOWN_FAILURES:
                        print(repr(error), file=sys.stderr, flush=True)

        await asyncio.gather(*map(work, self.hosts))
        return {"dialled": len(self.held) - before, "failed": failed}

    async def _open(self, conn: Conn) -> None:
        stream = await conn.new_stream(ECHO)
        await stream.write(b"x")
        await stream.read_exactly(1)
        self.streams.append(stream)

    async def load(self, pings: int, churn: int) -> dict[str, object]:
        """`pings` of random connections one after another, while `churn` others come, echo and go."""
        coming = asyncio.gather(*(self._churn(host, churn // len(self.hosts)) for host in self.hosts[1:]))
        slowest, failed = 0.0, 0
        for conn in random.sample(self.held, min(pings, len(self.held))):
            began = time.perf_counter()
            try:
                await self.hosts[0].ping(conn)
            except (P2PError, OSError) as error:
                failed += 1
                print(repr(error), file=sys.stderr, flush=True)
            slowest = max(slowest, time.perf_counter() - began)
        await coming
        return {"pings": pings, "failed": failed, "slowest_ms": slowest * 1e3}

    async def _churn(self, host: Host, count: int) -> None:
        for _ in range(count):
            conn = await host.swarm.dial_addr(self.addr)
            stream = await conn.new_stream(ECHO)
            await stream.write(b"x")
            await stream.read_exactly(1)
            await stream.close()
            await conn.close()

    async def storm(self, count: int) -> dict[str, object]:
        """Starts `count` connections at once; each counts as served when its echo has come back."""
        began = time.perf_counter()
        done = await asyncio.gather(
            *(self._served(self.hosts[number % len(self.hosts)]) for number in range(count)),
            return_exceptions=True,
        )
        failures = [repr(each) for each in done if isinstance(each, BaseException)]
        for text in failures[:SHOWN_FAILURES]:
            print(text, file=sys.stderr, flush=True)
        return {"served": count - len(failures), "seconds": time.perf_counter() - began}

    async def _served(self, host: Host) -> None:
        conn = await host.swarm.dial_addr(self.addr)
        await self._open(conn)
        self.held.append(conn)

    async def hush(self, count: int) -> dict[str, object]:
        """Starts `count` connections at once that never say anything."""
        loop = asyncio.get_running_loop()
        place = ("127.0.0.1", int(self.addr.get("tcp") or 0))
        self.silent = [socket.socket() for _ in range(count)]
        for number, sock in enumerate(self.silent):
            sock.setblocking(False)
            sock.bind((f"127.9.0.{number % 16 + 1}", 0))
        done = await asyncio.gather(
            *(loop.sock_connect(sock, place) for sock in self.silent), return_exceptions=True
        )
        return {"silent": sum(each is None for each in done)}

    async def hushed(self) -> dict[str, object]:
        """Waits until the peer has closed every silent connection. Returns: how many are still open."""
        loop = asyncio.get_running_loop()
        waits = [asyncio.wait_for(_end(loop, sock), PATIENCE_S) for sock in self.silent]
        done = await asyncio.gather(*waits, return_exceptions=True)
        for sock in self.silent:
            sock.close()
        return {"left": sum(isinstance(each, TimeoutError) for each in done)}

    async def close(self) -> dict[str, object]:
        """Closes all connections."""
        held, self.held = self.held, []
        self.streams.clear()
        for at in range(0, len(held), 256):
            await asyncio.gather(*(conn.close() for conn in held[at : at + 256]))
        return {"closed": len(held)}


async def _end(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    try:
        while await loop.sock_recv(sock, 4096):
            pass
    except OSError:
        pass


async def _main(options: argparse.Namespace) -> None:
    sources = [TcpOptions(dial_from=f"{options.net}.{number + 1}") for number in range(options.hosts)]
    hosts = [Host(listen=(), tcp=source) for source in sources]
    dialer = Dialer(options.addr, hosts)
    commands: dict[str, Callable[..., Awaitable[dict[str, object]]]] = {
        name: getattr(dialer, name) for name in ("dial", "load", "storm", "hush", "hushed", "close")
    }
    loop = asyncio.get_running_loop()
    print(json.dumps({"ready": True}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *numbers = line.split()
        print(json.dumps(await commands[name](*map(int, numbers))), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addr")
    parser.add_argument("--net", default="127.8.0", help="first three parts of the addresses to dial from")
    parser.add_argument("--hosts", type=int, default=64)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # All dial at the same moment, so some are served late.
    limits.DIAL_TIMEOUT_LOCAL_S = PATIENCE_S  # type: ignore[misc]
    run(_main(options))


if __name__ == "__main__":
    main()
