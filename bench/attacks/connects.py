"""Attacks with connections: silent ones, finished ones, and handshakes as many as the node takes.

Comes in: an Arena. Goes out: connections; counts of those opened, refused and ended by the node.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections import deque

from attacks.arena import STEP_S, Arena, Pace
from attacks.rawpeer import RawPeer, opening, place_of, tcp_socket


async def silent(arena: Arena) -> None:
    """Opens `rate` connections a second and never says a word; at `hold` of them, the oldest goes."""
    place, pace = place_of(arena.addr), Pace(arena.number("rate", 1500))
    held: deque[socket.socket] = deque()
    most = arena.count("hold", 15_000)
    while arena.left_s:
        for _ in range(pace.due()):
            sock = tcp_socket(arena.source(arena.counts["opened"]))
            sock.connect_ex(place)
            held.append(sock)
            arena.counts["opened"] += 1
            if len(held) > most:
                held.popleft().close()
        time.sleep(STEP_S)  # noqa: ASYNC251 - nothing else runs here
    arena.counts["per s"] = round(arena.counts["opened"] / arena.seconds)


async def finished(arena: Arena) -> None:
    """Finishes `conns` connections and is silent then; opens others in place of those the node ends."""
    peers: set[RawPeer] = set()
    most, at = arena.count("conns", 2100), 0
    slots = asyncio.Semaphore(arena.count("at once", 16))

    async def one(number: int) -> None:
        async with slots:
            peer = await arena.peer(number)
        if peer is None:
            return
        peers.add(peer)
        arena.counts["most held"] = max(arena.counts["most held"], len(peers))
        await peer.lost
        peers.discard(peer)
        arena.counts["ended by the node"] += 1

    tasks: set[asyncio.Task[None]] = set()
    while arena.left_s:
        while len(tasks) < most and not slots.locked():
            task = asyncio.create_task(one(at))
            at += 1
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0)
        await asyncio.sleep(STEP_S)
    arena.counts["held at the end"] = len(peers)


async def handshakes(arena: Arena) -> None:
    """Finishes handshakes without a pause, `at once` at a time, and ends each connection at once."""

    async def work(first: int) -> None:
        number = first
        while arena.left_s:
            if (peer := await arena.peer(number)) is not None:
                peer.abort()
            else:
                await asyncio.sleep(STEP_S)
            number += 1

    await asyncio.gather(*(work(number) for number in range(arena.count("at once", 32))))


async def one_peer(arena: Arena) -> None:
    """`conns` connections of one identity, one after another, each with a stream, so that none is closed."""
    took: list[float] = []
    peers: list[RawPeer] = []
    while len(took) < arena.count("conns", 4000) and arena.left_s:
        began = time.monotonic()
        if (peer := await arena.peer(0)) is None:
            break
        peer.write(opening(1, "/echo/1.0.0"))
        await peer.ping()
        took.append((time.monotonic() - began) * 1e3)
        peers.append(peer)
    some = max(1, len(took) // 10)
    arena.counts["held at the end"] = sum(peer.is_open for peer in peers)
    arena.counts["first ms"] = statistics.median(took[:some] or [0])
    arena.counts["last ms"] = statistics.median(took[-some:] or [0])
