"""Runs works under callgrind, and reads its profiles.

Comes in: names of works, a parser of profiles. Goes out: for each work, the parser's figure for
2N times minus its figure for N times. All works run in one process, which starts only once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gates.counted import MARK

BENCH = Path(__file__).parents[1]
TIMEOUT_S = 900.0
MARKS = 3
"""Marks of each work: before N, before 2N, after."""

Parser = Callable[[Iterable[str]], "Counter[str]"]


def is_available() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def slopes(names: Sequence[str], parse: Parser, **environment: str) -> Iterator[tuple[str, Counter[str]]]:
    """Each name with the figure for N times of its work.

    Raises: RuntimeError: a work failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        _run(names, folder, environment)
        for index, name in enumerate(names):
            once, twice = (_parsed(f"{folder}/part.{MARKS * index + number}", parse) for number in (2, 3))
            twice.subtract(once)
            yield name, twice


def _run(names: Sequence[str], folder: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--dump-before={MARK}",
            "--collect-systime=yes",
            f"--callgrind-out-file={folder}/part",
            *(sys.executable, "-m", "gates.counted", *names),
        ],
        cwd=BENCH,
        env=_environment() | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"counting failed:\n{done.stdout}\n{done.stderr[-4000:]}")


def _environment() -> dict[str, str]:
    """An environment that does not change the count: a fixed hash seed, and no settings of the user."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MALLOC_"))}
    return kept | {
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(BENCH),
        "GLIBC_TUNABLES": "",
        "LC_ALL": "C.UTF-8",
    }


def _parsed(path: str, parse: Parser) -> Counter[str]:
    with open(path) as lines:
        return parse(lines)


def self_cost(lines: Iterable[str]) -> Counter[str]:
    """Self cost by object in callgrind's profile format ("ob=(3) path", later "ob=(3)").

    A line of cost is "position cost"; the one after a "calls=" is the callee's, and counted there.
    """
    paths: dict[str, str] = {}
    costs: Counter[str] = Counter()
    current = ""
    is_inclusive = False
    for line in lines:
        first = line[:1]
        if first and first in "0123456789+-*":
            if not is_inclusive:
                costs[current] += int(line.split()[1])
            is_inclusive = False
        elif line.startswith(("ob=", "cob=")):
            path = _full_name(line, paths)
            if first == "o":
                current = path
        elif line.startswith("calls="):
            is_inclusive = True
    return costs


def calls(lines: Iterable[str]) -> Counter[str]:
    """Calls of each function, by name."""
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    callee = ""
    for line in lines:
        if line.startswith(("fn=", "cfn=")):
            callee = _full_name(line, names)
        elif line.startswith("calls="):
            found[callee] += int(line[len("calls=") :].split()[0])
    return found


def system_calls(lines: Iterable[str]) -> int:
    """How many system calls a profile has: "totals:" has the sums of what "events:" names.

    Sums that are zero may be missing at the end.
    """
    names: list[str] = []
    for line in lines:
        kind, _, rest = line.partition(":")
        if kind == "events":
            names = rest.split()
        elif kind == "totals":
            sums = dict(zip(names, map(int, rest.split()), strict=False))
            return sums.get("sysCount", 0)
    raise RuntimeError("the profile has no totals")


def _full_name(line: str, known: dict[str, str]) -> str:
    """The name in "xx=(3) name", which is kept; for "xx=(3)", the name kept before."""
    key, _, name = line.rstrip().partition("=")[2].partition(" ")
    if name:
        known[key] = name
    return known[key]
