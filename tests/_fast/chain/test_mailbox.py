"""The mailbox on top of a chain: reads during negotiation, and handing its bytes to the next layer.

Comes in: bytes cut anywhere, ends, calls of a negotiation. Goes out: exactly those bytes, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from _fast.chains import KEY_A, KEY_B, SYN, WU, Cable, data, frame
from harness import cuts, looped, settle
from p2pcore import errors, limits
from p2pcore._fast.chain.layer import Layer, Mailbox
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore._fast.mux.yamux import YamuxSession


@looped
async def test_read_exactly_gives_the_bytes_however_they_are_cut() -> None:
    for chunks in cuts(b"the first of it|the rest"):
        cable = Cable()
        read = asyncio.ensure_future(cable.mailbox.read_exactly(16))
        await settle()
        for chunk in chunks:
            cable.deliver(chunk)
        assert await read == b"the first of it|"
        assert cable.mailbox.num_held == 8
        assert await cable.mailbox.read_exactly(0) == b""
        assert await cable.mailbox.read_exactly(8) == b"the rest"


@looped
async def test_read_gives_what_is_there_and_nothing_at_the_end() -> None:
    cable = Cable()
    box = cable.mailbox
    read = asyncio.ensure_future(box.read(3))
    await settle()
    cable.deliver(b"12345")
    assert await read == b"123"
    assert await box.read(9) == b"45"
    cable.deliver_eof()
    assert await box.read(9) == b""


@looped
async def test_peek_leaves_the_bytes_however_they_are_cut() -> None:
    for chunks in cuts(b"GET /"):
        cable = Cable()
        peek = asyncio.ensure_future(cable.mailbox.peek(3))
        await settle()
        for chunk in chunks:
            cable.deliver(chunk)
        assert await peek == b"GET"
        assert await cable.mailbox.read_exactly(5) == b"GET /"


@looped
async def test_peek_gives_fewer_at_the_end_and_fails_on_a_broken_connection() -> None:
    cable = Cable()
    cable.deliver(b"GE")
    cable.deliver_eof()
    assert await cable.mailbox.peek(3) == b"GE"
    assert await cable.mailbox.read(3) == b"GE"
    broken = Cable()
    box = broken.mailbox
    broken.deliver(b"GE")
    broken.abort()
    await settle()
    with pytest.raises(errors.ConnectionClosed):
        await box.peek(3)
    assert await box.read(3) == b"GE"


@looped
async def test_unread_bytes_come_first() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.deliver(b"first|second|" + bytes(5000))
    assert await box.read_exactly(13) == b"first|second|"
    box.unread(b"second|")
    cable.deliver(b"end")
    assert await box.read_exactly(5010) == b"second|" + bytes(5000) + b"end"
    read = asyncio.ensure_future(box.read(1))
    await settle()
    with pytest.raises(errors.LocalProtocolError):
        box.unread(b"x")
    cable.deliver(b"y")
    assert await read == b"y"


@looped
async def test_what_is_written_later_leaves_with_the_next_write() -> None:
    cable = Cable()
    cable.mailbox.write_later(b"agreed, ")
    cable.mailbox.write_later(b"and ")
    cable.deliver(b"at hand")
    assert await cable.mailbox.read_exactly(7) == b"at hand"
    assert cable.sent() == b""
    cable.mailbox.write(b"the first message")
    assert cable.sent() == b"agreed, and the first message"


@looped
async def test_what_is_written_later_leaves_when_a_read_waits_or_another_layer_comes() -> None:
    waiting, inserted, closed = Cable(), Cable(), Cable()
    waiting.mailbox.write_later(b"agreed")
    read = asyncio.ensure_future(waiting.mailbox.read_exactly(1))
    await settle()
    assert waiting.sent() == b"agreed"
    waiting.deliver(b"x")
    assert await read == b"x"
    inserted.mailbox.write_later(b"agreed")
    inserted.mailbox.insert(PlainChannel())
    assert inserted.sent() == b"agreed"
    closed.mailbox.write_later(b"agreed")
    closed.mailbox.close()
    assert closed.sent() == b"agreed"


@looped
async def test_nothing_is_written_later_on_a_broken_connection() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.abort()
    await settle()
    with pytest.raises(errors.ConnectionClosed):
        box.write_later(b"x")


@looped
async def test_reads_of_a_mailbox_are_bounded() -> None:
    for n in (0, -1, limits.MAILBOX_BYTES + 1):
        with pytest.raises(errors.LimitExceeded):
            await Cable().mailbox.read(n)
        with pytest.raises(errors.LimitExceeded):
            await Cable().mailbox.peek(n)


@looped
async def test_cancelling_a_read_leaves_all_bytes() -> None:
    cable = Cable()
    read = asyncio.ensure_future(cable.mailbox.read_exactly(4))
    await settle()
    cable.deliver(b"1234")
    read.cancel()
    await settle()
    assert read.cancelled()
    assert await cable.mailbox.read_exactly(4) == b"1234"


@looped
async def test_one_read_at_a_time() -> None:
    cable = Cable()
    read = asyncio.ensure_future(cable.mailbox.read_exactly(1))
    await settle()
    with pytest.raises(errors.LocalProtocolError):
        await cable.mailbox.read_exactly(1)
    cable.deliver(b"x")
    assert await read == b"x"


@looped
async def test_an_early_end_gives_what_came() -> None:
    for late in (False, True):
        cable = Cable()
        box = cable.mailbox
        read = asyncio.ensure_future(box.read_exactly(9))
        await settle()
        cable.deliver(b"part")
        if late:
            await settle()
        cable.deliver_eof()
        with pytest.raises(errors.IncompleteRead) as caught:
            await read
        assert (caught.value.partial, caught.value.expected) == (b"part", 9)
        box.write(b"the other half is open")
        assert cable.sent() == b"the other half is open"


@looped
async def test_a_lost_connection_is_told_after_what_came() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.deliver(b"came")
    assert not box.is_lost
    cable.abort()
    await settle()
    assert box.is_lost
    assert await box.read_exactly(4) == b"came"
    for call in (lambda: box.write(b"x"), lambda: box.insert(Layer()), lambda: box.replace(Layer())):
        with pytest.raises(errors.ConnectionClosed):
            call()
    with pytest.raises(errors.ConnectionClosed):
        await box.read_exactly(1)
    box.abort()


@looped
async def test_abort_closes_at_once_and_wakes_the_reader() -> None:
    cable = Cable()
    box = cable.mailbox
    read = asyncio.ensure_future(box.read_exactly(1))
    await settle()
    box.abort()
    box.abort()
    assert cable.aborted
    box.write(b"between the end and its report bytes go nowhere")
    with pytest.raises(errors.ConnectionClosed):
        await read
    assert cable.sent() == b""


@looped
async def test_more_than_the_bound_pauses_reading_until_it_is_taken() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.deliver(bytes(limits.MAILBOX_BYTES - 1))
    assert cable.reading
    cable.deliver(b"x")
    assert not cable.reading
    await box.read_exactly(1)
    assert cable.reading
    with pytest.raises(errors.LimitExceeded):
        box.read_exactly(limits.MAILBOX_BYTES + 1)
    with pytest.raises(errors.LimitExceeded):
        box.read_exactly(-1)
    cable.deliver(b"xx")
    assert not cable.reading
    box.insert(PlainChannel())  # the next layer takes over, and reading goes on
    assert cable.reading == (box.num_held < limits.MAILBOX_BYTES)
    assert len(await box.read_exactly(limits.MAILBOX_BYTES)) == limits.MAILBOX_BYTES
    assert cable.reading


@looped
async def test_what_a_mailbox_holds_goes_to_its_replacement_first() -> None:
    first = frame(WU, SYN, 1) + data(1, b"hello")
    for at in range(len(first) + 1):
        cable = Cable()
        box = cable.mailbox
        box.insert(PlainChannel())
        cable.deliver(first[:at])
        session = YamuxSession(False)
        box.replace(session)
        assert cable.wire.mailbox is None
        assert (box.num_held, box.is_lost) == (0, True)
        cable.deliver(first[at:])
        stream = await session.accept_stream()
        assert await stream.read_exactly(5) == b"hello"


@looped
async def test_an_end_that_came_early_goes_to_the_replacement_too() -> None:
    cable = Cable()
    box = cable.mailbox
    box.insert(PlainChannel())
    cable.deliver(frame(WU, SYN, 1))
    cable.deliver_eof()
    session = YamuxSession(False)
    box.replace(session)
    assert isinstance(session.close_reason, errors.ConnectionClosed)


@looped
async def test_early_bytes_that_break_the_inserted_layer_are_its_error() -> None:
    cable = Cable()
    cable.deliver(b"\x00\x01\x00")
    with pytest.raises(errors.RemoteProtocolError):
        cable.mailbox.insert(NoiseChannel(KEY_A, KEY_B))
    cable = Cable()
    box = cable.mailbox
    box.insert(PlainChannel())
    cable.deliver(bytes(12))
    session = YamuxSession(False)
    box.replace(session)
    assert isinstance(session.close_reason, errors.RemoteProtocolError)
    await settle()
    assert cable.eof_written


@looped
async def test_layers_go_only_where_they_can_work() -> None:
    cable = Cable()
    box = cable.mailbox
    for layer in (Layer(), PlainChannel(), NoiseChannel(KEY_A, KEY_B)):
        with pytest.raises(errors.LocalProtocolError, match="above"):
            box.replace(layer)
    for end in (YamuxSession(True), box, Mailbox()):
        with pytest.raises(errors.LocalProtocolError):
            box.insert(end)
    channel = PlainChannel()
    box.insert(channel)
    with pytest.raises(errors.LocalProtocolError, match="already"):
        box.insert(channel)
    box.insert(Layer())  # changes nothing
    cable.deliver(b"still alive")
    assert await box.read_exactly(11) == b"still alive"


@looped
async def test_a_mailbox_on_no_chain_says_so() -> None:
    box = Mailbox()
    with pytest.raises(errors.LocalProtocolError):
        await box.read_exactly(1)
    calls: list[Callable[[], None]] = [
        lambda: box.write(b"x"),
        lambda: box.insert(Layer()),
        lambda: box.replace(Layer()),
    ]
    for call in calls:
        with pytest.raises(errors.ConnectionClosed):
            call()
    box.abort()
    with pytest.raises(errors.ConnectionClosed):
        Wire(asyncio.get_running_loop()).mailbox.write(b"x")  # type: ignore[union-attr]


OPENING = b"\x13/multistream/1.0.0\n"


@looped
async def test_read_frame_gives_what_is_behind_its_length_however_it_is_cut() -> None:
    for chunks in cuts(b"\x00\x05frame\x00\x00rest"):
        cable = Cable()
        read = asyncio.ensure_future(cable.mailbox.read_frame())
        await settle()
        for chunk in chunks:
            cable.deliver(chunk)
        assert await read == b"frame"
        assert await cable.mailbox.read_frame() == b""
        assert await cable.mailbox.read_exactly(4) == b"rest"


@looped
async def test_read_frame_compares_its_length_unsigned_and_ends_with_the_input() -> None:
    cable = Cable()
    read = asyncio.ensure_future(cable.mailbox.read_frame())
    cable.deliver(b"\xff\xff" + bytes(65534))
    await settle()
    assert not read.done()
    cable.deliver(b"x")
    assert await read == bytes(65534) + b"x"
    for held in (b"", b"\x00", b"\x00\x02x"):
        cable = Cable()
        cable.deliver(held)
        cable.deliver_eof()
        with pytest.raises(errors.IncompleteRead):
            await cable.mailbox.read_frame()


@looped
async def test_an_opening_is_taken_whole_or_not_at_all() -> None:
    for chunks in cuts(OPENING + b"\x07/noise\n"):
        cable = Cable()
        held = b""
        for chunk in chunks:
            assert cable.mailbox.take_opening() is None
            assert cable.mailbox.num_held == len(held)
            cable.deliver(chunk)
            held += chunk
        cable.deliver(b"tail")
        assert cable.mailbox.take_opening() == b"\x07/noise\n"
        assert await cable.mailbox.read_exactly(4) == b"tail"


@pytest.mark.parametrize(
    "data",
    [
        OPENING + b"\x07/noise/",
        OPENING + b"\x00\n",
        OPENING + b"\x80\x01" + bytes(127) + b"\n",
        OPENING + b"\x7f" + bytes(126),
        OPENING[:-1] + b"\r\x07/noise\n",
        b"\x07/noise\n" + OPENING,
    ],
    ids=["no newline", "empty", "long length", "cut short", "another header", "other order"],
)
def test_whatever_is_no_opening_stays_in_the_mailbox(data: bytes) -> None:
    @looped
    async def main() -> None:
        cable = Cable()
        cable.deliver(data)
        assert cable.mailbox.take_opening() is None
        assert await cable.mailbox.read_exactly(len(data)) == data

    main()


# -- lazy proposals --------------------------------------------------------------------------------

REPLY = OPENING + b"\x07/noise\n"
MAILBOX_READS: dict[str, Callable[[Mailbox], Awaitable[bytes]]] = {
    "read": lambda box: box.read(4),
    "read_exactly": lambda box: box.read_exactly(4),
    "read_frame": lambda box: box.read_frame(),
}
reads = pytest.mark.parametrize("read", MAILBOX_READS.values(), ids=MAILBOX_READS)


@looped
async def test_an_expected_answer_is_seen_by_no_read_however_it_is_cut() -> None:
    for reply in (REPLY, OPENING + REPLY):
        for chunks in cuts(reply + b"tail"):
            cable = Cable()
            cable.mailbox.expect(REPLY, "/noise", "a step")
            cable.mailbox.write_later(b"proposal")
            assert cable.mailbox.is_expecting
            cable.mailbox.write(b", data")
            cable.deliver(*chunks)
            assert await cable.mailbox.read_exactly(4) == b"tail"
            assert not cable.mailbox.is_expecting
            assert await cable.all_sent() == b"proposal, data"


@looped
async def test_an_answer_that_came_before_it_was_expected_counts() -> None:
    for at in range(len(REPLY) + 1):
        cable = Cable()
        cable.deliver(REPLY[:at])
        cable.mailbox.expect(REPLY, "/noise", "a step")
        cable.deliver(REPLY[at:] + b"tail")
        assert await cable.mailbox.read_exactly(4) == b"tail"


@reads
@pytest.mark.parametrize("early", [False, True])
@looped
async def test_an_answer_that_is_none_fails_reads_at_once(
    read: Callable[[Mailbox], Awaitable[bytes]], early: bool
) -> None:
    for answer, kind in (
        (OPENING + b"\x03na\n", errors.ProtocolNotSupported),
        (b"\x13/multistream/2", errors.NegotiationError),
        (OPENING + b"\x07/nox", errors.NegotiationError),
        (OPENING * 3, errors.NegotiationError),
    ):
        cable = Cable()
        if early:
            cable.deliver(answer)
        cable.mailbox.expect(REPLY, "/noise", "a step")
        reading = asyncio.ensure_future(read(cable.mailbox))
        await settle()
        cable.deliver(b"more" if early else answer + b"more")
        with pytest.raises(kind, match=r"a step.*/noise") as caught:
            await reading
        assert caught.value.stage == "a step"
        with pytest.raises(kind):
            cable.mailbox.write(b"x")
        assert cable.mailbox.is_expecting


@reads
@looped
async def test_an_end_before_the_expected_answer_is_no_orderly_end(
    read: Callable[[Mailbox], Awaitable[bytes]],
) -> None:
    for at in range(len(REPLY)):
        cable = Cable()
        cable.mailbox.expect(REPLY, "/noise", "a step")
        cable.deliver(REPLY[:at])
        cable.deliver_eof()
        with pytest.raises(errors.NegotiationError) as caught:
            await read(cable.mailbox)
        assert isinstance(caught.value.__cause__, errors.IncompleteRead)
        assert caught.value.__cause__.partial == REPLY[:at]
