"""How long the event loop is busy in one turn while the connection manager closes a tenth of all connections.

Comes in: the number of connections. Goes out: the longest turns, at rest and during the trim, in
milliseconds.
The connections are real: a dialler process (scale_dialer.py) holds their other ends.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import time
from contextlib import AsyncExitStack

from p2pcore import ConnManager, Host, Limits, run
from scale import dialler

REST_S = 2.0
MOST_EACH = 9000
PATIENCE_S = 60.0


class Turns:
    """CPU time of each turn of the running loop, while it is watched. The loop does not sleep then."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()
        self._is_on = True
        self.lengths_s: list[float] = []
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.lengths_s.append(now - self._last)
        self._last = now
        if self._is_on:
            self._loop.call_soon(self._turn)

    def stop(self) -> dict[str, float]:
        """Returns: the longest turns."""
        self._is_on = False
        longest = sorted(self.lengths_s, reverse=True)
        ms = [round(each * 1e3, 2) for each in longest[:3]]
        return {"turns": len(longest), "longest_ms": ms[0], "second_ms": ms[1], "third_ms": ms[2]}


async def main(count: int, with_stream: int) -> None:
    """Prints the figures as JSON."""
    free = Limits(max_conns=count + 100, max_conns_per_peer=None)
    manager = ConnManager(low=count * 9 // 10, high=count, grace_s=0)
    async with Host(conn_manager=manager, limits=free, echo=True) as host, AsyncExitStack() as stack:
        for at in range(0, count + 1, MOST_EACH):
            one = await stack.enter_async_context(
                dialler(host.addrs_with_peer[0], f"127.8.{at // MOST_EACH}")
            )
            await one.tell("dial", min(MOST_EACH, count - at), with_stream)
        gc.collect()
        gc.freeze()
        turns = Turns()
        await asyncio.sleep(REST_S)
        rest = turns.stop()
        turns = Turns()
        began = time.perf_counter()
        await one.tell("dial", 1, 0)
        while host.swarm.num_conns > manager.low or manager.num_closing:  # type: ignore[operator]
            await asyncio.sleep(0.01)
            if time.perf_counter() - began > PATIENCE_S:
                break
        took_s = round(time.perf_counter() - began, 2)
        trim = turns.stop()
        left = host.swarm.num_conns
        print(json.dumps({"conns": count, "left": left, "took_s": took_s, "rest": rest, "trim": trim}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conns", type=int, default=18_000)
    parser.add_argument("--with-stream", type=int, default=2, help="every so many-th connection has a stream")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run(main(given.conns, given.with_stream))
