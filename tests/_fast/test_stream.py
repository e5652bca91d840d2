"""Streams as an application uses them: cancelling, deadlines, order, buffers, lazy negotiation.

Comes in: reads and writes in every state of a stream. Goes out: the promises of interfaces.Stream.
"""

from __future__ import annotations

import array
import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from _fast.chain import (
    DATA,
    FIN,
    RST,
    SYN,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    closed,
    data,
    frame,
    looped,
    session_pair,
    settle,
    stream_pair,
)
from harness import cuts, seconds
from p2pcore import errors
from p2pcore._fast.stream import Stream
from p2pcore._fast.yamux_sender import YamuxStream

HEADER = b"\x13/multistream/1.0.0\n"
REPLY = HEADER + b"\x06/echo\n"
REFUSAL = HEADER + b"\x03na\n"


READS: dict[str, Callable[[Stream], Awaitable[Any]]] = {
    "read": lambda s: s.read(),
    "read_exactly": lambda s: s.read_exactly(4),
    "readinto": lambda s: s.readinto(bytearray(8)),
}


async def opened(count: int = 1, **options: Any) -> tuple[RawYamux, Stream]:
    peer = RawYamux(**options)
    return peer, await peer.open_inbound()


def started(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    return asyncio.ensure_future(awaitable)


# -- reading ---------------------------------------------------------------------------------------


@looped
async def test_read_gives_at_most_what_was_asked_for_and_nothing_is_lost() -> None:
    sent = bytes(range(256)) * 80
    for sizes in ((1,), (3, 5, 4096), (5000,), (1 << 20,)):
        peer, stream = await opened()
        for piece in (sent[:10], sent[10:5000], sent[5000:5001], sent[5001:]):
            peer.deliver(data(1, piece))
        got, i = b"", 0
        while stream.num_buffered:
            piece = await stream.read(sizes[i % len(sizes)])
            assert 1 <= len(piece) <= sizes[i % len(sizes)]
            got += piece
            i += 1
        assert got == sent


@looped
async def test_readinto_fills_from_the_start_and_gives_the_count() -> None:
    peer, stream = await opened()
    buffer = bytearray(b"." * 10)
    peer.deliver(data(1, b"abc"), data(1, b"defghijklm"))
    assert await stream.readinto(buffer) == 10
    assert buffer == b"abcdefghij"
    assert await stream.readinto(memoryview(buffer)[2:]) == 3
    assert buffer == b"abklmfghij"
    waiting = started(stream.readinto(buffer))
    await settle()
    peer.deliver(data(1, b"12"), data(1, b"34"))
    assert await waiting == 4
    buffer.clear()  # nothing holds it any more
    peer.deliver(data(1, b"567"), frame(WU, FIN, 1))
    words = array.array("H", bytes(4))
    assert await stream.readinto(words) == 3
    assert bytes(words)[:3] == b"567"
    assert await stream.readinto(bytearray(1)) == 0


@looped
async def test_arguments_are_checked_before_anything_is_taken() -> None:
    peer, stream = await opened()
    peer.deliver(data(1, b"kept"))
    with pytest.raises(ValueError):
        await stream.read(0)
    with pytest.raises(errors.LimitExceeded):
        await stream.read_exactly(WINDOW + 1)
    with pytest.raises(errors.LimitExceeded):
        await stream.read_exactly(-1)
    with pytest.raises(ValueError):
        await stream.readinto(bytearray())
    with pytest.raises(BufferError):
        await stream.readinto(b"read only")
    with pytest.raises(BufferError):
        await stream.readinto(memoryview(bytearray(8))[::2])
    for wrong in ("text", 7, None, memoryview(b"12345678")[::2]):
        with pytest.raises((TypeError, BufferError)):
            await stream.write(wrong)  # type: ignore[arg-type]
    assert await stream.read_exactly(0) == b""
    assert await stream.read() == b"kept"


@pytest.mark.parametrize("kind", READS)
@looped
async def test_a_cancelled_read_loses_nothing(kind: str) -> None:
    peer, stream = await opened()
    waiting = started(READS[kind](stream))
    await settle()
    waiting.cancel()
    await settle()
    waiting = started(READS[kind](stream))
    await settle()
    peer.deliver(data(1, b"12345"))  # wakes it, and then it is cancelled before it runs
    waiting.cancel()
    peer.deliver(data(1, b"6789"))
    await settle()
    assert waiting.cancelled()
    peer.deliver(data(1, b"abc"))
    assert await stream.read_exactly(12) == b"123456789abc"
    waiting = started(READS[kind](stream))
    await settle()
    waiting.cancel()
    peer.deliver(data(1, b"xyz!"), frame(WU, FIN, 1))
    assert await stream.read() == b"xyz!"
    assert await stream.read() == b""


@looped
async def test_a_read_in_place_of_one_that_was_woken_gets_the_bytes_in_order() -> None:
    peer, stream = await opened()
    buffer = bytearray(8)
    first = started(stream.readinto(buffer))
    await settle()
    peer.deliver(data(1, b"abc"), data(1, b"def", FIN))
    assert await stream.read_exactly(4) == b"abcd"  # before the first one's task has run
    assert await first == 2
    assert buffer[:2] == b"ef"
    assert await stream.read() == b""


@pytest.mark.parametrize("kind", READS)
@looped
async def test_one_reader_at_a_time(kind: str) -> None:
    peer, stream = await opened()
    waiting = started(READS[kind](stream))
    await settle()
    with pytest.raises(errors.LocalProtocolError, match="another read"):
        await READS[kind](stream)
    peer.deliver(data(1, b"four"))
    assert await waiting in (b"four", 4)


@pytest.mark.parametrize("kind", READS)
@looped
async def test_a_waiting_read_is_woken_by_every_kind_of_end(kind: str) -> None:
    async def fin(peer: RawYamux, stream: Stream) -> None:
        peer.deliver(frame(WU, FIN, 1))

    async def reset_there(peer: RawYamux, stream: Stream) -> None:
        peer.deliver(frame(WU, RST, 1, 9))

    async def reset_here(peer: RawYamux, stream: Stream) -> None:
        stream.reset()

    async def close_here(peer: RawYamux, stream: Stream) -> None:
        await stream.close()

    async def lose(peer: RawYamux, stream: Stream) -> None:
        peer.close()

    async def close_session(peer: RawYamux, stream: Stream) -> None:
        peer.session.abort()

    wanted: list[tuple[Any, type[BaseException] | None]] = [
        (fin, errors.IncompleteRead if kind == "read_exactly" else None),
        (reset_there, errors.StreamReset),
        (reset_here, errors.StreamReset),
        (close_here, errors.StreamClosed),
        (lose, errors.ConnectionClosed),
        (close_session, errors.GoAway),
    ]
    for end, error in wanted:
        peer, stream = await opened()
        waiting = started(READS[kind](stream))
        await settle()
        await end(peer, stream)
        if error is None:
            assert not await waiting
        else:
            with pytest.raises(error):
                await waiting


@looped
async def test_read_exactly_gives_the_rest_when_the_stream_ends_early() -> None:
    peer, stream = await opened()
    peer.deliver(data(1, b"1234567"))
    assert await stream.read_exactly(3) == b"123"
    waiting = started(stream.read_exactly(5))
    await settle()
    assert not waiting.done()
    peer.deliver(frame(DATA, FIN, 1))
    with pytest.raises(errors.IncompleteRead) as caught:
        await waiting
    assert caught.value.partial == b"4567"
    assert caught.value.expected == 5
    assert await stream.read() == b""
    with pytest.raises(errors.IncompleteRead) as caught:
        await stream.read_exactly(1)
    assert caught.value.partial == b""


# -- writing ---------------------------------------------------------------------------------------


async def sent_bodies(peer: RawYamux) -> bytes:
    return b"".join(f.body for f in await peer.answers() if f.type == DATA)


@looped
async def test_anything_with_a_buffer_can_be_written() -> None:
    peer, stream = await opened()
    for value in (
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"xxslicexx")[2:7],
        array.array("B", b"array"),
        b"",
        bytearray(),
    ):
        await stream.write(value)
    assert await sent_bodies(peer) == b"bytesbytearrayslicearray"


@looped
async def test_written_buffers_may_be_changed_and_resized_afterwards() -> None:
    peer, stream = await opened()
    value = bytearray(b"first")
    write = stream.write(value)
    await write
    value[:] = b"something else"
    assert await sent_bodies(peer) == b"first"
    big = bytearray(WINDOW)
    waiting = stream.write(big)
    with pytest.raises(BufferError):
        big.clear()
    assert len(await sent_bodies(peer)) == WINDOW - 5
    peer.deliver(frame(WU, 0, 1, 5))
    await waiting
    big.clear()


@looped
async def test_several_writers_keep_the_order_in_which_they_wrote() -> None:
    peer, stream = await opened()
    pieces = [bytes([i]) * (100_000 + i) for i in range(10)]
    writes = [started(stream.write(piece)) for piece in pieces]
    raw = await sent_bodies(peer)
    while not all(w.done() for w in writes):
        peer.deliver(frame(WU, 0, 1, 77_777))
        raw += await sent_bodies(peer)
    assert raw == b"".join(pieces)


@looped
async def test_writes_keep_their_order_even_if_they_are_awaited_late_or_never() -> None:
    peer, stream = await opened()
    first = stream.write(bytes(WINDOW) + b"first")
    peer.deliver(frame(WU, 0, 1, 1 << 20))  # the window opens before anybody awaits
    late = [stream.write(bytearray(b"second")), stream.write(b"third")]
    assert (await sent_bodies(peer))[WINDOW:] == b"firstsecondthird"
    await first
    assert len(late) == 2


@looped
async def test_a_cancelled_write_sends_a_prefix_and_lets_the_next_go_on() -> None:
    peer, stream = await opened()
    first = started(stream.write(b"a" * (WINDOW + 100)))
    second = started(stream.write(b"b" * 50))
    third = started(stream.write(b"c" * 50))
    await settle()
    raw = await sent_bodies(peer)
    second.cancel()
    await settle()
    first.cancel()
    await settle()
    peer.deliver(frame(WU, 0, 1, 1000))
    await third
    assert raw + await sent_bodies(peer) == b"a" * WINDOW + b"c" * 50


@looped
async def test_close_waits_behind_pending_writes_then_sends_fin() -> None:
    peer, stream = await opened()
    write = started(stream.write(bytes(WINDOW + 10)))
    await settle()
    await stream.close_write()
    with pytest.raises(errors.StreamClosed):
        await stream.write(b"late")
    assert not [f for f in await peer.answers() if f.flags & FIN]
    peer.deliver(frame(WU, 0, 1, 100))
    assert await peer.answers() == [Frame(DATA, 0, 1, 10, bytes(10)), Frame(WU, FIN, 1, 0)]
    await write


@looped
async def test_cancelling_the_last_pending_write_lets_fin_go() -> None:
    peer, stream = await opened()
    write = started(stream.write(bytes(WINDOW + 10)))
    await settle()
    await stream.close_write()
    await peer.answers()
    write.cancel()
    assert await peer.answers() == [Frame(WU, FIN, 1, 0)]


@looped
async def test_a_waiting_write_is_woken_by_every_kind_of_end() -> None:
    ends: list[tuple[Callable[[RawYamux, Stream], None], type[Exception]]] = [
        (lambda p, s: p.deliver(frame(WU, RST, 1, 3)), errors.StreamReset),
        (lambda p, s: s.reset(), errors.StreamReset),
        (lambda p, s: p.close(), errors.ConnectionClosed),
        (lambda p, s: p.session.abort(), errors.GoAway),
    ]
    for end, error in ends:
        peer, stream = await opened()
        value = bytearray(WINDOW + 1)
        writes = [started(stream.write(value)), started(stream.write(b"behind"))]
        await settle()
        end(peer, stream)
        for write in writes:
            with pytest.raises(error):
                await write
        value.clear()  # nothing holds it any more


@looped
async def test_after_the_end_of_reading_writes_go_on() -> None:
    peer, stream = await opened()
    peer.deliver(frame(WU, FIN, 1))
    assert await stream.read() == b""
    await stream.write(b"answer")
    assert await sent_bodies(peer) == b"answer"


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
    stream.set_deadline(0.02)
    waiting = started(stream.read())
    await settle()
    stream.set_read_deadline(None)
    await asyncio.sleep(0.05)
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


@looped
async def test_deadlines_leave_no_timer_behind() -> None:
    peer, stream = await opened()
    stream.set_deadline(1000)
    waiting = started(stream.read())
    await settle()
    peer.deliver(data(1, b"x"))
    assert await waiting == b"x"
    del waiting
    handles = [o for o in gc.get_objects() if type(o).__name__ == "TimerHandle"]
    assert not [h for h in handles if "_expire" in repr(h) and not h.cancelled()]


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


async def lazy() -> tuple[RawYamux, Stream]:
    peer = RawYamux(is_client=True)
    stream = await peer.session.open_stream()
    await stream.write(b"proposal and data")
    stream.expect(REPLY, "/echo")
    await peer.answers()
    return peer, stream


@looped
async def test_the_expected_reply_is_stripped_however_it_is_cut() -> None:
    for chunks in cuts(REPLY + b"payload"):
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
    for chunks in cuts(REFUSAL):
        peer, stream = await lazy()
        reading = started(stream.read())
        await settle()
        for chunk in chunks:
            assert not stream.is_closed
            peer.deliver(data(1, chunk))
        with pytest.raises(errors.ProtocolNotSupported) as caught:
            await reading
        assert caught.value.protocols == ("/echo",)
        with pytest.raises(errors.ProtocolNotSupported):
            await stream.write(b"x")
        assert await peer.answers() == [Frame(WU, RST, 1, 0)]
        assert peer.session.num_streams == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        HEADER + b"\x06/ping\n",
        b"\x13/multistream/2.0.0\n",
        HEADER + b"\x03no\n",
        HEADER + bytes(200),
        bytes(WINDOW),
    ],
    ids=["nonsense", "another protocol", "another version", "almost na", "zeros", "a window"],
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
        assert Frame(WU, RST, 1, 0) in await peer.answers()
        assert not peer.session.is_closed


@looped
async def test_an_end_before_the_answer_is_a_negotiation_error() -> None:
    for at in (0, 1, len(HEADER), len(REPLY) - 1):
        peer, stream = await lazy()
        peer.deliver(data(1, REPLY[:at], FIN))
        with pytest.raises(errors.NegotiationError):
            await stream.read()
        assert await peer.answers() == [Frame(WU, RST, 1, 0)]
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


@looped
async def test_our_fin_waits_for_the_answer() -> None:
    for answer in ([data(1, REPLY)], [data(1, REPLY[:5]), data(1, REPLY[5:])]):
        peer, stream = await lazy()
        await stream.close_write()
        assert await peer.answers() == []
        peer.deliver(*answer)
        assert await peer.answers() == [Frame(WU, FIN, 1, 0)]
    peer, stream = await lazy()
    await stream.close_write()
    closing = peer.session.close()
    assert Frame(WU, FIN, 1, 0) in await peer.answers()
    peer.deliver_eof()
    await closing


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
