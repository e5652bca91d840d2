"""Instructions per operation, counted by callgrind.

Comes in: names of works. Goes out: a Figure for each, and one more where libsodium and OpenSSL have a part in
it. Instructions spent inside the libraries of the primitives are left out of the others: those are not ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gates.callgrind import self_cost, slopes
from gates.verdict import INTERPRETER, PRIMITIVES, Figure
from gates.works import WORKS, Work

LIBRARIES = ("_sodium.", "libsodium", "libcrypto", "/cryptography/")
"""In the path of a library of primitives; cryptography's own glue counts as part of it."""


def measure(names: Sequence[str]) -> Iterator[Figure]:
    """One or two figures for each name."""
    for name, by_object in slopes(names, self_cost):
        yield from _figures(WORKS[name], by_object)


def _figures(work: Work, by_object: Counter[str]) -> Iterator[Figure]:
    times = work.count * work.per
    inside = sum(count for path, count in by_object.items() if any(part in path for part in LIBRARIES))
    yield Figure(work.name, (by_object.total() - inside) / times, "instructions", needs=INTERPRETER)
    if work.has_primitives:
        yield Figure(f"{work.name}: primitives", inside / times, "instructions", needs=PRIMITIVES)
