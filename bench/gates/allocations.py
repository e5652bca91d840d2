"""Allocations per operation: how often it asks for memory, even if it frees it at once.

Goes out: a Figure for each of WHERE. Python uses malloc here, so callgrind sees each request.
Objects from Python's free lists do not count. Requests of libuv and OpenSSL count too.
"""

from __future__ import annotations

from collections.abc import Iterator

from gates.callgrind import calls, slopes
from gates.verdict import Figure
from gates.works import WORKS

WHERE = (
    "yamux: data frame 1KiB received",
    "stream: 1KiB written and read",
    "stream: opened, echo 32B, closed",
    "connection: dialled, accepted, closed",
)
FUNCTIONS = ("malloc", "calloc", "realloc")
REQUESTS = {*FUNCTIONS, *(f"__libc_{name}" for name in FUNCTIONS)}
"""Each function has two names in the C library."""
SLACK = 0.25


def measure() -> Iterator[Figure]:
    """One figure for each of WHERE."""
    for name, counts in slopes(WHERE, calls, PYTHONMALLOC="malloc"):
        work = WORKS[name]
        requests = sum(counts[each] for each in REQUESTS)
        if not requests:
            raise RuntimeError(f"{name}: callgrind saw no call of malloc")
        yield Figure(f"{name}: requests of memory", requests / (work.count * work.per), "requests", SLACK)
