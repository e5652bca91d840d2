"""Tools for every test: scaled time, ways to cut bytes for parsers, a runner for the event loop.

Comes in: bytes, coroutines. Goes out: ways to cut bytes, results of coroutines. Never sleeps a fixed time.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

import uvloop

from p2pcore._fast.loop.loop_state import loop_state

P = ParamSpec("P")
T = TypeVar("T")


def _load() -> float:
    """How many processes want each processor: 1 if there are enough processors, at most 5."""
    try:
        return min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), 5.0)
    except OSError:  # some systems do not tell the load
        return 1.0


TIME_SCALE = float(os.environ.get("P2PCORE_TEST_TIME_SCALE") or _load())
"""Multiplies every wait of the suite: the machine's load at the start, or the value of the variable.

Raise it on a slow or sanitized build.
"""

os.environ["P2PCORE_TEST_TIME_SCALE"] = str(TIME_SCALE)  # processes that tests start use the same factor

HANG_S = 120.0
"""After this time (scaled) a test counts as hanging. It measures nothing and may be far too long."""

MAX_TURNS = 100_000
"""Turns of the loop after which a test counts as never settling."""

TAIL = b"\xa5tail\x00"


def seconds(value: float) -> float:
    """`value` seconds, multiplied by TIME_SCALE."""
    return value * TIME_SCALE


def run(main: Coroutine[Any, Any, T], timeout: float = HANG_S) -> T:
    """Runs `main` on a fresh uvloop loop; fails if it hangs."""

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
    """Lets everything run that is ready: deliveries, flushes, woken tasks, what waits for its turn."""
    rota = loop_state(asyncio.get_running_loop())
    for _ in range(turns):
        await asyncio.sleep(0)
    for _ in range(MAX_TURNS):
        if not rota.num_in_line:
            break
        await asyncio.sleep(0)
    else:
        raise AssertionError("work waits in line for ever")
    for _ in range(turns):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object], timeout: float = HANG_S / 4) -> None:
    """Returns once `condition()` is true; fails after `timeout` (scaled)."""
    async with asyncio.timeout(seconds(timeout)):
        while not condition():  # noqa: ASYNC110 - what tests wait for has no event to set
            await asyncio.sleep(0.001)


class _Closing(Protocol):
    """A connection or a session that reports its end."""

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None: ...


async def ended_by(conn: _Closing) -> BaseException | None:
    """Waits until `conn` has ended. Returns: why."""
    end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    conn.add_close_callback(end.set_result)
    return await end


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Ways for a stream to deliver `data`: whole, byte by byte, and cut once at every place (at most 64)."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    step = max(1, len(data) // 64)
    for at in range(1, len(data), step):
        yield [data[:at], data[at:]]


def feeding(data: bytes) -> Iterator[tuple[list[bytes], bytes]]:
    """`cuts`, each without and with a tail of bytes that follow the message; yields (chunks, tail)."""
    for chunks in cuts(data):
        yield chunks, b""
        yield [*chunks[:-1], chunks[-1] + TAIL] if chunks else [TAIL], TAIL
