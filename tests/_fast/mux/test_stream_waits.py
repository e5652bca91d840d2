"""Waits on a stream: deadlines, what an awaitable is, the answer to a lazy negotiation.

Comes in: reads and writes in every state of a stream. Goes out: the promises of interfaces.Stream.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from _fast.chains import (
    FIN,
    READS,
    RST,
    SYN,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    closed,
    data,
    frame,
    opened,
    sent_bodies,
    session_pair,
    started,
    stream_pair,
    with_limits,
)
from harness import cuts, eventually, looped, seconds, settle
from p2pcore import errors, limits
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxStream

HEADER = b"\x13/multistream/1.0.0\n"
REPLY = HEADER + b"\x06/echo\n"
REFUSAL = HEADER + b"\x03na\n"
NEGOTIATION_FAILED = 0x1001


# -- deadlines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", READS)
@looped
async def test_read_deadlines_expire_and_leave_the_stream_usable(kind: str) -> None:
    peer, stream = await opened()
    stream.set_read_deadline(0.001)
    with pytest.raises(errors.DeadlineExceeded):
        await READS[kind](stream)
    peer.deliver(data(1, b"12345678"))
    with pytest.raises(TimeoutError):  # past: even what is there waits for the deadline to be cleared
        await READS[kind](stream)
    stream.set_read_deadline(None)
    assert await READS[kind](stream)
    assert not stream.is_closed


@looped
async def test_a_read_deadline_can_be_changed_cleared_and_set_while_a_read_waits() -> None:
    peer, stream = await opened()
    waiting = started(stream.read())
    await settle()
    stream.set_deadline(0.001)
    with pytest.raises(errors.DeadlineExceeded):
        await waiting
    stream.set_deadline(seconds(0.2))
    waiting = started(stream.read())
    await settle()
    stream.set_read_deadline(None)
    await asyncio.sleep(seconds(0.25))
    assert not waiting.done()
    stream.set_read_deadline(1000)
    stream.set_read_deadline(-1)
    with pytest.raises(errors.DeadlineExceeded):
        await waiting
    stream.set_read_deadline(1000)
    peer.deliver(data(1, b"still"))
    assert await stream.read() == b"still"


@looped
async def test_write_deadlines_expire_for_waiting_and_for_new_writes() -> None:
    peer, stream = await opened()
    writes = [started(stream.write(bytes(WINDOW + 1))), started(stream.write(b"second"))]
    raw = await sent_bodies(peer)
    stream.set_write_deadline(0.001)
    for write in writes:
        with pytest.raises(errors.DeadlineExceeded):
            await write
    with pytest.raises(errors.DeadlineExceeded):
        await stream.write(b"x")
    stream.set_write_deadline(None)
    peer.deliver(frame(WU, 0, 1, 10))
    await stream.write(b"on")
    assert raw + await sent_bodies(peer) == bytes(WINDOW) + b"on"


def timers() -> list[Any]:
    """The timers of waits that have a deadline."""
    handles = [each for each in gc.get_objects() if type(each).__name__ == "TimerHandle"]
    return [each for each in handles if "_expire" in repr(each) and not each.cancelled()]


@looped
async def test_deadlines_leave_no_timer_behind() -> None:
    peer, stream = await opened()
    stream.set_deadline(1000)
    waiting = started(stream.read())
    await settle()
    assert len(timers()) == 1
    peer.deliver(data(1, b"x"))
    assert await waiting == b"x"
    del waiting
    assert timers() == []


# -- the awaitables ------------------------------------------------------------------------------------


@looped
async def test_reads_and_writes_work_in_every_way_asyncio_waits() -> None:
    client, server = await session_pair()
    a, b = await stream_pair(client, server)
    await asyncio.gather(a.write(b"1"), a.write(b"2"))
    assert await asyncio.wait_for(b.read_exactly(2), seconds(5)) == b"12"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(b.read(), 0.001)
    async with asyncio.TaskGroup() as group:
        read = group.create_task(b.read_exactly(3))
        group.create_task(a.write(b"abc"))
    assert read.result() == b"abc"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await b.read()
    task = asyncio.create_task(b.readinto(bytearray(5)))
    assert "Task" in repr(task)
    await a.write(b"xyz")
    done, _ = await asyncio.wait([task], timeout=seconds(5))
    assert task in done
    assert task.result() == 3
    shielded = asyncio.shield(b.read())
    await settle()
    await a.close()
    assert await shielded == b""
    await closed(client, server)


@looped
async def test_a_read_that_is_awaited_twice_takes_no_more_and_touches_no_freed_memory() -> None:
    peer, stream = await opened()
    buffer = bytearray(8)
    into = stream.readinto(buffer)
    peer.deliver(data(1, b"12345678"))
    assert await into == 8
    buffer.clear()
    peer.deliver(data(1, b"12345678"))
    with pytest.raises(RuntimeError):
        await into
    read = stream.read_exactly(99)
    waiting = started(read)
    await settle()
    with pytest.raises(RuntimeError, match="already being awaited"):
        await read
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert stream.num_buffered == 8


@looped
async def test_a_shared_error_does_not_gather_tracebacks() -> None:
    peer, stream = await opened()
    peer.close()
    await settle()
    depths = []
    for _ in range(50):
        try:
            await stream.read()
        except errors.ConnectionClosed as error:
            depth, tb = 0, error.__traceback__
            while tb is not None:
                depth, tb = depth + 1, tb.tb_next
            depths.append(depth)
    assert len(set(depths)) == 1


@looped
async def test_streams_are_made_by_sessions_only() -> None:
    with pytest.raises(TypeError):
        Stream()
    with pytest.raises(TypeError):
        YamuxStream()


# -- lazy negotiation ------------------------------------------------------------------------------------


async def closed_for_writing_and_read(stream: Stream) -> None:
    await stream.close_write()
    await stream.read()


async def lazy() -> tuple[RawYamux, Stream]:
    peer = RawYamux(is_client=True)
    stream = await peer.session.open_stream()
    await stream.write(b"proposal and data")
    stream.expect(REPLY, "/echo")
    await peer.answers()
    return peer, stream


@looped
async def test_the_expected_reply_is_stripped_however_it_is_cut() -> None:
    for chunks in [*cuts(REPLY + b"payload"), *cuts(HEADER + REPLY + b"payload")]:  # js may repeat its header
        peer, stream = await lazy()
        assert stream.protocol == "/echo"
        for chunk in chunks:
            peer.deliver(data(1, chunk))
        assert await stream.read_exactly(7) == b"payload"
        assert not stream.is_closed


@looped
async def test_a_reader_that_waits_sees_nothing_of_the_reply() -> None:
    peer, stream = await lazy()
    for waiting in (started(stream.read()), started(stream.readinto(bytearray(3)))):
        await settle()
        waiting.cancel()
        await settle()
    waiting = started(stream.read())
    await settle()
    peer.deliver(data(1, REPLY))
    await settle()
    assert not waiting.done()
    peer.deliver(data(1, b"x"))
    assert await waiting == b"x"


@looped
async def test_an_early_header_belongs_to_the_reply() -> None:
    for at in range(len(REPLY) + 1):
        peer = RawYamux(is_client=True)
        stream = await peer.session.open_stream()
        peer.deliver(data(1, REPLY[:at]))
        stream.expect(REPLY, "/echo")
        peer.deliver(data(1, REPLY[at:] + b"and on"))
        assert await stream.read() == b"and on"


@looped
async def test_a_refusal_is_told_to_readers_and_writers_and_resets_the_stream() -> None:
    for chunks in [*cuts(REFUSAL), *cuts(HEADER + REFUSAL)]:
        peer, stream = await lazy()
        reading = started(stream.read())
        await settle()
        for chunk in chunks:
            assert not stream.is_closed
            peer.deliver(data(1, chunk))
        with pytest.raises(errors.ProtocolNotSupported) as caught:
            await reading
        assert caught.value.protocols == ("/echo",)
        assert caught.value.stage == "stream protocol"
        with pytest.raises(errors.ProtocolNotSupported):
            await stream.write(b"x")
        assert await peer.answers() == [Frame(WU, RST, 1, NEGOTIATION_FAILED)]
        assert peer.session.num_streams == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        HEADER + b"\x06/ping\n",
        b"\x13/multistream/2.0.0\n",
        HEADER + b"\x03no\n",
        HEADER + bytes(200),
        HEADER * 3,
        bytes(WINDOW),
    ],
    ids=["nonsense", "another protocol", "another version", "almost na", "zeros", "headers", "a window"],
)
@looped
async def test_any_other_answer_is_a_negotiation_error(answer: bytes) -> None:
    for chunks in cuts(answer) if len(answer) < 1000 else [[answer]]:
        peer, stream = await lazy()
        for chunk in chunks:
            peer.deliver(data(1, chunk))
        with pytest.raises(errors.NegotiationError) as caught:
            await stream.read()
        assert not isinstance(caught.value, errors.ProtocolNotSupported)
        assert len(str(caught.value)) < 500
        assert Frame(WU, RST, 1, NEGOTIATION_FAILED) in await peer.answers()
        assert not peer.session.is_closed


@looped
async def test_an_end_before_the_answer_is_a_negotiation_error() -> None:
    for at in (0, 1, len(HEADER), len(REPLY) - 1):
        peer, stream = await lazy()
        peer.deliver(data(1, REPLY[:at], FIN))
        with pytest.raises(errors.NegotiationError):
            await stream.read()
        assert await peer.answers() == [Frame(WU, RST, 1, NEGOTIATION_FAILED)]
    peer = RawYamux(is_client=True)
    stream = await peer.session.open_stream()
    peer.deliver(data(1, HEADER, FIN))  # ... also if it came before the reply was expected
    stream.expect(REPLY, "/echo")
    with pytest.raises(errors.NegotiationError):
        await stream.read()


@looped
async def test_a_reply_and_then_the_end_is_an_empty_stream() -> None:
    peer, stream = await lazy()
    peer.deliver(data(1, REPLY, FIN))
    assert await stream.read() == b""


@pytest.mark.parametrize("answer", range(1, len(REPLY)))
@looped
async def test_a_wrong_answer_is_found_at_its_first_wrong_byte(answer: int) -> None:
    peer, stream = await lazy()
    peer.deliver(data(1, REPLY[:answer] + b"?"))
    with pytest.raises(errors.NegotiationError, match=r"stream protocol.*/echo"):
        await stream.read()


def test_our_fin_waits_a_while_for_the_answer() -> None:
    """js-libp2p loses a stream that has ended before it came to read the proposal (docs/decisions/0014)."""
    said = with_limits(
        """
        header = bytes([19]) + b"/multistream/1.0.0" + bytes([10])
        reply = header + bytes([6]) + b"/echo" + bytes([10])
        for answer in ([data(1, reply)], [data(1, reply[:5]), data(1, reply[5:])]):
            peer = RawYamux(is_client=True)
            stream = await peer.session.open_stream()
            stream.expect(reply, "/echo")
            await stream.write(b"proposal and data")
            await stream.close_write()
            assert not any(each.flags & FIN for each in await peer.answers())
            peer.deliver(*answer)
            assert await peer.answers() == [Frame(WU, FIN, 1, 0)]
        print("waited")
        """,
        LAZY_END_WAIT_S=1000,
    )
    assert said == "waited\n"


@looped
async def test_our_fin_does_not_wait_for_a_peer_that_answers_only_behind_it() -> None:
    peer, stream = await lazy()
    await stream.close_write()
    sent: list[Frame] = []
    while not sent:
        await settle()
        sent = await peer.answers()
    assert sent == [Frame(WU, FIN, 1, 0)]
    peer.deliver(data(1, REPLY + b"answer", FIN))
    assert await stream.read() == b"answer"
    assert await stream.read() == b""
    assert peer.session.num_streams == 0


@looped
async def test_our_fin_goes_out_when_the_session_closes() -> None:
    peer, stream = await lazy()
    await stream.close_write()
    closing = peer.session.close()
    assert Frame(WU, FIN, 1, 0) in await peer.answers()
    peer.deliver_eof()
    await closing


ENDS: dict[str, Callable[[Stream], Awaitable[Any]]] = {
    "read": lambda s: s.read(),
    "close_write and read": closed_for_writing_and_read,
    "close": lambda s: s.close(),
}


@pytest.mark.parametrize("end", ENDS)
@looped
async def test_a_lazy_proposal_that_is_never_answered_is_reset_in_time(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_NEGOTIATION_TIMEOUT_S", limits.LAZY_END_WAIT_S + 0.01)
    peer, stream = await lazy()
    peer.deliver(data(1, REPLY[:-1]))
    ending = started(ENDS[end](stream))
    await eventually(lambda: stream.is_closed)
    assert (await peer.answers())[-1] == Frame(WU, RST, 1, NEGOTIATION_FAILED)
    assert peer.session.num_streams == 0
    if end != "close":
        with pytest.raises(errors.NegotiationTimeout) as caught:
            await ending
        assert caught.value.stage == "stream protocol"
        assert "/echo" in str(caught.value)
    with pytest.raises(errors.NegotiationError):
        await stream.write(b"x")


@looped
async def test_streams_answered_reset_or_lost_leave_no_deadline_behind() -> None:
    watched = loop_state(asyncio.get_running_loop())
    all_of_them = [await lazy() for _ in range(4)]
    assert watched.num_watched == 4
    (answered, _), (_, reset), (lost, _), (_, closed) = all_of_them
    answered.deliver(data(1, REPLY))
    reset.reset()
    lost.session.abort()
    await closed.close()
    await settle()
    assert watched.num_watched == 1, "of the one that was closed: the peer may still answer"


@looped
async def test_a_write_in_hand_goes_on_while_the_answer_is_awaited() -> None:
    peer, stream = await lazy()
    write = started(stream.write(bytes(WINDOW)))
    await stream.close_write()
    await peer.answers()
    peer.deliver(frame(WU, 0, 1, 1 << 20))
    await write
    assert not [f for f in await peer.answers() if f.flags & FIN]
    peer.deliver(data(1, REPLY))
    assert [f for f in await peer.answers() if f.flags & FIN]


@looped
async def test_streams_say_who_opened_them() -> None:
    client, server = await session_pair()
    a, b = await stream_pair(client, server)
    assert (a.direction.value, b.direction.value) == ("outbound", "inbound")
    assert (a.is_inbound, b.is_inbound) == (False, True)
    assert a.id == b.id == 1
    client.owner = owner = object()
    assert a.conn is owner  # type: ignore[attr-defined]
    await closed(client, server)


@looped
async def test_opening_with_data_in_the_syn_works() -> None:
    peer = RawYamux()
    peer.deliver(data(1, b"early", SYN))
    stream = await peer.session.accept_stream()
    assert await stream.read() == b"early"


# -- what is raised, and when ----------------------------------------------------------------------


@looped
async def test_a_write_that_can_only_fail_raises_when_it_is_awaited() -> None:
    _, stream = await opened()
    await stream.close_write()
    writing = stream.write(b"too late")
    with pytest.raises(errors.StreamClosed):
        await writing
    stream.reset()
    again = stream.write(b"far too late")
    with pytest.raises(errors.StreamReset):
        await again


@looped
async def test_a_ping_and_a_read_over_the_bound_raise_when_they_are_awaited() -> None:
    peer, stream = await opened()
    reading = stream.read_exactly(WINDOW + 1)
    with pytest.raises(errors.LimitExceeded):
        await reading
    peer.session.abort()
    ping = peer.session.ping()
    with pytest.raises(errors.GoAway):
        await ping


# -- read_exactly beyond a window ------------------------------------------------------------------

LONG = 3 * WINDOW + 17


@looped
async def test_read_exactly_gives_more_than_a_window_up_to_a_bound_of_the_callers() -> None:
    client, server = await session_pair()
    near, far = await stream_pair(client, server)
    words = bytes(range(256)) * (LONG // 256 + 1)
    writing = started(near.write(words))
    assert await far.read_exactly(LONG, LONG) == words[:LONG]
    assert await far.read_exactly(len(words) - LONG) == words[LONG:]
    await writing
    with pytest.raises(errors.LimitExceeded):
        await far.read_exactly(LONG + 1, most=LONG)
    await closed(client, server)


@looped
async def test_a_long_read_that_is_cancelled_or_late_leaves_all_bytes_to_the_next() -> None:
    peer, stream = await opened()
    reading = started(stream.read_exactly(LONG, LONG))
    await settle()
    for _ in range(2):
        peer.deliver(data(1, bytes(WINDOW // 2)))
        await settle()
    reading.cancel()
    await settle()
    peer.deliver(data(1, b"tail"))
    assert stream.num_buffered == WINDOW + 4
    stream.set_read_deadline(0)
    with pytest.raises(errors.DeadlineExceeded):
        await stream.read_exactly(LONG, LONG)
    stream.set_read_deadline(None)
    assert await stream.read_exactly(WINDOW) == bytes(WINDOW)
    assert await stream.read() == b"tail"


@looped
async def test_a_long_read_cut_short_has_what_came_as_its_partial() -> None:
    peer, stream = await opened()
    reading = started(stream.read_exactly(LONG, LONG))
    await settle()
    peer.deliver(data(1, bytes(WINDOW)))
    await settle()
    peer.deliver(data(1, b"end", FIN))
    with pytest.raises(errors.IncompleteRead) as caught:
        await reading
    assert caught.value.partial == bytes(WINDOW) + b"end"


@looped
async def test_a_long_read_of_a_stream_that_is_reset_raises_the_reset() -> None:
    peer, stream = await opened()
    reading = started(stream.read_exactly(LONG, LONG))
    await settle()
    peer.deliver(data(1, bytes(WINDOW)))
    await settle()
    peer.deliver(frame(WU, RST, 1))
    with pytest.raises(errors.StreamReset):
        await reading
