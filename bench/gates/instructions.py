"""Instructions per operation, counted by callgrind.

Comes in: names of works. Goes out: a Figure for each, and one more if libsodium or OpenSSL take
part. The first figure leaves out instructions inside these libraries, because they are not ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gates.callgrind import self_cost, slopes
from gates.verdict import INTERPRETER, PRIMITIVES, Figure
from gates.works import WORKS, Work

LIBRARIES = ("_sodium.", "libsodium", "libcrypto", "/cryptography/")
"""Parts of paths of these libraries; the glue code of `cryptography` counts as part of them."""


MOST_MORE_PERCENT = 1.0
"""How much metrics may add to a stream or a connection. The issue that asked for them chose it."""


def measure(names: Sequence[str]) -> Iterator[Figure]:
    """One or two figures for each name."""
    whole: dict[str, float] = {}
    for name, by_object in slopes(names, self_cost):
        work = WORKS[name]
        whole[name] = by_object.total() / (work.count * work.per)
        yield from _figures(work, by_object)
    yield from _beside(whole)


def _beside(whole: Mapping[str, float]) -> Iterator[Figure]:
    """How much more the work beside it costs, in percent of each work that has one, with all libraries."""
    for name, value in whole.items():
        beside = WORKS[name].beside
        if beside in whole:
            more = 100 * (whole[beside] - value) / value
            yield Figure(f"{name}: percent that they add", more, "%", most=MOST_MORE_PERCENT)


def _figures(work: Work, by_object: Counter[str]) -> Iterator[Figure]:
    times = work.count * work.per
    inside = sum(count for path, count in by_object.items() if any(part in path for part in LIBRARIES))
    yield Figure(work.name, (by_object.total() - inside) / times, "instructions", needs=INTERPRETER)
    if work.has_primitives:
        yield Figure(f"{work.name}: primitives", inside / times, "instructions", needs=PRIMITIVES)
