"""Runs a row: a node, an honest client and attackers, each a process of its own.

Comes in: a Row, the command of a node. Goes out: figures by name. The node has one core; the others share
another one. Memory and descriptors of the node are read from /proc all the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks import place
from attacks.cli_node import CliNode
from attacks.rows import Row
from peers import Cores, Listener, Peer, PeerFailure, Process

Line = dict[str, Any]
Figures = dict[str, float]

HELD_PER_S, FRESH_PER_S = 50.0, 10.0
WARM_S = 1.0
SPARE_S = 60.0
"""How long a process may be late with its answer: the honest client has patience, too."""
LOOK_S = 0.05
DESCRIPTORS_EVERY = 10
ADDRESSES = 40
"""Addresses of one attacker process; the next one begins behind them."""


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds at rest, of an attack (unless the row says otherwise), and from its end to the last look."""

    rest_s: float
    attack_s: float
    settle_s: float


class Watch:
    """The peaks of a process, from another thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.rss_mb = self.descriptors = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        number = 0
        while not self._done.wait(LOOK_S):
            with contextlib.suppress(OSError):
                self.rss_mb = max(self.rss_mb, rss_mb(self._pid))
                if number % DESCRIPTORS_EVERY == 0:
                    self.descriptors = max(self.descriptors, descriptors(self._pid))
            number += 1


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> int:
    """Open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def module(name: str, *arguments: object) -> tuple[str, ...]:
    """The command of one of our processes."""
    return (sys.executable, "-m", f"attacks.{name}", *map(str, arguments))


class Honest(Process):
    """The honest client."""

    def __init__(self, core: int | None, addr: str, is_behind: bool) -> None:
        super().__init__(module("honest", addr, *(["--behind"] if is_behind else [])), core)
        self.target: str | None = self.answer(SPARE_S)["target"]

    def measure(self, seconds: float) -> Line:
        """Its figures of so many seconds."""
        self.begin(seconds, 0, 0)
        return self.answer(seconds + SPARE_S)

    def begin(self, seconds: float, slow: int, dead: int) -> None:
        """The same; `answer` has them later."""
        self.say(f"measure {seconds} {HELD_PER_S} {FRESH_PER_S} {slow} {dead}")


@contextlib.contextmanager
def _attackers(
    row: Row, core: int | None, addr: str, target: str | None, seconds: float
) -> Iterator[list[Process]]:
    """All attackers, ready and not yet started."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(row.processes):
            settings = {
                **row.settings,
                "first": number * ADDRESSES,
                **({"target": target} if target else {}),
            }
            pairs = [f"{name}={value}" for name, value in settings.items()]
            command = module("attacker", row.attack, addr, seconds, *pairs)
            found.append(stack.enter_context(Process(command, core)))
        for each in found:
            each.answer(SPARE_S)
        yield found


def _node(row: Row, peer: Peer, options: tuple[str, ...], core: int | None) -> Listener:
    soft, hard = row.nofile
    limits, addr = ("prlimit", f"--nofile={soft}:{hard}"), f"/ip4/{place.node()}/tcp/0"
    if row.cli is not None:
        return CliNode(limits, core, "--addr", addr, *row.cli)
    return Listener(Peer(peer.name, (*limits, *peer.command)), core, "-addr", addr, *options, op=row.op)


def run_row(row: Row, peer: Peer, options: tuple[str, ...], cores: Cores, durations: Durations) -> Line:
    """All figures of a row. Raises PeerFailure: the node, or another process, ended or said nothing."""
    seconds = row.seconds or durations.attack_s
    with (
        _node(row, peer, options, cores.listener) as node,
        Honest(cores.dialer, node.address, row.behind) as honest,
    ):
        honest.measure(WARM_S)
        node.ask("gc")
        rest = honest.measure(durations.rest_s)
        start = node.ask("stat")
        with (
            Watch(node.pid) as watch,
            _attackers(row, cores.dialer, node.address, honest.target, seconds) as attackers,
        ):
            before = time.monotonic(), node.ask("stat")["cpu"]
            for each in attackers:
                each.say("go")
            honest.begin(seconds, row.slow, row.dead)
            told = node.stop_a_worker() if row.stops_worker and isinstance(node, CliNode) else {}
            seen = [_counts(each, seconds) for each in attackers]
            attacked = honest.answer(seconds + SPARE_S)
            cpu = _cpu(node, before)
        time.sleep(durations.settle_s)
        after = node.ask("stat")
    return {
        "row": row.name,
        "rest": rest,
        "attack": attacked,
        "seen": seen,
        "figures": _rounded(
            _seen(attacked, ""),
            _seen(rest, "rest "),
            _compared(rest, attacked, seconds / durations.rest_s),
            _memory(start, after, watch),
            _counted(seen, seconds),
            told,
            {"cpu of the node": cpu},
        ),
    }


def _counts(attacker: Process, seconds: float) -> Line:
    try:
        return attacker.answer(seconds + SPARE_S)
    except PeerFailure as failure:
        return {"failed": str(failure)}


def _cpu(node: Listener, before: tuple[float, float]) -> float:
    try:
        return (node.ask("stat")["cpu"] - before[1]) / (time.monotonic() - before[0])
    except PeerFailure:
        return float("nan")


def _seen(measured: Line, when: str) -> Figures:
    names = ("done", "failed", "p50", "p99", "max")
    return {f"{kind} {when}{name}": each[name] for kind, each in measured.items() for name in names}


def _compared(rest: Line, attacked: Line, longer: float) -> Figures:
    found: Figures = {}
    for kind in rest.keys() & attacked.keys():
        before, now = rest[kind], attacked[kind]
        found[f"{kind} done / rest"] = now["done"] / longer / before["done"] if before["done"] else 0.0
        found[f"{kind} p50 / rest"] = now["p50"] / before["p50"] if before["p50"] else 0.0
        found[f"{kind} p99 over rest"] = now["p99"] - before["p99"]
    return found


def _counted(seen: list[Line], seconds: float) -> Figures:
    """What all attackers counted, together; and each count for a second."""
    found: Figures = {}
    for each in seen:
        for name, value in each.items():
            if isinstance(value, (int, float)):
                found[f"attacker {name}"] = found.get(f"attacker {name}", 0.0) + value
    if found.get("attacker first ms"):
        found["attacker last / first"] = found["attacker last ms"] / found["attacker first ms"]
    return found | {f"{name} a second": value / seconds for name, value in found.items()}


def _memory(start: Line, after: Line, watch: Watch) -> Figures:
    return {
        "memory start": start["rss"] / 1e6,
        "memory peak": watch.rss_mb,
        "memory peak over start": watch.rss_mb - start["rss"] / 1e6,
        "memory after": after["rss"] / 1e6,
        "memory after / start": after["rss"] / start["rss"],
        "descriptors peak": watch.descriptors,
    }


def _rounded(*groups: Figures) -> Figures:
    return {name: round(value, 3) for group in groups for name, value in group.items()}
