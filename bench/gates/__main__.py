"""The command line of the gates: measures, compares with the committed baseline, and reports.

Comes in: `--write`, `--only TEXT`, `--group`. Goes out: a table, and exit status 1 where a row is worse than
its baseline. Without valgrind its rows are left out, which only fails if CI is set.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from gates import allocations, baseline, callgrind, instructions, memory, table
from gates.verdict import Figure, compare
from gates.works import WORKS

GROUPS = ("instructions", "requests", "objects", "resident")
COUNTED = ("instructions", "requests")
"""Groups that need valgrind."""
HINT = "instructions and requests are counted with valgrind, which is missing: apt-get install valgrind"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="gates", description="Regression gates; see docs/gates.md.")
    parser.add_argument("--write", action="store_true", help="take what is measured as the new baseline")
    parser.add_argument("--only", metavar="TEXT", help="only rows of instructions whose name has this in it")
    parser.add_argument("--group", choices=GROUPS, action="append", help="only these; several may be given")
    options = parser.parse_args()
    groups = options.group or (["instructions"] if options.only else list(GROUPS))
    is_whole = len(groups) == len(GROUPS) and not options.only
    if options.write and not is_whole:
        parser.error("a baseline is written as a whole")
    if not callgrind.is_available() and any(each in COUNTED for each in groups):
        print(HINT)
        if options.write or os.environ.get("CI"):
            return 1
        groups = [each for each in groups if each not in COUNTED]
        is_whole = False
    figures = list(_measure(groups, options.only))
    if options.write:
        baseline.write(figures, baseline.environment())
        print(f"wrote {baseline.PATH}")
        return 0
    return _report(figures, is_whole)


def _measure(groups: Iterable[str], only: str | None) -> Iterator[Figure]:
    names = [name for name in WORKS if not only or only in name]
    measures: dict[str, Callable[[], Iterator[Figure]]] = {
        "instructions": lambda: instructions.measure(names),
        "requests": allocations.measure,
        "objects": memory.measure_counts,
        "resident": memory.measure_resident,
    }
    for group in groups:
        began = time.monotonic()
        yield from measures[group]()
        print(f"{group}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _report(figures: list[Figure], is_whole: bool) -> int:
    there = baseline.load()
    here = baseline.environment()
    measured = {each.name for each in figures}
    values = {name: value for name, value in there.values.items() if is_whole or name in measured}
    verdicts = compare(figures, values, here, there.environment)
    for line in table.lines(verdicts):
        print(line)
    for line in table.conclusions(verdicts, here, there.environment):
        print(line)
    return int(any(each.is_failure for each in verdicts))


if __name__ == "__main__":
    sys.exit(main())
