"""ping: measures the round trip of a connection, and shows that the peer is alive.

Comes in: streams of /ipfs/ping/1.0.0. Goes out: 32 bytes for each 32 that came; round trips in seconds.
The server answers as long as the peer goes on; only silence ends a stream, and each peer may have two.
Never keeps a stream that has failed. Source: libp2p/specs ping.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING

from p2pcore import codes, limits
from p2pcore.errors import DeadlineExceeded, IncompleteRead, LimitExceeded, RemoteProtocolError, StreamReset

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from p2pcore.interfaces import Stream
    from p2pcore.values.peer_id import PeerId

PROTOCOL = "/ipfs/ping/1.0.0"


class PingServer:
    """Answers pings; `serve` is the stream handler."""

    __slots__ = ("_idle_timeout_s", "_open")

    def __init__(self, idle_timeout_s: float = limits.PING_IDLE_TIMEOUT_S) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._open: dict[PeerId | None, int] = {}

    async def serve(self, stream: Stream) -> None:
        """Echoes 32 bytes at a time until the peer ends or falls silent.

        Raises: LimitExceeded: the peer has MAX_PING_STREAMS open already.
        """
        peer = stream.conn.remote_peer if stream.conn is not None else None
        others = self._open.get(peer, 0)
        if others >= limits.MAX_PING_STREAMS:
            raise LimitExceeded("MAX_PING_STREAMS", others + 1, limits.MAX_PING_STREAMS)
        self._open[peer] = others + 1
        try:
            await self._answer(stream)
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    async def _answer(self, stream: Stream) -> None:
        while True:
            stream.set_deadline(self._idle_timeout_s)
            try:
                payload = await stream.read_exactly(limits.PING_BYTES)
                await stream.write(payload)
            except (IncompleteRead, DeadlineExceeded):
                return


async def ping(stream: Stream, timeout_s: float = limits.PING_TIMEOUT_S) -> float:
    """One ping on an open stream, which stays open.

    Returns: the round trip in seconds.
    Raises: DeadlineExceeded: no answer in `timeout_s`; RemoteProtocolError: a wrong one. The stream is reset.
        IncompleteRead: the peer ended the stream; StreamReset, ConnectionClosed.
    """
    payload = os.urandom(limits.PING_BYTES)
    stream.set_deadline(timeout_s)
    began = perf_counter()
    try:
        await stream.write(payload)
        answer = await stream.read_exactly(limits.PING_BYTES)
    except DeadlineExceeded:
        stream.reset()
        raise
    rtt = perf_counter() - began
    stream.set_deadline(None)
    if answer != payload:
        stream.reset(codes.STREAM_PROTOCOL_VIOLATION)
        raise RemoteProtocolError("the answer to a ping is not what was sent")
    return rtt


async def pings(
    open_stream: Callable[[], Awaitable[Stream]], count: int, timeout_s: float = limits.PING_TIMEOUT_S
) -> AsyncGenerator[float, None]:
    """`count` pings one after another: the round trip of each in seconds.

    One stream serves them all; where the peer ends it after a ping (js) the next one opens another.
    Close the generator (`contextlib.aclosing`) when you leave it early. Raises as `ping` does.
    """
    stream: Stream | None = None
    try:
        for _ in range(count):
            rtt = None if stream is None else await _again(stream, timeout_s)
            if stream is None or rtt is None:
                stream = await open_stream()
                rtt = await ping(stream, timeout_s)
            yield rtt
    finally:
        if stream is not None:
            await stream.close()


async def _again(stream: Stream, timeout_s: float) -> float | None:
    """A further ping on a stream that has served one; None where the peer has ended it since."""
    try:
        return await ping(stream, timeout_s)
    except (IncompleteRead, StreamReset):
        stream.reset()
        return None
