"""Memory rows: what is alive for each idle connection, each open stream, each frame.

Goes out: figures. Each measurement is a process with a fixed hash seed: one for objects and Python-level
allocations, and several without tracemalloc for resident memory, of which the least counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any, Self

from gates.verdict import Figure

BENCH = Path(__file__).parents[1]
TIMEOUT_S = 600.0
COUNTED = (100, 600)
"""Connections between which objects are counted."""
RESIDENT = tuple(range(500, 3501, 500))
"""Numbers of connections at which resident memory is read. It grows by whole arenas of Python's allocator;
a line through many points smooths these steps. The last is below a common limit of descriptors."""
ROUNDS = 3
"""Chance in the allocator makes a figure larger, never smaller, so the least of these runs counts."""
FRAME_SLACK = 0.02
"""Objects for each frame: what the interpreter's own caches may add, divided by 2,000 frames."""


def measure_counts() -> Iterator[Figure]:
    """Python-level rows."""
    idle = _idle(COUNTED, trace=True)
    for side in ("listener", "dialer"):
        name = f"idle connection, {side}"
        yield Figure(f"{name}: objects", idle[side]["objects"], "objects", 0.02)
        yield Figure(f"{name}: allocations", idle[side]["blocks"], "blocks", 0.1)
        yield Figure(f"{name}: Python bytes", idle[side]["traced"], "bytes", 8)
    stream = _once("streams")
    yield Figure("open stream, both ends: objects", stream["objects"], "objects", 0.02)
    yield Figure("open stream, both ends: allocations", stream["blocks"], "blocks", 0.1)
    yield Figure("open stream, both ends: Python bytes", stream["traced"], "bytes", 8)
    frame = _once("frames")
    yield Figure("frame of 1KiB read: objects left", frame["objects"], "objects", FRAME_SLACK)
    yield Figure("frame of 1KiB read: allocations left", frame["blocks"], "blocks", FRAME_SLACK)


def measure_resident() -> Iterator[Figure]:
    """Resident bytes of an idle connection."""
    if not sys.platform.startswith("linux"):
        return
    runs = [_idle(RESIDENT, trace=False)["listener"]["rss"] for _ in range(ROUNDS)]
    yield Figure("idle connection, listener: resident bytes", min(runs), "bytes")


class _Process:
    """A process of idle_ends.py: a question is a line, an answer is a line."""

    def __init__(self, trace: bool, *arguments: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "gates.idle_ends", *arguments],
            cwd=BENCH,
            env=_environment(trace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate()

    def say(self, line: str) -> None:
        """Asks."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{line}\n")
        self._popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Waits for its answer; the process gives up by itself if it waits too long."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError("a process of the memory gates ended early; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _idle(counts: Sequence[int], trace: bool) -> dict[str, dict[str, float]]:
    """The memory of one connection on each side: the slope over these numbers of connections."""
    with _Process(trace, "listen") as listener:
        target = listener.answer()["addr"]
        with _Process(trace, "dial", target) as dialer:
            said = []
            for count in counts:
                dialer.say(str(count))
                held = dialer.answer()
                listener.say(str(count))
                said.append({"dialer": held, "listener": listener.answer()})
    return {
        side: {key: _slope(counts, [each[side][key] for each in said]) for key in said[0][side]}
        for side in said[0]
    }


def _slope(counts: Sequence[int], values: Sequence[float]) -> float:
    return linear_regression(counts, values).slope


def _once(mode: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "gates.stream_ends", mode],
        cwd=BENCH,
        env=_environment(trace=True),
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _environment(trace: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MALLOC_"))}
    kept |= {"PYTHONHASHSEED": "0", "PYTHONPATH": str(BENCH)}
    return kept | ({"PYTHONTRACEMALLOC": "1"} if trace else {})
