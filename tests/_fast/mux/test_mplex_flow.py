"""Mplex: a reader that does not read, and how messages leave.

Comes in: messages by hand. Goes out: what is buffered, refused and sent. Source: protocol sheet mplex.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from _fast.mplex_chain import (
    BUFFER,
    CLOSE_I,
    CLOSE_R,
    MSG_I,
    MSG_R,
    NEW,
    RESET_I,
    RESET_R,
    Message,
    RawMplex,
    messages,
    msg,
)
from harness import eventually, looped, settle
from p2pcore import errors, limits

# -- back-pressure ---------------------------------------------------------------------------------------


async def filled(**options: Any) -> tuple[RawMplex, Any, Any]:
    """One stream that is full, and one that is not."""
    peer = RawMplex(**options)
    full, other = await peer.open_inbound(1), await peer.open_inbound(2)
    for _ in range(BUFFER // 65536):
        peer.deliver(msg(MSG_I, 1, bytes(65536)))
    return peer, full, other


@looped
async def test_reading_pauses_while_a_stream_is_full_and_goes_on_when_half_is_read() -> None:
    peer, full, _ = await filled()
    assert not peer.reading
    await full.read_exactly(BUFFER // 2 - 1)
    assert not peer.reading
    await full.read_exactly(1)
    assert peer.reading
    assert peer.session.num_buffered == BUFFER // 2


@looped
async def test_a_stream_nobody_reads_is_reset_in_time_and_the_others_go_on() -> None:
    peer, full, other = await filled(stall_s=0.0)
    await eventually(lambda: full.is_closed)
    with pytest.raises(errors.StreamReset) as caught:
        await full.read()
    assert not caught.value.remote
    assert isinstance(caught.value.__cause__, errors.LimitExceeded)
    assert caught.value.__cause__.used == BUFFER
    assert peer.reading
    assert await peer.answers() == [Message(RESET_R, 1)]
    peer.deliver(msg(MSG_I, 1, b"late"), msg(MSG_I, 2, b"on"))
    assert await other.read() == b"on"


@looped
async def test_all_streams_together_have_a_bound_of_their_own() -> None:
    peer = RawMplex(max_buffered_bytes=3 * BUFFER, stall_s=0.0)
    streams = [await peer.open_inbound(id) for id in range(5)]
    for stream in streams:
        peer.deliver(msg(MSG_I, stream.id, bytes(BUFFER * 2 // 3 + stream.id)))
    assert peer.session.num_buffered >= 3 * BUFFER
    assert not peer.reading
    await eventually(lambda: peer.reading)
    # those that held most have gone, the others live
    assert [s.is_closed for s in streams] == [False, False, True, True, True]
    assert peer.session.num_buffered == 2 * (BUFFER * 2 // 3) + 1


@looped
async def test_a_full_stream_that_can_grow_no_more_holds_nobody_up() -> None:
    peer, full, _ = await filled()
    peer.deliver(msg(CLOSE_I, 1))
    assert peer.reading
    assert len(await full.read_exactly(BUFFER)) == BUFFER
    assert await full.read() == b""


@looped
async def test_a_full_stream_that_ends_holds_nobody_up() -> None:
    for end in ("reset", "close_read", "peer"):
        peer, full, _ = await filled()
        if end == "peer":
            peer.deliver(msg(RESET_I, 1))
        elif end == "reset":
            full.reset()
        else:
            await full.close_read()
        assert peer.reading, end
        assert peer.session.num_buffered == 0


@looped
async def test_bytes_put_back_by_a_cancelled_read_are_counted_once() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    buffer = bytearray(100)
    reading = asyncio.ensure_future(stream.readinto(buffer))
    await settle()
    peer.deliver(msg(MSG_I, 1, bytes(60)))
    reading.cancel()
    await settle()
    peer.deliver(msg(MSG_I, 1, bytes(40)))
    assert stream.num_buffered == peer.session.num_buffered == 100
    assert len(await stream.read_exactly(100)) == 100
    assert peer.session.num_buffered == 0


@looped
async def test_what_comes_after_close_is_dropped_and_a_peer_that_goes_on_is_told() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    await stream.close()
    assert await peer.answers() == [Message(CLOSE_R, 1)]
    assert peer.session.num_streams == 0
    for _ in range(limits.LINGER_BYTES // 65536):
        peer.deliver(msg(MSG_I, 1, bytes(65536)))
    assert await peer.answers() == []
    peer.deliver(msg(MSG_I, 1, b"x"))
    assert await peer.answers() == [Message(RESET_R, 1)]
    assert peer.session.num_buffered == 0


@looped
async def test_only_the_read_half_closed_drops_without_end_and_without_a_stall() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    await stream.close_read()
    for _ in range(4 * BUFFER // 65536):
        peer.deliver(msg(MSG_I, 1, bytes(65536)))
    assert peer.reading
    await stream.write(b"still writing")
    assert await peer.answers() == [Message(MSG_R, 1, b"still writing")]


# -- writing -------------------------------------------------------------------------------------------


@looped
async def test_small_writes_become_one_message_however_long_its_length_gets() -> None:
    for size in (1, 7, 63, 64, 127, 128, 1000):
        peer = RawMplex(True)
        stream = await peer.open_outbound()
        sent = b""
        for i in range(20_000 // size):
            piece = bytes([i % 251]) * size
            await stream.write(piece)
            sent += piece
        assert await peer.answers() == [Message(MSG_I, 0, sent)]


@looped
async def test_messages_of_other_streams_and_controls_keep_their_place() -> None:
    peer = RawMplex(True)
    one, two = await peer.session.open_stream(), await peer.session.open_stream()
    await one.write(b"a")
    await two.write(b"b")
    await one.write(b"c")
    await one.close_write()
    await two.write(b"d")
    assert await peer.answers() == [
        Message(NEW, 0, b"0"),
        Message(NEW, 1, b"1"),
        Message(MSG_I, 0, b"a"),
        Message(MSG_I, 1, b"b"),
        Message(MSG_I, 0, b"c"),
        Message(CLOSE_I, 0),
        Message(MSG_I, 1, b"d"),
    ]


@looped
async def test_a_long_write_is_cut_to_whole_records_and_nothing_is_lost() -> None:
    """W40: go's frames and records are of different sizes; ours are cut so that each message is in one."""
    for first in (0, 1, 15, 16, 2047, 2048):
        peer = RawMplex(True, first_id=first)
        stream = await peer.open_outbound()
        sent = bytes(range(256)) * 512
        await stream.write(sent)
        got = await peer.answers()
        assert b"".join(m.body for m in got) == sent
        assert {(m.flag, m.id) for m in got} == {(MSG_I, first)}
        assert max(len(bytes(m)) for m in got) == limits.MAX_NOISE_PLAINTEXT_BYTES
        assert len(got) == 3


@looped
async def test_no_message_spans_two_records() -> None:
    peer = RawMplex(True)
    records: list[bytes] = []
    stream = await peer.open_outbound()
    for size in (1, 65000, 300, 200, 65519, 70000, 5, 65510):
        await stream.write(bytes(size))
        records.append(peer.sent())
    records.append(await peer.all_sent())
    # what has left at any moment ends with a whole message
    sizes = [len(m.body) for raw in records for m in messages(raw)]
    assert sum(sizes) == 1 + 65000 + 300 + 200 + 65519 + 70000 + 5 + 65510


@looped
async def test_open_streams_of_ours_are_bounded_and_the_next_waits() -> None:
    peer = RawMplex(True, max_outbound_streams=2)
    first, _ = await peer.session.open_stream(), await peer.session.open_stream()
    waiting = asyncio.ensure_future(peer.session.open_stream())
    await settle()
    assert not waiting.done()
    first.reset()
    assert (await waiting).id == 2


@looped
async def test_a_lazy_negotiation_works_on_it() -> None:
    reply = b"\x13/multistream/1.0.0\n\x06/echo\n"
    peer = RawMplex(True)
    stream = await peer.open_outbound()
    stream.expect(reply, "/echo")
    await stream.write(b"request")
    await stream.close_write()
    peer.deliver(msg(MSG_R, 0, reply + b"answer"), msg(CLOSE_R, 0))
    assert await stream.read() == b"answer"
    assert await peer.answers() == [Message(MSG_I, 0, b"request"), Message(CLOSE_I, 0)]
    assert (stream.protocol, peer.session.num_streams) == ("/echo", 0)
    assert peer.session.num_buffered == 0
