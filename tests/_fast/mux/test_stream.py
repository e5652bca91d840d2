"""Streams as an application uses them: cancelling, deadlines, order, buffers, lazy negotiation.

Comes in: reads and writes in every state of a stream. Goes out: the promises of interfaces.Stream.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import pytest

from _fast.chains import (
    DATA,
    FIN,
    READS,
    RST,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    data,
    frame,
    opened,
    sent_bodies,
    started,
)
from harness import looped, settle
from p2pcore import errors
from p2pcore._fast.mux.stream import Stream

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
    wrong = [  # each raises when it is awaited, not before
        (stream.read(0), ValueError),
        (stream.read_exactly(WINDOW + 1), errors.LimitExceeded),
        (stream.read_exactly(-1), ValueError),
        (stream.readinto(bytearray()), ValueError),
        (stream.readinto(b"read only"), BufferError),
        (stream.readinto(memoryview(bytearray(8))[::2]), BufferError),
        (stream.readinto(7), TypeError),  # type: ignore[arg-type]
        (stream.write("text"), TypeError),  # type: ignore[arg-type]
        (stream.write(None), TypeError),  # type: ignore[arg-type]
        (stream.write(memoryview(b"12345678")[::2]), BufferError),
    ]
    for call, error in wrong:
        with pytest.raises(error):
            await call
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
