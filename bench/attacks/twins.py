"""The honest twins of the attacks: is a busy client refused, or slowed down, by what defends the node?

Comes in: the command of a node. Goes out: figures of each work at two nodes in turns, one with default limits
and one with none.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from attacks import place
from attacks.measure import module
from attacks.rows import Bound
from peers import Cores, Listener, Peer, Process

Line = dict[str, Any]

START_S, ROUND_S = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Twin:
    """One work of twin.py. `pause`: seconds after each round."""

    name: str
    title: str
    rounds: int = 9
    pause: float = 0.0


TWINS = (
    Twin("streams", "1,000 streams at once on one connection"),
    Twin("timeouts", "500 calls given up together, and 500 that follow", 21),
    Twin("office", "300 peers connect at once from one address", 5, 7.0),
    Twin("calls", "1,000 calls, one after another"),
    Twin("updates", "40 updates of identify"),
)
BOUNDS = (Bound("failed", most=0), Bound("default / free", most=1.05))


def run_twin(twin: Twin, peer: Peer, cores: Cores, with_free: bool) -> Line:
    """Its figures; `with_free`: compares with a node without limits, else only counts failures."""
    addr = f"/ip4/{place.node()}/tcp/0"
    with (
        Listener(peer, cores.listener, "-addr", addr) as first,
        Listener(peer, cores.listener, "-addr", addr, *(["-free"] if with_free else [])) as second,
    ):
        options = ("--works", twin.name, "--rounds", twin.rounds, "--pause", twin.pause)
        command = module("twin", first.address, second.address, *options)
        with Process(command, cores.dialer) as client:
            found = client.answer(START_S + twin.rounds * 2 * (twin.pause + ROUND_S / 10))
    ratios = [ours / free for ours, free in zip(*found["took"], strict=True)]
    return {
        "row": f"twin-{twin.name}",
        "figures": {
            "failed": found["failed"][0],
            "ms": round(statistics.median(found["took"][0]) * 1e3, 2),
            **({"default / free": round(statistics.median(ratios), 3)} if with_free else {}),
        },
        "seen": found["why"],
    }
