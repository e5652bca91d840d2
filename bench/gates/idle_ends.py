"""The two processes of the idle rows: one listens and reports its memory, one dials and holds.

Comes in: lines on standard input: "held" or a number of connections. Goes out: one line of JSON each. Both
are hosts with default options, so each connection is identified.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from typing import Any

from gates.figures import held
from p2pcore import Host, Limits, run

POLL_S = 0.02
TIMEOUT_S = 300.0
REST = 10
"""Looks in a row without a change: then identify and its timers have ended."""


def say(line: dict[str, Any]) -> None:
    """One line, at once."""
    print(json.dumps(line), flush=True)


async def next_line() -> str:
    """The next line of standard input; "" at its end."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


async def at_rest(host: Host, count: int) -> None:
    """Returns when `count` connections are open, identified, and no stream is being served."""
    rest = 0
    async with asyncio.timeout(TIMEOUT_S):
        while rest < REST:
            await asyncio.sleep(POLL_S)
            swarm = host.swarm
            is_idle = swarm.num_conns == count and not swarm.num_handlers_running
            is_idle = is_idle and all(host.info_of(conn) and not conn.num_streams for conn in swarm.conns())
            rest = rest + 1 if is_idle else 0


async def listen() -> None:
    """Answers each number with the memory at this number of connections."""
    async with Host(limits=Limits(max_conns_per_peer=None)) as host:
        say({"addr": str(host.addrs_with_peer[0])})
        while line := await next_line():
            await at_rest(host, int(line))
            say(held().as_dict())


async def dial(target: str) -> None:
    """Answers each number when it holds this number of connections."""
    async with Host(listen=(), limits=Limits(max_conns_per_peer=None)) as host:
        while line := await next_line():
            await more(host, target, int(line) - host.swarm.num_conns)
            say(held().as_dict())


async def more(host: Host, target: str, count: int) -> None:
    """Dials one after another, so memory is requested in the same order each time; then waits for rest."""
    wanted = host.swarm.num_conns + count
    for _ in range(count):
        await host.swarm.dial_addr(target)
    await at_rest(host, wanted)


def main() -> None:
    """The command line: "listen", or "dial" and an address."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run(listen() if sys.argv[1] == "listen" else dial(sys.argv[2]))


if __name__ == "__main__":
    main()
