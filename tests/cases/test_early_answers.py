"""A server that answers before the upload is over, and closes: its answer arrives, whatever ends behind it.

Comes in: hosts with either muxer, and raw peers. Goes out: the promise that a reset ends writing at once, and
never takes bytes that the peer's end has completed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from _fast import chains, mplex_chain
from _fast.chains import RawYamux
from _fast.mplex_chain import RawMplex
from harness import looped, seconds
from hosts import pair
from p2pcore import P2PError, errors
from p2pcore.interfaces import Stream

MUXERS = ["yamux", "mplex"]


@pytest.mark.parametrize("muxer", MUXERS)
@pytest.mark.parametrize("size", [1_000, 300_000, 2_000_000, 40_000_000])
@looped
async def test_an_answer_given_before_the_upload_is_over_can_be_read(muxer: str, size: int) -> None:
    async def serve(stream: Stream) -> None:
        await stream.read_exactly(10)
        await stream.write(b"413 too big")

    async with pair({"muxers": [muxer]}, {"muxers": [muxer]}) as hosts:
        hosts.server.set_stream_handler("/up/1", serve)
        stream = await hosts.conn.new_stream("/up/1")
        try:
            async with asyncio.timeout(seconds(20)):
                await stream.write(bytes(size))
                await stream.close_write()
        except P2PError:
            assert size > 20_000_000, "the rest of a small upload is drained"
        assert await stream.read() == b"413 too big"
        assert await stream.read() == b""


def _yamux(peer: Any) -> tuple[bytes, bytes]:
    return chains.data(1, b"tail", chains.FIN), chains.frame(chains.WU, chains.RST, 1, 9)


def _mplex(peer: Any) -> tuple[bytes, bytes]:
    tail = mplex_chain.msg(mplex_chain.MSG_I, 1, b"tail") + mplex_chain.msg(mplex_chain.CLOSE_I, 1)
    return tail, mplex_chain.msg(mplex_chain.RESET_I, 1)


@pytest.mark.parametrize(("kind", "said"), [(RawYamux, _yamux), (RawMplex, _mplex)])
@looped
async def test_a_reset_behind_the_end_takes_nothing_and_ends_writing(
    kind: Any, said: Callable[[Any], tuple[bytes, bytes]]
) -> None:
    for read in ("read", "read_exactly", "readinto", "before"):
        peer = kind()
        stream = await peer.open_inbound(1)
        tail, reset = said(peer)
        reading = asyncio.ensure_future(stream.read()) if read == "before" else None
        peer.deliver(tail, reset)
        if reading is not None:
            assert await reading == b"tail"
        elif read == "read":
            assert await stream.read() == b"tail"
        elif read == "read_exactly":
            assert await stream.read_exactly(4) == b"tail"
        else:
            buffer = bytearray(10)
            assert await stream.readinto(buffer) == 4
        assert await stream.read() == b""
        with pytest.raises(errors.StreamReset) as caught:
            await stream.write(b"more")
        assert caught.value.remote
        assert peer.session.num_streams == 0


@pytest.mark.parametrize(("kind", "said"), [(RawYamux, _yamux), (RawMplex, _mplex)])
@looped
async def test_our_own_reset_discards_all_the_same(
    kind: Any, said: Callable[[Any], tuple[bytes, bytes]]
) -> None:
    peer = kind()
    stream = await peer.open_inbound(1)
    peer.deliver(said(peer)[0])
    stream.reset()
    with pytest.raises(errors.StreamReset):
        await stream.read()
