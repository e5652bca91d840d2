"""When yamux says that no more data comes, and in which frame; js-libp2p is particular about both.

Comes in: a session over a socket pair, without security. Goes out: claims about the frames on the other
socket.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from harness import eventually, run
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.muxers.yamux import YamuxMultiplexer

HEADER = struct.Struct(">BBHII")
DATA, WINDOW_UPDATE, PING = 0, 1, 2
FIN = 4
REPLY = b"\x13/multistream/1.0.0\n\x03/x\n"

Frame = tuple[int, int, int, bytes]


class Far:
    """The other socket: reads frames, pings left out, and writes them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._got = bytearray()

    def send(self, kind: int, flags: int, stream: int, body: bytes = b"") -> None:
        self._sock.send(HEADER.pack(0, kind, flags, stream, len(body)) + body)

    def frames(self) -> list[Frame]:
        """What has come so far: (type, flags, stream, body)."""
        try:
            while data := self._sock.recv(65536):
                self._got += data
        except BlockingIOError:
            pass
        return list(parse(bytes(self._got)))


def parse(data: bytes) -> list[Frame]:
    frames: list[Frame] = []
    while len(data) >= HEADER.size:
        _, kind, flags, stream, length = HEADER.unpack_from(data)
        end = HEADER.size + (length if kind == DATA else 0)
        if kind != PING:
            frames.append((kind, flags, stream, data[HEADER.size : end]))
        data = data[end:]
    return frames


def on_a_pair(test: Callable[[YamuxSession, Far], Awaitable[None]]) -> None:
    """Runs `test` with a client session and the socket it talks to."""

    async def main() -> None:
        near, far = socket.socketpair()
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        wire = Wire(loop)
        make_wire: Callable[[], Any] = lambda: wire  # noqa: E731
        await loop.create_connection(make_wire, sock=near)
        assert wire.mailbox is not None
        wire.mailbox.insert(PlainChannel())
        session = YamuxMultiplexer().start(wire.mailbox, True)
        try:
            await test(session, Far(far))
        finally:
            session.abort()
            far.close()

    run(main())


def ends(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame[1] & FIN]


def bodies(frames: list[Frame]) -> bytes:
    return b"".join(frame[3] for frame in frames)


def test_the_end_of_data_is_a_frame_without_a_body() -> None:
    """js-libp2p acts on FIN before the body of the same frame, and then drops the body."""

    async def test(session: YamuxSession, far: Far) -> None:
        stream = await session.open_stream()
        await stream.write(b"hello")
        await stream.close_write()
        await eventually(lambda: ends(far.frames()))
        assert bodies(far.frames()) == b"hello"
        assert ends(far.frames()) == [(WINDOW_UPDATE, FIN, 1, b"")]

    on_a_pair(test)


def test_the_end_of_data_comes_without_the_answer_of_a_lazy_negotiation() -> None:
    """It waits for a moment only: a peer may answer when it has seen the end (docs/decisions/0014)."""

    async def test(session: YamuxSession, far: Far) -> None:
        stream = await session.open_stream()
        stream.expect(REPLY, "/x")
        await stream.write(b"hello")
        await stream.close_write()
        await eventually(lambda: ends(far.frames()))
        assert bodies(far.frames()) == b"hello"
        assert ends(far.frames()) == [(WINDOW_UPDATE, FIN, 1, b"")]
        far.send(DATA, FIN, 1, REPLY + b"late answer")
        assert await stream.read() == b"late answer"

    on_a_pair(test)


def test_a_stream_closed_both_ways_still_ends_when_the_answer_comes() -> None:
    async def test(session: YamuxSession, far: Far) -> None:
        stream = await session.open_stream()
        stream.expect(REPLY, "/x")
        await stream.write(b"hello")
        await stream.close()
        far.send(DATA, 0, 1, REPLY + b"dropped")
        far.send(WINDOW_UPDATE, FIN, 1)
        await eventually(lambda: stream.is_closed)
        assert ends(far.frames()) == [(WINDOW_UPDATE, FIN, 1, b"")]
        assert session.num_streams == 0

    on_a_pair(test)


def test_closing_the_session_sends_the_end_that_waits_for_an_answer() -> None:
    async def test(session: YamuxSession, far: Far) -> None:
        stream = await session.open_stream()
        stream.expect(REPLY, "/x")
        await stream.write(b"hello")
        await stream.close()
        closing = asyncio.ensure_future(session.close())
        await eventually(lambda: ends(far.frames()))
        assert ends(far.frames()) == [(WINDOW_UPDATE, FIN, 1, b"")]
        closing.cancel()

    on_a_pair(test)
