"""Mplex: the vectors of the sheet, every row of its bad input, and what streams promise on it.

Comes in: messages by hand, whole and cut anywhere. Goes out: what the session answers. Source: protocol sheet
mplex.
"""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from _fast.mplex_chain import (
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
    refused,
    uvarint,
)
from harness import feeding, looped, settle
from p2pcore import errors, limits
from p2pcore._fast.mux.mplex import MplexStream
from p2pcore._fast.mux.session import Allowance

VECTORS = {
    "8801023137": Message(NEW, 17, b"17"),
    "9801023139": Message(NEW, 19, b"19"),
    "a801023231": Message(NEW, 21, b"21"),
    "880100": Message(NEW, 17),
    "8a01023137": Message(MSG_I, 17, b"17"),
    "8901026869": Message(MSG_R, 17, b"hi"),
    "8b0100": Message(CLOSE_R, 17),
    "8c0100": Message(CLOSE_I, 17),
    "8d0100": Message(RESET_R, 17),
    "8e0100": Message(RESET_I, 17),
    "0000": Message(NEW, 0),
    "000130": Message(NEW, 0, b"0"),
    "f8ffffffffffffff7f00": Message(NEW, (1 << 60) - 1),
}
MAX_BODY = 1 << 20


# -- vectors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", VECTORS)
def test_the_vectors_are_what_the_tests_encode(text: str) -> None:
    assert bytes(VECTORS[text]) == bytes.fromhex(text)
    assert messages(bytes.fromhex(text)) == [VECTORS[text]]


@pytest.mark.parametrize("text", [t for t, m in VECTORS.items() if m.flag == NEW])
@looped
async def test_a_new_stream_has_the_id_and_the_name_of_its_vector(text: str) -> None:
    for chunks, _ in feeding(bytes.fromhex(text)):
        peer = RawMplex()
        peer.deliver(*chunks[:-1], chunks[-1].removesuffix(b"\xa5tail\x00"))
        stream = await peer.session.accept_stream()
        assert isinstance(stream, MplexStream)
        assert (stream.id, stream.name) == (VECTORS[text].id, VECTORS[text].body.decode())
        assert stream.is_inbound


@looped
async def test_the_conversation_of_the_sheet() -> None:
    """A opens 0, sends "hello", closes; B echoes, closes."""
    a, b = RawMplex(True), RawMplex()
    stream = await a.session.open_stream()
    await stream.write(b"hello")
    await stream.close_write()
    opening = await a.all_sent()
    assert opening == bytes.fromhex("000130 020568656c6c6f 0400")
    b.deliver(opening)
    echo = await b.session.accept_stream()
    assert await echo.read_exactly(5) == b"hello"
    assert await echo.read() == b""
    await echo.write(b"hello")
    await echo.close()
    answer = await b.all_sent()
    assert answer == bytes.fromhex("010568656c6c6f 0300")
    a.deliver(answer)
    assert await stream.read() == b"hello"
    assert await stream.read() == b""
    assert (a.session.num_streams, b.session.num_streams) == (0, 0)
    assert stream.is_closed
    assert echo.is_closed


@looped
async def test_messages_cut_anywhere_give_the_same_bytes() -> None:
    body = bytes(range(200))
    raw = msg(NEW, 300, b"name") + msg(MSG_I, 300, body) + msg(MSG_I, 300, b"") + msg(CLOSE_I, 300)
    for chunks, tail in feeding(raw):
        peer = RawMplex()
        peer.deliver(*chunks[:-1], chunks[-1].removesuffix(tail) if tail else chunks[-1], msg(NEW, 1))
        first, second = await peer.session.accept_stream(), await peer.session.accept_stream()
        assert isinstance(first, MplexStream)
        assert (first.name, second.id) == ("name", 1)
        assert await first.read_exactly(200) == body
        assert await first.read() == b""


@given(st.data())
@settings(max_examples=60, deadline=None)
@looped
async def test_any_messages_in_any_pieces_arrive_in_order(data: st.DataObject) -> None:
    peer = RawMplex()
    ids = data.draw(st.lists(st.integers(0, (1 << 60) - 1), min_size=1, max_size=4, unique=True))
    wanted = dict.fromkeys(ids, b"")
    raw = b"".join(msg(NEW, id) for id in ids)
    for id in data.draw(st.lists(st.sampled_from(ids), max_size=10)):
        body = bytes([id % 251]) * data.draw(st.sampled_from([1, 2, 127, 128, 129, 5000, 16384]))
        raw += msg(MSG_I, id, body)
        wanted[id] += body
    while raw:
        n = data.draw(st.integers(1, len(raw)))
        peer.deliver(raw[:n])
        raw = raw[n:]
    for _ in ids:
        stream = await peer.session.accept_stream()
        assert await stream.read_exactly(len(wanted[stream.id])) == wanted[stream.id]


# -- ids ---------------------------------------------------------------------------------------------


@looped
async def test_both_sides_may_have_a_stream_of_the_same_id() -> None:
    peer = RawMplex(first_id=5)
    ours = await peer.open_outbound()
    theirs = await peer.open_inbound(5)
    assert ours.id == theirs.id == 5
    peer.deliver(msg(MSG_I, 5, b"to theirs"), msg(MSG_R, 5, b"to ours"))
    assert (await ours.read(), await theirs.read()) == (b"to ours", b"to theirs")
    await ours.write(b"a")
    await theirs.write(b"b")
    ours.reset()
    await theirs.close_write()
    assert await peer.answers() == [
        Message(MSG_I, 5, b"a"),
        Message(MSG_R, 5, b"b"),
        Message(RESET_I, 5),
        Message(CLOSE_R, 5),
    ]
    assert not theirs.is_closed


@looped
async def test_ids_are_counted_from_zero_and_end_below_2_to_28() -> None:
    peer = RawMplex(True)
    assert [(await peer.session.open_stream()).id for _ in range(3)] == [0, 1, 2]
    peer = RawMplex(True, first_id=(1 << 28) - 1)
    last = await peer.open_outbound()
    with pytest.raises(errors.ConnectionClosed):
        await peer.session.open_stream()
    assert not peer.session.is_closed
    last.reset()
    await settle()
    assert peer.session.is_closed
    assert peer.eof_written


@looped
async def test_an_id_may_come_again_once_its_stream_has_ended() -> None:
    peer = RawMplex()
    for body in (b"first", b"second"):
        stream = await peer.open_inbound(3)
        peer.deliver(msg(MSG_I, 3, body), msg(CLOSE_I, 3))
        assert await stream.read() == body
        await stream.close()
    assert peer.session.num_streams == 0


# -- bad input -----------------------------------------------------------------------------------------


@looped
async def test_a_message_of_one_mebibyte_is_taken_in_pieces() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(0)
    peer.deliver(bytes.fromhex("02808040"))
    got = 0
    for at in range(0, MAX_BODY, 65536):
        peer.deliver(bytes([at >> 16]) * 65536)
        piece = await stream.read_exactly(65536)
        assert set(piece) == {at >> 16}
        got += len(piece)
    assert got == MAX_BODY
    assert peer.session.num_buffered == 0
    peer.deliver(msg(MSG_I, 0, b"next"))
    assert await stream.read() == b"next"


@looped
async def test_a_longer_message_is_refused_before_anything_is_allocated() -> None:
    for head in ("02818040", "02ffffffffffffffff7f"):
        peer = RawMplex()
        await peer.open_inbound(0)
        tracemalloc.start()
        peer.deliver(bytes.fromhex(head))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 100_000
        await refused(peer)


@pytest.mark.parametrize(
    "raw",
    [
        bytes([0xFF] * 9 + [1]) + b"\x00",
        bytes([0x80] * 9) + b"\x00",
        b"\x80\x00\x00",
        b"\x00\x80\x00",
        b"\x02" + bytes([0xFF] * 9 + [1]),
        bytes.fromhex("0700"),
    ],
    ids=["ten bytes", "endless", "padded id", "padded length", "ten-byte length", "flag 7"],
)
@looped
async def test_a_bad_header_closes_the_connection(raw: bytes) -> None:
    for chunks in ([raw], [raw[i : i + 1] for i in range(len(raw))]):
        peer = RawMplex()
        peer.deliver(*chunks)
        await refused(peer)


@looped
async def test_a_stream_opened_twice_closes_the_connection() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(4)
    await stream.close_write()
    peer.deliver(msg(NEW, 4))
    await refused(peer)


@looped
async def test_messages_for_unknown_streams_are_dropped_within_a_rate() -> None:
    peer = RawMplex()
    for flag in (MSG_R, MSG_I, CLOSE_R, CLOSE_I, RESET_R, RESET_I):
        peer.deliver(msg(flag, 9, b"dropped"))
    stream = await peer.open_inbound(1)
    peer.deliver(msg(MSG_I, 1, b"kept"))
    assert await stream.read() == b"kept"
    assert await peer.answers() == []
    for _ in range(2 * limits.MPLEX_MAX_USELESS_PER_S):
        peer.deliver(msg(MSG_I, 9, b"flood"))
    await refused(peer, errors.LimitExceeded)


@looped
async def test_what_was_under_way_when_we_reset_a_stream_does_not_count() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    stream.reset()
    raw = msg(MSG_I, 1, bytes(10)) * 100
    for _ in range(limits.MPLEX_LATE_MESSAGES // 100):
        peer.deliver(raw)
    assert not peer.session.is_closed


@looped
async def test_messages_after_close_are_ignored_and_close_and_reset_lose_their_bodies() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    peer.deliver(msg(MSG_I, 1, b"all"), msg(CLOSE_I, 1, b"body"), msg(MSG_I, 1, b"late"), msg(CLOSE_I, 1))
    assert await stream.read() == b"all"
    assert await stream.read() == b""
    peer.deliver(msg(RESET_I, 1, b"body"), msg(NEW, 2))
    assert (await peer.session.accept_stream()).id == 2
    with pytest.raises(errors.StreamReset):
        await stream.write(b"x")


@looped
async def test_a_name_is_kept_in_part_and_never_decoded_strictly() -> None:
    peer = RawMplex()
    peer.deliver(uvarint(8) + uvarint(MAX_BODY), b"\xff" + b"n" * 1000)
    assert not peer.session.num_buffered
    tracemalloc.start()
    for _ in range(MAX_BODY // 4096 - 1):
        peer.deliver(b"n" * 4096)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000
    peer.deliver(b"n" * (4096 - 1001))
    stream = await peer.session.accept_stream()
    assert isinstance(stream, MplexStream)
    assert stream.name == "\ufffd" + "n" * (limits.MPLEX_MAX_NAME_BYTES - 1)


@looped
async def test_a_stream_over_the_limit_is_reset_and_one_that_insists_ends_the_connection() -> None:
    most = 100
    peer = RawMplex(max_inbound_streams=1, allowance=Allowance(refused_per_s=1, refused_burst=most))
    kept = await peer.open_inbound(1)
    peer.deliver(msg(NEW, 2, b"name"), msg(MSG_I, 2, b"dropped"))
    assert await peer.answers() == [Message(RESET_R, 2)]
    assert peer.session.num_streams == 1
    for id in range(3, 3 + most - 1):
        peer.deliver(msg(NEW, id))
    assert len(await peer.answers()) == most - 1
    assert peer.session.num_refused == most
    assert not kept.is_closed
    peer.deliver(msg(NEW, 1000))
    await refused(peer, errors.LimitExceeded)


@looped
async def test_streams_nobody_accepts_are_bounded() -> None:
    peer = RawMplex()
    most = limits.MPLEX_MAX_UNACCEPTED_STREAMS
    peer.deliver(b"".join(msg(NEW, id) for id in range(most + 5)))
    assert await peer.answers() == [Message(RESET_R, id) for id in range(most, most + 5)]


@pytest.mark.parametrize("raw", [b"\x80", b"\x02", b"\x0a\x05abc", b"\x00\x03na"])
@looped
async def test_an_end_inside_a_message_is_an_error(raw: bytes) -> None:
    peer = RawMplex()
    peer.deliver(msg(NEW, 1), raw)
    peer.deliver_eof()
    assert isinstance(peer.session.close_reason, errors.ConnectionClosed)


@looped
async def test_an_end_between_messages_is_none() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    peer.deliver(msg(MSG_I, 1, b"last"), msg(CLOSE_I, 1))
    peer.deliver_eof()
    assert type(peer.session.close_reason) is errors.ConnectionClosed
    assert await stream.read() == b"last"
    assert await stream.read() == b""


# -- attacks -------------------------------------------------------------------------------------------


@looped
async def test_streams_opened_and_reset_are_counted() -> None:
    most = 400
    peer = RawMplex(allowance=Allowance(resets_per_s=1, reset_burst=most))
    peer.session.set_stream_handler(lambda stream: None)
    id = 0
    while not peer.session.is_closed:
        peer.deliver(msg(NEW, id) + msg(RESET_I, id))
        await settle()
        id += 1
        assert id < 10 * most
    assert id >= most
    await refused(peer, errors.LimitExceeded)


@looped
async def test_empty_messages_allocate_nothing_and_end_the_connection() -> None:
    peer = RawMplex()
    stream = await peer.open_inbound(1)
    tracemalloc.start()
    peer.deliver(msg(MSG_I, 1) * (limits.MPLEX_MAX_USELESS_PER_S // 2))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50_000
    assert (stream.num_buffered, peer.session.is_closed) == (0, False)
    peer.deliver(msg(MSG_I, 1) * limits.MPLEX_MAX_USELESS_PER_S)
    await refused(peer, errors.LimitExceeded)


@looped
async def test_resets_for_a_peer_that_does_not_read_are_bounded() -> None:
    peer = RawMplex(max_inbound_streams=1 << 20)
    peer.session.set_stream_handler(lambda stream: stream.reset())
    peer.clog()
    id = 0
    while not peer.session.is_closed:
        peer.deliver(b"".join(msg(NEW, id + i) for i in range(1000)))
        id += 1000
        await settle()
        assert id < 1 << 20
    assert isinstance(peer.session.close_reason, errors.LimitExceeded)
    assert len(peer.queue) <= limits.MAX_QUEUED_CONTROL_BYTES + 2 * limits.MAX_NOISE_RECORD_BYTES


@looped
async def test_a_peer_that_does_not_read_gets_no_more_than_the_socket_takes() -> None:
    peer = RawMplex()
    streams = [await peer.open_inbound(id) for id in range(50)]
    peer.clog()
    writes = [asyncio.ensure_future(s.write(bytes(1 << 20))) for s in streams]
    await settle()
    assert len(peer.queue) < 4 * limits.MAX_NOISE_RECORD_BYTES
    assert not any(w.done() for w in writes)
    peer.session.abort()
    for write in writes:
        with pytest.raises(errors.GoAway):
            await write


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
@looped
async def test_any_bytes_at_all_end_in_a_typed_error_or_nothing(raw: bytes) -> None:
    peer = RawMplex()
    peer.session.set_stream_handler(lambda stream: None)
    peer.deliver(msg(NEW, 0), raw)
    peer.deliver_eof()
    await settle()
    allowed = (errors.RemoteProtocolError, errors.LimitExceeded, errors.ConnectionClosed)
    assert isinstance(peer.session.close_reason, allowed)
