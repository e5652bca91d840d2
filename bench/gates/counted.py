"""Runs under callgrind: each work once to warm up, then N and 2N times between marks.

Comes in: names of works. Goes out: calls of MARK, which cut the counters into parts, in the order of the
names. Never looks at a clock. The garbage collector is off, because its runs depend on everything else.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import uvloop

from gates.works import WORKS, Work
from p2pcore import tune_loop

MARK = "ctermid"
"""The function of the C library that only `os.ctermid` calls: valgrind cuts the counters before it."""


def main() -> None:
    """The command line: names of works."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    tune_loop(loop, spin_s=0)  # whether a loop looks for an answer before it sleeps depends on the clock
    gc.disable()
    for name in sys.argv[1:]:
        count(WORKS[name], loop)
    loop.close()


def count(work: Work, loop: asyncio.AbstractEventLoop) -> None:
    """Three marks: before N times, before 2N times, after."""
    run, close = work.prepare(loop)
    run(work.count)
    gc.collect()
    os.ctermid()
    run(work.count)
    os.ctermid()
    run(2 * work.count)
    os.ctermid()
    close()
    gc.collect()


if __name__ == "__main__":
    main()
