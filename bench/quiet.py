"""How much else a machine does while something is measured.

Comes in: nothing; it asks the kernel. Goes out: a number of cores. Work of this process and of its children
that have ended is not "else". Needs Linux; elsewhere it does not know.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

STAT = Path("/proc/stat")
OTHERS = "others"
"""The figure of each sample that says how many cores other work took."""
QUIET_CORES = 0.05
"""A sample is quiet if other work took less: about what a machine does that nobody uses."""
BUSY = (0, 1, 2, 7)
"""The fields of /proc/stat: user, nice, system, steal. Interrupts are mostly those of the measured work."""


class Watch:
    """Begins to look when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = _busy_s() - _own_s()

    def others(self) -> dict[str, float]:
        """The cores that other work has taken on average since then, as a figure; none if nobody knows."""
        if not STAT.exists():
            return {}
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {OTHERS: max(0.0, (_busy_s() - _own_s() - self._before) / seconds)}


def _busy_s() -> float:
    """CPU seconds of the whole machine since it began, or nothing where the kernel does not tell."""
    if not STAT.exists():
        return 0.0
    fields = STAT.read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[place]) for place in BUSY) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in spent)
