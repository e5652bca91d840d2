"""What only the bus between workers does: a supervisor that ends, workers that do not read, its own bounds.

The conformance suite (test_buses.py) runs on it too; test_workers_fleet.py has real processes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from buses import worker_bus

from harness import HANG_S, eventually, looped, seconds
from p2pcore import limits
from p2pcore.errors import BusDown, LimitExceeded, NobodyListens
from p2pcore.fleet import BusMessage, WorkersBus
from p2pcore.workers.frames import FrameConn, encode, pack, unpack
from p2pcore.workers.hub import Hub
from p2pcore.workers.hub_client import HubClient

LONG_S = seconds(HANG_S / 4)


class Asleep:
    """A worker that is stopped: its socket is open, and it reads nothing until `wake`."""

    def __init__(self, hub: Hub, theirs: list[socket.socket]) -> None:
        self._links, self._sock = theirs.pop(), theirs.pop()
        self._frames = b""
        self.hub = hub

    def says(self, **header: Any) -> None:
        self._sock.sendall(encode(header))

    async def wake(self) -> tuple[WorkersBus, HubClient]:
        client = await HubClient.connected(self._sock)
        worker: Any = SimpleNamespace(hub=client)
        return WorkersBus(worker), client

    def close(self) -> None:
        self._sock.close()
        self._links.close()


@asynccontextmanager
async def asleep(hub: Hub) -> AsyncIterator[Asleep]:
    _, theirs = await hub.seat()
    worker = Asleep(hub, theirs)
    try:
        yield worker
    finally:
        worker.close()


# -- the supervisor ends -----------------------------------------------------------------------


@looped
async def test_when_the_supervisor_ends_everything_fails_at_once_for_good_and_all_are_told_once() -> None:
    hub = Hub()
    async with worker_bus(hub) as a, worker_bus(hub) as b:
        states: list[bool] = []
        a.on_state(states.append)
        a.on_state(states.append).close()
        bucket = await a.bucket("b")
        await b.subscribe("s", lambda message: None)
        asked = asyncio.ensure_future(a.request("s", b"", timeout_s=10 * HANG_S))
        await eventually(lambda: hub._requests)
        hub.close()
        with pytest.raises(BusDown, match="before the answer"):
            await asked
        await eventually(lambda: states == [False])
        assert not a.is_up
        for call in (
            lambda: a.publish("s", b""),
            lambda: a.request("s", b"", timeout_s=1),
            lambda: a.subscribe("s", print),
            lambda: a.bucket("c"),
            lambda: bucket.put({"k": b""}),
            lambda: bucket.get("k"),
            lambda: bucket.watch("k", lambda key, value: None),
        ):
            with pytest.raises(BusDown, match="the supervisor has gone"):
                await call()
        assert hub.num_members == 0


# -- workers that end, or do not read ----------------------------------------------------------


@looped
async def test_what_a_worker_had_is_gone_with_it() -> None:
    hub = Hub()
    async with worker_bus(hub) as a:
        async with asleep(hub) as killed:
            bucket = await a.bucket("b")
            killed.says(op="subscribe", n=1, pattern="s")
            killed.says(op="subscribe", n=2, pattern="s.*")
            killed.says(op="watch", n=3, name="b", key="k", w=4)
            killed.says(op="put", n=5, name="b", keys=["k"], sizes=[0])
            killed.says(op="request", n=6, subject="s")
            await eventually(lambda: hub._requests)
            asked = asyncio.ensure_future(a.request("s", b"", timeout_s=10 * HANG_S))
            await eventually(lambda: len(hub._requests) == 2)
        with pytest.raises(BusDown, match="the worker that was asked has ended"):
            await asked
        with pytest.raises(NobodyListens):
            await a.request("s", b"", timeout_s=LONG_S)
        assert (hub._listeners, hub._watching, hub._requests) == ({}, {}, {})
        assert await bucket.get("k") == {"k": b""}


@looped
async def test_a_request_to_two_fails_only_when_the_last_one_has_ended() -> None:
    hub = Hub()
    async with worker_bus(hub) as a, worker_bus(hub) as b:
        kept: list[BusMessage] = []
        await b.subscribe("s", kept.append)
        async with worker_bus(hub) as c:
            await c.subscribe("s", lambda message: None)
            asked = asyncio.ensure_future(a.request("s", b"", timeout_s=LONG_S))
            await eventually(lambda: kept)
        assert kept[0].answer is not None
        kept[0].answer(b"I live")
        assert await asked == b"I live"
        assert not hub._requests


@looped
async def test_messages_beyond_the_queue_are_lost_and_counted_and_others_get_them_all() -> None:
    hub = Hub()
    async with worker_bus(hub) as a, worker_bus(hub) as b, asleep(hub) as sleeper:
        got: list[int] = []
        await b.subscribe("s", lambda message: got.append(len(message.data)))
        sleeper.says(op="subscribe", n=1, pattern="s")
        await eventually(lambda: len(hub._listeners["s"]) == 2)
        count = 30
        for n in range(count):
            await a.publish("s", bytes(1_000_000))
            await eventually(lambda: len(got) == n + 1)  # noqa: B023 - it is awaited here
        queued = limits.HUB_QUEUE_BYTES // 1_000_000 + 3
        assert count - queued <= hub.num_dropped <= count - 8
        bus, client = await sleeper.wake()
        heard: list[int] = []
        await bus.subscribe("t", lambda message: heard.append(1))
        await eventually(lambda: hub._members[3].conn.num_queued == 0)
        await a.publish("t", b"")
        await eventually(lambda: heard == [1])
        client.close()


@looped
async def test_a_request_that_reaches_only_a_worker_that_does_not_read_fails_at_once() -> None:
    hub = Hub()
    async with worker_bus(hub) as a, asleep(hub) as sleeper:
        sleeper.says(op="subscribe", n=1, pattern="s")
        await eventually(lambda: hub._listeners.get("s"))
        while not hub.num_dropped:
            await a.publish("s", bytes(1_000_000))
        with pytest.raises(BusDown, match="reads too slowly"):
            await a.request("s", b"", timeout_s=10 * HANG_S)


@looped
async def test_a_worker_that_slept_is_told_what_has_changed_in_buckets_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "HUB_QUEUE_BYTES", 100_000)
    hub = Hub()
    async with worker_bus(hub) as a, asleep(hub) as sleeper:
        bucket = await a.bucket("b")
        entries: dict[str, bytes | None] = {f"k.{n}": bytes(200) for n in range(5000)}
        await bucket.put(entries)
        sleeper.says(op="watch", n=1, name="b", key="k", w=7)
        await eventually(lambda: hub._watching)
        watch = hub._members[2].watches[7]
        for round_ in range(5):
            await bucket.put(dict.fromkeys(entries, b"%d" % round_))
        assert len(watch.missed) == 5000
        await bucket.put({"k.0": None, "k.new": b"new"})
        bus, client = await sleeper.wake()
        seen: dict[str, bytes] = {}

        def changed(key: str, value: bytes | None) -> None:
            if value is None:
                del seen[key]
            else:
                seen[key] = value

        client._watches[7] = changed
        await eventually(lambda: "k.new" in seen)
        await eventually(lambda: not watch.missed)
        assert seen == {key: b"4" for key in entries if key != "k.0"} | {"k.new": b"new"}
        assert bus.is_up
        client.close()


@looped
async def test_a_worker_that_sleeps_through_too_many_changes_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "HUB_QUEUE_BYTES", 100_000)
    monkeypatch.setattr(limits, "HUB_MAX_MISSED", 1000)
    hub = Hub()
    async with worker_bus(hub) as a, asleep(hub) as sleeper:
        bucket = await a.bucket("b")
        sleeper.says(op="watch", n=1, name="b", key="k", w=7)
        await eventually(lambda: hub._watching)
        for round_ in range(30):
            await bucket.put({f"k.{round_}.{n}": bytes(200) for n in range(500)})
        await eventually(lambda: hub.num_members == 1)
        assert "has not read for too long" in caplog.text
        assert a.is_up


# -- bounds ------------------------------------------------------------------------------------


@looped
async def test_each_bound_of_the_hub_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in [
        ("HUB_MAX_ENTRIES", 3),
        ("HUB_MAX_BUCKETS", 1),
        ("HUB_MAX_SUBSCRIPTIONS", 2),
        ("HUB_MAX_ASKING", 1),
    ]:
        monkeypatch.setattr(limits, name, most)
    hub = Hub()
    async with worker_bus(hub) as bus:
        bucket = await bus.bucket("b")
        with pytest.raises(LimitExceeded, match="HUB_MAX_ENTRIES: 4 is over the limit of 3"):
            await bucket.put({f"k{n}": b"" for n in range(5)})
        await bucket.put({"k0": b"overwritten", "k1": None, "k3": b""})
        with pytest.raises(LimitExceeded, match="HUB_MAX_BUCKETS"):
            await bus.bucket("c")
        for n in range(2):
            await bus.subscribe(f"s.{n}", lambda message: None)
            await bus.subscribe(f"s.{n}", lambda message: None)
            await bucket.watch("k", lambda key, value: None)
        with pytest.raises(LimitExceeded, match="HUB_MAX_SUBSCRIPTIONS"):
            await bus.subscribe("t", lambda message: None)
        with pytest.raises(LimitExceeded, match="HUB_MAX_SUBSCRIPTIONS"):
            await bucket.watch("k", lambda key, value: None)
        asked = asyncio.ensure_future(bus.request("s.0", b"", timeout_s=LONG_S))
        await eventually(lambda: hub._requests)
        with pytest.raises(LimitExceeded, match="HUB_MAX_ASKING"):
            await bus.request("s.0", b"", timeout_s=LONG_S)
        asked.cancel()
        assert bus.is_up


@looped
async def test_a_publisher_waits_while_the_hub_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    client = await HubClient.connected(ours)
    with theirs:
        publishing = [asyncio.ensure_future(client.publish("s", bytes(1_000_000))) for _ in range(20)]
        await asyncio.sleep(0.05)
        waiting = [each for each in publishing if not each.done()]
        assert len(waiting) >= 15
        assert client._conn.num_queued < 5_000_000
    for each in waiting:
        with pytest.raises(BusDown):
            await each


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 8, b"\x00\x00\x00\x02\x00\x00\x00\x00{]", b"\x00\x00\x00\x02\x00\x00\x00\x00{}"],
    ids=["too long", "no JSON", "no op"],
)
@looped
async def test_a_malformed_frame_ends_the_connection_and_nothing_else(data: bytes) -> None:
    hub = Hub()
    async with worker_bus(hub) as a, asleep(hub) as worker:
        worker._sock.sendall(data)
        await eventually(lambda: hub.num_members == 1)
        await a.publish("s", b"")
        assert a.is_up


@looped
async def test_frames_come_whole_however_they_are_cut() -> None:
    got: list[tuple[dict[str, Any], bytes]] = []
    ours, theirs = socket.socketpair()
    conn = FrameConn(lambda header, data: got.append((header, data)), lambda: None)
    await conn.open(ours)
    with theirs:
        sent = [({"n": n}, bytes([n]) * n * 100) for n in range(6)]
        data = b"".join(encode(header, body) for header, body in sent)
        for at in range(0, len(data), 7):
            theirs.sendall(data[at : at + 7])
            await asyncio.sleep(0)
        await eventually(lambda: got == sent)
        conn.close()


def test_entries_are_packed_into_frames_of_a_bounded_size_and_come_out_as_they_were() -> None:
    entries: dict[str, bytes | None] = {f"k.{n}": bytes(n % 3000) if n % 5 else None for n in range(4000)}
    frames = list(pack(entries.items()))
    assert len(frames) > 4
    for header, data in frames:
        assert len(header["keys"]) <= limits.HUB_BATCH_ENTRIES
        assert len(data) <= limits.HUB_BATCH_BYTES
    assert dict(pair for header, data in frames for pair in unpack(header, data)) == entries
    assert list(pack([])) == []
