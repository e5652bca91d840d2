"""Yamux: windows, acknowledgements, pings, go-aways, resets, and the order in which frames leave.

Comes in: frames by hand, and pairs of sessions. Goes out: what the streams saw and what was sent.
Source: libp2p/specs yamux, sections on flow control and closing; limits.YAMUX_*.
"""

from __future__ import annotations

import asyncio

import pytest

from _fast.chains import (
    ACK,
    DATA,
    FIN,
    PING,
    SYN,
    WINDOW,
    WU,
    Cable,
    Frame,
    RawYamux,
    closed,
    data,
    frame,
    frames,
    session_pair,
    split_frames,
    stream_pair,
    with_limits,
)
from harness import eventually, looped, seconds, settle
from p2pcore import errors, limits
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxSession, YamuxStream

BODY = limits.YAMUX_MAX_FRAME_BODY_BYTES
RECORD = limits.MAX_NOISE_PLAINTEXT_BYTES


def windows(stream: Stream) -> tuple[int, int, int]:
    assert isinstance(stream, YamuxStream)
    return stream.windows


# -- receive windows ------------------------------------------------------------------------------


@looped
async def test_a_window_update_leaves_when_half_of_the_window_has_been_read() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, bytes(WINDOW // 2 + 1)))
    await stream.read_exactly(WINDOW // 2 - 1)
    assert await peer.answers() == []
    await stream.read_exactly(1)
    assert (await peer.answers())[-1] == Frame(
        WU, 0, 1, WINDOW // 2
    )  # behind a ping, to learn the round trip
    assert windows(stream)[1] + stream.num_buffered == WINDOW


@looped
async def test_bytes_that_only_arrive_grant_no_window() -> None:
    peer = RawYamux()
    await peer.open_inbound()
    peer.deliver(data(1, bytes(WINDOW)))
    assert await peer.answers() == []


@looped
async def test_no_window_is_granted_after_the_peers_fin() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, bytes(WINDOW), FIN))
    await stream.read_exactly(WINDOW)
    assert await peer.answers() == []


@pytest.mark.parametrize("arrived", [0, 1, WINDOW // 2 - 1, WINDOW // 2, WINDOW - 1001])
@looped
async def test_read_exactly_of_a_whole_window_never_waits_for_ever(arrived: int) -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, bytes(1000)))
    await stream.read_exactly(1000)
    peer.deliver(data(1, bytes(arrived)))
    read = asyncio.ensure_future(stream.read_exactly(WINDOW))
    await settle()
    assert windows(stream)[1] + stream.num_buffered >= WINDOW
    peer.deliver(data(1, bytes(WINDOW - arrived)))
    assert await read == bytes(WINDOW)
    assert not peer.session.is_closed


async def measure(peer: RawYamux) -> None:
    """Answers a ping after a while, so that the session has a round trip time to work with."""
    ping = peer.session.ping()
    sent = [f for f in await peer.answers() if f.type == PING]
    await asyncio.sleep(seconds(0.2))
    peer.deliver(frame(PING, ACK, 0, sent[-1].length))
    await ping


@looped
async def test_a_window_used_up_within_four_round_trips_doubles_up_to_the_maximum() -> None:
    peer = RawYamux(max_window_bytes=4 * WINDOW)
    await measure(peer)
    stream = await peer.open_inbound()
    seen = []
    for _ in range(5):
        peer.deliver(data(1, bytes(windows(stream)[1])))
        while stream.num_buffered:
            await stream.read(1 << 30)
        seen.append(windows(stream)[2])
        assert 2 * windows(stream)[1] > seen[-1]
    assert seen == [WINDOW, 2 * WINDOW, 4 * WINDOW, 4 * WINDOW, 4 * WINDOW]


@looped
async def test_a_window_does_not_grow_while_the_round_trip_is_unknown() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    for _ in range(4):
        peer.deliver(data(1, bytes(WINDOW)))
        await stream.read_exactly(WINDOW)
    assert windows(stream)[2] == WINDOW
    assert [f.type for f in await peer.answers()].count(PING) == 1  # it asks, once


@looped
async def test_growth_stays_within_the_budget_and_what_ends_gives_back() -> None:
    peer = RawYamux(window_budget_bytes=WINDOW)
    await measure(peer)
    first, second = await peer.open_inbound(1), await peer.open_inbound(3)

    async def use(stream: Stream) -> int:
        for _ in range(3):
            peer.deliver(data(stream.id, bytes(windows(stream)[1])))
            while stream.num_buffered:
                await stream.read(1 << 30)
        return windows(stream)[2]

    assert await use(first) == 2 * WINDOW
    assert await use(second) == WINDOW
    first.reset()
    assert await use(second) == 2 * WINDOW


# -- send windows ----------------------------------------------------------------------------------


async def bodies(peer: RawYamux) -> int:
    return sum(f.length for f in await peer.answers() if f.type == DATA)


@looped
async def test_the_send_window_is_respected_to_the_byte() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    write = asyncio.ensure_future(stream.write(bytes(WINDOW + 100)))
    assert await bodies(peer) == WINDOW
    assert not write.done()
    peer.deliver(frame(WU, 0, 1, 99))
    assert await bodies(peer) == 99
    assert not write.done()
    peer.deliver(frame(WU, 0, 1, 5))
    assert await bodies(peer) == 1
    await write
    assert windows(stream)[0] == 4
    await stream.write(b"abcd")
    blocked = asyncio.ensure_future(stream.write(b"e"))
    assert await bodies(peer) == 4
    assert not blocked.done()
    peer.deliver(frame(WU, FIN, 1, 1))
    await blocked


@looped
async def test_data_of_no_bytes_is_allowed_with_a_window_of_none() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, bytes(WINDOW)), data(1, b""), data(1, b""))
    assert stream.num_buffered == WINDOW
    assert not peer.session.is_closed
    write = asyncio.ensure_future(stream.write(bytes(WINDOW)))
    assert await bodies(peer) == WINDOW
    await write
    await stream.write(b"")


@looped
async def test_bytes_flow_both_ways_through_windows_of_a_pair() -> None:
    client, server = await session_pair()
    a, b = await stream_pair(client, server)
    sent = bytes(range(256)) * 12000

    async def read_all(stream: Stream) -> bytes:
        out = bytearray()
        while piece := await stream.read():
            out += piece
        return bytes(out)

    async def send_all(stream: Stream) -> None:
        for at in range(0, len(sent), 100_003):
            await stream.write(sent[at : at + 100_003])
        await stream.close_write()

    got = await asyncio.gather(read_all(a), read_all(b), send_all(a), send_all(b))
    assert list(got[:2]) == [sent, sent]
    assert a.is_closed
    assert b.is_closed
    assert client.num_streams == server.num_streams == 0
    await closed(client, server)


# -- the acknowledgement backlog -------------------------------------------------------------------


@looped
async def test_open_stream_waits_behind_256_unacknowledged_streams() -> None:
    peer = RawYamux(is_client=True)
    streams = [await peer.session.open_stream() for _ in range(256)]
    waiting = [asyncio.ensure_future(peer.session.open_stream()) for _ in range(3)]
    await settle()
    assert not any(w.done() for w in waiting)
    peer.deliver(frame(WU, ACK, 1), frame(WU, ACK, 3))
    await settle()
    assert [w.done() for w in waiting] == [True, True, False]
    streams[2].reset()
    await settle()
    assert waiting[2].result().id == 517


@looped
async def test_any_frame_on_a_stream_acknowledges_it() -> None:
    peer = RawYamux(is_client=True, ack_backlog=1)
    for id, raw in ((1, data(1, b"x")), (3, frame(WU, 0, 3, 9)), (5, frame(WU, FIN, 5))):
        stream = await peer.session.open_stream()
        assert stream.id == id
        peer.deliver(raw)
    await peer.session.open_stream()


@looped
async def test_a_cancelled_open_passes_its_turn_on() -> None:
    peer = RawYamux(is_client=True, ack_backlog=1)
    await peer.session.open_stream()
    waiting = [asyncio.ensure_future(peer.session.open_stream()) for _ in range(2)]
    await settle()
    peer.deliver(frame(WU, ACK, 1))
    waiting[0].cancel()
    await settle()
    assert waiting[1].done()
    assert (await waiting[1]).id == 3


@looped
async def test_a_cancelled_accept_passes_the_stream_on() -> None:
    peer = RawYamux()
    waiting = [asyncio.ensure_future(peer.session.accept_stream()) for _ in range(2)]
    await settle()
    peer.deliver(frame(WU, SYN, 1))
    await asyncio.sleep(0)
    waiting[0].cancel()
    await settle()
    assert (await asyncio.wait_for(waiting[1], seconds(5))).id == 1


# -- pings ------------------------------------------------------------------------------------------


@looped
async def test_ping_gives_the_round_trip() -> None:
    client, server = await session_pair()
    assert client.rtt == 0
    assert 0 < await client.ping() == client.rtt < seconds(30)
    times = await asyncio.gather(*(server.ping() for _ in range(limits.YAMUX_MAX_PINGS)))
    assert all(t > 0 for t in times)
    await closed(client, server)


@looped
async def test_pings_without_answer_are_bounded() -> None:
    peer = RawYamux()
    pings = [asyncio.ensure_future(peer.session.ping()) for _ in range(limits.YAMUX_MAX_PINGS)]
    with pytest.raises(errors.LimitExceeded):
        await peer.session.ping()
    peer.session.abort()
    for ping in pings:
        with pytest.raises(errors.GoAway):
            await ping


@looped
async def test_keepalive_pings_an_idle_peer_and_ends_a_dead_one() -> None:
    client, server = await session_pair(keepalive_s=0.01)
    await eventually(lambda: client.rtt and server.rtt)
    assert not client.is_closed
    await closed(client, server)
    peer = RawYamux(keepalive_s=0.01)
    await eventually(lambda: split_frames(peer.sent())[0])
    assert not peer.session.is_closed


def test_keepalive_shorter_than_the_time_for_an_answer_is_kept_after_each_answer() -> None:
    out = with_limits(
        """
        peer = RawYamux(keepalive_s=seconds(0.3))
        times = []
        for value in (1, 2, 3):
            await eventually(lambda: Frame(PING, SYN, 0, value) in split_frames(peer.sent())[0])
            times.append(peer.loop.time())
            peer.deliver(frame(PING, ACK, 0, value))
        print(times[2] - times[0] < seconds(5))
        """,
        YAMUX_PONG_TIMEOUT_S=seconds(10),
    )
    assert out == "True\n"


SILENT = {"YAMUX_WINDOW_LOOK_S": 0.3, "YAMUX_PONG_TIMEOUT_S": 0.3, "YAMUX_WINDOW_GRACE_S": 0.1}


def test_a_write_that_waits_for_the_window_asks_and_ends_the_connection_where_nothing_answers() -> None:
    out = with_limits(
        """
        peer, stream = await opened()
        writing = started(stream.write(bytes(WINDOW + 1)))
        await peer.all_sent()
        got = []
        def asked():
            got.extend(split_frames(peer.sent())[0])
            return any(each.type == PING for each in got)
        await eventually(asked)
        print(writing.done(), peer.session.is_closed)
        try:
            await writing
        except errors.ConnectionClosed as error:
            print(error)
        await eventually(lambda: peer.lost)
        """,
        **{name: seconds(value) for name, value in SILENT.items()},
    )
    assert out.startswith("False False\na write waits for the peer, which has not answered a yamux ping")


def test_a_write_that_waits_for_the_window_of_a_peer_that_is_there_waits_on() -> None:
    out = with_limits(
        """
        peer, stream = await opened()
        from p2pcore._fast.loop.loop_state import loop_state
        writing = started(stream.write(bytes(WINDOW + 1)))
        await peer.all_sent()
        for _ in range(3):
            got = []
            def asked():
                got.extend(each for each in split_frames(peer.sent())[0] if each.type == PING)
                return got
            await eventually(asked)
            peer.deliver(frame(PING, ACK, 0, got[0].length))
        print(writing.done(), peer.session.is_closed, loop_state(peer.loop).num_watched)
        peer.deliver(frame(WU, 0, 1, 1))
        await writing
        print(loop_state(peer.loop).num_watched)
        """,
        **{name: seconds(value) for name, value in SILENT.items()},
    )
    assert out == "False False 1\n0\n"


# -- how frames leave ----------------------------------------------------------------------------------------


@looped
async def test_small_writes_in_a_row_become_one_frame() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    for i in range(100):
        await stream.write(bytes([i]))
    await stream.close_write()
    # FIN has a frame of its own: js-libp2p drops the body of a data frame that carries it.
    assert await peer.answers() == [Frame(DATA, 0, 1, 100, bytes(range(100))), Frame(WU, FIN, 1, 0)]


@looped
async def test_frames_of_other_streams_and_control_frames_end_a_frame() -> None:
    peer = RawYamux()
    one, two = await peer.open_inbound(1), await peer.open_inbound(3)
    await one.write(b"a")
    await two.write(b"b")
    await one.write(b"c")
    ping = peer.session.ping()
    await one.write(b"d")
    await one.close_write()
    await two.close_write()
    got = await peer.answers()
    assert [(f.type, f.flags, f.id, f.body) for f in got] == [
        (DATA, 0, 1, b"a"),
        (DATA, 0, 3, b"b"),
        (DATA, 0, 1, b"c"),
        (PING, SYN, 0, b""),
        (DATA, 0, 1, b"d"),
        (WU, FIN, 1, b""),
        (WU, FIN, 3, b""),
    ]
    ping.close()


@looped
async def test_a_write_after_the_record_left_begins_a_new_frame() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    await stream.write(b"first")
    assert await peer.answers() == [Frame(DATA, 0, 1, 5, b"first")]
    await stream.write(b"second")
    assert await peer.answers() == [Frame(DATA, 0, 1, 6, b"second")]
    await stream.close_write()
    assert await peer.answers() == [Frame(WU, FIN, 1, 0)]


@pytest.mark.parametrize(
    "first", [0, 1, BODY - 300, BODY - 256, BODY - 12, BODY - 1, BODY, BODY + 1, 2 * BODY]
)
@looped
async def test_a_frame_never_spans_two_records(first: int) -> None:
    """Each noise record, opened by itself, is whole frames."""
    cable = Cable()
    key = bytes(32)
    cable.mailbox.insert(NoiseChannel(key, key))
    box = cable.mailbox
    session = YamuxSession(True)
    box.replace(session)
    one, two = await session.open_stream(), await session.open_stream()
    await settle()
    sent = b"".join(i.to_bytes(4, "big") for i in range(60_000))[: 3 * BODY]
    await one.write(sent[:first])
    await two.write(sent[: 2 * BODY - first if first < BODY else 300])
    await one.write(sent[first : first + 1])
    await one.close_write()
    await settle()
    # The same key both ways: what it has sent can be given back to another channel, record by record.
    other = Cable()
    other.mailbox.insert(NoiseChannel(key, key))
    reader = other.mailbox
    raw, got = cable.sent(), b""
    while raw:
        size = int.from_bytes(raw[:2], "big") + 2
        other.deliver(raw[:size])
        raw = raw[size:]
        plain = await reader.read_exactly(reader.num_held)
        assert len(plain) <= RECORD
        for f in frames(plain):
            got += f.body if f.id == one.id else b""
    assert got == sent[: first + 1]


@looped
async def test_writers_take_turns_when_the_socket_is_full() -> None:
    peer = RawYamux()
    streams = [await peer.open_inbound(id) for id in (1, 3, 5)]
    filling = peer.clog()
    writes = [asyncio.ensure_future(s.write(bytes([s.id]) * (3 * BODY))) for s in streams]
    await settle()
    assert peer.session.paused
    raw = b""
    while not all(w.done() for w in writes):
        raw += peer.sent()
        peer.drain()
        await settle()
    raw += peer.sent()
    got = [f.id for f in frames(raw[filling:]) if f.type == DATA]
    # The first write had begun before the socket was found to be full; from then on, in turn.
    assert got == [1, 1, 3, 5, 1, 3, 5, 3, 5]


@looped
async def test_the_session_pauses_and_goes_on_with_the_socket() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    filling = peer.clog()
    sent = bytes(range(256)) * 800
    write = asyncio.ensure_future(stream.write(sent))
    await settle()
    assert peer.session.paused
    assert not write.done()
    raw = b""
    while not write.done():
        raw += peer.sent()
        peer.drain()
        await settle()
    raw += peer.sent()
    assert b"".join(f.body for f in frames(raw[filling:])) == sent
    assert not peer.session.paused
