"""Faults of go-libp2p's muxers that must not come back: W21, W24 and W40 of the list of faults.

Comes in: limits, streams that fail to open, long and many small writes. Goes out: the promise that trouble
of one stream stays its own, and that frames fit the records they leave in. (W35 is in the conformance suite.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from _fast import chains, mplex_chain
from _fast.chains import KEY_A, KEY_B, Cable, RawYamux
from _fast.mplex_chain import NEW, RawMplex
from harness import looped, settle
from p2pcore import errors, limits
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore.muxers.mplex import MplexMultiplexer, MplexOptions
from p2pcore.muxers.yamux import YamuxMultiplexer, YamuxOptions

MUXERS = ["yamux", "mplex"]
both = pytest.mark.parametrize("muxer", MUXERS)


def raw(muxer: str, is_client: bool = False, **options: Any) -> Any:
    return (RawYamux if muxer == "yamux" else RawMplex)(is_client, **options)


def opening(muxer: str, number: int) -> bytes:
    """The peer's stream of that number."""
    if muxer == "yamux":
        return chains.frame(chains.WU, chains.SYN, 2 * number + 1)
    return mplex_chain.msg(NEW, number)


@both
@looped
async def test_w21_a_stream_that_cannot_be_taken_is_reset_alone(muxer: str) -> None:
    peer = raw(muxer, max_inbound_streams=2)
    peer.deliver(*(opening(muxer, number) for number in range(5)))
    kept = [await peer.session.accept_stream() for _ in range(2)]
    await peer.answers()
    assert not peer.session.is_closed
    assert peer.session.num_streams == 2
    await kept[1].write(b"unharmed")
    assert b"unharmed" in await peer.all_sent()
    kept[0].reset()
    peer.deliver(opening(muxer, 9))
    assert (await peer.session.accept_stream()).direction.value == "inbound"


@both
@pytest.mark.parametrize("end", ["reset", "closed", "cancelled"])
@looped
async def test_w21_streams_that_came_to_nothing_leave_no_slot(muxer: str, end: str) -> None:
    """Go leaks one of 256 for each, until opening waits for ever."""
    most = {"yamux": {"ack_backlog": 3}, "mplex": {"max_outbound_streams": 3}}[muxer]
    peer = raw(muxer, True, **most)
    for _ in range(20):
        streams = [await peer.session.open_stream() for _ in range(3)]
        waiting = asyncio.ensure_future(peer.session.open_stream())
        await settle()
        assert not waiting.done()
        waiting.cancel()
        if end == "closed":
            for stream in streams:
                await stream.close()
                peer.deliver(ending(muxer, stream.id))
        else:
            for stream in streams:
                stream.reset()
        await settle()
        peer.sent()
    assert peer.session.num_streams == 0


def ending(muxer: str, id: int) -> bytes:
    """The peer's end of a stream we opened."""
    if muxer == "yamux":
        return chains.frame(chains.WU, chains.FIN, id)
    return mplex_chain.msg(mplex_chain.CLOSE_R, id)


@both
@looped
async def test_w24_a_peer_has_a_bound_on_open_streams_without_being_told_to(muxer: str) -> None:
    """Go's default is 2^32-1."""
    options: Any = YamuxOptions() if muxer == "yamux" else MplexOptions()
    assert options.max_inbound_streams == 1024
    peer = raw(muxer)
    held: list[Any] = []
    peer.session.set_stream_handler(held.append)
    for number in range(1024 + 50):
        peer.deliver(opening(muxer, number))
    await settle()
    assert peer.session.num_streams == 1024
    assert not peer.session.is_closed
    assert len(await peer.answers()) == (1024 + 50 if muxer == "yamux" else 50)


def secured(make: Callable[[], Any]) -> tuple[Cable, Cable, Any]:
    """A client's session over noise, and a cable that opens what it sends."""
    near, far = Cable(), Cable()
    near.mailbox.insert(NoiseChannel(KEY_A, KEY_B))
    far.mailbox.insert(NoiseChannel(KEY_B, KEY_A))
    return near, far, make().start(near.mailbox, True)


def records(data: bytes) -> list[bytes]:
    """What was sent, cut into noise records."""
    out = []
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        assert len(data) >= end
        out.append(data[:end])
        data = data[end:]
    return out


async def opened(far: Cable, record: bytes) -> bytes:
    far.deliver(record)
    return await far.mailbox.read_exactly(far.mailbox.num_held)


def whole(muxer: str, plain: bytes) -> bytes:
    """The data in `plain`, which must be whole frames."""
    if muxer == "yamux":
        return b"".join(each.body for each in chains.frames(plain))
    return b"".join(each.body for each in mplex_chain.messages(plain) if each.flag != NEW)


@both
@looped
async def test_w40_no_frame_spans_two_records_and_long_writes_fill_them(muxer: str) -> None:
    near, far, session = secured(YamuxMultiplexer if muxer == "yamux" else MplexMultiplexer)
    stream = await session.open_stream()
    await opened(far, await near.all_sent())
    data = bytes(range(256)) * 480
    await stream.write(data)
    sent = records(await near.all_sent())
    assert b"".join([whole(muxer, await opened(far, record)) for record in sent]) == data
    assert len(sent) == -(-len(data) // (limits.MAX_NOISE_PLAINTEXT_BYTES - 12))
    assert len(sent[0]) == 2 + limits.MAX_NOISE_RECORD_BYTES


@both
@looped
async def test_w40_small_writes_of_one_turn_leave_as_one_frame_in_one_record(muxer: str) -> None:
    near, far, session = secured(YamuxMultiplexer if muxer == "yamux" else MplexMultiplexer)
    stream = await session.open_stream()
    await opened(far, await near.all_sent())
    for i in range(100):
        await stream.write(bytes([i]))
    (record,) = records(await near.all_sent())
    plain = await opened(far, record)
    assert whole(muxer, plain) == bytes(range(100))
    assert len(plain) <= 100 + 12


@both
@looped
async def test_a_stream_of_a_session_that_has_ended_says_so(muxer: str) -> None:
    peer = raw(muxer, True)
    stream = await peer.session.open_stream()
    peer.session.abort()
    with pytest.raises(errors.ConnectionClosed):
        await stream.write(b"x")
    with pytest.raises(errors.ConnectionClosed):
        await stream.read()
