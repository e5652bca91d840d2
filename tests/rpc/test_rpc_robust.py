"""Calls while hosts drain, restart, close or stall: none is lost that need not be, and none runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from rpc_hosts import ECHO, LENGTH, NAME, TEXT, WAIT, Shop, shop

from harness import eventually, looped, seconds, settle
from hosts import BARE
from p2pcore import DrainOptions, Host, PrivateKey, Stream, StreamReset, TcpOptions, codes, limits, rpc
from p2pcore.codes import RPC_RESET_BASE
from p2pcore.rpc import wire
from p2pcore.rpc.idle import Idle
from p2pcore.rpc.pool import Pool

WHICH = rpc.Method("which", rpc.BYTES, TEXT)


def named(name: str, **options: Any) -> Host:
    """A host whose service says `name`."""
    host = Host(**{"ping": False} | options)
    service = rpc.Service(NAME)

    @service.method(WHICH)
    async def which(request: bytes, call: rpc.Call) -> str:
        await asyncio.sleep(0)
        return name

    service.serve(host)
    return host


class Calling:
    """Calls back to back in three tasks, until `stop`. None of them may fail."""

    def __init__(self, client: rpc.Client) -> None:
        self.answers: list[str] = []
        self._client = client
        self._is_stopping = False
        self._tasks = [asyncio.create_task(self._go_on()) for _ in range(3)]

    async def _go_on(self) -> None:
        while not self._is_stopping:
            self.answers.append(await self._client.call(WHICH, b""))

    async def stop(self) -> None:
        self._is_stopping = True
        await asyncio.gather(*self._tasks)

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until `condition()` or the first failure."""
        await eventually(lambda: condition() or any(task.done() for task in self._tasks))
        if not condition():
            await self.stop()


async def asked_at_the_end(made: Shop, code: int) -> asyncio.Task[int]:
    """A call whose request is under way on a new stream when the host closes the connection with `code`."""
    await made.client.call(LENGTH, "one stream to keep busy")
    busy = asyncio.create_task(made.client.call(WAIT, "for ever", timeout_s=None))
    await eventually(lambda: made.begun)
    conn, num_streams = made.server.swarm.conns()[0], made.client.conn.num_streams
    call = asyncio.create_task(made.client.call(LENGTH, "again"))
    while made.client.conn.num_streams == num_streams:  # noqa: ASYNC110 - the turn counts
        await asyncio.sleep(0)
    await conn.close(code)
    with pytest.raises(rpc.RpcUnavailable):  # it had begun
        await busy
    return call


@looped
async def test_a_request_that_a_host_had_not_taken_when_it_shut_down_is_sent_again() -> None:
    async with shop() as made:
        call = await asked_at_the_end(made, codes.CONN_SHUTDOWN)
        assert await call == 5


@looped
async def test_a_request_is_not_sent_again_where_a_connection_ends_for_another_reason() -> None:
    async with shop() as made:
        call = await asked_at_the_end(made, 0)
        with pytest.raises(rpc.RpcUnavailable, match="closed by the peer"):
            await call


@looped
async def test_a_request_is_sent_again_where_its_stream_had_ended_in_good_order_before_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with shop() as made:
        served: list[Stream] = []

        async def serve(stream: Stream) -> None:
            served.append(stream)
            await made.service._serve(Idle(made.server, 30), stream)

        made.server.set_stream_handler(made.service.protocol, serve)
        await made.client.call(LENGTH, "leaves an idle stream")
        idle = made.client._pool._idle[0]
        await served[0].close_write()
        await made.server.swarm.conns()[0].close(codes.CONN_SHUTDOWN)
        await eventually(lambda: idle.close_reason)
        # A call takes the stream from another one a moment before all this comes.
        streams = iter([idle, None])
        monkeypatch.setattr(Pool, "maybe_take", lambda _: next(streams))
        assert await made.client.call(LENGTH, "again") == 5


@pytest.mark.parametrize("max_streams", [100, 1])
@looped
async def test_a_rolling_restart_fails_no_call(max_streams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_LOOK_S", 1000.0)  # busy streams end after their calls, not by a look
    refuse = DrainOptions(refuse_after_s=seconds(0.5))
    same: dict[str, Any] = {"private_key": PrivateKey.generate(), "drain": refuse}
    same["tcp"] = TcpOptions(reuse_port=True)
    async with named("old", **same) as old, Host(listen=(), ping=False) as dialer:
        async with rpc.Client(dialer, old.addrs_with_peer[0], NAME, max_streams=max_streams) as client:
            calling = Calling(client)
            await calling.until(lambda: client.conn and dialer.info_of(client.conn))
            async with named("new", listen=[old.addrs[0]], **same):
                assert await old.drain(seconds(60)) == 0, "no stream was cut"
                await calling.until(lambda: calling.answers[-1] == "new")
                await calling.stop()
        assert set(calling.answers) == {"old", "new"}


async def read_all(stream: Stream) -> None:
    while await stream.read():
        pass


@looped
async def test_a_stream_that_ended_while_idle_costs_no_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RPC_LOOK_S", 0.001)
    async with shop(service={"idle_s": 0.01}) as made:
        for _ in range(3):
            assert await made.client.call(LENGTH, "four") == 4
            await eventually(lambda: made.server.swarm.num_handlers_running == 0)
        assert made.service.counts == {None: 3}
        assert made.client._pool.num_open == 1


@looped
async def test_idle_streams_and_a_busy_client_do_not_hold_a_drain_up() -> None:
    async with shop() as made:
        await asyncio.gather(*(made.client.call(LENGTH, "x") for _ in range(50)))
        call = asyncio.create_task(made.client.call(WAIT, "a"))
        await eventually(lambda: made.begun)
        drain = asyncio.create_task(made.server.drain(seconds(60)))
        await eventually(lambda: made.server.swarm.num_handlers_running == 1)
        made.gates["a"].set()
        assert await call == "a is done", "a call that runs is not cut"
        assert await drain == 0


@looped
async def test_a_service_that_has_ended_is_unavailable() -> None:
    async with shop() as made:
        await made.client.call(ECHO, b"")
        await made.server.drain(0)
        with pytest.raises(rpc.RpcUnavailable):
            await made.client.call(ECHO, b"")


@looped
async def test_a_host_that_closes_cancels_its_calls_and_says_that_they_may_have_run() -> None:
    async with shop() as made:
        call = asyncio.create_task(made.client.call(WAIT, "a"))
        await eventually(lambda: made.begun)
        await made.server.close()
        with pytest.raises(rpc.RpcUnavailable) as caught:
            await call
        assert isinstance(caught.value.__cause__, StreamReset)
        assert caught.value.__cause__.code == RPC_RESET_BASE + rpc.Code.UNAVAILABLE
        assert made.begun == made.cancelled == ["a"]


@looped
async def test_a_lost_connection_fails_calls_once_and_the_next_call_connects_again() -> None:
    async with shop() as made:
        call = asyncio.create_task(made.client.call(WAIT, "a"))
        again = asyncio.create_task(made.client.call(WAIT, "b", retry=rpc.Retry(pause_s=0)))
        await eventually(lambda: len(made.begun) == 2)
        made.server.swarm.conns()[0].abort()
        with pytest.raises(rpc.RpcUnavailable):
            await call
        await eventually(lambda: sorted(made.begun) == ["a", "b", "b"])
        made.gates["b"].set()
        assert await again == "b is done"
        assert await made.client.call(LENGTH, "on") == 2
        assert made.begun.count("a") == 1


@looped
async def test_a_caller_that_does_not_read_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_WRITE_TIMEOUT_S", 0.05)
    async with shop() as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(bytes.fromhex("00 04 00000000 00100000 6563686f") + bytes(1 << 20))
        await stream.wait_closed()
        with pytest.raises(StreamReset) as caught:
            await read_all(stream)
        assert made.service.num_running == 0
        assert caught.value.code == RPC_RESET_BASE + rpc.Code.DEADLINE_EXCEEDED
        assert await made.client.call(LENGTH, "others go on") == 12


@looped
async def test_a_request_that_does_not_arrive_takes_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RPC_REQUEST_TIMEOUT_S", 0.05)
    async with shop(service={"bounds": rpc.Bounds(running=1, queued=0)}) as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(bytes.fromhex("00 04 00000000 00100000 6563686f") + bytes(1000))
        assert await made.client.call(LENGTH, "others go on") == 12
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == RPC_RESET_BASE + rpc.Code.DEADLINE_EXCEEDED


@looped
async def test_what_has_arrived_of_a_request_counts_for_the_memory_of_the_host() -> None:
    size = 16 * limits.YAMUX_INITIAL_WINDOW_BYTES
    service = rpc.Service(NAME)
    async with Host(**BARE) as host, Host(listen=(), **BARE) as caller:
        service.serve(host)
        stream = await caller.new_stream(host.addrs_with_peer[0], service.protocol)
        (head, body) = wire.pack_request(b"length", bytes(size), None)
        await stream.write(head + body[:-1])
        await eventually(lambda: host.swarm.ledger.unread == size - 1)
        assert host.swarm.ledger.used > size
        await stream.write(body[-1:])
        await eventually(lambda: host.swarm.ledger.unread == 0)
        assert await stream.read(5), "the service answers that it has no such method"


@looped
async def test_a_head_that_does_not_arrive_ends_as_an_idle_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_LOOK_S", 0.001)
    async with shop(service={"idle_s": 0.01}) as made:
        stream = await made.dialer.new_stream(made.server.addrs_with_peer[0], made.service.protocol)
        await stream.write(b"\x00\x04")
        assert await stream.read() == b""


@looped
async def test_a_peer_that_refuses_for_ever_is_unavailable() -> None:
    async with shop() as made, Host(**BARE) as stopping:
        stopping.swarm._streams.refuse()
        async with rpc.Client(made.dialer, stopping.addrs_with_peer[0], NAME) as client:
            with pytest.raises(rpc.RpcUnavailable):
                await client.call(ECHO, b"")
            assert client._pool.num_open == 0


@looped
async def test_a_call_that_a_peer_refuses_because_it_ends_goes_to_another_stream() -> None:
    async with shop() as made:
        streams: list[Stream] = []

        async def serve(stream: Stream) -> None:
            streams.append(stream)
            if len(streams) == 1:
                stream.reset(codes.STREAM_SHUTDOWN)
            else:
                await stream.read()
                await stream.write(bytes.fromhex("00 00000001 34"))

        made.server.set_stream_handler(made.service.protocol, serve)
        assert await made.client.call(LENGTH, "four") == 4
        assert len(streams) == 2


@looped
async def test_a_peer_that_refused_once_is_asked_again_on_another_connection() -> None:
    """Its message that it drains may come later than its refusals: they say the same."""
    key = PrivateKey.generate()
    async with (
        named("old", private_key=key) as old,
        named("new", private_key=key) as new,
        Host(listen=(), ping=False) as dialer,
    ):
        await dialer.connect(old.addrs_with_peer[0])
        dialer.addr_book.add(new.peer_id, *new.addrs)
        await old.swarm.listen_close(*old.swarm.listen_addresses())
        old.swarm._streams.refuse()
        async with rpc.Client(dialer, new.peer_id, NAME) as client:
            assert await client.call(WHICH, b"") == "new"
        assert dialer.swarm.best_conn(new.peer_id) is client.conn


@looped
async def test_many_cancelled_calls_harm_neither_side() -> None:
    async with shop() as made:
        for _ in range(5):
            calls = [asyncio.create_task(made.client.call(WAIT, "never")) for _ in range(200)]
            await settle()
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await eventually(lambda: made.service.num_running == 0)
        assert await made.client.call(LENGTH, "on") == 2
        assert made.client._pool.num_open == 1
        assert made.server.swarm.num_conns == 1
