"""The rounds: in each, every contender does every work once, and they take turns in going first.

Comes in: works, peers, the number of rounds. Goes out: `Results`. A contender that fails is noted and tried
again in later rounds, at most MAX_FAILURES times; a contender that lacks what a work needs is absent from it.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from peers import PeerFailure, pinned
from quiet import Watch
from results import Results, without_paths
from rows import LIMIT, OURS
from works import Rig, Work

MAX_FAILURES = 2
"""For one contender in one work: a deadline can be two minutes long."""
IMPORTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing to measure."""

    round: int
    work: Work
    contender: str


def contenders(work: Work, rig: Rig) -> list[str]:
    """The contenders that take part in a work."""
    if any(name not in rig.peers for name in work.needs):
        return []
    return list(work.contenders or (name for name in rig.peers if name != LIMIT or work.has_limit))


def find_absent(works: Iterable[Work], rig: Rig) -> dict[str, dict[str, str]]:
    """By work and peer, why the peer cannot listen with the options of the work."""
    absent: dict[str, dict[str, str]] = {}
    known: dict[tuple[str, tuple[str, ...]], str | None] = {}
    for work in works:
        for name in contenders(work, rig) if work.options else ():
            key = name, work.options
            if key not in known:
                known[key] = _why_not(rig, *key)
            reason = known[key]
            if reason is not None:
                absent.setdefault(work.name, {})[name] = reason
    return absent


def _why_not(rig: Rig, name: str, options: tuple[str, ...]) -> str | None:
    try:
        rig.listener(name, *options).close()
    except PeerFailure as failure:
        return without_paths(str(failure))
    return None


def turns(works: Iterable[Work], rig: Rig, rounds: int, absent: dict[str, dict[str, str]]) -> Iterator[Turn]:
    """Everything to measure, in order: in each round the next contender goes first."""
    for number in range(rounds):
        for work in works:
            names = [name for name in contenders(work, rig) if name not in absent.get(work.name, {})]
            first = number % len(names) if names else 0
            for name in names[first:] + names[:first]:
                yield Turn(number, work, name)


def import_times() -> list[str]:
    """The modules of a node that take longest to import, without their own imports, longest first."""
    command = [sys.executable, "-X", "importtime", "-c", "from p2pcore import Host"]
    subprocess.run(command, capture_output=True, check=True)  # writes the byte code there may not be yet
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    found = []
    for line in lines:
        own, _, module = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            found.append((int(own), module.strip()))
    return [f"{own / 1e3:.1f} ms {module}" for own, module in sorted(found, reverse=True)[:IMPORTS_SHOWN]]


def run(works: tuple[Work, ...], rig: Rig, results: Results, console: Console) -> None:
    """Fills `results`."""
    results.absent = find_absent(works, rig)
    todo = list(turns(works, rig, results.rounds, results.absent))
    failed: Counter[tuple[str, str]] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, refresh_per_second=2
    ) as progress:
        task = progress.add_task("", total=len(todo))
        for turn in todo:
            key = turn.work.name, turn.contender
            label = f"round {turn.round + 1}: {turn.work.name} {turn.contender}"
            progress.update(task, description=f"{label:<32}")
            if failed[key] < MAX_FAILURES and not _take(turn, rig, results, progress.console):
                failed[key] += 1
            progress.advance(task)
    if OURS in rig.peers and any(work.name == "import" for work in works):
        with pinned(rig.cores.dialer):
            results.imports = import_times()


def _take(turn: Turn, rig: Rig, results: Results, console: Console) -> bool:
    """Measures once; False if it failed."""
    watch = Watch()
    try:
        figures = turn.work.measure(rig, turn.contender)
    except PeerFailure as failure:
        what = without_paths(str(failure))
        console.print(f"{turn.work.name}, {turn.contender}: {what}", style="red", markup=False)
        results.failures.append({"work": turn.work.name, "contender": turn.contender, "what": what})
        return False
    results.add(turn.work.name, turn.contender, figures | watch.others())
    return True
