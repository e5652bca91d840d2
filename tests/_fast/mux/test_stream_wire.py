"""StreamWire: a chain through a stream of another connection, against a peer that speaks yamux by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from _fast.chains import (
    DATA,
    FIN,
    RST,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    data,
    ended,
    frame,
    session_pair,
    stream_pair,
    with_limits,
)
from harness import cuts, eventually, looped, seconds, settle
from p2pcore import limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.stream_wire import StreamWire
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.errors import ConnectionClosed, IncompleteRead, LocalProtocolError

BIG = 3 * WINDOW
WORDS = bytes(range(256)) * 8


async def wire_of(outer: RawYamux) -> tuple[StreamWire, Mailbox]:
    """A wire on a stream the peer opened (number 1), started, and its mailbox."""
    wire = StreamWire(await outer.open_inbound())
    wire.start()
    assert wire.mailbox is not None
    return wire, wire.mailbox


def granted(frames: list[Frame]) -> int:
    """Bytes the peer has been allowed to send besides."""
    return sum(each.length for each in frames if each.type == WU and not each.flags)


def bodies(frames: list[Frame], id: int = 1) -> bytes:
    return b"".join(each.body for each in frames if each.type == DATA and each.id == id)


@looped
async def test_what_the_stream_receives_goes_up_however_it_is_cut() -> None:
    for chunks in cuts(WORDS[:600]):
        outer = RawYamux()
        _, box = await wire_of(outer)
        outer.deliver(*(data(1, chunk) for chunk in chunks))
        assert await box.read_exactly(600) == WORDS[:600]


@looped
async def test_what_the_stream_held_before_it_was_started_comes_first() -> None:
    outer = RawYamux()
    stream = await outer.open_inbound()
    outer.deliver(data(1, b"early"))
    wire = StreamWire(stream)
    assert wire.mailbox is not None
    assert wire.mailbox.num_held == 0, "nothing is read before start"
    wire.start()
    outer.deliver(data(1, b" late"))
    assert await wire.mailbox.read_exactly(10) == b"early late"


@looped
async def test_what_is_sent_leaves_on_the_stream() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    box.write(WORDS)
    assert bodies(await outer.answers()) == WORDS


@looped
async def test_what_the_window_does_not_take_waits_and_leaves_in_order_when_it_opens() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    box.write(bytes(WINDOW - 10))
    box.write(WORDS)
    sent = bodies(await outer.answers())
    assert sent == bytes(WINDOW - 10) + WORDS[:10]
    assert loop_state(outer.loop).num_watched, "a peer that takes nothing has a deadline"
    outer.deliver(frame(WU, 0, 1, 5))
    assert bodies(await outer.answers()) == WORDS[10:15]
    outer.deliver(frame(WU, 0, 1, WINDOW))
    assert bodies(await outer.answers()) == WORDS[15:]
    assert not loop_state(outer.loop).num_watched


@looped
async def test_a_session_above_waits_while_the_window_is_used_up() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    box.insert(PlainChannel())
    inner = YamuxSession(True)
    box.replace(inner)
    stream = await inner.open_stream()
    other = await inner.open_stream()
    writes = asyncio.gather(stream.write(bytes(WINDOW)), other.write(bytes(WINDOW)))
    sent = bodies(await outer.answers())
    assert len(sent) == WINDOW
    assert inner.paused
    outer.deliver(frame(WU, 0, 1, 2 * WINDOW))
    while not writes.done():
        sent += bodies(await outer.answers())
    await settle()
    sent += bodies(await outer.answers())
    assert not inner.paused
    assert len(sent) > 2 * WINDOW


@looped
async def test_what_nobody_takes_is_left_in_the_stream_without_credit() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    piece = bytes(32768)
    outer.deliver(*(data(1, piece) for _ in range(8)))
    assert box.num_held == limits.MAILBOX_BYTES, "the mailbox wants no more"
    assert granted(await outer.answers()) == limits.MAILBOX_BYTES
    outer.deliver(*(data(1, piece) for _ in range(limits.MAILBOX_BYTES // len(piece))))
    assert not granted(await outer.answers()), "what nobody takes is not made room for"
    for _ in range(12):
        assert await box.read_exactly(len(piece)) == piece
        await settle()
    assert granted(await outer.answers()) >= limits.MAILBOX_BYTES


@looped
async def test_the_end_of_the_peers_data_comes_up_after_the_data() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    outer.deliver(data(1, b"last", FIN))
    assert await box.read_exactly(4) == b"last"
    with pytest.raises(IncompleteRead):
        await box.read_exactly(1)


@looped
async def test_an_end_that_came_before_the_start_is_told_too() -> None:
    outer = RawYamux()
    stream = await outer.open_inbound()
    outer.deliver(data(1, b"all", FIN))
    wire = StreamWire(stream)
    wire.start()
    assert wire.mailbox is not None
    with pytest.raises(IncompleteRead) as caught:
        await wire.mailbox.read_exactly(4)
    assert caught.value.partial == b"all"


@looped
async def test_a_reset_of_the_stream_is_the_end_of_the_connection() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    outer.deliver(frame(WU, RST, 1, 7))
    with pytest.raises(ConnectionClosed, match="reset by the peer"):
        await box.read_exactly(1)


@looped
async def test_the_end_of_the_outer_connection_is_the_end_of_the_inner_one() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    box.insert(PlainChannel())
    inner = YamuxSession(False)
    box.replace(inner)
    outer.session.abort()
    assert isinstance(await ended(inner), ConnectionClosed)


@looped
async def test_an_abort_resets_the_stream_and_nothing_else() -> None:
    outer = RawYamux()
    wire, box = await wire_of(outer)
    wire.abort()
    wire.abort()
    assert Frame(WU, RST, 1, 0) in await outer.answers()
    with pytest.raises(ConnectionClosed):
        await box.read_exactly(1)
    assert not outer.session.is_closed
    with pytest.raises(ConnectionClosed):
        box.write(b"x")


@looped
async def test_an_abort_before_the_start_resets_the_stream_and_a_start_fails() -> None:
    outer = RawYamux()
    wire = StreamWire(await outer.open_inbound())
    wire.abort()
    assert Frame(WU, RST, 1, 0) in await outer.answers()
    with pytest.raises(ConnectionClosed):
        wire.start()


@looped
async def test_a_stream_that_is_read_or_has_failed_cannot_carry_a_connection() -> None:
    outer = RawYamux()
    stream = await outer.open_inbound()
    wire, again = StreamWire(stream), StreamWire(stream)
    reading = asyncio.ensure_future(stream.read())
    await settle()
    with pytest.raises(LocalProtocolError):
        wire.start()
    reading.cancel()
    await settle()
    wire.start()
    with pytest.raises(LocalProtocolError):
        again.start()
    other = await outer.open_inbound(3)
    outer.deliver(frame(WU, RST, 3, 1))
    with pytest.raises(ConnectionError):
        StreamWire(other).start()


@looped
async def test_garbage_within_ends_the_inner_connection_and_not_the_outer_one() -> None:
    outer = RawYamux()
    _, box = await wire_of(outer)
    box.insert(PlainChannel())
    inner = YamuxSession(False)
    box.replace(inner)
    outer.deliver(data(1, b"\x09" * 64))
    await ended(inner)
    await settle()
    answers = await outer.answers()
    assert [each for each in answers if each.id == 1 and each.flags & (FIN | RST)]
    assert not outer.session.is_closed
    outer.deliver(data(1, b"more garbage" * 99))
    assert not outer.session.is_closed
    assert not (await outer.open_inbound(3)).is_closed


async def inner_pair() -> tuple[tuple[YamuxSession, YamuxSession], tuple[YamuxSession, YamuxSession]]:
    """Two sessions over noise and a socket, and two within a stream of theirs."""
    a, b = await session_pair()
    inner: list[Any] = []
    for stream, is_client in zip(await stream_pair(a, b), (True, False), strict=True):
        wire = StreamWire(stream)
        wire.start()
        assert wire.mailbox is not None
        box = wire.mailbox
        box.insert(PlainChannel())
        session = YamuxSession(is_client)
        box.replace(session)
        inner.append(session)
    return (a, b), (inner[0], inner[1])


@looped
async def test_a_session_within_a_session_carries_more_than_all_buffers_both_ways() -> None:
    (a, b), (near, far) = await inner_pair()
    one, other = await stream_pair(near, far)
    sent = WORDS * (BIG // len(WORDS)) * 3

    async def write(stream: Any) -> None:
        await stream.write(sent)
        await stream.close_write()

    async def read(stream: Any) -> bytes:
        out = bytearray()
        while piece := await stream.read():
            out += piece
        return bytes(out)

    *_, there, back = await asyncio.gather(write(one), write(other), read(other), read(one))
    assert there == back == sent
    assert not a.is_closed
    assert not b.is_closed
    await near.close()
    await a.close()


@looped
async def test_an_orderly_close_ends_both_sides_the_stream_and_all_timers() -> None:
    (a, b), (near, far) = await inner_pair()
    await near.close()
    await eventually(lambda: far.is_closed and not a.num_streams and not b.num_streams)
    assert not a.is_closed
    await a.close()
    assert not loop_state(asyncio.get_running_loop()).num_watched


@looped
async def test_a_peer_that_does_not_end_its_half_is_not_waited_for_long() -> None:
    out = with_limits(
        """
        from p2pcore._fast.crypto.secure import PlainChannel
        from p2pcore._fast.mux.stream_wire import StreamWire
        outer = RawYamux()
        wire = StreamWire(await outer.open_inbound())
        wire.start()
        box = wire.mailbox
        box.insert(PlainChannel())
        inner = YamuxSession(False)
        box.replace(inner)
        await inner.close()
        flags = [each.flags for each in await outer.answers() if each.id == 1]
        print(FIN in flags, RST in flags)  # a reset could overtake what the peer has not read
        while not any(each.flags & RST for each in await outer.answers() if each.id == 1):
            await asyncio.sleep(0.01)
        print("reset")
        """,
        CLOSE_DRAIN_TIMEOUT_S=0.01,
        CLOSE_FLUSH_TIMEOUT_S=seconds(1),
    )
    assert out.split() == ["True", "False", "reset"]


@looped
async def test_a_peer_that_takes_no_byte_for_long_loses_the_connection() -> None:
    out = with_limits(
        """
        from p2pcore._fast.mux.stream_wire import StreamWire
        outer = RawYamux()
        wire = StreamWire(await outer.open_inbound())
        wire.start()
        box = wire.mailbox
        box.write(bytes(WINDOW + 1))
        await eventually(lambda: wire.is_closed)
        try:
            await box.read_exactly(1)
        except errors.ConnectionClosed as error:
            print(error)
        """,
        WRITE_STALL_TIMEOUT_S=0.01,
    )
    assert "took no byte" in out


@looped
async def test_what_is_queued_for_a_peer_that_does_not_read_is_bounded() -> None:
    outer = RawYamux()
    wire, box = await wire_of(outer)
    box.write(bytes(WINDOW + 1))
    for _ in range(5):
        if not wire.is_closed:
            box.write(bytes(65536))
    assert wire.is_closed
    with pytest.raises(Exception, match="does not read"):
        await box.read_exactly(1)


@looped
async def test_an_idle_connection_within_a_stream_has_no_task_and_no_timer() -> None:
    before = len(asyncio.all_tasks())
    (a, _), (near, _) = await inner_pair()
    await settle()
    assert len(asyncio.all_tasks()) == before
    assert not loop_state(asyncio.get_running_loop()).num_watched
    await near.close()
    await a.close()
