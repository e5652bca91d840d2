"""Churn of every kind for as long as asked, and whether anything grows meanwhile.

Comes in: minutes. Goes out: the slopes of resident memory, objects, descriptors and tasks of one process
that has both ends of everything, each with its error; exit 1 if one is above zero by more than chance. All
traffic is on the loopback. The first third warms up. The rest has ten parts, and each counts with its least
sample: what is in use at the moment comes and goes, what is lost does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pcore import Host, Multiaddr, P2PError, RelayOptions, Supervisor, run
from scale_node import make

PARTS = 10
WARM_UP = 1 / 3
T_99 = 3.355
"""Student's t for ten parts (8 degrees of freedom), 99 % both sides."""
LEAST = {"rss": 0.02, "objects": 0.01, "descriptors": 0.02, "tasks": 0.02}
"""Growth over the measured time, as a part of the level, up to which a slope is no loss: pages, caches."""
CALL_S = 10.0
SIZES = (1, 100, 5_000, 200_000)
EXPECTED = (P2PError, OSError, asyncio.IncompleteReadError)


# -- what is measured ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Counts at one time, in seconds since the start."""

    at: float
    rss: float
    objects: float
    descriptors: float
    tasks: float


def sample(begun: float) -> Sample:
    """What is left after garbage has been collected and free memory given back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    rss = pages * os.sysconf("SC_PAGE_SIZE")
    descriptors = len(os.listdir("/proc/self/fd"))
    return Sample(time.monotonic() - begun, rss, len(gc.get_objects()), descriptors, len(asyncio.all_tasks()))


@dataclass(frozen=True)
class Slope:
    """Growth a second, its standard error, and the level it grows from."""

    name: str
    per_s: float
    error: float
    level: float
    seconds: float

    @property
    def grows(self) -> bool:
        """Whether it is above zero by more than chance, and by more than nothing."""
        surely = self.per_s - T_99 * self.error
        return surely > 0 and self.per_s * self.seconds > LEAST[self.name] * self.level

    def __str__(self) -> str:
        bar = T_99 * self.error * 3600
        verdict = "GROWS" if self.grows else "no slope"
        found = f"{self.per_s * 3600:+14,.0f} ± {bar:12,.0f} an hour"
        return f"{self.name:12} level {self.level:14,.0f}  {found}  {verdict}"


def slope(name: str, samples: Sequence[Sample]) -> Slope:
    """The straight line through the least samples of the parts (least squares)."""
    size = max(1, len(samples) // PARTS)
    parts = [samples[at : at + size] for at in range(0, size * PARTS, size)]
    least = [min(part, key=lambda each: getattr(each, name)) for part in parts if part]
    x = [each.at for each in least]
    y = [float(getattr(each, name)) for each in least]
    line = statistics.linear_regression(x, y)
    left = [value - line.slope * at - line.intercept for at, value in zip(x, y, strict=True)]
    spread = math.fsum((at - statistics.fmean(x)) ** 2 for at in x)
    error = math.sqrt(math.fsum(value * value for value in left) / max(1, len(x) - 2) / spread)
    return Slope(name, line.slope, error, statistics.fmean(y), x[-1] - x[0])


def slopes(samples: Sequence[Sample]) -> list[Slope]:
    """Of everything that is measured, after the warm-up."""
    warm = [each for each in samples if each.at >= samples[-1].at * WARM_UP]
    return [slope(name, warm) for name in LEAST]


# -- churn -----------------------------------------------------------------------------------------


class Churn:
    """A node with every transport, one behind it, workers beside it, and what happens to them."""

    def __init__(self, node: Host, dialer: Host, hidden: Host, supervisor: Supervisor, seed: int) -> None:
        self.node, self.dialer, self.hidden, self.supervisor = node, dialer, hidden, supervisor
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()

    def kinds(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        """Each kind, and the seconds between two of it."""
        return [
            (self.echo, 0.02),
            (self.cut, 0.05),
            (self.garbage, 0.05),
            (self.identity, 0.3),
            (self.relayed, 0.2),
            (self.worker, 0.1),
            (self.restart, 20.0),
        ]

    async def echo(self) -> None:
        """On a connection that is kept, or on a new one."""
        addr = self._addr()
        if self.chance.random() < 0.3:
            await self.dialer.close_peer(self.node.peer_id)
        await self.dialer.echo(addr, bytes(self.chance.choice(SIZES)))

    async def cut(self) -> None:
        """A connection is lost while a stream on it is busy; or the call is cancelled."""
        conn = await self.dialer.swarm.dial_addr(self._addr())
        busy = asyncio.ensure_future(self.dialer.echo(conn.remote_peer, bytes(1_000_000)))
        await asyncio.sleep(self.chance.random() / 100)
        if self.chance.random() < 0.5:
            busy.cancel()
        conn.abort()
        await asyncio.gather(busy, return_exceptions=True)

    async def garbage(self) -> None:
        """A stranger on the TCP port."""
        port = int(self.node.addrs[0].value_for_protocol("tcp") or 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            begun = self.chance.choice(
                (b"", b"\x13/multistream/1.0.0\n", b"\x13/multistream/1.0.0\n\x07/noise\n")
            )
            writer.write(begun + self.chance.randbytes(self.chance.choice((0, 1, 50, 5000))))
            if self.chance.random() < 0.5:
                async with asyncio.timeout(1):
                    await reader.read(1000)
        finally:
            writer.transport.abort()

    async def identity(self) -> None:
        """A peer nobody has seen, with any muxer and security."""
        muxer, security = self.chance.choice(("yamux", "mplex")), self.chance.choice(("noise", "tls"))
        async with Host(listen=(), muxers=[muxer], security=[security]) as peer:
            await peer.ping(self._addr())

    async def relayed(self) -> None:
        """Through the node to the host behind it."""
        addrs = self.hidden.addrs_with_peer
        if not addrs:  # it has lost its place, and asks for another one
            return
        await self.dialer.echo(addrs[0], bytes(1000), allow_limited=True)
        if self.chance.random() < 0.5:
            await self.dialer.close_peer(self.hidden.peer_id)

    async def worker(self) -> None:
        """A client of the workers."""
        await self.dialer.echo(self.supervisor.addrs_with_peer[0], bytes(1000))
        if self.chance.random() < 0.5:
            await self.dialer.close_peer(self.supervisor.peer_id)

    async def restart(self) -> None:
        """A worker dies, or all are replaced."""
        pids = self.supervisor.pids
        if pids and self.chance.random() < 0.5:
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        else:
            await self.supervisor.restart(timeout_s=1.0)

    def _addr(self) -> Multiaddr:
        return self.chance.choice(self.node.addrs_with_peer)

    async def go_on(self, kind: Callable[[], Awaitable[None]], pause_s: float, until: float) -> None:
        """One of a kind after the other. What a call may raise is counted; all else ends the soak."""
        name = getattr(kind, "__name__", "")
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(6 * CALL_S if kind == self.restart else CALL_S):
                    await kind()
                self.done[name] += 1
            except EXPECTED as error:
                self.done[f"{name}: {type(error).__name__}"] += 1
            await asyncio.sleep(pause_s * 2 * self.chance.random())


@contextlib.asynccontextmanager
async def churn(seed: int) -> AsyncIterator[Churn]:
    """Everything that the churn happens to; closed at the end."""
    both = {"muxers": ["yamux", "mplex"], "security": ["noise", "tls"]}
    with tempfile.TemporaryDirectory() as folder:
        listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", f"/unix/{folder}/node"]
        async with contextlib.AsyncExitStack() as stack:
            relay = RelayOptions(circuit_s=0, circuit_bytes=0)
            node = await stack.enter_async_context(
                Host(listen=listen, echo=True, relay_service=relay, **both)
            )
            behind = node.addrs_with_peer[0].encapsulate("/p2p-circuit")
            hidden = await stack.enter_async_context(Host(listen=[behind], echo=True))
            dialer = await stack.enter_async_context(Host(listen=(), **both))
            supervisor = await stack.enter_async_context(Supervisor(make, workers=2, drain_s=1.0))
            yield Churn(node, dialer, hidden, supervisor, seed)


async def soak(minutes: float, seed: int) -> list[Sample]:
    """The samples, one in a sixtieth of the time."""
    begun = time.monotonic()
    until = begun + 60 * minutes
    samples = []
    async with churn(seed) as all_of_it:
        tasks = [asyncio.ensure_future(all_of_it.go_on(*kind, until)) for kind in all_of_it.kinds()]
        while time.monotonic() < until:
            await asyncio.sleep(minutes)
            samples.append(sample(begun))
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        await asyncio.gather(*tasks)
        print(f"seed {seed}:", ", ".join(f"{name} {n}" for name, n in sorted(all_of_it.done.items())))
    return samples


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    found = slopes(run(soak(options.minutes, options.seed)))
    print(*found, sep="\n")
    return int(any(each.grows for each in found))


if __name__ == "__main__":
    sys.exit(main())
