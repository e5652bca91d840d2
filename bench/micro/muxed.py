"""What every multiplexer's benchmark does: data of one stream, each way.

Comes in: a session with a peer whose bytes are made by hand (RawYamux, RawMplex), frames. Goes out: a rate.
There is no cipher: the record layer below does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rates import rate

TOTAL = 8 << 20


def receive(benchmark: Any, peer: Any, opening: bytes, frame: bytes, size: int) -> None:
    """Bursts of 64 KiB of `frame`, with `size` bytes of data each, arrive and are read."""
    peer.deliver(opening)
    stream = peer.loop.run_until_complete(peer.session.accept_stream())
    chunk = frame * max(1, 65536 // size)

    async def run() -> None:
        for _ in range(TOTAL // len(chunk)):
            peer.deliver(chunk)
            while stream.num_buffered:
                await stream.read(1 << 20)

    _measure(benchmark, peer, run)


def send(benchmark: Any, peer: Any, size: int, credit: Callable[[int], bytes] = lambda sent: b"") -> None:
    """Writes of `size` bytes in bursts of 64 KiB; `credit(n)` is the peer's answer to n bytes."""
    stream = peer.loop.run_until_complete(peer.session.open_stream())
    piece, burst = bytes(size), max(1, 65536 // size)

    async def run() -> None:
        for _ in range(TOTAL // (size * burst)):
            for _ in range(burst):
                await stream.write(piece)
            await asyncio.sleep(0)
            peer.sent()
            peer.deliver(credit(size * burst))

    _measure(benchmark, peer, run)


def _measure(benchmark: Any, peer: Any, run: Callable[[], Any]) -> None:
    rate(benchmark, TOTAL, lambda: peer.loop.run_until_complete(run()), warmup_rounds=1)
    peer._lose()
    peer.loop.close()
