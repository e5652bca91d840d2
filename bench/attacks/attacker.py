"""A process that makes one attack: `python -m attacks.attacker NAME ADDR SECONDS [name=value ...]`.

Comes in: the command line, then a line of standard input that starts it. Goes out: {"ready": true}, and at
the end one JSON line with the counters. It ends by itself, or with its standard input, whichever is first.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
from collections.abc import Awaitable, Callable

import uvloop

from attacks import circuits, connects, frames, messages, streams
from attacks.arena import Arena

Attack = Callable[[Arena], Awaitable[None]]

ATTACKS: dict[str, Attack] = {
    "nothing": Arena.hold,
    "silent": connects.silent,
    "finished": connects.finished,
    "one peer": connects.one_peer,
    "handshakes": connects.handshakes,
    "idle streams": streams.idle,
    "syns": streams.syns,
    "cut streams": streams.cut,
    "syn and fin": streams.syn_fin,
    "bad proposals": streams.bad_proposals,
    "unread": streams.unread,
    "grown windows": streams.grown_windows,
    "half of it": frames.half_of_it,
    "identify": messages.identify,
    "circuits": circuits.opened_and_reset,
    "renewals": circuits.renewals,
    "much data": circuits.much_data,
}
NICE = 10
"""The attacker shares its core with the honest client, and must not slow it down by that."""
SPARE_S = 10.0
"""An attack that does not end by itself is ended this long after its time."""


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


async def _main(name: str, arena: Arena) -> None:
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    arena.start()
    try:
        async with asyncio.timeout(arena.left_s + SPARE_S):
            await ATTACKS[name](arena)
    except TimeoutError:
        arena.counts["overdue"] += 1
    print(json.dumps(dict(arena.counts)), flush=True)
    os._exit(0)  # the kernel closes all sockets at once


def main() -> None:
    """The command line."""
    name, addr, seconds, *settings = sys.argv[1:]
    os.nice(NICE)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pairs = dict(each.split("=", 1) for each in settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(name, Arena(addr, float(seconds), pairs)))


if __name__ == "__main__":
    main()
