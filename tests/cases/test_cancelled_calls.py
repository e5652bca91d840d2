"""Calls that are given up: each fails alone, however many there are.

Comes in: clients that reset their streams all at once, again and again. Goes out: the promise that an
unrelated call on the same connection is answered. The attacker is in _fast/mux/test_yamux_attacks.py.
"""

from __future__ import annotations

import asyncio

import pytest

from harness import eventually, looped
from hosts import pair
from p2pcore.interfaces import Stream


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_calls_that_time_out_together_harm_no_other(muxer: str) -> None:
    go_on = asyncio.Event()

    async def serve(stream: Stream) -> None:
        if await stream.read_exactly(4) == b"good":
            await go_on.wait()
        else:
            await stream.read()
        await stream.write(b"good")

    async with pair({"muxers": [muxer]}, {"muxers": [muxer]}) as hosts:
        hosts.server.set_stream_handler("/x/1", serve)
        good = await hosts.conn.new_stream("/x/1")
        await good.write(b"good")
        for _ in range(6):
            slow = [await hosts.conn.new_stream("/x/1") for _ in range(500)]
            for stream in slow:
                await stream.write(b"slow")
            await eventually(lambda: hosts.server_conn.num_streams == 501)
            for stream in slow:
                stream.reset()
            await eventually(lambda: hosts.server_conn.num_streams == 1)
        go_on.set()
        assert await good.read() == b"good"
