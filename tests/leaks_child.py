"""A separate process for test_leaks.py: makes connections, and counts objects.

Comes in: a loop ("uvloop" or "asyncio"), what to do, how many connections. Goes out: one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import tracemalloc
from collections import Counter
from typing import Any

import uvloop

from harness import HANG_S, eventually
from p2pcore import Host, Limits, Stream
from p2pcore._fast.loop.loop_state import loop_state

WATCHED = ("p2pcore", "uvloop", "asyncio", "_asyncio", "socket")
AT_ONCE = 50
MANY = Limits(max_conns_per_peer=None)


def counts() -> dict[str, int]:
    """Live objects of our own types and of the event loop's, tasks, timers, open descriptors."""
    for _ in range(3):
        gc.collect()
    found: Counter[str] = Counter()
    for item in gc.get_objects():
        kind = type(item)
        module = kind.__module__
        if isinstance(module, str) and module.split(".")[0] in WATCHED:
            found[f"{module}.{kind.__qualname__}"] += 1
    found["descriptors"] = len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
    found["tasks"] = len(asyncio.all_tasks())
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", None)
    if scheduled is not None:
        found["timers"] = sum(not handle.cancelled() for handle in scheduled)
    return dict(found)


async def settled() -> dict[str, int]:
    """The counts when they no longer change: by then coarse timers and closed transports have ended."""
    same, last = 0, counts()
    while same < 5:
        await asyncio.sleep(0.1)
        now = counts()
        same = same + 1 if now == last else 0
        last = now
    return last


async def connect(server: Host, dialer: Host, count: int) -> None:
    left = iter(range(count))
    target = server.addrs_with_peer[0]

    async def work() -> None:
        for _ in left:
            await dialer.swarm.dial_addr(target)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await eventually(lambda: server.swarm.num_conns == dialer.swarm.num_conns)


async def identified(*hosts: Host) -> None:
    """Waits until every connection is identified."""
    await eventually(
        lambda: all(host.info_of(conn) for host in hosts for conn in host.swarm.conns()), timeout=HANG_S / 2
    )
    await eventually(lambda: not any(host.swarm.num_handlers_running for host in hosts))


async def idle(count: int) -> dict[str, Any]:
    """What `count` more idle connections cost if some exist already."""
    async with Host(limits=MANY) as server, Host(listen=(), limits=MANY) as dialer:
        await connect(server, dialer, 20)
        await identified(server, dialer)
        before = await settled()
        tracemalloc.start()
        await connect(server, dialer, count)
        await identified(server, dialer)
        after = await settled()
        return {"before": before, "after": after, "bytes": tracemalloc.get_traced_memory()[0]}


async def ciphers(count: int) -> dict[str, Any]:
    """Uses `count` connections three times, more than may keep ciphers. Returns: how many keep them."""
    state = loop_state(asyncio.get_running_loop())
    long = bytes(4096)  # shorter records need no cipher object
    async with (
        Host(identify=False, echo=True, limits=MANY) as server,
        Host(listen=(), identify=False, limits=MANY) as dialer,
    ):
        await connect(server, dialer, count)
        unused = len(state.ciphered)
        for _ in range(3):
            for conn in dialer.swarm.conns():
                assert await dialer.echo(conn, long) == long
        kept = len(state.ciphered)
    await settled()
    return {"unused": unused, "kept": kept, "left": len(state.ciphered)}


async def once(count: int) -> None:
    """Two hosts with `count` connections, one stream open on each tenth, closed all at once."""

    async def handler(stream: Stream) -> None:
        await stream.read()

    async with Host(echo=True, limits=MANY) as server, Host(listen=(), limits=MANY) as dialer:
        server.set_stream_handler("/x", handler)
        await connect(server, dialer, count)
        for conn in dialer.swarm.conns()[::10]:
            await (await conn.new_stream("/x")).write(b"x")
        assert server.swarm.num_conns == count


async def close(count: int) -> dict[str, Any]:
    """What is left of `count` connections when their hosts are closed."""
    await once(20)
    before = await settled()
    await once(count)
    return {"before": before, "after": await settled()}


def main() -> None:
    loop, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run({"idle": idle, "close": close, "ciphers": ciphers}[mode](count))))


if __name__ == "__main__":
    main()
