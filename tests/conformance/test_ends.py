"""Echo under random cuts, ends and resets, on every transport and muxer, byte for byte.

Comes in: P2PCORE_ENDS_MIB, how much in all (`make ends` has the full amount), P2PCORE_ENDS_SEED. Goes out:
claims: every byte that an orderly end acknowledges arrives, and nothing else does. The connection of each
round is closed while its last streams are under way.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from conformance.cells import CELLS, Cell
from harness import HANG_S, looped, seconds
from p2pcore.errors import ConnectionClosed, P2PError, StreamReset
from p2pcore.interfaces import CapableConn, MuxedConn, Stream

TOTAL_MIB = float(os.environ.get("P2PCORE_ENDS_MIB") or 12)
SEED = int(os.environ.get("P2PCORE_ENDS_SEED") or 1)
EACH_BYTES = int(TOTAL_MIB * (1 << 20) / len(CELLS))
ROUND_BYTES = 1 << 20
STREAMS = 8
NUMBER_BYTES = 4


@dataclass
class Plan:
    """One stream: what it sends, and how it ends. WHOLE: echo to the end; LAST: no wait before the close."""

    number: int
    kind: str
    data: bytes
    cut: int


@dataclass
class Seen:
    """What the server got of one stream, and what ended it: "end", or the name of an error."""

    data: bytearray = field(default_factory=bytearray)
    end: str = ""


def plans(dice: random.Random, budget: int, first: int) -> list[Plan]:
    made = []
    for number in range(first, first + STREAMS):
        size = dice.choice([0, 1, dice.randrange(100), dice.randrange(1, 2 * budget // STREAMS + 2)])
        kind = dice.choice(["whole", "whole", "reset", "last", "cut off"])
        made.append(Plan(number, kind, dice.randbytes(size), dice.randrange(size + 1)))
    return made


async def serve(stream: Stream, seen: dict[int, Seen], dice: random.Random) -> None:
    """Echoes one stream; what can no longer be answered is still read to its end."""
    try:
        number = int.from_bytes(await stream.read_exactly(NUMBER_BYTES), "big")
    except P2PError:
        return
    mine = seen.setdefault(number, Seen())
    answers = True
    try:
        while piece := await stream.read(dice.randrange(1, 70_000)):
            mine.data += piece
            try:
                if answers:
                    await stream.write(piece)
            except (ConnectionClosed, StreamReset):
                answers = False
        mine.end = "end"
        await stream.close_write()
    except P2PError as error:
        mine.end = type(error).__name__


async def serve_all(session: MuxedConn, seen: dict[int, Seen], dice: random.Random) -> None:
    async with asyncio.TaskGroup() as streams:
        try:
            while True:
                streams.create_task(serve(await session.accept_stream(), seen, dice))
        except ConnectionClosed:
            pass


async def send(stream: Stream, data: bytes, dice: random.Random) -> None:
    at = 0
    while at < len(data):
        size = dice.choice([1, dice.randrange(1, 200), dice.randrange(1, 100_000)])
        await stream.write(data[at : at + size])
        at += size
        if dice.random() < 0.2:
            await asyncio.sleep(0)


async def run_plan(session: MuxedConn, plan: Plan, dice: random.Random) -> None:
    stream = await session.open_stream()
    data = plan.data[: plan.cut] if plan.kind in ("reset", "cut off") else plan.data
    echoed = asyncio.ensure_future(read_all(stream))
    try:
        await send(stream, plan.number.to_bytes(NUMBER_BYTES, "big") + data, dice)
        if plan.kind == "reset":
            stream.reset()
        elif plan.kind != "cut off":
            await stream.close_write()
        if plan.kind == "whole":
            assert await echoed == plan.data
    finally:
        if plan.kind != "whole":
            echoed.add_done_callback(lambda done: done.exception())


async def read_all(stream: Stream) -> bytes:
    got = bytearray()
    while piece := await stream.read():
        got += piece
    return bytes(got)


def check(plan: Plan, seen: Seen) -> None:
    assert plan.data.startswith(bytes(seen.data)), f"{plan.kind} stream {plan.number}: other bytes came"
    if plan.kind in ("whole", "last"):
        assert (len(seen.data), seen.end) == (len(plan.data), "end"), f"{plan.kind} stream {plan.number}"
    elif plan.kind == "reset":
        assert seen.end == "StreamReset"
        assert len(seen.data) <= plan.cut
    else:
        assert (len(seen.data), seen.end != "end") == (plan.cut, True), f"{plan.kind} stream {plan.number}"


async def one_round(made: list[Plan], ends: tuple[CapableConn, CapableConn], dice: random.Random) -> None:
    near, far = ends
    seen: dict[int, Seen] = {}
    serving = asyncio.ensure_future(serve_all(far.session, seen, dice))
    async with asyncio.TaskGroup() as running:
        for plan in made:
            running.create_task(run_plan(near.session, plan, random.Random(dice.random())))
    await near.session.close()
    await serving
    for plan in made:
        if plan.kind != "reset" or plan.number in seen:
            check(plan, seen[plan.number])


@pytest.mark.parametrize("cell", CELLS, ids=str)
@looped
async def test_every_byte_before_an_orderly_end_arrives_and_nothing_else(cell: Cell) -> None:
    dice = random.Random(f"{SEED} {cell}")
    sent, kinds = 0, Counter[str]()
    async with asyncio.timeout(seconds(HANG_S * max(1, EACH_BYTES / (16 << 20)))), cell.ends() as ends:
        listener = await ends.listen()
        while sent < EACH_BYTES:
            made = plans(dice, min(ROUND_BYTES, EACH_BYTES), sent and STREAMS)
            await one_round(made, await ends.connect(listener), dice)
            sent += sum(len(plan.data) for plan in made) or 1
            kinds.update(plan.kind for plan in made)
    print(f"{cell}: {sent} bytes, {dict(kinds)}")
