"""Streams over the bus: what they promise when the bus, or a message, is not what it should be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from buses import KITS, Kit
from fleets import yard
from hypothesis import given, strategies as st
from machines import machines
from test_open import ECHO, LONG_S, Scene, scene

from harness import eventually, feeding, looped, settle
from p2pcore import Stream, limits
from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, BusStreamLost, NobodyListens, NotDelivered, RemoteProtocolError
from p2pcore.fleet.bus import BusMessage
from p2pcore.fleet.pipe import DATA, END, LOOK, OPEN, REFUSED, TAKEN, Piece, Pipe, packed, unpacked

ID = b"\x01" * 8


@pytest.fixture(params=["memory", "workers", "nats"])
def kit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kit:
    monkeypatch.setattr(limits, "FLEET_PIPE_LOOK_S", 0.1)
    return KITS[request.param](request)


def on(kit: Kit) -> Callable[[int], Any]:
    return lambda count: machines(count, kit)


# -- the bytes of messages ---------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_bytes_are_a_message_of_a_pipe_or_refused(data: bytes) -> None:
    try:
        piece = unpacked(data)
    except RemoteProtocolError:
        return
    assert packed(piece) == data


def test_a_message_comes_out_as_it_went_in() -> None:
    for piece in (Piece(OPEN, ID, 0, b"p1"), Piece(DATA, ID, 2**64 - 1, b"x" * 65536), Piece(END, ID)):
        assert unpacked(packed(piece)) == piece


# -- one end -----------------------------------------------------------------------------------


class End:
    """A pipe whose other end is the test. `sent`: what it has asked, each with the future of its answer."""

    def __init__(self, is_opened: bool = True) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.sent: list[tuple[Piece, asyncio.Future[bytes]]] = []
        self.errors: list[BusStreamLost | None] = []
        self.answers: list[bytes] = []
        self.is_up = True
        self.num_streams = 1
        self.pipe = Pipe(
            ID,
            "p1",
            self._ask,
            lambda: self.is_up,
            ours,
            lambda: self.num_streams,
            lambda _, error: self.errors.append(error),
        )
        if is_opened:
            self.pipe.opened()
        self.running = asyncio.ensure_future(self.pipe.run())

    async def _ask(self, data: bytes) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.sent.append((unpacked(data), answer))
        return await answer

    def take(self, number: int, body: bytes) -> None:
        self.pipe.take(Piece(DATA, ID, number, body), self.answers.append)

    async def received(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await asyncio.get_running_loop().sock_recv(self.sock, size)
        return data


@asynccontextmanager
async def one_end(is_opened: bool = True) -> AsyncIterator[End]:
    end = End(is_opened)
    try:
        yield end
    finally:
        end.pipe.end(None)
        await end.running
        end.sock.close()


@looped
async def test_no_more_is_under_way_than_the_window_and_each_answer_lets_one_more_go() -> None:
    async with one_end() as end:
        loop = asyncio.get_running_loop()
        most = limits.FLEET_PIPE_CHUNKS * limits.FLEET_PIPE_CHUNK_BYTES
        writing = asyncio.ensure_future(loop.sock_sendall(end.sock, bytes(3 * most)))
        await eventually(lambda: len(end.sent) == limits.FLEET_PIPE_CHUNKS)
        await settle(50)
        assert len(end.sent) == limits.FLEET_PIPE_CHUNKS
        assert not writing.done()
        end.sent[3][1].set_result(TAKEN)
        await eventually(lambda: len(end.sent) == limits.FLEET_PIPE_CHUNKS + 1)
        await settle(50)
        assert len(end.sent) == limits.FLEET_PIPE_CHUNKS + 1
        assert [piece.number for piece, _ in end.sent] == list(range(len(end.sent)))
        writing.cancel()


@looped
async def test_nothing_is_sent_before_the_other_end_knows_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say that there is no such pipe."""
    monkeypatch.setattr(limits, "FLEET_PIPE_LOOK_S", 0.001)
    async with one_end(is_opened=False) as end:
        end.sock.send(b"early")
        end.take(0, b"of the other end")
        assert await end.received(16) == b"of the other end"
        await asyncio.sleep(0.02)
        assert not end.sent
        end.pipe.opened()
        await eventually(lambda: any(piece.body == b"early" for piece, _ in end.sent))


@looped
async def test_messages_in_any_order_and_twice_come_out_once_and_in_order() -> None:
    data = bytes(range(60))
    for chunks, _ in feeding(data):
        if len(chunks) > limits.FLEET_PIPE_CHUNKS:
            continue
        async with one_end() as end:
            for number in reversed(range(len(chunks))):
                end.take(number, chunks[number])
                end.take(number, b"late")
            got = await end.received(sum(map(len, chunks)))
            assert got == b"".join(chunks)
            end.take(0, b"much later")
            await eventually(lambda: len(end.answers) == len(chunks))  # noqa: B023
            assert set(end.answers) == {TAKEN}
            assert not end.errors


@looped
async def test_bytes_are_acknowledged_only_when_they_are_in_the_socket() -> None:
    async with one_end() as end:
        for number in range(limits.FLEET_PIPE_CHUNKS):
            end.take(number, bytes(limits.FLEET_PIPE_CHUNK_BYTES))
        await settle(50)
        held = limits.FLEET_PIPE_CHUNKS - len(end.answers)
        assert held > 4, "the socket has taken all: the test says nothing"
        await end.received(limits.FLEET_PIPE_CHUNKS * limits.FLEET_PIPE_CHUNK_BYTES)
        await eventually(lambda: len(end.answers) == limits.FLEET_PIPE_CHUNKS)


@pytest.mark.parametrize(
    "pieces",
    [
        [(limits.FLEET_PIPE_CHUNKS, b"x")],
        [(2**64 - 1, b"x")],
        [(0, bytes(limits.FLEET_PIPE_CHUNK_BYTES + 1))],
        [(number + 1, b"x") for number in range(limits.FLEET_PIPE_CHUNKS - 1)] + [(16, b"x")],
        [(number, bytes(65536)) for number in range(2 * limits.FLEET_PIPE_CHUNKS)],
    ],
    ids=["far ahead", "last number", "too long", "a gap as long as the window", "no wait for answers"],
)
def test_who_sends_beyond_the_window_loses_the_pipe(pieces: list[tuple[int, bytes]]) -> None:
    @looped
    async def main() -> None:
        async with one_end() as end:
            for number, body in pieces:
                end.take(number, body)
            assert [error and error.reason for error in end.errors] == [Undelivered.GONE]

    main()


@pytest.mark.parametrize(
    ("outcome", "is_up", "reason"),
    [
        (REFUSED, True, Undelivered.GONE),
        (b"", True, Undelivered.GONE),
        (NobodyListens("x"), True, Undelivered.GONE),
        (TimeoutError("x"), True, Undelivered.GONE),
        (BusDown("x"), True, Undelivered.GONE),
        (BusDown("x"), False, Undelivered.BUS_DOWN),
    ],
)
def test_a_message_that_is_not_taken_ends_the_pipe_with_the_reason(
    outcome: bytes | Exception, is_up: bool, reason: Undelivered
) -> None:
    @looped
    async def main() -> None:
        async with one_end() as end:
            end.is_up = is_up
            end.sock.send(b"x")
            await eventually(lambda: end.sent)
            if isinstance(outcome, bytes):
                end.sent[0][1].set_result(outcome)
            else:
                end.sent[0][1].set_exception(outcome)
            await eventually(lambda: end.errors)
            assert end.errors[0] is not None
            assert end.errors[0].reason is reason
            await end.running
            assert not end.sock.recv(1)  # it is closed

    main()


@looped
async def test_a_pipe_asks_whether_its_streams_are_there_and_ends_when_it_has_none_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FLEET_PIPE_LOOK_S", 0.001)
    async with one_end() as end:
        for _ in range(3):
            await eventually(lambda: end.sent)
            piece, answer = end.sent.pop()
            assert piece.kind == LOOK
            answer.set_result(TAKEN)
        end.num_streams = 0
        await eventually(lambda: end.errors or (end.sent and not end.sent.pop()[1].set_result(TAKEN)))
        await eventually(lambda: end.errors == [None])


# -- both ends, on each bus --------------------------------------------------------------------


async def _echoing(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


async def _under_way(s: Scene) -> Stream:
    stream = await s.open()
    await stream.write(b"x")
    assert await stream.read() == b"x"
    return stream


def test_when_the_bus_goes_away_both_ends_of_a_stream_end_with_the_reason(
    kit: Kit, request: pytest.FixtureRequest
) -> None:
    if "workers" in request.node.name:
        pytest.skip("its engine is the supervisor, with which all workers end")

    @looped
    async def main() -> None:
        ended: list[Exception] = []

        async def serve(stream: Stream) -> None:
            try:
                await _echoing(stream)
            except Exception as error:
                ended.append(error)
                raise

        async with scene(on(kit), serve) as s:
            for mate in s.mates:
                pipes: Any = mate.opener
                pipes._bus.on_state(lambda is_up, pipes=pipes: None if is_up else pipes.away())
            stream = await s.open("/test")
            await stream.write(b"x")
            assert await stream.read() == b"x"
            await kit.stop()
            with pytest.raises(BusStreamLost) as caught:
                await stream.read()
            assert caught.value.reason is Undelivered.BUS_DOWN
            with pytest.raises(BusStreamLost):
                await stream.write(b"y")
            await eventually(lambda: ended)
            with pytest.raises(NotDelivered) as refused:
                await s.open()
            assert refused.value.reason is Undelivered.BUS_DOWN
            await kit.start()
            await eventually(lambda: all(mate.opener._bus.is_up for mate in s.mates))  # type: ignore[union-attr]
            await _under_way(s)

    main()


@looped
async def test_messages_from_nobody_harm_nobody(kit: Kit) -> None:
    async with scene(on(kit)) as s, kit.buses(1) as (bus,):
        stream = await _under_way(s)
        subject = f"test.pipe.{s.holder.name}"
        for data in (
            b"",
            b"\x01",
            b"x" * 1000,
            packed(Piece(OPEN, ID, 0, b"no word.")),
            packed(Piece(END, ID)),
        ):
            await bus.publish(subject, data)
        for piece in (Piece(DATA, ID, 0, b"x"), Piece(LOOK, ID)):
            assert await bus.request(subject, packed(piece), timeout_s=LONG_S) == REFUSED
        pipe = next(iter(s.holder.opener._pipes))  # type: ignore[union-attr]
        assert await bus.request(subject, packed(Piece(OPEN, pipe, 0, b"p9")), timeout_s=LONG_S) == REFUSED
        await bus.publish(subject, packed(Piece(DATA, pipe, 1, b"without an answer")))
        await stream.write(b"still there")
        assert await stream.read_exactly(11) == b"still there"


@looped
async def test_who_speaks_no_yamux_on_a_pipe_loses_it_and_others_keep_theirs(kit: Kit) -> None:
    async with scene(on(kit)) as s, kit.buses(1) as (bus,):
        stream = await _under_way(s)
        subject = f"test.pipe.{s.holder.name}"
        ended: list[Piece] = []
        await bus.subscribe("test.pipe.p9", lambda message: ended.append(unpacked(message.data)))
        assert await bus.request(subject, packed(Piece(OPEN, ID, 0, b"p9")), timeout_s=LONG_S) == TAKEN
        await bus.request(subject, packed(Piece(DATA, ID, 0, b"\xff" * 12)), timeout_s=LONG_S)
        await eventually(lambda: len(s.holder.links._all) == 1)
        await eventually(lambda: Piece(END, ID) in ended)
        await stream.write(b"still there")
        assert await stream.read_exactly(11) == b"still there"


@looped
async def test_an_end_that_got_lost_is_found_at_the_next_look_and_the_next_open_makes_a_new_pipe(
    kit: Kit,
) -> None:
    async with scene(on(kit)) as s:
        await _under_way(s)
        holder: Any = s.holder.opener
        for _ in range(2):
            holder._bus, bus = _Down(), holder._bus  # it cannot say that it ends them
            for pipe in list(holder._pipes.values()):
                pipe.end(None)
            holder._bus = bus
            await _under_way(s)
        stream = await _under_way(s)
        holder._bus, bus = _Down(), holder._bus
        for pipe in list(holder._pipes.values()):
            pipe.end(None)
        holder._bus = bus
        with pytest.raises(BusStreamLost) as caught:
            await stream.read()
        assert caught.value.reason is Undelivered.GONE


class _Down:
    is_up = False


@looped
async def test_streams_and_pipes_beyond_their_bounds_are_refused_and_those_within_go_on(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(on(kit), count=3) as s:
        await s.peer.connect(s.mates[2].host.addrs_with_peer[0])
        await eventually(lambda: s.mates[2].host.swarm.conns_to_peer(s.peer.peer_id))
        monkeypatch.setattr(limits, "FLEET_MAX_BUS_STREAMS", 3)
        streams = [await _under_way(s) for _ in range(3)]
        with pytest.raises(NotDelivered) as caught:
            await s.open()
        assert caught.value.reason is Undelivered.BUSY
        with pytest.raises(NotDelivered) as caught:
            await s.mates[2].opener.open(s.holder.name, s.peer.peer_id, ECHO, timeout_s=LONG_S)
        assert caught.value.reason is Undelivered.BUSY
        streams.pop().reset()
        await eventually(lambda: s.asker.num_link_streams == s.holder.num_link_streams == 2)
        streams.append(await _under_way(s))
        for stream in streams:
            stream.reset()
        await eventually(lambda: not s.asker.num_link_streams)
        monkeypatch.setattr(limits, "FLEET_MAX_PIPES", 1)
        with pytest.raises(NotDelivered) as caught:
            await s.asker.opener.open(s.mates[2].name, s.peer.peer_id, ECHO, timeout_s=LONG_S)
        assert caught.value.reason is Undelivered.BUSY
        await _under_way(s)


@looped
async def test_a_process_that_closes_its_fleet_ends_the_streams_at_the_other_end_at_once(kit: Kit) -> None:
    async with scene(on(kit)) as s:
        stream = await _under_way(s)
        closer: Any = s.holder.opener
        await closer.close()
        with pytest.raises(BusStreamLost) as caught:
            await stream.read()
        assert caught.value.reason is Undelivered.GONE
        assert "has ended them" in str(caught.value)
        assert not closer._pipes
        assert not closer._tasks


# -- fleets ------------------------------------------------------------------------------------


@looped
async def test_a_fleet_opens_over_the_bus_only_when_asked_to() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await eventually(lambda: made.fleets[0].num_connected() == 1)
        with pytest.raises(NotDelivered) as caught:
            await made.fleets[0].open(peer.id, "/test-echo/1.0.0")
        assert caught.value.reason is Undelivered.ELSEWHERE
        async with await made.fleets[0].open(peer.id, "/test-echo/1.0.0", over_bus=True) as stream:
            await stream.write_msg(b"hello")
            assert await stream.read_msg() == b"echo hello"
            families = {each.name: each for each in made.fleets[0].families()}
            assert "p2pcore_fleet_bus_streams" in families
        async with await made.fleets[1].open(peer.id, "/test-echo/1.0.0", over_bus=True) as stream:
            await stream.write_msg(b"here")  # its own peer: no bus
            assert await stream.read_msg() == b"echo here"
        assert not made.fleets[1]._parts.pipes._links._sessions.get(made.fleets[1].process)  # type: ignore[union-attr]


@looped
async def test_streams_end_when_the_lease_of_the_other_process_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FLEET_PIPE_LOOK_S", 1e6)
    async with yard(2) as made:
        peer = await made.peer(1)
        await eventually(lambda: made.fleets[0].num_connected() == 1)
        stream = await made.fleets[0].open(peer.id, "/test-echo/1.0.0", over_bus=True)
        await stream.write_msg(b"hello")
        assert await stream.read_msg() == b"echo hello"
        await made.stand_still(1)
        with pytest.raises(BusStreamLost, match="stands still") as caught:
            await stream.read()
        assert caught.value.reason is Undelivered.GONE


@looped
async def test_streams_end_at_once_with_the_engine_of_their_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FLEET_PIPE_LOOK_S", 1e6)  # nobody asks
    async with yard(2) as made:
        peer = await made.peer(1)
        await eventually(lambda: made.fleets[0].num_connected() == 1)
        stream = await made.fleets[0].open(peer.id, "/test-echo/1.0.0", over_bus=True)
        made.engine.stop()
        with pytest.raises(BusStreamLost) as caught:
            await stream.read()
        assert caught.value.reason is Undelivered.BUS_DOWN
        await eventually(lambda: not made.fleets[1]._parts.pipes.num_streams)  # type: ignore[union-attr]


def test_a_message_without_an_answer_opens_nothing() -> None:
    @looped
    async def main() -> None:
        async with yard(1) as made:
            parts = made.fleets[0]._parts
            assert parts is not None
            parts.pipes.deliver(BusMessage("x", packed(Piece(OPEN, ID, 0, b"p9"))))
            assert not parts.pipes._pipes

    main()
