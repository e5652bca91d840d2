"""The fleet checks: three machines of two workers each on one NATS, very many peers, and what is killed.

Comes in: a number of peers. Goes out: a line for each check with its figure and its bound; the exit status is
1 if a bound is missed. It starts everything itself on the loopback, and ends it.

    .venv/bin/python bench/fleet.py --peers 20000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from fleet_node import LINE_BYTES, WORKERS  # noqa: E402
from interop_builder import load_builder  # noqa: E402
from many_peers import ManyPeers  # noqa: E402
from p2pcore import run  # noqa: E402
from p2pcore.fleet.nats_bus import NatsBus  # noqa: E402
from p2pcore.fleet.presence import Presence  # noqa: E402

MACHINES = 3
PEER_PROCESSES = 2
PATIENCE_S = 600.0
WRITTEN = 20_000


class Checks:
    """Prints each check as it is made. `failed`: those that missed their bound."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def add(self, name: str, figure: object, is_good: bool, bound: str) -> None:
        print(f"{'ok  ' if is_good else 'MISS'} {name}: {figure} ({bound})", flush=True)
        if not is_good:
            self.failed.append(name)

    def note(self, name: str, figure: object) -> None:
        print(f"     {name}: {figure}", flush=True)


class Talker:
    """Sends commands, and reads their results: a line of JSON each."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path | None = None
    ) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()

    async def ask(self, command: str, **arguments: Any) -> Any:
        async with self._lock, asyncio.timeout(PATIENCE_S):
            self._writer.write(json.dumps((command, arguments)).encode() + b"\n")
            line = await self._reader.readline()
        if not line:
            raise ConnectionError(f"{command}: the process has ended")
        return json.loads(line)

    async def another(self) -> Talker:
        """One more to the same process, which does not wait for the commands of this one."""
        assert self._path is not None
        return Talker(*await asyncio.open_unix_connection(self._path, limit=LINE_BYTES))

    def close(self) -> None:
        self._writer.close()


class Program:
    """A process of ours that prints lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self.talk = Talker(process.stdout, process.stdin)
        self.lines = process.stdout

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class World:
    """Everything that runs."""

    def __init__(self, stack: AsyncExitStack, folder: Path, nats: tuple[str, ...]) -> None:
        self._stack = stack
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self._port = sock.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self._port}"
        config = {"listen": f"127.0.0.1:{self._port}", "jetstream": {"store_dir": str(folder / "js")}}
        (folder / "nats.conf").write_text(json.dumps(config))
        self._nats_command = (*nats, "--config", str(folder / "nats.conf"))
        self.nats: asyncio.subprocess.Process | None = None
        self.machines: dict[str, Program] = {}
        self.addrs: dict[str, str] = {}
        self.nodes: dict[str, Talker] = {}
        self.peers: list[Program] = []

    async def start_nats(self) -> None:
        log = (self._folder / "nats.log").open("ab")
        self.nats = await asyncio.create_subprocess_exec(*self._nats_command, stdout=log, stderr=log)
        self._stack.callback(_kill, self.nats)

    async def program(self, *command: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        )
        made = Program(process)
        self._stack.callback(made.kill)
        return made

    async def start_machine(self, name: str) -> None:
        made = await self.program(str(HERE / "fleet_node.py"), self.url, name, str(self._folder))
        self.machines[name] = made
        line = await made.lines.readline()
        self.addrs[name] = json.loads(line)[0]

    async def find_nodes(self) -> None:
        """Connects to the workers that there are, by the files of their sockets."""
        for talker in self.nodes.values():
            talker.close()
        self.nodes.clear()
        for path in self._folder.glob("*.sock"):
            try:
                reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
            except OSError:
                path.unlink()
                continue
            self.nodes[path.stem] = Talker(reader, writer, path)

    async def all_nodes(self, count: int) -> None:
        """Returns when there are so many workers, and all know each other."""
        for _ in range(600):
            await self.find_nodes()
            if len(self.nodes) == count:
                states = await self.states()
                if all(state["up"] and state["processes"] == count for state in states.values()):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"there are {len(self.nodes)} workers, not {count}, or they do not meet")

    async def states(self) -> dict[str, Any]:
        found = await asyncio.gather(*(node.ask("state") for node in self.nodes.values()))
        return dict(zip(self.nodes, found, strict=True))

    async def truth(self) -> dict[str, list[str]]:
        """The processes that each peer is connected to, as their hosts say."""
        truth: dict[str, list[str]] = {}
        for process, node in self.nodes.items():
            for peer in (await node.ask("peers"))["peers"]:
                truth.setdefault(peer, []).append(process)
        return truth

    async def of_peers(self, command: str, **arguments: Any) -> list[Any]:
        return await asyncio.gather(*(each.talk.ask(command, **arguments) for each in self.peers))

    async def connected(self) -> int:
        return sum(each["connected"] for each in await self.of_peers("connected"))


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


@asynccontextmanager
async def world(count: int) -> AsyncIterator[World]:
    """Three machines, and `count` peers that are not connected."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        made = World(stack, folder, nats_command())
        await made.start_nats()
        await asyncio.gather(*(made.start_machine(f"machine-{n}") for n in range(MACHINES)))
        await made.all_nodes(MACHINES * WORKERS)
        share = count // PEER_PROCESSES
        for _ in range(PEER_PROCESSES):
            program = await made.program(str(HERE / "fleet_peers.py"), str(share), *made.addrs.values())
            made.peers.append(program)
        yield made


def nats_command() -> tuple[str, ...]:
    """The nats-server that interop/ builds."""
    peer = load_builder().build("nats")
    if not peer.command:
        raise SystemExit(f"no nats-server: {peer.reason}")
    return tuple(peer.command)


def percentiles(values: Iterable[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


class Asked:
    """All requests that were made, and what became of them."""

    def __init__(self) -> None:
        self._next = 0
        self.done: list[tuple[int, str, bool, float]] = []

    cpu_s = 0.0

    async def run(self, nodes: Iterable[Talker], peers: list[str], count: int, **how: Any) -> list[Any]:
        """`count` requests from each node. Returns: what became of these."""
        calls = []
        for node in nodes:
            calls.append(self._one(node, peers, count, self._next, **how))
            self._next += count
        found = [each for many in await asyncio.gather(*calls) for each in many]
        self.done += found
        return found

    async def _one(self, node: Talker, peers: list[str], count: int, first: int, **how: Any) -> list[Any]:
        talker: Talker | None = None
        try:
            talker = await node.another()
            result = await talker.ask("ask", peers=peers, count=count, first=first, **how)
        except (ConnectionError, OSError):  # it was killed: nobody knows
            return []
        finally:
            if talker is not None:
                talker.close()
        self.cpu_s += result["cpu_s"]
        return [tuple(each) for each in result["done"]]


# -- the checks --------------------------------------------------------------------------------


async def check_presence(made: World, checks: Checks, name: str, expected: int, peers: list[str]) -> bool:
    """Whether all processes know exactly who is connected where.

    The peers themselves may lose connections: TCP gives some up where so many share a busy machine.
    """
    states = await made.states()
    counts = sorted({state["connected"] for state in states.values()})
    truth = await made.truth()
    is_good = counts == [sum(map(len, truth.values()))]
    sample = random.sample(peers, min(300, len(peers)))
    wrong = 0
    for node in made.nodes.values():
        places = (await node.ask("where", peers=sample))["places"]
        wrong += sum(
            found != ",".join(sorted(truth.get(peer, []))) for peer, found in zip(sample, places, strict=True)
        )
    asked = len(sample) * len(made.nodes)
    checks.note("subscribers", sum(state["subscribers"] for state in states.values()))
    checks.note("peers that are connected", f"{len(truth)} of {expected}")
    figure = f"{counts} connected, {wrong} of {asked} wrong"
    checks.add(name, figure, is_good and not wrong, "what the hosts say, 0")
    return is_good and not wrong


async def dial(made: World, checks: Checks, count: int) -> None:
    """Connects all peers. Those that have yet to notice the loss of their connection need a second turn."""
    failed: Counter[str] = Counter()
    seconds = 0.0
    for _ in range(10):
        for result in await made.of_peers("dial"):
            failed.update(result["failed"])
            seconds = max(seconds, result["seconds"])
        await asyncio.sleep(1)
        if await made.connected() == count:
            break
    checks.note("dialled in seconds", f"{seconds:.1f}")
    if failed:
        checks.note("dials that failed", dict(failed))


async def check_requests(made: World, checks: Checks, asked: Asked, peers: list[str], count: int) -> None:
    nodes = list(made.nodes.values())
    peers = list(set(peers) & set(await made.truth()))
    asked.cpu_s = 0.0
    found = await asked.run(nodes, peers, count, at_once=8, timeout_s=30)
    lost = Counter(outcome for _, outcome, _, _ in found if outcome != "delivered")
    p50, p99 = percentiles(ms for _, _, _, ms in found)
    checks.add(
        f"{len(found)} requests to random peers from {len(nodes)} processes at once: lost",
        dict(lost) or 0,
        not lost,
        "0",
    )
    checks.note("p50 and p99 of these", f"{p50:.1f} ms, {p99:.1f} ms")
    checks.note("CPU of a request, of all processes of the fleet", f"{1e6 * asked.cpu_s / len(found):.0f} us")


async def check_round_trip(made: World, checks: Checks, asked: Asked) -> None:
    """Requests one at a time, through the bus only, beside requests of the bus alone."""
    (_, node), (other, far) = list(made.nodes.items())[:2]
    peers = (await far.ask("peers"))["peers"]
    requests, firsts, trips = [], [], []
    known = peers[:20]
    await asked.run([node], known, 200, at_once=1, timeout_s=30)
    for turn in range(10):  # in turns, so that all meet the same machine
        requests += [ms for *_, ms in await asked.run([node], known, 100, at_once=1, timeout_s=30)]
        others = peers[20 + 20 * turn : 40 + 20 * turn]
        found = await asked.run([node], others, len(others), at_once=1, timeout_s=30, in_turn=True)
        firsts += [ms for *_, ms in found]
        trips += (await node.ask("round_trips", process=other, count=100, at_once=1))["ms"]
    ours, first, bus = percentiles(requests), percentiles(firsts), percentiles(trips)
    checks.note("a request through the bus, p50 and p99", f"{ours[0]:.2f} ms, {ours[1]:.2f} ms")
    checks.note("the first one to a peer", f"{first[0]:.2f} ms, {first[1]:.2f} ms")
    checks.note("a round trip of the bus alone", f"{bus[0]:.2f} ms, {bus[1]:.2f} ms")
    for name, took in (("a request", ours), ("the first one", first)):
        ratio = took[0] / bus[0]
        checks.add(f"{name} over a round trip of the bus", f"{ratio:.2f}x", ratio <= 3, "3x")


async def check_publish(made: World, checks: Checks) -> None:
    expected = sum(map(len, (await made.truth()).values()))
    for number, node in enumerate(random.sample(list(made.nodes.values()), 3)):
        message = f"news {number} {time.time_ns()}"
        began = (await node.ask("publish", message=message))["at"]
        count, last = 0, 0.0
        for _ in range(100):
            heard = await made.of_peers("news", message=message)
            count, last = sum(each["count"] for each in heard), max(each["last"] for each in heard)
            if count >= expected:
                break
            await asyncio.sleep(0.1)
        seconds = last - began
        figure = f"{count} after {seconds:.2f} s"
        is_good = count == expected and seconds <= 1
        checks.add(f"publish {number}: heard by", figure, is_good, f"{expected}, 1 s")


async def within(seconds: float, checks: Checks, name: str, right: Callable[[], Awaitable[bool]]) -> None:
    """Checks that `right()` is true within `seconds`."""
    began, is_right = time.monotonic(), await right()
    for _ in range(400):
        if is_right:
            break
        await asyncio.sleep(0.05)
        is_right = await right()
    took = time.monotonic() - began
    figure = f"{took:.2f} s" if is_right else "never"
    checks.add(name, figure, is_right and took <= seconds, f"{seconds:g} s")


async def counts_are_right(made: World) -> bool:
    states = (await made.states()).values()
    return {state["connected"] for state in states} == {sum(state["here"] for state in states)}


async def check_killed_worker(made: World, checks: Checks, asked: Asked, peers: list[str]) -> None:
    states = await made.states()
    victim = random.choice(list(states))
    lost = (await made.nodes[victim].ask("peers"))["peers"]
    others = {name: node for name, node in made.nodes.items() if name != victim}
    load = asyncio.ensure_future(asked.run(list(others.values()), peers, 400, at_once=4, timeout_s=5))
    await asyncio.sleep(1)
    os.kill(states[victim]["pid"], signal.SIGKILL)
    made.nodes.pop(victim).close()
    await within(2, checks, "presence right after kill -9 of a worker", lambda: counts_are_right(made))
    await load
    places = (await next(iter(others.values())).ask("where", peers=lost[:300]))["places"]
    checks.add("peers still said to be at it", sum(victim in each for each in places), True, "see above")
    await made.all_nodes(MACHINES * WORKERS)
    await dial(made, checks, len(peers))


async def check_killed_supervisor(made: World, checks: Checks, asked: Asked, peers: list[str]) -> None:
    name = random.choice(list(made.machines))
    machine = made.machines.pop(name)
    load = asyncio.ensure_future(
        asked.run(list(made.nodes.values()), peers, 400, at_once=4, timeout_s=5, pause_s=0.05)
    )
    await asyncio.sleep(1)
    machine.process.kill()
    await machine.process.wait()
    await load
    count = (MACHINES - 1) * WORKERS
    for _ in range(600):
        await made.find_nodes()
        if len(made.nodes) == count:
            break
        await asyncio.sleep(0.1)
    checks.add("workers that end with their supervisor", WORKERS, len(made.nodes) == count, f"{WORKERS}")
    await within(2, checks, "presence right after kill -9 of a supervisor", lambda: counts_are_right(made))
    await dial(made, checks, len(peers))  # to the others
    await asyncio.sleep(1)


async def check_killed_nats(made: World, checks: Checks, asked: Asked, peers: list[str]) -> None:
    assert made.nats is not None
    before = await made.connected()
    nodes = list(made.nodes.values())
    load = asyncio.ensure_future(asked.run(nodes, peers, 300, at_once=4, timeout_s=5, pause_s=0.1))
    await asyncio.sleep(1)
    made.nats.kill()
    await made.nats.wait()
    await asyncio.sleep(3)
    states = await made.states()
    knowing = sum(not state["up"] for state in states.values())
    checks.add("processes that know that NATS is away", knowing, knowing == len(nodes), f"{len(nodes)}")
    found = await asked.run(nodes, peers, 100, at_once=4, timeout_s=5)
    outcomes = Counter(outcome for _, outcome, _, _ in found)
    is_good = set(outcomes) <= {"delivered", "BUS_DOWN"} and outcomes["delivered"] > 0
    checks.add("without NATS: local delivered, others fail", dict(outcomes), is_good, "nothing else")
    slowest = max((ms for _, outcome, _, ms in found if outcome != "delivered"), default=0.0)
    checks.add("slowest failure", f"{slowest:.0f} ms", slowest < 500, "500 ms")
    checks.note("connections before, and 3 s after the end of NATS", f"{before}, {await made.connected()}")
    checks.note("why subscriptions have ended so far", await made.of_peers("ends"))
    leaving = max(1, before // 20)
    await made.of_peers("leave", count=leaving // PEER_PROCESSES)
    await asyncio.sleep(6)
    await load
    await made.start_nats()
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await within(2, checks, "presence right after NATS is back", lambda: counts_are_right(made))
    checks.note("counted from", f"0.3 s after its start, {time.monotonic() - began:.2f} s ago")


async def check_answers(made: World, checks: Checks, asked: Asked) -> None:
    """No wrong answer: what was delivered arrived once, what has certainly not arrived did not."""
    arrived: Counter[int] = Counter()
    for each in await made.of_peers("arrived"):
        arrived.update({int(number): count for number, count in each["got"].items()})
    outcomes = Counter(outcome for _, outcome, _, _ in asked.done)
    wrong: Counter[str] = Counter()
    for number, outcome, may_have_arrived, _ in asked.done:
        if outcome == "wrong answer" or arrived[number] > 1:
            wrong["answered wrongly or twice"] += 1
        elif outcome == "delivered" and not arrived[number]:
            wrong["said to be delivered"] += 1
        elif outcome != "delivered" and not may_have_arrived and arrived[number]:
            wrong["said not to have arrived"] += 1
    checks.note("all requests", dict(outcomes))
    checks.add("wrong answers", dict(wrong) or 0, not wrong, "0")


async def check_cost(made: World, checks: Checks) -> None:
    """CPU time of this process for entries of presence, without that of accepting connections.

    The smallest of three rounds counts: what else runs on the machine only adds to it.
    """
    took = []
    async with NatsBus(made.url) as bus:
        bucket = await bus.bucket("cost")
        for _ in range(3):
            presence = Presence(ManyPeers(WRITTEN), "cost", lambda: None)  # type: ignore[arg-type]
            presence.restore()
            began = time.process_time()
            while presence.has_changes:
                await presence.write(bucket)
            took.append(1e6 * (time.process_time() - began) / WRITTEN)
            await presence.withdraw(bucket)
    us = min(took)
    checks.add("CPU of presence for each connect", f"{us:.1f} us", us < 5, "5 us")


def packets_dropped() -> int:
    """Packets that the kernel has thrown away because a processor's queue was full, on the loopback too."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


async def main(count: int, requests: int) -> int:
    checks, asked = Checks(), Asked()
    dropped = packets_dropped()
    count -= count % PEER_PROCESSES
    async with world(count) as made:
        peers = [peer for each in await made.of_peers("start") for peer in each["peers"]]
        await check_cost(made, checks)
        await dial(made, checks, len(peers))
        await within(2, checks, "presence right after all have connected", lambda: counts_are_right(made))
        await check_presence(made, checks, "presence", count, peers)
        await check_requests(made, checks, asked, peers, requests)
        await check_round_trip(made, checks, asked)
        await check_publish(made, checks)
        rss = {state["pid"]: state["rss"] for state in (await made.states()).values()}
        await check_killed_worker(made, checks, asked, peers)
        await asyncio.sleep(1)
        await check_presence(made, checks, "presence with all connected again", count, peers)
        await check_killed_supervisor(made, checks, asked, peers)
        await check_presence(made, checks, "presence without that machine", count, peers)
        await check_killed_nats(made, checks, asked, peers)
        await dial(made, checks, len(peers))
        await asyncio.sleep(1)
        await check_presence(made, checks, "presence in the end", count, peers)
        await check_publish(made, checks)
        await check_requests(made, checks, asked, peers, requests // 4)
        await check_answers(made, checks, asked)
        for state in (await made.states()).values():
            if state["pid"] in rss:
                before, after = rss[state["pid"]] / 2**20, state["rss"] / 2**20
                peers_here = state["here"]
                checks.note(
                    f"worker {state['pid']}: memory before and after",
                    f"{before:.0f}, {after:.0f} MiB, {peers_here} peers in the end",
                )
    checks.note("packets that the kernel dropped (net.core.netdev_max_backlog)", packets_dropped() - dropped)
    print(f"missed: {', '.join(checks.failed) or 'none'}")
    return bool(checks.failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=2000, help="from each process")
    given = parser.parse_args()
    sys.exit(run(main(given.peers, given.requests)))
