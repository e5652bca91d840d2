"""Memory requests and system calls per operation: how often it asks for memory, and how often the kernel.

Goes out: Figures for each of WHERE. Python uses malloc here, so callgrind sees each request, even for memory
that is freed at once. Objects from Python's free lists do not count. Requests of libuv and OpenSSL count too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gates.callgrind import calls, slopes, system_calls
from gates.verdict import Figure
from gates.works import CONN, MESSAGE, NEW_PEER, NEW_PEER_TLS, STREAM, WORKS

WHERE = (
    "yamux: data frame 1KiB received",
    "stream: 1KiB written and read",
    STREAM,
    CONN,
    NEW_PEER,
    NEW_PEER_TLS,
    MESSAGE,
)
ASKS_KERNEL = (NEW_PEER, NEW_PEER_TLS, MESSAGE)
"""Those whose system calls have a row."""
FUNCTIONS = ("malloc", "calloc", "realloc")
REQUESTS = {*FUNCTIONS, *(f"__libc_{name}" for name in FUNCTIONS)}
"""Each function has two names in the C library."""
SYSTEM_CALLS = "system calls"
CLOCK = "clock_gettime"
"""A system call under valgrind only: elsewhere the kernel's page answers it."""
SLACK = 0.25


def measure() -> Iterator[Figure]:
    """One figure for each of WHERE, one more for those of ASKS_KERNEL."""
    for name, counts in slopes(WHERE, _counts, PYTHONMALLOC="malloc"):
        work = WORKS[name]
        times = work.count * work.per
        requests = sum(counts[each] for each in REQUESTS)
        if not requests:
            raise RuntimeError(f"{name}: callgrind saw no call of malloc")
        yield Figure(f"{name}: requests of memory", requests / times, "requests", SLACK)
        if name in ASKS_KERNEL:
            yield Figure(f"{name}: system calls", counts[SYSTEM_CALLS] / times, "calls", SLACK)


def _counts(lines: Iterable[str]) -> Counter[str]:
    """Calls of each function, and the number of system calls."""
    kept = list(lines)
    found = calls(kept)
    clocks = sum(count for name, count in found.items() if name.partition("@")[0] == CLOCK)
    found[SYSTEM_CALLS] = system_calls(kept) - clocks
    return found
