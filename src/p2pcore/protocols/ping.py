"""ping: measures the round trip of a connection, which shows that the peer is alive.

Comes in: streams of /ipfs/ping/1.0.0. Goes out: each 32 bytes that came; round trips in seconds. The server
answers as long as the peer sends; only silence ends a stream. Each peer may have two streams. A stream that
has failed is never used again. Source: libp2p/specs ping.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from p2pcore import codes, limits
from p2pcore._fast.loop.clock import now
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
        """Echoes 32 bytes at a time until the peer ends or is silent.

        Raises: LimitExceeded: the peer already has MAX_PING_STREAMS open.
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
    Raises: DeadlineExceeded: no answer in `timeout_s`; RemoteProtocolError: a wrong one. Both reset it.
        IncompleteRead: the peer ended the stream; StreamReset, ConnectionClosed.
    """
    payload = os.urandom(limits.PING_BYTES)
    stream.set_deadline(timeout_s)
    began = now()
    try:
        await stream.write(payload)
        answer = await stream.read_exactly(limits.PING_BYTES)
    except DeadlineExceeded:
        stream.reset()
        raise
    rtt = now() - began
    stream.set_deadline(None)
    if answer != payload:
        stream.reset(codes.STREAM_PROTOCOL_VIOLATION)
        raise RemoteProtocolError("the answer to a ping differs from what was sent")
    return rtt


async def pings(
    open_stream: Callable[[], Awaitable[Stream]], count: int, timeout_s: float = limits.PING_TIMEOUT_S
) -> AsyncGenerator[float, None]:
    """Pings `count` times, one after another; yields each round trip in seconds.

    All pings use one stream. If the peer ends it after a ping (js), the next ping opens another.
    Close the generator (`contextlib.aclosing`) if you leave it early. Raises as `ping`.
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
    """Another ping on a used stream; None if the peer has ended the stream."""
    try:
        return await ping(stream, timeout_s)
    except (IncompleteRead, StreamReset):
        stream.reset()
        return None
