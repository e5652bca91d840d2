"""A stream that answers itself: against a peer that speaks yamux by hand, and as the echo of a host."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

import pytest

from _fast.chains import DATA, FIN, READS, RST, WINDOW, WU, Frame, RawYamux, data, frame, opened, started
from harness import cuts, looped, settle
from hosts import pair
from p2pcore._fast.mux.echo import echo
from p2pcore.errors import LocalProtocolError, StreamReset
from p2pcore.protocols import echo as protocol

WORDS = bytes(range(256)) * 8


async def echoed(peer: RawYamux) -> bytes:
    return b"".join(each.body for each in await peer.answers() if each.type == DATA)


@looped
async def test_what_comes_goes_back_however_it_is_cut() -> None:
    for chunks in cuts(WORDS[:600]):
        peer, stream = await opened()
        echo(stream)
        peer.deliver(*(data(1, chunk) for chunk in chunks))
        assert await echoed(peer) == WORDS[:600]


@looped
async def test_what_it_held_before_goes_first_and_the_end_behind_all() -> None:
    peer, stream = await opened()
    peer.deliver(data(1, b"early"))
    echo(stream)
    peer.deliver(data(1, b" late", FIN))
    answers = await peer.answers()
    assert b"".join(each.body for each in answers) == b"early late"
    assert answers[-1] == Frame(WU, FIN, 1, 0)
    await stream.wait_closed()
    assert peer.session.num_streams == 0


@looped
async def test_an_end_that_came_before_is_answered() -> None:
    peer, stream = await opened()
    peer.deliver(data(1, b"all", FIN))
    echo(stream)
    assert [each.body for each in await peer.answers() if each.type == DATA] == [b"all"]
    await stream.wait_closed()


@looped
async def test_a_peer_that_takes_nothing_back_is_held_within_its_window() -> None:
    peer, stream = await opened()
    echo(stream)
    granted, sent = 0, 0
    for _ in range(3 * WINDOW // len(WORDS)):
        if sent + len(WORDS) > WINDOW + granted:
            break
        peer.deliver(data(1, WORDS))
        sent += len(WORDS)
        granted += sum(each.length for each in await peer.answers() if each.type == WU)
    assert sent <= 2 * WINDOW + len(WORDS)  # its window and ours are full, and one piece waits
    assert stream.num_held <= WINDOW


@looped
async def test_what_waited_follows_in_order_when_the_peer_takes_more_and_then_the_end() -> None:
    peer, stream = await opened()
    echo(stream)
    body = bytes(i % 251 for i in range(WINDOW))
    peer.deliver(data(1, body))
    assert await echoed(peer) == body  # the peer's window is full now
    peer.deliver(data(1, b"one "), data(1, b"two "), data(1, b"three", FIN))
    assert not await echoed(peer)
    assert not stream.is_closed
    peer.deliver(frame(WU, 0, 1, 2))
    assert await echoed(peer) == b"on"
    peer.deliver(frame(WU, 0, 1, WINDOW))
    answers = await peer.answers()
    assert b"".join(each.body for each in answers) == b"e two three"
    assert answers[-1] == Frame(WU, FIN, 1, 0)
    await stream.wait_closed()


@looped
async def test_a_reset_of_the_peer_ends_it_also_while_bytes_wait() -> None:
    peer, stream = await opened()
    echo(stream)
    peer.deliver(data(1, bytes(WINDOW)))
    await settle()
    peer.deliver(data(1, b"waits"), frame(WU, RST, 1))
    await stream.wait_closed()
    assert isinstance(stream.close_reason, StreamReset)
    assert peer.session.num_streams == 0


@looped
async def test_the_end_of_the_connection_ends_it_also_while_bytes_wait() -> None:
    for waiting in ([], [data(1, bytes(WINDOW)), data(1, b"a"), data(1, b"b")]):
        peer, stream = await opened()
        echo(stream)
        peer.deliver(*waiting)
        peer.deliver_eof()
        await stream.wait_closed()
        assert stream.close_reason is not None


@looped
async def test_bytes_for_a_stream_whose_half_has_ended_here_reset_it() -> None:
    peer, stream = await opened()
    echo(stream)
    await stream.close_write()
    peer.deliver(data(1, b"too late"))
    assert any(each.flags & RST for each in await peer.answers())
    assert not peer.session.is_closed


@pytest.mark.parametrize("read", READS)
@looped
async def test_a_stream_that_somebody_reads_is_left_alone(read: str) -> None:
    peer, stream = await opened()
    reading = started(READS[read](stream))
    await settle()
    with pytest.raises(LocalProtocolError, match="in use"):
        echo(stream)
    peer.deliver(data(1, b"mine"))
    assert await reading
    assert not await echoed(peer)


@looped
async def test_what_was_written_for_later_goes_first_though_the_socket_is_full() -> None:
    """The answer of the negotiation may still wait when the echo begins."""
    peer, stream = await opened()
    other = await peer.open_inbound(3)
    peer.clog()
    filling = started(other.write(bytes(WINDOW)))
    await settle()
    assert peer.session.paused
    stream.write_later(b"answer, ")
    echo(stream)
    peer.deliver(data(1, b"echo"), data(1, b" and more", FIN))
    raw = await peer.all_sent()
    await filling
    order = [raw.index(each) for each in (b"answer, ", b"echo", b" and more", bytes(Frame(WU, FIN, 1, 0)))]
    assert order == sorted(order)


@looped
async def test_a_stream_on_which_a_write_waits_is_left_alone() -> None:
    peer, stream = await opened()
    write = started(stream.write(bytes(WINDOW + 1)))
    await settle()
    with pytest.raises(LocalProtocolError, match="in use"):
        echo(stream)
    await peer.all_sent()
    peer.deliver(frame(WU, 0, 1, 1))
    await peer.all_sent()
    await write


@looped
async def test_a_stream_that_has_failed_says_so() -> None:
    peer, stream = await opened()
    peer.deliver(frame(WU, RST, 1))
    with pytest.raises(StreamReset):
        echo(stream)


class Entered:
    """How often a function's code begins or goes on, while it is entered as a context."""

    def __init__(self, code: CodeType) -> None:
        self.code, self.times = code, 0

    def __enter__(self) -> Entered:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, at: FrameType, event: str, _: Any) -> None:
        if event == "call" and at.f_code is self.code:
            self.times += 1


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_the_task_of_the_echo_service_is_not_woken_by_what_follows_the_second_message(
    muxer: str,
) -> None:
    async with pair({"echo": True, "muxers": (muxer,)}, {"muxers": (muxer,)}) as p:
        stream = await p.conn.new_stream(protocol.PROTOCOL)
        with Entered(protocol.serve.__code__) as serve:
            for number in range(20):
                await stream.write(b"message %d" % number)
                assert await stream.read() == b"message %d" % number
        assert serve.times <= 4  # it begins, gets two messages, and waits for the end
        await stream.close()
