"""Scale checks: very many connections held, spread over workers, or opened at once. Each figure has a bound.

Comes in: the names and sizes of checks. Goes out: a table, or with --json one JSON object; exit status 1 if a
bound is missed. Listener and dialers are processes, and nothing leaves 127.0.0.0/8. The kernel tells the CPU
time and the memory of the listener.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import scale_node
from p2pcore import Host, Multiaddr, Supervisor, WorkerEvent, run

HERE = Path(__file__).resolve().parent
WARM_UP = 512
"""Connections that each dialler first opens and closes, so that bounded caches are full at the start."""
IDLE_WATCH_S = 10.0
SETTLE_SLICE_S = 0.2
"""Wait after a slice, for identify of its last connections."""
ROUNDS = 16
FEW = 1_000
"""Connections of the listener that the full one is compared with."""
SETTLE_S = 60.0
LINE_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured: its value, and the bound it must keep."""

    check: str
    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within its bound."""
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    @property
    def bound(self) -> str:
        """The text in the table."""
        texts = (
            f">= {self.least:g}" if self.least is not None else "",
            f"<= {self.most:g}" if self.most is not None else "",
        )
        return " and ".join(text for text in texts if text)


def cpu_s(pid: int) -> float:
    """CPU time of all threads of `pid`, to the nanosecond."""
    spent = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        spent += int(path.read_text().split()[0])
    return spent / 1e9


def rss_mb(pid: int) -> float:
    """Resident memory of `pid`, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Dialler:
    """A process of scale_dialer.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, *words: object) -> dict[str, float]:
        """Sends a command. Returns: its answer."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(" ".join(map(str, words)).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, float]:
        """The next line."""
        stdout = self._process.stdout
        assert stdout is not None
        line = await asyncio.wait_for(stdout.readline(), LINE_LIMIT_S)
        if not line:
            raise RuntimeError("a dialler ended")
        answer: dict[str, float] = json.loads(line)
        return answer


@asynccontextmanager
async def dialler(addr: Multiaddr, net: str, hosts: int = 64) -> AsyncIterator[Dialler]:
    """A dialler that dials from the addresses of `net`."""
    command = (sys.executable, str(HERE / "scale_dialer.py"), str(addr), "--net", net, "--hosts", str(hosts))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        one = Dialler(process)
        await one.answer()
        yield one
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def diallers(addr: Multiaddr, count: int) -> AsyncIterator[list[Dialler]]:
    """Several diallers, each with its own 64 addresses."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(dialler(addr, f"127.8.{at}")) for at in range(count)]


@asynccontextmanager
async def listening(workers: int) -> AsyncIterator[Supervisor]:
    """The node under test."""
    lost: list[WorkerEvent] = []

    def watch(event: WorkerEvent) -> None:
        if event.kind == "exited":
            lost.append(event)

    supervisor = Supervisor(scale_node.make, workers=workers, drain_s=2.0, on_event=watch)
    async with supervisor:
        yield supervisor
        if lost:
            raise RuntimeError(f"workers died: {lost}")


async def trim(addr: Multiaddr) -> None:
    """Lets the listener give memory back."""
    async with Host(listen=(), identify=False) as host:
        stream = await host.new_stream(addr, scale_node.TRIM)
        await stream.read()
        await stream.close()


async def num_conns(supervisor: Supervisor) -> int:
    """Connections all workers hold."""
    return sum(each.conns for each in await supervisor.status())


async def settled(supervisor: Supervisor, conns: int) -> None:
    """Returns when the workers hold `conns`, or after SETTLE_S: a dialler is done a little earlier."""
    for _ in range(int(SETTLE_S * 10)):
        if await num_conns(supervisor) == conns:
            return
        await asyncio.sleep(0.1)


async def tell_all(all_of_them: Sequence[Dialler], *words: object) -> list[dict[str, float]]:
    """Sends the same command to each dialler, at once."""
    return await asyncio.gather(*(each.tell(*words) for each in all_of_them))


async def check_held(total: int, slices: int) -> list[Figure]:
    """`total` connections held by one process, half of them with a stream."""
    async with (
        listening(1) as supervisor,
        diallers(supervisor.addrs_with_peer[0], 2) as dialling,
    ):
        (pid,), addr = supervisor.pids, supervisor.addrs_with_peer[0]
        await tell_all(dialling, "dial", WARM_UP, 2)
        await tell_all(dialling, "close")
        await settled(supervisor, 0)
        await trim(addr)
        rss_start = rss_mb(pid)
        in_turns = max(total // 18, len(dialling) * ROUNDS)
        failed = await _dial_in_slices(dialling, pid, total - in_turns, slices)
        few, many = await _in_turns(dialling[0], pid, min(FEW, total // 2), in_turns)
        await asyncio.sleep(2)
        rss_full, held = rss_mb(pid), await num_conns(supervisor)
        idle = await _idle_share(pid)
        loads = await tell_all(dialling, "load", 200, 512)
        await tell_all(dialling, "close")
        await settled(supervisor, 0)
        left = await num_conns(supervisor)
        await trim(addr)
        rss_end = rss_mb(pid)
    name = "held"
    return [
        Figure(name, "connections held", held, "", least=total),
        Figure(name, "dials that failed", failed, "", most=0),
        Figure(name, "CPU per accept, few held", few * 1e6, "us"),
        Figure(name, "CPU per accept, all but the last held", many * 1e6, "us"),
        Figure(name, "CPU per accept, many to few", many / few, "x", most=1.15),
        Figure(name, "memory per connection", (rss_full - rss_start) * 1e3 / total, "KB"),
        Figure(name, "idle CPU", idle * 100, "% of a core", most=1.0),
        Figure(name, "pings unanswered under load", sum(each["failed"] for each in loads), "", most=0),
        Figure(name, "slowest of 400 pings under load", max(each["slowest_ms"] for each in loads), "ms"),
        Figure(name, "connections left after closing", left, "", most=0),
        Figure(name, "memory at the start", rss_start, "MB"),
        Figure(name, "memory when full", rss_full, "MB"),
        Figure(name, "memory after closing, to the start", rss_end / rss_start, "x", most=1.10),
    ]


async def _dial_in_slices(dialling: Sequence[Dialler], pid: int, total: int, slices: int) -> float:
    """Fills the listener; shows the CPU time of each slice. Returns: how many dials failed."""
    failed, left = 0.0, total
    for number in range(slices):
        count = left // (slices - number)
        left -= count
        shares = [count // len(dialling) + (at < count % len(dialling)) for at in range(len(dialling))]
        before = cpu_s(pid)
        answers = await asyncio.gather(
            *(each.tell("dial", share, 2) for each, share in zip(dialling, shares, strict=True))
        )
        await asyncio.sleep(SETTLE_SLICE_S)
        print(f"  {(cpu_s(pid) - before) / count * 1e6:.0f} us", end="", file=sys.stderr, flush=True)
        failed += sum(answer["failed"] for answer in answers)
    print(file=sys.stderr)
    return failed


async def _in_turns(full: Dialler, pid: int, few: int, count: int) -> tuple[float, float]:
    """CPU seconds of an accept where `few` connections are held, and at the full listener; `count` more each.

    They take turns, so other load of the machine affects both.
    """
    costs: tuple[list[float], list[float]] = ([], [])
    async with listening(1) as other, dialler(other.addrs_with_peer[0], "127.8.9") as fresh:
        await fresh.tell("dial", few, 2)
        sides = ((fresh, other.pids[0], costs[0]), (full, pid, costs[1]))
        for number in range(ROUNDS):
            share = count // ROUNDS + (number < count % ROUNDS)
            for side, its_pid, its_costs in sides:
                before = cpu_s(its_pid)
                await side.tell("dial", share, 2)
                await asyncio.sleep(SETTLE_SLICE_S)
                its_costs.append((cpu_s(its_pid) - before) / share)
        await fresh.tell("close")
    return statistics.median(costs[0]), statistics.median(costs[1])


async def _idle_share(pid: int) -> float:
    before = cpu_s(pid)
    await asyncio.sleep(IDLE_WATCH_S)
    return (cpu_s(pid) - before) / IDLE_WATCH_S


async def check_workers(total: int, workers: int) -> list[Figure]:
    """`total` connections over `workers` processes."""
    async with (
        listening(workers) as supervisor,
        diallers(supervisor.addrs_with_peer[0], 4) as dialling,
    ):
        answers = await tell_all(dialling, "dial", total // 4, 0)
        await settled(supervisor, total)
        status = await supervisor.status()
        counts = [each.conns for each in status]
        even = total / workers
        loads = await tell_all(dialling, "load", 50, 128)
        await tell_all(dialling, "close")
        await settled(supervisor, 0)
        left = await num_conns(supervisor)
    name = "workers"
    return [
        Figure(name, "connections held", sum(counts), "", least=total),
        Figure(name, "dials that failed", sum(each["failed"] for each in answers), "", most=0),
        Figure(name, "least of a worker, to even", min(counts) / even, "x", least=0.9),
        Figure(name, "most of a worker, to even", max(counts) / even, "x", most=1.1),
        Figure(name, "CPU per connection", sum(each.cpu_s for each in status) / total * 1e6, "us"),
        Figure(name, "memory of a worker", max(each.rss_bytes for each in status) / 1e6, "MB"),
        Figure(name, "pings unanswered under load", sum(each["failed"] for each in loads), "", most=0),
        Figure(name, "connections left after closing", left, "", most=0),
    ]


async def check_storm(honest: int, silent: int) -> list[Figure]:
    """All connections at once; some peers never say anything."""
    async with listening(1) as supervisor:
        addr, (pid,) = supervisor.addrs_with_peer[0], supervisor.pids
        async with diallers(addr, 3) as dialling, dialler(addr, "127.9.1", 1) as mute:
            await tell_all(dialling, "storm", 64)
            await tell_all(dialling, "close")
            await settled(supervisor, 0)
            await trim(addr)
            rss_start = rss_mb(pid)
            hushing = asyncio.create_task(mute.tell("hush", silent))
            served = await tell_all(dialling, "storm", honest // 3)
            hushed = await hushing
            rss_full = rss_mb(pid)
            kept = await mute.tell("hushed")
            await tell_all(dialling, "close")
            await settled(supervisor, 0)
            await trim(addr)
            rss_end = rss_mb(pid)
    name = "storm"
    return [
        Figure(name, "honest peers served", sum(each["served"] for each in served), "", least=honest),
        Figure(name, "the last after", max(each["seconds"] for each in served), "s"),
        Figure(name, "silent peers connected", hushed["silent"], "", least=silent),
        Figure(name, "silent peers left after the deadline", kept["left"], "", most=0),
        Figure(name, "memory in the storm", rss_full, "MB"),
        Figure(name, "memory after it, to the start", rss_end / rss_start, "x", most=1.10),
    ]


def show(figures: Sequence[Figure]) -> None:
    """The table."""
    width = max(len(each.name) for each in figures)
    for each in figures:
        verdict = "" if not each.bound else "ok" if each.holds else "MISSED"
        value = f"{each.value:,.2f}".rstrip("0").rstrip(".")
        line = f"{each.check:<8} {each.name:<{width}} {value:>12} {each.unit:<12} {each.bound:<10} {verdict}"
        print(line.rstrip(), flush=True)


def main() -> int:
    """The command line. Returns: 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", help="held, workers, storm; all by default")
    parser.add_argument("--held", type=int, default=18_000, help="connections one process holds")
    parser.add_argument("--slices", type=int, default=18)
    parser.add_argument("--spread", type=int, default=60_000, help="connections over the workers")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--honest", type=int, default=3_000)
    parser.add_argument("--silent", type=int, default=2_000)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # workers and dialers inherit it
    checks = {
        "held": lambda: check_held(options.held, options.slices),
        "workers": lambda: check_workers(options.spread, options.workers),
        "storm": lambda: check_storm(options.honest, options.silent),
    }
    figures: list[Figure] = []
    for name in options.checks or checks:
        measured = run(checks[name]())
        figures += measured
        if not options.json:
            show(measured)
    holds = all(each.holds for each in figures)
    if options.json:
        rows = [asdict(each) | {"holds": each.holds} for each in figures]
        print(json.dumps({"holds": holds, "figures": rows}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
