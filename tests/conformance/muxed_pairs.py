"""Two sessions of one muxer, with a channel and a pipe between them, for the suite of muxers.

Comes in: the names of a muxer, a channel and a pipe. Goes out: a client's and a server's session. The pipe
"bytes" delivers every byte separately. A new muxer or channel is a line in MUXERS or CHANNELS.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from _fast.chains import Cable, wire_pair
from harness import seconds
from p2pcore import limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore.interfaces import MuxedConn, Stream
from p2pcore.muxers.mplex import MplexMultiplexer, MplexOptions
from p2pcore.muxers.yamux import YamuxMultiplexer
from tls_pairs import channels


@dataclass(frozen=True)
class Muxer:
    """One muxer.

    Attributes:
        make: makes the Multiplexer; its argument: how many seconds it may wait for a stream that is not read.
        most_unread: bytes that one stream, and all of a connection, may hold unread for n streams.
        has_flow_control: only a stream that is not read stops; otherwise it is reset after that time.
        tells_codes: reset codes reach the peer.
    """

    make: Callable[[float], Any]
    most_unread: Callable[[int], int]
    has_flow_control: bool
    tells_codes: bool


def _yamux_unread(streams: int) -> int:
    return streams * limits.YAMUX_INITIAL_WINDOW_BYTES


def _mplex_unread(streams: int) -> int:
    most = min(streams * limits.MPLEX_STREAM_BUFFER_BYTES, limits.MPLEX_MAX_BUFFERED_BYTES)
    return most + limits.RECEIVE_BUFFER_BYTES + limits.MAX_NOISE_RECORD_BYTES


MUXERS = {
    "yamux": Muxer(lambda stall_s: YamuxMultiplexer(), _yamux_unread, True, True),
    "mplex": Muxer(
        lambda stall_s: MplexMultiplexer(MplexOptions(stall_s=stall_s)), _mplex_unread, False, False
    ),
}


def _noise() -> tuple[Any, Any]:
    one, two = os.urandom(32), os.urandom(32)
    return NoiseChannel(one, two), NoiseChannel(two, one)


CHANNELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "plain": lambda: (PlainChannel(), PlainChannel()),
    "noise": _noise,
    "tls": channels,
}


class CutCable(Cable):
    """A cable that passes sent bytes to a partner, one by one."""

    partner: CutCable

    def listen(self) -> None:
        """Starts passing bytes on."""
        self.loop.add_reader(self.far, self._hand_on)

    def _hand_on(self) -> None:
        if not self.partner.reading:
            self.loop.remove_reader(self.far)
            return
        data = self.far.recv(512)
        if data:
            self.partner.deliver(*self.pieces(data))
        else:
            self.loop.remove_reader(self.far)
            self.partner.deliver_eof()

    def pieces(self, data: bytes) -> list[bytes]:
        """What the partner receives of `data`, one after another."""
        return [data[i : i + 1] for i in range(len(data))]

    def resume_reading(self) -> None:
        if not self.reading:
            self.partner.listen()
        super().resume_reading()

    def write(self, piece: bytes) -> None:
        super().write(piece)
        if not self.closing:
            self.loop.add_writer(self.near, self._written)

    def _written(self) -> None:
        if not self.lost:
            self.drain()
        if not self.queue or self.lost:
            self.loop.remove_writer(self.near)

    def _lose(self) -> None:
        if not self.lost:
            self.loop.remove_writer(self.near)
        super()._lose()

    def finish(self) -> None:
        """Closes the sockets, whatever else happened."""
        self.loop.remove_reader(self.far)
        if not self.lost:
            self.loop.remove_writer(self.near)
        self.near.close()
        self.far.close()
        del self.partner


C = TypeVar("C", bound=CutCable)


def joined(kind: type[C]) -> tuple[C, C]:
    """Two cables, each the other's partner."""
    a, b = kind(), kind()
    a.partner, b.partner = b, a
    a.listen()
    b.listen()
    return a, b


@dataclass(frozen=True)
class Kind:
    """The parts under a test."""

    muxer: str
    channel: str
    pipe: str

    def __str__(self) -> str:
        return f"{self.muxer}-{self.channel}-{self.pipe}"

    @property
    def traits(self) -> Muxer:
        return MUXERS[self.muxer]

    @property
    def is_cut(self) -> bool:
        return self.pipe == "bytes"

    def scaled(self, most: int, least: int) -> int:
        """`most`, or `least` if every byte takes its own turn."""
        return least if self.is_cut else most

    def start(self, ends: Sequence[Any], stall_s: float) -> tuple[MuxedConn, MuxedConn]:
        """A client's and a server's session, on objects with a mailbox."""
        sessions = []
        for end, channel, is_client in zip(ends, CHANNELS[self.channel](), (True, False), strict=True):
            box: Mailbox = end.mailbox
            box.insert(channel)
            sessions.append(self.traits.make(stall_s).start(box, is_client))
        return sessions[0], sessions[1]


KINDS = [Kind(m, c, p) for m in MUXERS for c in CHANNELS for p in ("socket", "bytes")]

Ends = tuple[MuxedConn, MuxedConn]


@asynccontextmanager
async def connected(kind: Kind, stall_s: float = seconds(5)) -> AsyncIterator[Ends]:
    """A client's and a server's session, closed in the end."""
    cables = joined(CutCable) if kind.is_cut else ()
    client, server = kind.start(cables or await wire_pair(), stall_s)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()
        await client.close()
        await server.close()
        for cable in cables:
            cable.finish()


async def opened(one: MuxedConn, other: MuxedConn) -> tuple[Stream, Stream]:
    """A stream that `one` opened; its two ends."""
    near = await one.open_stream()
    await near.write(b"!")
    far = await other.accept_stream()
    assert await far.read_exactly(1) == b"!"
    return near, far


async def read_all(stream: Stream) -> bytes:
    out = bytearray()
    while piece := await stream.read():
        out += piece
    return bytes(out)


async def give_back(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.close()


_PATTERN = bytes(range(251))


def pattern(n: int, start: int = 0) -> bytes:
    start %= len(_PATTERN)
    return (_PATTERN * ((n + start) // len(_PATTERN) + 1))[start : start + n]
