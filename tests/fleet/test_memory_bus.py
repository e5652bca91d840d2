"""What only the bus in memory does: an engine that forgets, the clock of the loop, nothing left behind."""

from __future__ import annotations

import asyncio

import pytest

from harness import looped, settle
from p2pcore.fleet.memory_bus import MemoryBus, MemoryEngine
from virtual_time import now, virtual


@looped
async def test_an_engine_that_lost_its_entries_tells_the_watches() -> None:
    engine = MemoryEngine()
    bus = MemoryBus(engine)
    bucket = await bus.bucket("b")
    told: list[tuple[str, bytes | None]] = []
    await bucket.put({"k": b"1"})
    await bucket.watch("k", lambda key, value: told.append((key, value)))
    bus.on_state(lambda is_up: told.append(("state", b"%d" % is_up)))
    engine.stop()
    engine.stop()
    engine.start(forget=True)
    engine.start(forget=True)
    await settle()
    assert await bucket.get("k") == {}
    assert told == [("k", b"1"), ("state", b"0"), ("k", None), ("state", b"1")]


@virtual
async def test_an_entry_expires_at_its_second() -> None:
    bucket = await MemoryBus().bucket("b", expiry_s=10)
    gone: list[tuple[str, float]] = []
    await bucket.watch("k", lambda key, value: gone.append((key, now())) if value is None else None)
    await bucket.put({"k.1": b"", "k.2": b""})
    await asyncio.sleep(4)
    await bucket.put({"k.2": b""})
    await asyncio.sleep(20)
    assert gone == [("k.1", 10.0), ("k.2", 14.0)]


@virtual
async def test_an_entry_that_expires_while_the_engine_is_stopped_is_told_when_it_is_back() -> None:
    engine = MemoryEngine()
    bucket = await MemoryBus(engine).bucket("b", expiry_s=2)
    gone: list[float] = []
    await bucket.watch("k", lambda key, value: gone.append(now()) if value is None else None)
    await bucket.put({"k": b""})
    engine.stop()
    await asyncio.sleep(5)
    engine.start()
    await asyncio.sleep(1)
    assert gone == [5.0]


@virtual
async def test_a_shorter_expiry_holds_for_the_entries_that_are_there() -> None:
    bus = MemoryBus()
    bucket = await bus.bucket("b", expiry_s=1000)
    await bucket.put({"k": b""})
    await bus.bucket("b", expiry_s=2)
    await asyncio.sleep(3)
    assert await bucket.get("k") == {}


@looped
async def test_closed_subscriptions_watches_and_requests_leave_nothing_in_the_engine() -> None:
    engine = MemoryEngine()
    bus = MemoryBus(engine)
    bucket = await bus.bucket("b")
    for n in range(50):
        (await bus.subscribe(f"s.{n}", lambda message: None)).close()
        (await bucket.watch("k", lambda key, value: None)).close()
        bus.on_state(lambda is_up: None).close()
        await bus.subscribe(f"t.{n}", lambda message: None)
        with pytest.raises(TimeoutError):
            await bus.request(f"t.{n}", b"", timeout_s=0.001)
    await bus.close()
    assert (engine._subscribers, engine._states, engine._requests) == ({}, {}, {})
    assert engine._buckets["b"].watches == {}
    assert bus._calls == {}
