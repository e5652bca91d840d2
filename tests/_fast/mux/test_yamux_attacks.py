"""Yamux against hostile peers: every row of "Attacks a receiver must withstand", and random bytes.

Comes in: floods, forgeries, noise. Goes out: the promise that a session lives on or ends with
RemoteProtocolError, LimitExceeded or ConnectionClosed, within its bounds. Source: protocol sheet yamux.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from _fast.chains import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    data,
    frame,
    frames,
    with_limits,
)
from harness import looped, run, seconds, settle
from p2pcore import codes, errors, limits
from p2pcore._fast.mux.session import Allowance
from p2pcore._fast.mux.stream import Stream

REFUSED = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
ALLOWED = (errors.RemoteProtocolError, errors.LimitExceeded, errors.ConnectionClosed)


async def refused(peer: RawYamux, limit: str) -> None:
    """The session ended because of that limit, and the peer was told."""
    reason = peer.session.close_reason
    assert isinstance(reason, errors.LimitExceeded), reason
    assert limit in reason.limit
    assert (await peer.answers())[-1] == Frame(GO_AWAY, 0, 0, 1)
    assert peer.eof_written


@looped
async def test_window_overflow_allocates_nothing() -> None:
    peer = RawYamux()
    await peer.open_inbound()
    tracemalloc.start()
    peer.deliver(frame(DATA, 0, 1, 0xFFFFFFFF) + bytes(1000))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000
    assert isinstance(peer.session.close_reason, errors.RemoteProtocolError)


@looped
async def test_a_peer_that_opens_streams_and_never_reads_costs_at_most_a_window_each() -> None:
    peer = RawYamux()
    streams = [await peer.open_inbound(id) for id in range(1, 201, 2)]
    peer.clog()
    writes = [asyncio.ensure_future(s.write(bytes(WINDOW * 2))) for s in streams]
    await settle()
    queued = len(peer.queue)
    assert queued < 4 * limits.MAX_NOISE_RECORD_BYTES
    assert not any(w.done() for w in writes)
    peer.session.abort()
    for write in writes:
        with pytest.raises(errors.GoAway):
            await write


@looped
async def test_a_byte_that_is_left_of_a_long_frame_does_not_keep_the_whole_frame() -> None:
    """A peer that gives the credit for all but one byte of an echo would hold what nobody counts."""
    peer = RawYamux()
    streams = [await peer.open_inbound(id) for id in range(1, 101, 2)]
    tracemalloc.start()
    for stream in streams:
        peer.deliver(data(stream.id, bytes(range(256)) * 64))
        got = await stream.read_exactly(16_000)
        got += await stream.read_exactly(383)
        assert got == (bytes(range(256)) * 64)[:-1]
    del got
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peer.session.unread == len(streams)
    assert held / len(streams) < 6_000  # 17,200 with the whole frame
    assert [await stream.read_exactly(1) for stream in streams] == [b"\xff"] * len(streams)


@looped
async def test_acknowledgements_for_a_peer_that_does_not_read_are_bounded() -> None:
    peer = RawYamux(max_inbound_streams=1 << 20)
    peer.session.set_stream_handler(lambda stream: stream.reset())
    peer.clog()
    id = 1
    while not peer.session.is_closed:
        for _ in range(1000):
            peer.deliver(frame(WU, SYN, id))
            id += 2
        await settle()
        assert id < 1 << 20
    assert isinstance(peer.session.close_reason, errors.LimitExceeded)
    assert len(peer.queue) <= limits.MAX_QUEUED_CONTROL_BYTES + 2 * limits.MAX_NOISE_RECORD_BYTES
    await settle()
    assert peer.lost


@looped
async def test_filling_many_windows_stays_under_the_budget() -> None:
    peer = RawYamux(window_budget_bytes=2 * WINDOW)
    ping = peer.session.ping()
    (sent,) = await peer.answers()
    await asyncio.sleep(seconds(0.05))
    peer.deliver(frame(PING, ACK, 0, sent.length))
    await ping
    streams = [await peer.open_inbound(id) for id in range(1, 41, 2)]
    for _ in range(3):
        for stream in streams:
            peer.deliver(data(stream.id, bytes(stream.windows[1])))  # type: ignore[attr-defined]
            while stream.num_buffered:
                await stream.read(1 << 30)
    assert sum(s.windows[2] for s in streams) <= (len(streams) + 2) * WINDOW  # type: ignore[attr-defined]
    assert not peer.session.is_closed


@looped
async def test_a_ping_flood_is_answered_up_to_the_rate_and_then_ends_the_connection() -> None:
    peer = RawYamux()
    most = limits.YAMUX_MAX_PING_REPLIES_PER_S
    peer.deliver(*[frame(PING, SYN, 0, i) for i in range(most)])
    assert await peer.answers() == [Frame(PING, ACK, 0, i) for i in range(most)]
    peer.deliver(frame(PING, SYN, 0, 1) * 2 * most)
    await refused(peer, "pings")


@looped
async def test_a_flood_of_streams_is_refused_and_then_ends_the_connection() -> None:
    most = 100
    peer = RawYamux(max_inbound_streams=1, allowance=Allowance(refused_per_s=1, refused_burst=most))
    peer.deliver(frame(WU, SYN, 1))
    peer.deliver(*[frame(WU, SYN, id) for id in range(3, 3 + 2 * most, 2)])
    assert [(f.flags, f.length) for f in await peer.answers()] == [(RST, REFUSED)] * most
    assert peer.session.num_refused == most
    peer.deliver(*[frame(WU, SYN, id) for id in range(1001, 1001 + 2 * most, 2)])
    await refused(peer, "refused")


@looped
async def test_rapid_reset_ends_the_connection() -> None:
    most = 400
    peer = RawYamux(allowance=Allowance(resets_per_s=1, reset_burst=most))
    seen: list[Stream] = []
    peer.session.set_stream_handler(seen.append)
    for id in range(1, 1 + 2 * most, 2):
        peer.deliver(frame(WU, SYN, id) + frame(WU, RST, id))
        await settle()
    assert not seen
    assert not peer.session.is_closed
    for id in range(10_001, 10_001 + 2 * most, 2):
        peer.deliver(data(id, b"x", SYN | RST))
    await settle()
    await refused(peer, "reset")


@pytest.mark.parametrize(
    "raw",
    [data(1, b""), frame(WU, 0, 1, 0), frame(WU, 0, 1, 1), frame(WU, ACK, 1)],
    ids=["data", "0", "1", "ack"],
)
@looped
async def test_floods_of_frames_that_do_nothing_are_cheap(raw: bytes) -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(10):
        peer.deliver(raw * 10_000)
        await settle()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 10_000
    assert await peer.answers() == []
    await stream.write(b"fine")
    assert not peer.session.is_closed


@pytest.mark.parametrize("raw", [frame(WU, FIN, 99), frame(WU, RST, 99), frame(WU, 0, 99, 1), data(99, b"")])
@looped
async def test_frames_for_unknown_streams_are_ignored_up_to_a_rate(raw: bytes) -> None:
    peer = RawYamux()
    peer.deliver(raw * limits.YAMUX_MAX_UNKNOWN_PER_S)
    assert not peer.session.is_closed
    assert await peer.answers() == []
    peer.deliver(raw * limits.YAMUX_MAX_UNKNOWN_PER_S * 2)
    await refused(peer, "unknown")


@looped
async def test_many_streams_may_end_at_once_and_be_granted_credit_after_that() -> None:
    peer = RawYamux()
    count = limits.YAMUX_MAX_UNKNOWN_PER_S + 1
    for id in range(1, 2 * count, 2):
        stream = await peer.open_inbound(id)
        peer.deliver(frame(WU, FIN, id))
        await stream.close()
    peer.deliver(b"".join(frame(WU, 0, id, 9) for id in range(1, 2 * count, 2)))
    assert not peer.session.is_closed
    left = (limits.YAMUX_LATE_FRAMES - 1) * count + limits.YAMUX_MAX_UNKNOWN_PER_S
    peer.deliver(frame(WU, 0, 1, 9) * (left + 2 * limits.YAMUX_MAX_UNKNOWN_PER_S))
    await refused(peer, "unknown")


@looped
async def test_a_body_for_an_unknown_stream_is_drained_up_to_a_mebibyte() -> None:
    peer = RawYamux()
    peer.deliver(data(99, bytes(1 << 20)) + frame(PING, SYN, 0, 5))
    assert await peer.answers() == [Frame(PING, ACK, 0, 5)]
    peer.deliver(frame(DATA, 0, 99, (1 << 20) + 1))
    await refused(peer, "unknown")


@looped
async def test_what_was_under_way_to_a_stream_we_reset_is_no_offence() -> None:
    peer = RawYamux()
    for id in range(1, 20, 2):
        (await peer.open_inbound(id)).reset()
        peer.deliver(data(id, bytes(100)) * (WINDOW // 100))
    assert not peer.session.is_closed


def test_go_away_and_then_silence_is_ended_by_a_timer() -> None:
    out = with_limits(
        """
        peer = RawYamux(is_client=True)
        stream = await peer.session.open_stream()
        peer.deliver(frame(GO_AWAY, 0, 0, 0))
        reading = asyncio.ensure_future(stream.read())
        while not reading.done():
            await asyncio.sleep(0.05)
            peer.deliver(frame(GO_AWAY, 0, 0, 0))  # saying it again wins no time
        try:
            await reading
        except errors.GoAway as error:
            print(error.code, error.remote, peer.eof_written)
        """,
        YAMUX_GO_AWAY_DRAIN_S=0.3,
    )
    assert out == "0 True True\n"


def test_a_keepalive_ping_without_answer_ends_the_connection() -> None:
    out = with_limits(
        """
        peer = RawYamux(keepalive_s=0.01)
        stream = await peer.open_inbound()
        try:
            await stream.read()
        except errors.ConnectionClosed as error:
            print(error)
        await settle()
        print(peer.lost, [f.type for f in frames(peer.sent())])
        """,
        YAMUX_PONG_TIMEOUT_S=0.05,
    )
    assert out == "no answer to a yamux ping for 0.05 s\nTrue [2]\n"


@looped
async def test_a_full_stream_blocks_no_other() -> None:
    peer = RawYamux()
    await peer.open_inbound(1)
    other = await peer.open_inbound(3)
    peer.deliver(data(1, bytes(WINDOW)), data(3, b"through"))
    assert await other.read() == b"through"


@looped
async def test_one_byte_frames_cost_no_object_each() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    gc.collect()
    tracemalloc.start()
    peer.deliver(data(1, b"x") * 20_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after < 60_000 + 13 * 20_000  # the delivered bytes themselves are the test's
    assert await stream.read_exactly(20_000) == b"x" * 20_000


# -- whatever a peer sends ------------------------------------------------------------------------------


ids = st.sampled_from([0, 1, 2, 3, 4, 5, 9, 0xFFFFFFFF])
lengths = st.sampled_from([0, 1, 5, 12, WINDOW - 1, WINDOW, WINDOW + 1, 1 << 20, 0xFFFFFFFF]) | st.integers(
    0, 300
)


@st.composite
def some_frame(draw: st.DrawFn) -> bytes:
    kind, flags, id = draw(st.sampled_from([0, 0, 1, 1, 2, 3])), draw(st.integers(0, 15)), draw(ids)
    length = draw(lengths)
    if kind >= PING:
        id = 0 if draw(st.integers(0, 9)) else id
        length = 0 if kind == GO_AWAY and draw(st.booleans()) else length
    head = frame(kind, flags, id, length)
    return head + (bytes(min(length, 70_000)) if kind == DATA and draw(st.integers(0, 4)) else b"")


chunks_of_frames = st.lists(some_frame(), max_size=24).map(b"".join)
noise = st.binary(max_size=200)


async def survive(raw: bytes, at: list[int], is_client: bool, lag: bool) -> None:
    """Feeds `raw` in pieces to a session in use; checks the invariant of the whole module."""
    peer = RawYamux(is_client, max_inbound_streams=3, ack_backlog=2)
    if not lag:
        peer.session.set_stream_handler(lambda stream: stream.write(b"handled"))
    mine = await peer.session.open_stream()
    await mine.write(b"data")
    reads = [asyncio.ensure_future(mine.read()), asyncio.ensure_future(peer.session.accept_stream())]
    cuts = sorted({0, len(raw), *(a % (len(raw) + 1) for a in at)})
    for begin, end in itertools.pairwise(cuts):
        peer.deliver(raw[begin:end])
        if lag:
            await asyncio.sleep(0)
        if (begin ^ end) & 1 and not mine.is_closed:
            await mine.close_read()
    frames(await peer.all_sent())
    if peer.session.is_closed:
        assert isinstance(peer.session.close_reason, ALLOWED)
        assert not peer.aborted
    else:
        ping = peer.session.ping()
        assert [f for f in await peer.answers() if f.type == PING and f.flags == SYN]
        peer.session.abort()
        with pytest.raises(errors.GoAway):
            await ping
    peer.deliver_eof()
    await settle()
    for read in reads:
        read.cancel()
    for result in await asyncio.gather(*reads, return_exceptions=True):
        assert not isinstance(result, Exception) or isinstance(result, (*ALLOWED, errors.StreamError))


@settings(max_examples=300, deadline=None)
@given(chunks_of_frames | noise, st.lists(st.integers(0, 100_000), max_size=12), st.booleans(), st.booleans())
def test_whatever_a_peer_sends_ends_in_no_other_error(
    raw: bytes, at: list[int], is_client: bool, lag: bool
) -> None:
    run(survive(raw, at, is_client, lag))


@settings(max_examples=50, deadline=None)
@given(chunks_of_frames | noise, st.booleans())
def test_byte_by_byte_is_the_same(raw: bytes, is_client: bool) -> None:
    async def reason(chunks: list[bytes]) -> tuple[type, list[Frame]]:
        peer = RawYamux(is_client)
        peer.deliver(*chunks)
        sent = await peer.answers()
        return type(peer.session.close_reason), sent

    raw = raw[:2000]
    whole = run(reason([raw]))
    assert run(reason([raw[i : i + 1] for i in range(len(raw))])) == whole
