"""Sessions: delivery of streams, closing, and two of them against a model under random use.

Comes in: handlers, acceptors, closings; random operations of hypothesis over a cable that cuts bytes
anywhere. Goes out: what each stream's model says, byte for byte.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable
from typing import Any

import pytest
import uvloop
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from _fast.chains import (
    ACK,
    FIN,
    KEY_A,
    KEY_B,
    RST,
    SYN,
    WU,
    Cable,
    Frame,
    RawYamux,
    closed,
    data,
    frame,
    session_pair,
    stream_pair,
)
from _fast.mplex_chain import RawMplex
from harness import HANG_S, looped, seconds, settle
from p2pcore import errors, limits
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxSession

# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_a_stream_that_ends_while_its_write_waits_is_forgotten(muxer: str) -> None:
    peer = RawYamux(True) if muxer == "yamux" else RawMplex(True)
    stream = await peer.session.open_stream()
    peer.clog()
    writing = asyncio.ensure_future(stream.write(bytes(200_000)))
    await settle()
    assert not writing.done()
    stream.reset()
    with pytest.raises(errors.StreamReset):
        await writing
    seen = weakref.ref(stream)
    del stream, writing
    await settle()  # the loop lets go of the task
    gc.collect()
    assert seen() is None


# -- delivery ---------------------------------------------------------------------------------------


@looped
async def test_the_handler_is_called_from_the_loop_and_never_while_feeding() -> None:
    peer = RawYamux()
    seen: list[Stream] = []
    peer.session.set_stream_handler(seen.append)
    peer.deliver(frame(WU, SYN, 1), frame(WU, SYN, 3))
    assert not seen
    await settle()
    assert [s.id for s in seen] == [1, 3]
    assert await peer.answers() == [Frame(WU, ACK, 1, 0), Frame(WU, ACK, 3, 0)]


@looped
async def test_streams_that_waited_go_to_a_new_handler_first() -> None:
    peer = RawYamux()
    peer.deliver(frame(WU, SYN, 1))
    await settle()
    seen: list[int] = []
    peer.session.set_stream_handler(lambda stream: seen.append(stream.id))
    peer.deliver(frame(WU, SYN, 3))
    await settle()
    assert seen == [1, 3]
    peer.session.set_stream_handler(None)
    peer.deliver(frame(WU, SYN, 5))
    assert (await peer.session.accept_stream()).id == 5


@looped
async def test_answers_of_streams_that_arrived_together_leave_together() -> None:
    cable = Cable()
    box = cable.mailbox
    box.insert(NoiseChannel(KEY_A, KEY_B))
    session = YamuxSession(False)
    box.replace(session)
    peer = Cable()
    peer.mailbox.insert(NoiseChannel(KEY_B, KEY_A))
    tasks: list[asyncio.Future[None]] = []

    async def echo(stream: Stream) -> None:
        while piece := await stream.read():
            await stream.write(piece)

    session.set_stream_handler(lambda stream: tasks.append(asyncio.ensure_future(echo(stream))))
    for kind in (SYN, 0, 0):  # new tasks, then woken ones
        peer.mailbox.write(b"".join(data(id, b"x" * 32, kind) for id in range(1, 101, 2)))
        await settle()
        cable.deliver(peer.sent())
        await settle(8)
        raw, sizes = cable.sent(), []
        while raw:
            sizes.append(int.from_bytes(raw[:2], "big"))
            raw = raw[sizes[-1] + 2 :]
        most = 1 + -(-50 // limits.FLUSH_AFTER_TASKS)  # acknowledgements may go ahead of the data
        assert len(sizes) <= most, sizes
    session.abort()
    await asyncio.gather(*tasks, return_exceptions=True)


@looped
async def test_the_first_of_many_answers_leave_before_the_last_are_made() -> None:
    cable = Cable()
    cable.mailbox.insert(PlainChannel())
    session = YamuxSession(False)
    cable.mailbox.replace(session)
    count = 2 * limits.FLUSH_AFTER_TASKS
    sent_by_then: list[int] = []

    async def answer(stream: Stream) -> None:
        await stream.read()
        sent_by_then.append(len(cable.sent()))
        await stream.write(b"x" * 32)
        await stream.read()

    tasks: list[asyncio.Future[None]] = []
    session.set_stream_handler(lambda stream: tasks.append(asyncio.ensure_future(answer(stream))))
    ids = range(1, 2 * count, 2)
    cable.deliver(b"".join(frame(WU, SYN, id) for id in ids))
    await settle(8)
    cable.sent()
    cable.deliver(b"".join(data(id, b"?") for id in ids))
    await settle(8)
    assert len(sent_by_then) == count
    assert [at for at, size in enumerate(sent_by_then) if size] == [limits.FLUSH_AFTER_TASKS]
    session.abort()
    await asyncio.gather(*tasks, return_exceptions=True)


@looped
async def test_a_handler_may_take_itself_away() -> None:
    peer = RawYamux()
    seen: list[int] = []

    def once(stream: Stream) -> None:
        seen.append(stream.id)
        peer.session.set_stream_handler(None)

    peer.session.set_stream_handler(once)
    peer.deliver(frame(WU, SYN, 1), frame(WU, SYN, 3))
    await settle()
    peer.deliver(frame(WU, SYN, 5))
    assert (await peer.session.accept_stream()).id == 5
    assert seen == [1, 3]


@looped
async def test_a_handler_that_fails_is_logged_and_its_stream_reset(caplog: pytest.LogCaptureFixture) -> None:
    peer = RawYamux()
    peer.session.set_stream_handler(lambda stream: 1 / 0)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        peer.deliver(frame(WU, SYN, 1))
        await settle()
    assert [r.getMessage() for r in caplog.records] == ["a stream handler failed"]
    caplog.clear()
    assert [f.flags for f in await peer.answers()] == [ACK, RST]


@looped
async def test_a_stream_reset_before_it_was_delivered_never_is() -> None:
    peer = RawYamux()
    peer.deliver(frame(WU, SYN, 1), frame(WU, RST, 1), frame(WU, SYN, 3))
    assert (await peer.session.accept_stream()).id == 3


@looped
async def test_acceptors_are_served_in_order() -> None:
    peer = RawYamux()
    accepts = [asyncio.ensure_future(peer.session.accept_stream()) for _ in range(3)]
    await settle()
    peer.deliver(frame(WU, SYN, 1), frame(WU, SYN, 3))
    await settle()
    assert [a.done() for a in accepts] == [True, True, False]
    assert [a.result().id for a in accepts[:2]] == [1, 3]
    peer.session.abort()
    with pytest.raises(errors.GoAway):
        await accepts[2]


@looped
async def test_cancelled_opens_accepts_and_closes_leave_nothing_behind() -> None:
    peer = RawYamux(is_client=True, ack_backlog=0)
    waits: list[asyncio.Future[Any]] = []
    for _ in range(3):
        calls: list[Awaitable[Any]] = [peer.session.open_stream(), peer.session.accept_stream()]
        waits = [asyncio.ensure_future(c) for c in calls]
        await settle()
        for wait in waits:
            wait.cancel()
        await settle()
        assert all(w.cancelled() for w in waits)
    closing = asyncio.ensure_future(peer.session.close())
    await settle()
    closing.cancel()
    await settle()
    closing = asyncio.ensure_future(peer.session.close())
    peer.deliver_eof()
    await closing


# -- the end ------------------------------------------------------------------------------------------


@looped
async def test_a_close_may_be_cancelled_when_the_end_has_just_come() -> None:
    peer = RawYamux()
    calls = [asyncio.ensure_future(peer.session.close()) for _ in range(3)]
    await settle()
    peer.wire.connection_lost(None)
    for call in calls[:2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError, asyncio.CancelledError, type(None)]
    await peer.session.close()


@looped
async def test_close_is_seen_by_the_peer_as_a_go_away_after_all_data() -> None:
    client, server = await session_pair()
    a, b = await stream_pair(client, server)
    told: list[Any] = []
    server.add_close_callback(told.append)
    await a.write(b"last")
    await client.close(0x1006)
    assert await b.read() == b"last"
    with pytest.raises(errors.GoAway) as caught:
        await b.read()
    assert (caught.value.code, caught.value.remote) == (0x1006, True)
    await server.close()
    assert [type(e) for e in told] == [errors.GoAway]
    late: list[Any] = []
    server.add_close_callback(late.append)
    await settle()
    assert late == told


@looped
async def test_a_close_callback_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    peer = RawYamux()
    told: list[Any] = []
    peer.session.add_close_callback(lambda error: 1 / 0)  # type: ignore[arg-type]
    peer.session.add_close_callback(told.append)
    with caplog.at_level(logging.ERROR):
        peer.session.abort()
        await settle()
    assert len(told) == 1
    assert [r.getMessage() for r in caplog.records] == ["a close callback failed"]
    caplog.clear()


@looped
async def test_both_ends_may_close_at_once() -> None:
    client, server = await session_pair()
    await asyncio.gather(client.close(), server.close(), client.close())
    assert client.is_closed
    assert server.is_closed


# -- a model ---------------------------------------------------------------------------------------------


class End:
    """One side of a stream, and what the model says about it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.sent = bytearray()  # what the application has written here, all of it
        self.got = bytearray()  # what it has read here
        self.closed = False
        self.writes: list[asyncio.Future[None]] = []


class TwoSessions(RuleBasedStateMachine):
    """Random reads, writes, half closes and deliveries; every byte arrives once, in order, at its stream."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.pairs: list[tuple[End, End]] = []
        self.wires: list[Cable] = []
        self.sessions: list[YamuxSession] = []
        self.pending = [b"", b""]  # bytes under way towards each side

    def go(self, awaitable: Awaitable[Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(seconds(HANG_S)):
                return await awaitable

        return self.loop.run_until_complete(bounded())

    @initialize()
    def connect(self) -> None:
        async def start() -> None:
            for is_client, keys in ((True, (KEY_A, KEY_B)), (False, (KEY_B, KEY_A))):
                cable = Cable(self.loop)
                box = cable.mailbox
                box.insert(NoiseChannel(*keys))
                session = YamuxSession(is_client, ack_backlog=8)
                box.replace(session)
                self.wires.append(cable)
                self.sessions.append(session)

        self.go(start())

    def pump(self) -> None:
        """Collects what both sides have sent."""
        self.go(settle())
        for i, cable in enumerate(self.wires):
            self.pending[1 - i] += cable.sent()
            if cable.queue:
                cable.drain()

    def carry(self, side: int, n: int) -> None:
        """Delivers the next `n` bytes to `side`."""
        self.pump()
        piece, self.pending[side] = self.pending[side][:n], self.pending[side][n:]
        self.wires[side].deliver(piece)
        self.go(settle())

    def carry_all(self) -> None:
        for _ in range(1000):
            self.pump()
            if not any(self.pending) and not any(c.queue for c in self.wires):
                return
            for side in (0, 1):
                self.carry(side, 1 << 20)
        raise AssertionError("the sessions talk without end")

    @precondition(lambda self: len(self.pairs) < 6)
    @rule(side=st.integers(0, 1))
    def open(self, side: int) -> None:
        opened = self.go(self.sessions[side].open_stream())
        self.carry_all()
        accepted = self.go(self.sessions[1 - side].accept_stream())
        assert opened.id == accepted.id
        ends = [End(opened), End(accepted)]
        self.pairs.append((ends[0], ends[1]) if side == 0 else (ends[1], ends[0]))

    @precondition(lambda self: self.pairs)
    @rule(
        which=st.integers(0, 5),
        side=st.integers(0, 1),
        n=st.sampled_from([0, 1, 12, 4095, 4096, 65507, 65508, 262144, 300_000]) | st.integers(0, 1000),
        as_array=st.booleans(),
    )
    def write(self, which: int, side: int, n: int, as_array: bool) -> None:
        end = self.pairs[which % len(self.pairs)][side]
        if end.closed or len(end.sent) > 2_000_000:
            return
        start = len(end.sent)
        piece = bytes((start + i) * 7 % 251 for i in range(min(n, 5000))).ljust(n, b"~")
        end.sent += piece
        value = bytearray(piece) if as_array else piece

        async def write() -> None:
            end.writes.append(asyncio.ensure_future(end.stream.write(value)))
            await settle()

        self.go(write())

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 5), side=st.integers(0, 1), n=st.integers(1, 300_000), kind=st.integers(0, 2))
    def read(self, which: int, side: int, n: int, kind: int) -> None:
        pair = self.pairs[which % len(self.pairs)]
        end, other = pair[side], pair[1 - side]

        async def read() -> bytes:
            if kind == 0:
                return await end.stream.read(n)
            if kind == 1:
                buffer = bytearray(n)
                return bytes(buffer[: await end.stream.readinto(buffer)])
            n_exact = min(n, 262144)
            try:
                return await end.stream.read_exactly(n_exact)
            except errors.IncompleteRead as error:
                assert other.closed
                return error.partial

        async def some() -> bytes:
            reading = asyncio.ensure_future(read())
            await settle()
            if not reading.done():  # nothing there, or too little: cancelling takes nothing
                reading.cancel()
            try:
                return await reading
            except asyncio.CancelledError:
                return b""

        end.got += self.go(some())

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 5), side=st.integers(0, 1))
    def close_write(self, which: int, side: int) -> None:
        end = self.pairs[which % len(self.pairs)][side]
        end.closed = True
        self.go(end.stream.close_write())

    @rule(side=st.integers(0, 1), n=st.sampled_from([1, 2, 3, 20, 1000, 65537]))
    def move(self, side: int, n: int) -> None:
        self.carry(side, n)

    @rule(side=st.integers(0, 1))
    def ping(self, side: int) -> None:
        async def start() -> asyncio.Future[float]:
            return asyncio.ensure_future(self.sessions[side].ping())

        ping = self.go(start())
        self.carry_all()
        assert self.go(ping) > 0

    @invariant()
    def nothing_is_out_of_order(self) -> None:
        for a, b in self.pairs:
            assert a.sent.startswith(b.got)
            assert b.sent.startswith(a.got)
        assert not any(s.is_closed for s in self.sessions)

    def teardown(self) -> None:
        """At the end everything written is read, and every stream that both sides closed is gone."""
        try:
            for a, b in self.pairs:
                for end, other in ((a, b), (b, a)):
                    while len(other.got) < len(end.sent):
                        self.carry_all()
                        before = len(other.got)
                        other.got += self.go(other.stream.read(1 << 20))
                        assert len(other.got) > before
            for pair in self.pairs:
                for end in pair:
                    for write in end.writes:
                        self.go(write)  # raises what a write failed with
                    self.go(end.stream.close_write())
            self.carry_all()
            for a, b in self.pairs:
                assert a.got == b.sent
                assert b.got == a.sent
                assert a.stream.is_closed
                assert b.stream.is_closed
            assert [s.num_streams for s in self.sessions] == [0, 0]
        finally:
            for cable in self.wires:
                cable.abort()
            self.go(settle())
            self.loop.close()


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@looped
async def test_streams_of_both_sides_do_not_meet() -> None:
    client, server = await session_pair()
    pairs = [await stream_pair(*(order)) for order in ((client, server), (server, client)) for _ in range(5)]
    assert sorted(p[0].id for p in pairs) == list(range(1, 11))
    for i, (a, b) in enumerate(pairs):
        await a.write(bytes([i]) * 10)
        await b.write(bytes([100 + i]) * 10)
    for i, (a, b) in enumerate(pairs):
        assert await b.read_exactly(10) == bytes([i]) * 10
        assert await a.read_exactly(10) == bytes([100 + i]) * 10
    await closed(client, server)


@looped
async def test_data_with_the_peers_fin_survives_the_loss_of_the_connection() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, b"whole", FIN))
    peer.close()
    await settle()
    assert await stream.read() == b"whole"
    assert await stream.read() == b""
