"""What every test shares: scaled time, feeding patterns for parsers, an event loop runner.

Comes in: bytes, coroutines. Goes out: ways to cut bytes, results of coroutines. Never sleeps a fixed time.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, TypeVar

import uvloop

P = ParamSpec("P")
T = TypeVar("T")

TIME_SCALE = float(os.environ.get("P2PCORE_TEST_TIME_SCALE", "1"))
"""Multiplies every wait of the suite; raise it on a slow or sanitized build."""

TAIL = b"\xa5tail\x00"


def seconds(value: float) -> float:
    """`value` seconds, scaled by P2PCORE_TEST_TIME_SCALE."""
    return value * TIME_SCALE


def run(main: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
    """Runs `main` on a fresh uvloop loop; fails rather than hangs."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds(timeout)):
            return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


def looped(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Runs an `async` test on a fresh loop."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        run(main())

    return wrapper


async def settle(turns: int = 4) -> None:
    """Lets everything that is ready run: deliveries, flushes, woken tasks."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Returns once `condition()` is true; fails after `timeout` (scaled)."""
    async with asyncio.timeout(seconds(timeout)):
        while not condition():  # noqa: ASYNC110 - what tests wait for has no event to set
            await asyncio.sleep(0.001)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Ways for a stream to deliver `data`: whole, byte by byte, and cut once at every place (at most 64)."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    step = max(1, len(data) // 64)
    for at in range(1, len(data), step):
        yield [data[:at], data[at:]]


def feeding(data: bytes) -> Iterator[tuple[list[bytes], bytes]]:
    """`cuts`, each without and with a tail that belongs to whatever follows; yields (chunks, tail)."""
    for chunks in cuts(data):
        yield chunks, b""
        yield [*chunks[:-1], chunks[-1] + TAIL] if chunks else [TAIL], TAIL
