"""Yamux: go-aways, resets, half closes, and what a connection that is lost leaves to be read.

Comes in: frames by hand, and pairs of sessions. Goes out: what the streams saw and what was sent.
Source: libp2p/specs yamux, section on closing; limits.YAMUX_*.
"""

from __future__ import annotations

import asyncio

import pytest

from _fast.chains import (
    DATA,
    FIN,
    GO_AWAY,
    RST,
    SYN,
    WINDOW,
    WU,
    Cable,
    Frame,
    RawYamux,
    closed,
    data,
    ended,
    frame,
    frames,
    session_pair,
    stream_pair,
)
from harness import eventually, looped, settle
from p2pcore import errors, limits
from p2pcore._fast.mux.yamux import YamuxSession, YamuxStream

# -- the end of a session -----------------------------------------------------------------------------


@looped
async def test_go_away_0_drains_and_then_closes() -> None:
    peer = RawYamux(is_client=True)
    stream = await peer.session.open_stream()
    assert peer.session.can_open
    peer.deliver(frame(GO_AWAY, 0, 0, 0))
    with pytest.raises(errors.GoAway) as caught:
        await peer.session.open_stream()
    assert (caught.value.code, caught.value.remote) == (0, True)
    peer.deliver(data(1, b"answer", FIN))
    assert await stream.read() == b"answer"
    await stream.write(b"request")
    assert not peer.session.is_closed
    assert not peer.session.can_open
    await stream.close_write()
    assert await peer.answers() == [
        Frame(WU, SYN, 1, 0),
        Frame(DATA, 0, 1, 7, b"request"),
        Frame(WU, FIN, 1, 0),
    ]
    assert isinstance(await ended(peer.session), errors.GoAway)
    assert peer.eof_written


@looped
async def test_go_away_0_without_streams_closes_at_once() -> None:
    peer = RawYamux()
    peer.deliver(frame(GO_AWAY, 0, 0, 0))
    assert isinstance(peer.session.close_reason, errors.GoAway)


@looped
async def test_go_away_resets_streams_the_peer_opens_afterwards() -> None:
    peer = RawYamux(is_client=True)
    await peer.session.open_stream()
    peer.deliver(frame(GO_AWAY, 0, 0, 0), frame(WU, SYN, 2))
    assert Frame(WU, RST, 2, 0) in await peer.answers()
    assert peer.session.num_streams == 1


@pytest.mark.parametrize("code", [1, 2, 0x1006, 0xFFFFFFFF])
@looped
async def test_go_away_with_a_code_ends_everything(code: int) -> None:
    peer = RawYamux(is_client=True, ack_backlog=1)
    stream = await peer.session.open_stream()
    opening = asyncio.ensure_future(peer.session.open_stream())
    accepting = asyncio.ensure_future(peer.session.accept_stream())
    reading = asyncio.ensure_future(stream.read())
    told: list[BaseException | None] = []
    peer.session.add_close_callback(told.append)
    await settle()
    peer.deliver(frame(GO_AWAY, 0, 0, code))
    for wait in (opening, accepting, reading):
        with pytest.raises(errors.GoAway) as caught:
            await wait
        assert (caught.value.code, caught.value.remote) == (code, True)
    assert told == [peer.session.close_reason]


@looped
async def test_our_close_sends_a_go_away_behind_what_was_written() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    await stream.write(b"last words")
    closing = peer.session.close(0x1006)
    assert await peer.answers() == [Frame(DATA, 0, 1, 10, b"last words"), Frame(GO_AWAY, 0, 0, 0x1006)]
    with pytest.raises(errors.GoAway) as caught:
        await stream.read()
    assert (caught.value.code, caught.value.remote) == (0x1006, False)
    peer.deliver_eof()
    await closing
    await peer.session.close()
    peer.session.abort()


@looped
async def test_abort_sends_a_go_away_and_closes_at_once() -> None:
    peer = RawYamux()
    peer.session.abort(2)
    assert peer.aborted
    assert frames(peer.sent()) == [Frame(GO_AWAY, 0, 0, 2)]
    await settle()
    assert peer.lost
    await peer.session.close()


@looped
async def test_what_came_is_delivered_before_the_error_when_the_connection_is_lost() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, b"12345678"))
    peer.close()
    await settle()
    assert await stream.read(3) == b"123"
    assert await stream.read_exactly(2) == b"45"
    with pytest.raises(errors.IncompleteRead) as caught:
        await stream.read_exactly(9)
    assert caught.value.partial == b"678"
    for _ in range(2):
        with pytest.raises(errors.ConnectionClosed):
            await stream.read()
        with pytest.raises(errors.ConnectionClosed):
            await stream.write(b"x")


@looped
async def test_a_session_on_no_chain_says_so() -> None:
    session = YamuxSession(True)
    for call in (session.open_stream, session.accept_stream, session.ping, session.close, session.abort):
        with pytest.raises(errors.LocalProtocolError):
            call()
    with pytest.raises(TypeError):
        YamuxStream()
    with pytest.raises(errors.LocalProtocolError):
        Cable().mailbox.replace(session)


# -- the end of a stream --------------------------------------------------------------------------------


@looped
async def test_resets_carry_their_code_both_ways() -> None:
    client, server = await session_pair()
    for near, far in ((client, server), (server, client)):
        a, b = await stream_pair(near, far)
        await a.write(b"dropped")
        await b.read_exactly(7)
        reading, writing = asyncio.ensure_future(b.read()), b
        await settle()
        a.reset(0x1004)
        a.reset(5)
        with pytest.raises(errors.StreamReset) as caught:
            await reading
        assert (caught.value.code, caught.value.remote) == (0x1004, True)
        with pytest.raises(errors.StreamReset):
            await writing.write(b"x")
        with pytest.raises(errors.StreamReset) as caught:
            await a.read()
        assert (caught.value.code, caught.value.remote) == (0x1004, False)
        assert near.num_streams == far.num_streams == 0
        b.reset()
    await closed(client, server)


@looped
async def test_a_reset_discards_what_was_not_read() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, b"secret"), frame(WU, RST, 1, 9))
    with pytest.raises(errors.StreamReset):
        await stream.read()
    assert stream.num_buffered == 0
    assert await peer.answers() == []


@looped
async def test_half_close_leaves_the_other_direction_open() -> None:
    client, server = await session_pair()
    a, b = await stream_pair(client, server)
    await a.close_write()
    assert await b.read() == b""
    await b.write(b"still here")
    assert await a.read_exactly(10) == b"still here"
    with pytest.raises(errors.StreamClosed):
        await a.write(b"x")
    await b.close_write()
    assert await a.read() == b""
    assert a.is_closed
    await eventually(lambda: b.is_closed)
    await closed(client, server)


@looped
async def test_close_read_goes_on_writing_and_drops_what_comes() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, bytes(WINDOW)))
    await stream.close_read()
    with pytest.raises(errors.StreamClosed):
        await stream.read()
    await stream.write(b"on")
    answers = await peer.answers()
    assert Frame(DATA, 0, 1, 2, b"on") in answers
    assert Frame(WU, 0, 1, WINDOW) in answers
    peer.deliver(data(1, bytes(WINDOW)))
    assert stream.num_buffered == 0
    assert await peer.answers() == [Frame(WU, 0, 1, WINDOW)]


@looped
async def test_a_closed_stream_drops_late_data_and_resets_a_peer_that_goes_on() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    await stream.close()
    assert await peer.answers() == [Frame(WU, FIN, 1, 0)]
    peer.deliver(data(1, bytes(1000)))
    assert await peer.answers() == []
    half = WINDOW // 2
    for _ in range(limits.LINGER_BYTES // half - 1):
        peer.deliver(data(1, bytes(half)))
        assert any((f.type, f.flags, f.id) == (WU, 0, 1) for f in await peer.answers())
    assert not stream.is_closed
    peer.deliver(data(1, bytes(half)))
    assert await peer.answers() == [Frame(WU, RST, 1, 0)]
    assert stream.is_closed
    peer.deliver(data(1, bytes(1000)) * 8, frame(WU, FIN, 1))
    assert await peer.answers() == []
    assert not peer.session.is_closed


@looped
async def test_a_closed_stream_leaves_with_the_peers_fin() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    await stream.close()
    await stream.close()
    assert peer.session.num_streams == 0
    assert not stream.is_closed
    peer.deliver(data(1, b"tail", FIN))
    assert peer.session.num_streams == 0
    assert stream.is_closed
