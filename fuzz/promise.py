"""What every fuzz target promises, and how an input is cut.

Comes in: one input. Goes out: what a parser made of it, for comparison, or BrokenPromise. A parser returns,
wants more, or raises one of the errors that its target names; the result is the same however
the input is cut.
Everything is a function of the input: an input that was found once is found again.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
MAX_BYTES = 4096
"""Of an input, where a target names no other bound."""


class BrokenPromise(AssertionError):
    """What the fuzzer looks for."""


def check(holds: object, text: str, *shown: object) -> None:
    """Raises BrokenPromise unless `holds`."""
    if not holds:
        raise BrokenPromise(f"{text}: {', '.join(map(repr, shown))}" if shown else text)


def same(one: object, other: object, text: str) -> None:
    """Raises BrokenPromise unless both are equal."""
    check(one == other, text, one, other)


def tried(call: Callable[[], T], *allowed: type[Exception]) -> T | None:
    """What `call` returns; None if it raises one of the `allowed` errors, whose text must be printable."""
    try:
        return call()
    except allowed as error:
        str(error)
        return None


def cut(data: bytes) -> list[bytes]:
    """`data` in pieces: byte by byte, or at places that `data` itself decides."""
    chance = random.Random(zlib.crc32(data))
    if len(data) <= 64 and chance.randrange(2):
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 9)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


_loop: Any = None
_faults: list[dict[str, Any]] = []


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` on the loop of this process. What the loop would only have logged is a broken promise."""
    global _loop
    if _loop is None:
        _loop = uvloop.new_event_loop()
        _loop.set_exception_handler(lambda loop, context: _faults.append(context))
    result: T = _loop.run_until_complete(main)
    if _faults:
        fault = _faults[0]
        _faults.clear()
        raise BrokenPromise(f"the event loop caught: {fault.get('message')}") from fault.get("exception")
    return result


async def settle(turns: int = 4) -> None:
    """Lets everything run that is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)


def named(error: BaseException | None) -> str | None:
    """The kind of `error`, for comparison: its text may tell how much had come."""
    return None if error is None else type(error).__name__
