"""One message to many streams: whole or not at all, and never more than one waits for a slow peer."""

from __future__ import annotations

import asyncio

import pytest

from _fast.chains import WU, RawYamux, frame, opened, sent_bodies
from harness import looped
from p2pcore import limits
from p2pcore._fast.mux.stream import Stream
from p2pcore.errors import StreamClosed, StreamReset
from p2pcore.streams import Broadcast, broadcast

WINDOW = limits.YAMUX_INITIAL_WINDOW_BYTES


async def many(count: int) -> tuple[list[RawYamux], list[Stream]]:
    pairs = [await opened() for _ in range(count)]
    return [peer for peer, _ in pairs], [stream for _, stream in pairs]


@looped
async def test_all_get_it_and_it_has_left_when_the_call_returns() -> None:
    peers, streams = await many(20)
    assert await broadcast(streams, b"to all") == Broadcast(20)
    for peer in peers:
        assert peer.sent().endswith(b"to all")
    assert await broadcast([], b"to nobody") == Broadcast(0)


@looped
async def test_a_message_may_have_its_length_before_it() -> None:
    peer, stream = await opened()
    await broadcast([stream], b"a" * 200, prefix="varint")
    assert await sent_bodies(peer) == b"\xc8\x01" + b"a" * 200
    await broadcast([stream], b"abc", prefix="u32")
    assert await sent_bodies(peer) == b"\0\0\0\3abc"
    with pytest.raises(ValueError, match="prefix"):
        await broadcast([stream], b"abc", prefix="u16")  # type: ignore[arg-type]


@looped
async def test_a_slow_stream_has_at_most_one_message_that_waits_and_gets_it_whole() -> None:
    peer, stream = await opened()
    assert stream.try_write(bytes(WINDOW - 2))
    assert len(await sent_bodies(peer)) == WINDOW - 2
    assert await broadcast([stream], b"second") == Broadcast(1)  # its first two bytes leave
    assert await broadcast([stream], b"third") == Broadcast(0, slow=[stream])
    assert not stream.try_write(b"fourth")
    peer.deliver(frame(WU, 0, 1, 100))
    assert await sent_bodies(peer) == b"second"
    assert await broadcast([stream], b"fifth") == Broadcast(1)
    assert await sent_bodies(peer) == b"fifth"


@looped
async def test_streams_that_have_ended_are_told_apart() -> None:
    peers, streams = await many(4)
    streams[1].reset()
    await streams[2].close_write()
    done = await broadcast(streams, b"x")
    assert done.num_sent == 2
    assert {stream.id for stream in done.gone} == {streams[1].id, streams[2].id}
    assert not done.slow
    with pytest.raises(StreamReset):
        streams[1].try_write(b"x")
    with pytest.raises(StreamClosed):
        streams[2].try_write(b"x")
    assert peers[0].sent()


@looped
async def test_very_many_are_told_in_several_turns_and_none_is_always_the_last() -> None:
    count = 2 * limits.BROADCAST_PER_TURN + 1
    _, streams = await many(3)
    each = [streams[number % 3] for number in range(count)]
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    turns = 0
    assert (await broadcast(each, b"x")).num_sent == count
    assert turns >= 2
    ticking.cancel()


@looped
async def test_none_is_always_the_last() -> None:
    peer, first = await opened()
    second = await peer.open_inbound(3)
    began = set()
    for _ in range(64):
        await broadcast([first, second], b"x")
        began.add((await peer.answers())[0].id)
    assert began == {1, 3}


@looped
async def test_a_loop_of_writes_sends_as_it_goes() -> None:
    """Else each of 5,000 connections would hold a record buffer until the last write."""
    peers, streams = await many(100)
    for stream in streams:
        await stream.write(b"by hand")
    left = sum(peer.sent().endswith(b"by hand") for peer in peers)
    assert left >= len(peers) - limits.FLUSH_AFTER_WRITES


@looped
async def test_wrong_arguments_are_named() -> None:
    _, stream = await opened()
    with pytest.raises(TypeError, match="data must be bytes, not str"):
        await broadcast([stream], "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await broadcast([object()], b"x")  # type: ignore[list-item]
