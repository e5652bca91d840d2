"""Shares of a turn: nobody's frames, streams or negotiations keep the others waiting, and nothing is lost.

Comes in: floods of frames by hand beside an honest peer, and the busiest honest peer. Goes out: what was
handled in which turn of the loop. Counts turns and calls, never time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from _fast.chains import ACK, FIN, GO_AWAY, PING, RST, SYN, WU, Cable, Frame, RawYamux, data, frame, frames
from _fast.mplex_chain import MSG_I, NEW, RESET_I, RawMplex, msg
from harness import eventually, looped, seconds, settle
from p2pcore import limits
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.stream import Stream
from p2pcore.errors import ConnectionClosed, DeadlineExceeded, NegotiationError, RemoteProtocolError
from p2pcore.upgrade.multistream import HEADER, encode, handle

MANY = limits.RECEIVE_BUFFER_BYTES // 12
"""Frames of 12 bytes in one receive buffer."""
MOST_STARTED = limits.TURN_WORK // limits.START_WORK
both = pytest.mark.parametrize("kind", [RawYamux, RawMplex], ids=["yamux", "mplex"])


def opened_and_reset(kind: type[Any], number: int) -> bytes:
    if kind is RawYamux:
        return frame(WU, SYN, 2 * number + 1) + frame(WU, RST, 2 * number + 1)
    return msg(NEW, number) + msg(RESET_I, number)


def opening(kind: type[Any], number: int, body: bytes = b"") -> bytes:
    if kind is RawYamux:
        return data(2 * number + 1, body, SYN) if body else frame(WU, SYN, 2 * number + 1)
    return msg(NEW, number) + (msg(MSG_I, number, body) if body else b"")


async def turns_until(condition: Callable[[], object]) -> int:
    for turn in range(10_000):
        if condition():
            return turn
        await asyncio.sleep(0)
    raise AssertionError("never")


# -- frames ----------------------------------------------------------------------------------------


@looped
async def test_a_buffer_of_frames_is_handled_in_several_turns_and_in_order() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound(1)
    sent = [bytes([number % 251]) for number in range(18_000)]
    peer.deliver(b"".join(data(1, body) for body in sent))
    assert 0 < stream.num_buffered < len(sent)
    assert peer.session.num_behind == sum(map(len, sent)) * 13 - stream.num_buffered * 13
    assert not peer.reading
    before = stream.num_buffered
    await asyncio.sleep(0)
    assert before < stream.num_buffered < len(sent)
    await settle()
    assert peer.session.num_behind == 0
    assert peer.reading
    assert await stream.read_exactly(len(sent)) == b"".join(sent)


@both
@looped
async def test_a_turn_is_shared_by_all_and_an_honest_peer_has_its_own(kind: type[Any]) -> None:
    """Sixteen peers that flood: a ping of another peer is answered two turns later, as with one of them."""
    waited = []
    for count in (1, 16):
        floods = [kind() for _ in range(count)]
        honest = RawYamux()
        for flood in floods:
            flood.session.set_stream_handler(lambda stream: None)
            flood.deliver(b"".join(opened_and_reset(kind, number) for number in range(5000)))
        honest.deliver(frame(PING, SYN, 0, 7))
        assert any(flood.session.num_behind for flood in floods)
        pongs: list[Any] = []
        turn = 0
        while not pongs:
            await asyncio.sleep(0)
            turn += 1
            pongs = [raw for raw in [honest.sent()] if raw]
        waited.append(turn)
        for flood in floods:
            flood.session.abort()
        await settle()
    assert waited[1] <= waited[0] + 1 <= 4


@looped
async def test_what_waits_counts_as_received_and_unread() -> None:
    peer = RawYamux()
    await peer.open_inbound(1)
    peer.deliver(frame(WU, 0, 1, 1) * MANY)
    assert peer.ledger.unread == peer.session.num_behind > 0
    assert peer.ledger.recount([peer.session]) == {}
    peer.session.abort()
    await settle()
    assert peer.ledger.unread == 0


@both
@looped
async def test_streams_opened_and_reset_do_not_pile_up_before_handlers_start(kind: type[Any]) -> None:
    peer = kind()
    started: list[Stream] = []
    peer.session.set_stream_handler(started.append)
    for number in range(0, 12_000, 1000):
        peer.deliver(b"".join(opened_and_reset(kind, number + at) for at in range(1000)))
    loops = loop_state(asyncio.get_running_loop())
    assert loops.num_in_line == 1
    assert peer.session.num_behind > 0
    await settle()
    assert loops.num_in_line == 0


# -- handlers --------------------------------------------------------------------------------------


@both
@looped
async def test_handlers_start_in_turns_and_connections_take_turns(kind: type[Any]) -> None:
    """Three peers open sixty streams each. A fourth opens one behind them, and is served in the next turn."""
    served: list[Any] = []
    peers = [kind() for _ in range(4)]
    for peer in peers:
        peer.session.set_stream_handler(lambda stream, peer=peer: served.append(peer))
    for peer in peers[:3]:
        for number in range(60):
            peer.deliver(opening(kind, number))
    peers[3].deliver(opening(kind, 0))
    assert not served
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert peers[3] in served
    assert len(served) <= 2 * MOST_STARTED
    assert (
        max(map(served.count, peers[:3])) - min(map(served.count, peers[:3]))
        <= limits.TURN_SHARE // limits.START_WORK
    )
    await settle()
    assert len(served) == 181


@both
@looped
async def test_the_busiest_honest_peer_opens_a_thousand_streams_and_none_is_refused(
    kind: type[Any],
) -> None:
    peer = kind()
    served: list[Stream] = []
    peer.session.set_stream_handler(served.append)
    for number in range(1000):
        peer.deliver(opening(kind, number, b"request %d" % number))
    turns = await turns_until(lambda: len(served) == 1000)
    assert turns <= 1000 // (MOST_STARTED // 4)
    assert peer.session.num_refused == 0
    assert [await stream.read() for stream in served] == [b"request %d" % number for number in range(1000)]


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "lost"])
@looped
async def test_the_end_comes_behind_what_waits(how: str) -> None:
    peer = RawYamux()
    stream = await peer.open_inbound(1)
    reasons: list[Any] = []
    peer.session.add_close_callback(reasons.append)
    peer.deliver(b"".join(data(1, b"%05d" % number) for number in range(15_000)) + frame(WU, FIN, 1))
    assert peer.session.num_behind
    if how == "eof":
        peer.deliver_eof()
    else:
        peer.wire.connection_lost(ConnectionResetError("gone"))
    assert not reasons
    for number in range(15_000):
        assert await stream.read_exactly(5) == b"%05d" % number
    assert await stream.read() == b""
    await settle()
    assert len(reasons) == 1
    assert peer.session.is_closed


@looped
async def test_nothing_is_opened_on_a_connection_that_is_gone_while_its_rest_waits() -> None:
    peer = RawYamux()
    await peer.open_inbound(1)
    peer.deliver(frame(WU, 0, 1, 0) * MANY)
    peer.wire.connection_lost(ConnectionResetError("gone"))
    assert peer.session.is_closed
    with pytest.raises(ConnectionClosed):
        await peer.session.open_stream()
    await peer.session.close()


@looped
async def test_an_abort_drops_what_waits() -> None:
    peer = RawYamux()
    await peer.open_inbound(1)
    peer.deliver(frame(WU, 0, 1, 0) * MANY)
    peer.session.abort()
    assert peer.session.num_behind == 0
    await settle()
    assert peer.lost


@looped
async def test_a_violation_behind_what_waits_ends_the_connection() -> None:
    peer = RawYamux()
    await peer.open_inbound(1)
    peer.deliver(frame(WU, 0, 1, 0) * (MANY - 10) + b"\xff" * 12)
    assert not peer.session.is_closed
    await settle()
    assert "version" in str(peer.session.close_reason)


async def many_open(kind: type[Any], count: int) -> tuple[Any, list[Stream]]:
    """A peer with `count` streams that nobody uses."""
    peer = kind()
    streams: list[Stream] = []
    peer.session.set_stream_handler(streams.append)
    for at in range(0, count, 50):
        peer.deliver(b"".join(opening(kind, number) for number in range(at, at + 50)))
        await settle()
    assert len(streams) == count
    return peer, streams


ENDS: dict[str, Callable[[Any], None]] = {
    "eof": lambda peer: peer.deliver_eof(),
    "lost": lambda peer: peer.wire.connection_lost(ConnectionResetError("gone")),
    "violation": lambda peer: peer.deliver(b"\xff" * 12),
    "abort": lambda peer: peer.session.abort(),
    "close": lambda peer: peer.session.close().close(),
}
MOST_FAILED = limits.TURN_SHARE // limits.END_WORK + 1


@pytest.mark.parametrize("how", list(ENDS))
@both
@looped
async def test_the_streams_of_a_connection_that_ends_fail_a_share_at_a_time(
    kind: type[Any], how: str
) -> None:
    """However it ends, and an honest peer is answered meanwhile. The end is told when all of them know it."""
    (peer, streams), honest = await many_open(kind, 400), RawYamux()
    mine = await honest.open_inbound(1)
    told: list[int] = []
    peer.session.add_close_callback(lambda _: told.append(failed()))

    def failed() -> int:
        return sum(stream.close_reason is not None for stream in streams)

    ENDS[how](peer)
    assert peer.session.num_streams == 0
    assert failed() <= MOST_FAILED
    honest.deliver(data(1, b"ping"))
    assert mine.num_buffered == 4
    while (before := failed()) < len(streams):
        await asyncio.sleep(0)
        assert failed() - before <= limits.TURN_WORK // limits.END_WORK
    await settle()
    assert told == [len(streams)]


@both
@looped
async def test_twenty_peers_that_end_with_many_streams_take_turns_with_an_honest_one(
    kind: type[Any],
) -> None:
    """What an honest peer sends waits for one share of each of them, not for all of their streams."""
    peers = [await many_open(kind, 400) for _ in range(20)]
    honest = RawYamux()
    stream = await honest.open_inbound(1)
    for peer, _ in peers:
        ENDS["lost"](peer)
    honest.deliver(data(1, b"ping"))
    left = [len(streams) for _, streams in peers]
    while not stream.num_buffered:
        await asyncio.sleep(0)
        now = [sum(each.close_reason is None for each in streams) for _, streams in peers]
        assert all(before - after <= 3 * MOST_FAILED for before, after in zip(left, now, strict=True))
        left = now
    assert sum(left) > 20 * 300
    await turns_until(lambda: all(each.close_reason for _, streams in peers for each in streams))


@pytest.mark.parametrize("how", list(ENDS))
@both
@looped
async def test_a_stream_whose_end_is_not_told_yet_can_be_used_as_one_that_has_failed(
    kind: type[Any], how: str
) -> None:
    peer, streams = await many_open(kind, 400)
    await peer.answers()
    ENDS[how](peer)
    one, two, three, four, five = [each for each in streams if each.close_reason is None][:5]
    calls = [asyncio.ensure_future(call) for call in (one.read(), two.write(b"x" * 99), three.close())]
    four.reset()
    five.close_read().close()
    with pytest.raises((ConnectionClosed, RemoteProtocolError)):
        await peer.session.open_stream()
    read, written, _ = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(read, ConnectionClosed | RemoteProtocolError)
    assert isinstance(written, ConnectionClosed | RemoteProtocolError)
    await settle()
    assert all(stream.is_closed for stream in streams)
    assert all(isinstance(sent, Frame) and sent.type == GO_AWAY for sent in await peer.answers())


# -- negotiations ----------------------------------------------------------------------------------


class Counted(dict[str, int]):
    """Protocols that nobody has; counts how often it is asked."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return False


PROPOSALS = HEADER + b"".join(
    encode(f"/x/{number}") for number in range(limits.MAX_MULTISTREAM_PROPOSALS + 1)
)


@looped
async def test_negotiations_with_many_bad_proposals_take_turns() -> None:
    peer = RawYamux()
    none = Counted()
    tasks: list[asyncio.Task[str]] = []
    peer.session.set_stream_handler(lambda stream: tasks.append(asyncio.ensure_future(handle(stream, none))))
    for number in range(100):
        peer.deliver(data(2 * number + 1, PROPOSALS, SYN))
    most = 0
    for _ in range(1000):
        before = none.asked
        await asyncio.sleep(0)
        most = max(most, none.asked - before)
        if len(tasks) == 100 and all(task.done() for task in tasks):
            break
    assert none.asked == 100 * limits.MAX_MULTISTREAM_PROPOSALS
    assert most <= 2 * MOST_STARTED * limits.PROPOSALS_AT_ONCE
    assert {type(task.exception()) for task in tasks} == {NegotiationError}


@looped
async def test_a_mailbox_takes_turns_too() -> None:
    cable = Cable()
    none = Counted()
    cable.deliver(PROPOSALS)
    task = asyncio.ensure_future(handle(cable.mailbox, none))
    await asyncio.sleep(0)
    assert none.asked == limits.PROPOSALS_AT_ONCE
    await eventually(task.done)
    assert none.asked == limits.MAX_MULTISTREAM_PROPOSALS
    assert isinstance(task.exception(), NegotiationError)


@looped
async def test_a_call_that_waits_for_its_turn_may_be_cancelled_and_ends_with_the_session() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound(1)
    task = asyncio.ensure_future(stream.turn(10))
    await asyncio.sleep(0)
    task.cancel()
    await settle()
    assert task.cancelled()
    last = asyncio.ensure_future(stream.turn())
    await asyncio.sleep(0)
    peer.session.abort()
    await eventually(last.done)
    assert last.exception() is None
    await stream.turn()
    with pytest.raises(ValueError, match="work"):
        stream.turn(-1)


@looped
async def test_calls_whose_deadlines_are_over_together_wake_in_several_turns() -> None:
    peer = RawYamux()
    peer.session.set_stream_handler(lambda stream: streams.append(stream))
    streams: list[Stream] = []
    for number in range(1000):
        peer.deliver(opening(RawYamux, number))
    await settle()
    tasks = [asyncio.ensure_future(stream.read()) for stream in streams]
    await settle()
    for stream in streams:
        stream.set_read_deadline(0.01)
    most = done = 0
    async with asyncio.timeout(seconds(20)):
        while done < 1000:
            await asyncio.sleep(0)
            now = sum(task.done() for task in tasks)
            most, done = max(most, now - done), now
    assert {type(task.exception()) for task in tasks} == {DeadlineExceeded}
    assert most <= 2 * limits.TURN_WORK // limits.WAKE_WORK


# -- what new tasks write ---------------------------------------------------------------------------


async def first_sent(peer: Any) -> list[Frame]:
    """The frames of the first piece that leaves from now on."""
    for _ in range(100):
        if raw := peer.sent():
            return frames(raw)
        await asyncio.sleep(0)
    raise AssertionError("nothing has left")


@looped
async def test_the_peer_hears_that_a_stream_is_accepted_together_with_the_first_answer() -> None:
    peer = RawYamux()
    tasks = []

    async def answer(stream: Stream) -> None:
        await stream.write(b"answer")

    peer.session.set_stream_handler(lambda stream: tasks.append(asyncio.create_task(answer(stream))))
    await settle()
    peer.sent()
    peer.deliver(data(1, b"request", SYN) + data(3, b"request", SYN))
    told = await first_sent(peer)
    assert told[:2] == [Frame(WU, ACK, 1, 0), Frame(WU, ACK, 3, 0)]
    assert {(each.id, each.body) for each in told[2:]} == {(1, b"answer"), (3, b"answer")}
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("raises", [False, True])
@looped
async def test_the_peer_hears_that_a_stream_is_accepted_whatever_its_handler_does(
    raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    peer = RawYamux()

    def handler(stream: Stream) -> None:
        if raises:
            raise OSError("a handler that fails at once")

    peer.session.set_stream_handler(handler)
    await settle()
    peer.sent()
    peer.deliver(frame(WU, SYN, 1))
    told = await first_sent(peer)
    assert told[0] == Frame(WU, ACK, 1, 0)
    assert [each.flags for each in told[1:]] == ([RST] if raises else [])
    peer.deliver(frame(PING, SYN, 0, 7))
    assert await first_sent(peer) == [Frame(PING, ACK, 0, 7)], "later frames leave as ever"
    caplog.clear()
