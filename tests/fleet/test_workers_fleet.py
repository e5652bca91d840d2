"""A fleet of the workers of one supervisor, in real processes: bus, streams, processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fleet_workers import ASK, make

from harness import HANG_S, eventually, looped, seconds
from hosts import BARE
from nats_server import NatsServer
from p2pcore import Conn, Host, P2PError, Stream, StreamReset, Supervisor, limits

ECHO = "/test-echo/1"


class Fleet:
    """A supervisor, a connection to each of its workers, and peers."""

    def __init__(self, supervisor: Supervisor, stack: AsyncExitStack, asker: Host) -> None:
        self.supervisor = supervisor
        self._stack = stack
        self._asker = asker
        self._conns: dict[int, Conn] = {}
        self.held: list[bytes] = []  # messages that a peer got and does not answer

    async def conn_to(self, host: Host, pid: int) -> Conn:
        """A new connection of `host` to worker `pid`."""
        for _ in range(300):
            conn = await host.swarm.dial_addr(self.supervisor.addrs_with_peer[0])
            if (await ask(conn, "state"))["pid"] == pid:
                return conn
            await conn.close()
        raise AssertionError(f"no connection to {pid}")

    async def ask(self, pid: int, do: str, **order: Any) -> Any:
        """Has worker `pid` do something. Returns: its answer."""
        return await ask(await self._conn(pid), do, **order)

    async def until(self, pid: int, is_right: Callable[[Any], bool], do: str = "state", **order: Any) -> Any:
        """What worker `pid` answers, once it is right."""
        while not is_right(answer := await self.ask(pid, do, **order)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        return answer

    async def found(self, pid: int, peer: Host, at: list[int]) -> None:
        """Returns once worker `pid` finds `peer` at these workers."""
        await self.until(pid, lambda pids: sorted(pids) == sorted(at), "where", peer=str(peer.peer_id))

    async def _conn(self, pid: int) -> Conn:
        if pid not in self._conns:
            self._conns[pid] = await self.conn_to(self._asker, pid)
        return self._conns[pid]

    async def peer(self, pid: int) -> Host:
        """A peer that echoes, connected to worker `pid`, and known to all to be there."""
        peer = await self._stack.enter_async_context(Host(**BARE | {"listen": []}))

        async def echo(stream: Stream) -> None:
            async for chunk in stream:
                await stream.write(chunk)

        async def answer(stream: Stream) -> None:
            await stream.write_msg(b"re: " + await stream.read_msg())

        peer.set_stream_handler(ECHO, echo)

        async def hold(stream: Stream) -> None:
            self.held.append(await stream.read_msg())
            await stream.wait_closed()

        peer.set_stream_handler("/test-answer/1", answer)
        peer.set_stream_handler("/test-hold/1", hold)
        await self.conn_to(peer, pid)
        return peer

    async def open(self, pid: int, peer: Host) -> Stream:
        """A stream through worker `pid` to `peer`."""
        stream = await (await self._conn(pid)).new_stream(ASK)
        order = {"do": "open", "peer": str(peer.peer_id), "protocol": ECHO}
        await stream.write_msg(json.dumps(order).encode())
        assert await stream.read_msg() == b"{}"
        return stream


async def ask(conn: Conn, do: str, **order: Any) -> Any:
    async with await conn.new_stream(ASK) as stream:
        await stream.write_msg(json.dumps({"do": do, **order}).encode())
        return json.loads(await stream.read_msg())


@asynccontextmanager
async def fleet(workers: int = 2, *args: str) -> AsyncIterator[Fleet]:
    async with (
        Supervisor(make, args, workers=workers) as supervisor,
        Host(**BARE | {"listen": []}) as asker,
        AsyncExitStack() as stack,
    ):
        made = Fleet(supervisor, stack, asker)
        for pid in supervisor.pids:
            await made.until(pid, lambda state: state["processes"] == workers)
        yield made


@looped
async def test_a_peer_is_found_and_asked_from_any_worker() -> None:
    async with fleet(3) as made:
        one, two, three = made.supervisor.pids
        peer = await made.peer(one)
        for pid in (one, two, three):
            await made.found(pid, peer, [one])
            order = {"peer": str(peer.peer_id), "protocol": "/test-answer/1", "text": "hello"}
            assert await made.ask(pid, "request", **order) == {"answer": "re: hello"}


@pytest.mark.parametrize("bus", ["workers", "nats"])
def test_a_stream_runs_through_another_process_until_one_of_them_is_killed(
    bus: str, request: pytest.FixtureRequest
) -> None:
    """Between workers by a socket; with NATS these are processes that only the bus connects."""
    server = NatsServer(request.getfixturevalue("tmp_path")) if bus == "nats" else None
    if server is None:
        _run_through()
        return
    try:
        server.start()
        server.wait_ready()
        _run_through(server.url)
    finally:
        server.kill()


@looped
async def _run_through(*args: str) -> None:
    async with fleet(3, *args) as made:
        one, two, three = made.supervisor.pids
        peer = await made.peer(one)
        await made.found(two, peer, [one])
        await made.found(three, peer, [one])
        data = os.urandom(1_000_000)
        through, kept = await made.open(two, peer), await made.open(three, peer)
        for stream in (through, kept):
            echoed, _ = await asyncio.gather(stream.read_exactly(len(data), len(data)), stream.write(data))
            assert echoed == data
        os.kill(two, signal.SIGKILL)
        with pytest.raises(P2PError):
            await through.read()
        await kept.write(b"not harmed")
        assert await kept.read_exactly(10) == b"not harmed"
        await eventually(lambda: peer.swarm.conns()[0].num_streams == 1)
        os.kill(one, signal.SIGKILL)  # the peer was connected to it
        with pytest.raises(StreamReset):
            await kept.read()
        assert (await made.ask(three, "state"))["link_streams"] == 0


@looped
async def test_presence_is_right_soon_after_a_worker_was_killed() -> None:
    async with fleet(2) as made:
        one, two = made.supervisor.pids
        peer = await made.peer(one)
        await made.found(two, peer, [one])
        os.kill(one, signal.SIGKILL)
        await made.found(two, peer, [])


@looped
async def test_a_request_to_a_worker_that_is_killed_fails_at_once_and_its_subscriptions_are_gone() -> None:
    async with fleet(2) as made:
        one, two = made.supervisor.pids
        await made.ask(one, "subscribe", subject="deaf")
        asking = asyncio.ensure_future(made.ask(two, "bus_request", subject="deaf", timeout_s=10 * HANG_S))
        await made.until(one, lambda state: bool(state["heard"] == [""]))
        os.kill(one, signal.SIGKILL)
        answer = await asking
        assert answer["error"] == "BusDown"
        assert "the worker that was asked has ended" in answer["text"]
        assert made.supervisor.hub.num_members <= 2
        answer = await made.ask(two, "bus_request", subject="deaf", timeout_s=10 * HANG_S)
        assert answer["error"] == "NobodyListens"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("bus", ["workers", "nats"])
def test_what_is_under_way_to_a_process_that_dies_or_stops_fails_long_before_its_deadline(
    bus: str, number: int, request: pytest.FixtureRequest
) -> None:
    server = NatsServer(request.getfixturevalue("tmp_path")) if bus == "nats" else None
    args = () if server is None else (server.url,)

    @looped
    async def main() -> None:
        async with fleet(2, *args) as made:
            one, two = made.supervisor.pids
            peer = await made.peer(one)
            await made.found(two, peer, [one])
            order = {"peer": str(peer.peer_id), "protocol": "/test-hold/1", "text": "hello"}
            asking = asyncio.ensure_future(made.ask(two, "request", timeout_s=10 * HANG_S, **order))
            await eventually(lambda: made.held)
            os.kill(one, number)
            answer = await asking
            assert (answer["reason"], answer["may_have_arrived"]) == ("GONE", True)
            answer = await made.ask(two, "request", timeout_s=10 * HANG_S, **order)
            assert answer["reason"] in ("GONE", "NOT_CONNECTED")
            assert not answer["may_have_arrived"]
            if number == signal.SIGSTOP:
                os.kill(one, signal.SIGKILL)

    try:
        if server is not None:
            server.start()
            server.wait_ready()
        main()
    finally:
        if server is not None:
            server.kill()


@looped
async def test_a_worker_that_hangs_loses_messages_and_slows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_SILENT_S", seconds(HANG_S))  # else it is replaced on a slow machine
    async with fleet(3) as made:
        one, two, three = made.supervisor.pids
        for pid in (one, three):
            await made.ask(pid, "subscribe", subject="news")
        hub = made.supervisor.hub
        os.kill(one, signal.SIGSTOP)
        try:
            for count in range(1, 21):
                await made.ask(two, "flood", subject="news", count=1, size=1_000_000)
                await made.until(three, lambda state: len(state["heard"]) == count)  # noqa: B023
            assert 8 <= hub.num_dropped <= 20
        finally:
            os.kill(one, signal.SIGCONT)
        left = 20 - hub.num_dropped
        await made.until(one, lambda state: len(state["heard"]) == left)
        await made.ask(two, "flood", subject="news", count=1, size=1)
        await made.until(one, lambda state: bool(state["heard"][-1] == "\x00"))


@looped
async def test_streams_and_workers_that_come_and_go_leave_no_descriptors_and_tasks() -> None:
    async with fleet(2) as made:
        one, two = made.supervisor.pids
        peer = await made.peer(one)
        await made.found(two, peer, [one])
        await (await made.open(two, peer)).close()
        before = {pid: await _settled(made, pid) for pid in (one, two)}
        for _ in range(20):
            streams = await asyncio.gather(*(made.open(two, peer) for _ in range(5)))
            for stream in streams:
                await stream.write(b"x")
                await stream.read()
                stream.reset()
        for pid in (one, two):
            assert await _settled(made, pid) == before[pid]


async def _settled(made: Fleet, pid: int) -> dict[str, Any]:
    """Counts of a worker when its streams to others are gone."""
    state = await made.until(pid, lambda state: not state["link_streams"])
    return {name: state[name] for name in ("descriptors", "links", "link_streams")}
