"""Instructions per operation, counted by callgrind.

Comes in: works. Goes out: a Figure for each, and one more where libsodium and OpenSSL have a part in it. What
is counted is (2N times) - (N times), so that nothing but the operation itself remains, less the instructions
spent inside the libraries of the primitives: those are not ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gates.counted import MARK
from gates.verdict import INTERPRETER, PRIMITIVES, Figure
from gates.works import WORKS, Work

BENCH = Path(__file__).parents[1]
TIMEOUT_S = 900.0
LIBRARIES = ("_sodium.", "libsodium", "libcrypto", "/cryptography/")
"""In the path of a library of primitives; cryptography's own glue counts as part of it."""
MARKS = 3
"""Marks of each work: before N, before 2N, after."""


def is_available() -> bool:
    """Whether there is a valgrind to count with."""
    return shutil.which("valgrind") is not None


def measure(names: Sequence[str]) -> Iterator[Figure]:
    """Counts the works of these names, all in one process, so that starting it is paid once."""
    with tempfile.TemporaryDirectory() as folder:
        _run(names, Path(folder))
        for index, name in enumerate(names):
            once, twice = (_objects(Path(folder) / f"part.{MARKS * index + number}") for number in (2, 3))
            yield from _figures(WORKS[name], twice - once)


def _run(names: Sequence[str], folder: Path) -> None:
    command = [
        "valgrind",
        "--tool=callgrind",
        f"--dump-before={MARK}",
        f"--callgrind-out-file={folder}/part",
        sys.executable,
        "-m",
        "gates.counted",
        *names,
    ]
    done = subprocess.run(
        command, cwd=BENCH, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"counting failed:\n{done.stdout}\n{done.stderr[-4000:]}")


def _environment() -> dict[str, str]:
    """One that does not change what is counted: no hash seed of its own, no settings of whoever runs it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MALLOC_"))}
    return kept | {
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(BENCH),
        "GLIBC_TUNABLES": "",
        "LC_ALL": "C.UTF-8",
    }


def _figures(work: Work, by_object: Counter[str]) -> Iterator[Figure]:
    times = work.count * work.per
    inside = sum(count for path, count in by_object.items() if any(part in path for part in LIBRARIES))
    yield Figure(work.name, (by_object.total() - inside) / times, "instructions", needs=INTERPRETER)
    if work.has_primitives:
        yield Figure(f"{work.name}: primitives", inside / times, "instructions", needs=PRIMITIVES)


def _objects(path: Path) -> Counter[str]:
    """Instructions of a part by library: the self cost of all functions in it."""
    with path.open() as lines:
        return self_cost(lines)


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
            key, _, path = line.rstrip().partition("=")[2].partition(" ")
            if path:
                paths[key] = path
            if first == "o":
                current = paths[key]
        elif line.startswith("calls="):
            is_inclusive = True
    return costs
