"""`p2pcore ping`: measures round-trip times to a peer and shows a summary, like ping(8).

Comes in: an address, a count, an interval. Goes out: a line for each ping, then a summary, also after Ctrl-C.
"""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import aclosing

import click

from p2pcore import Multiaddr
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output
from p2pcore.cli.params import CountType, SecondsType, target_options


@click.command()
@target_options
@click.option(
    "-n", "--count", type=CountType(), default=5, show_default=True, help="Number of pings; 0: until Ctrl-C."
)
@click.option(
    "-i", "--interval", type=SecondsType(), default=1.0, show_default=True, help="Seconds between two pings."
)
def command(
    target: Multiaddr, any_peer: bool, node: NodeOptions, as_json: bool, count: int, interval: float
) -> None:
    """Ping TARGET, a multiaddr ending with /p2p/PEER_ID."""
    run(_ping(target, any_peer, node, Output(as_json), count or sys.maxsize, interval))


async def _ping(
    target: Multiaddr, any_peer: bool, node: NodeOptions, output: Output, count: int, interval: float
) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        statistics = Statistics()
        try:
            async with aclosing(host.pings(conn, count)) as rtts:
                async for rtt in rtts:
                    statistics.add(rtt)
                    number = statistics.count
                    output.show(
                        f"{number}: {rtt * 1000:.3f} ms", event="ping", number=number, rtt_ms=rtt * 1000
                    )
                    if number < count:
                        await asyncio.sleep(interval)
        finally:
            if statistics.count:
                fields = {"peer": str(conn.remote_peer), **statistics.fields()}
                output.show(statistics.line(), event="summary", **fields)


class Statistics:
    """Minimum, mean, maximum and standard deviation of round trips, in constant memory."""

    def __init__(self) -> None:
        self.count = 0
        self._least = math.inf
        self._greatest = 0.0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, seconds: float) -> None:
        """Adds one round trip. Welford's method stays exact for any number of round trips."""
        self.count += 1
        self._least = min(self._least, seconds)
        self._greatest = max(self._greatest, seconds)
        difference = seconds - self._mean
        self._mean += difference / self.count
        self._squares += difference * (seconds - self._mean)

    @property
    def deviation(self) -> float:
        """The standard deviation of the population, like mdev of ping(8)."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def fields(self) -> dict[str, float]:
        """The results for machines, in milliseconds."""
        return {
            "count": self.count,
            "min_ms": self._least * 1000,
            "avg_ms": self._mean * 1000,
            "max_ms": self._greatest * 1000,
            "mdev_ms": self.deviation * 1000,
        }

    def line(self) -> str:
        """The results for people."""
        times = (self._least, self._mean, self._greatest, self.deviation)
        figures = "/".join(f"{seconds * 1000:.3f}" for seconds in times)
        return f"{self.count} answered, rtt min/avg/max/mdev = {figures} ms"
