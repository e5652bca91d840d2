"""Works of one end of a connection: the bytes it receives are prepared, the bytes it sends are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gates.cable import Cable
from p2pcore._fast.chain.websocket import WebsocketLayer
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.upgrade import multistream

DATA, WINDOW_UPDATE = 0, 1
SYN = 1
NEW_STREAM, MESSAGE_INITIATOR = 0, 2
NUM_UPDATES = 1000
NUM_FRAMES = 8
STREAM = 1
PROTOCOL = "/echo/1.0.0"


def frame(kind: int, flags: int, length: int, body: bytes = b"") -> bytes:
    """A yamux frame of the only stream."""
    head = bytes([0, kind]) + flags.to_bytes(2, "big")
    return head + STREAM.to_bytes(4, "big") + length.to_bytes(4, "big") + body


def message(flag: int, body: bytes = b"") -> bytes:
    """An mplex message of the only stream; at most 16,383 bytes of body."""
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])
    return bytes([STREAM << 3 | flag]) + length + body


class Negotiation:
    """One role of multistream-select against a recorded peer."""

    def __init__(self) -> None:
        self.cable = Cable(asyncio.get_running_loop())

    async def close(self) -> None:
        """Closes the cable."""
        self.cable.close()


class Initiator(Negotiation):
    """Proposes one protocol, and the peer accepts it."""

    answer = multistream.HEADER + multistream.encode(PROTOCOL)

    @classmethod
    async def start(cls) -> Initiator:
        """Ready."""
        return cls()

    async def once(self) -> None:
        """One negotiation."""
        self.cable.deliver(self.answer)
        await multistream.select(self.cable.mailbox, (PROTOCOL,))
        self.cable.swallow()


class Responder(Negotiation):
    """Answers a peer that sent its header and its proposal at once."""

    question = Initiator.answer
    supported = dict.fromkeys(("/ipfs/ping/1.0.0", PROTOCOL))

    @classmethod
    async def start(cls) -> Responder:
        """Ready."""
        return cls()

    async def once(self) -> None:
        """One negotiation."""
        self.cable.deliver(self.question)
        await multistream.handle(self.cable.mailbox, self.supported)
        self.cable.swallow()


class Frames:
    """A yamux session on records that hide nothing, with one stream the peer has opened."""

    def __init__(self) -> None:
        self.cable = Cable(asyncio.get_running_loop())
        mailbox = self.cable.mailbox
        mailbox.insert(PlainChannel())
        self.session = YamuxSession(False)
        mailbox.replace(self.session)

    async def open(self) -> None:
        """The peer opens the stream."""
        self.cable.deliver(frame(WINDOW_UPDATE, SYN, 0))
        self.stream = await self.session.accept_stream()

    async def close(self) -> None:
        """Ends the session."""
        self.cable.close()


class Updates(Frames):
    """Window updates in one piece."""

    @classmethod
    async def start(cls) -> Updates:
        """Ready."""
        self = cls()
        await self.open()
        return self

    def __init__(self) -> None:
        super().__init__()
        self._piece = frame(WINDOW_UPDATE, 0, 1) * NUM_UPDATES

    async def once(self) -> None:
        """NUM_UPDATES of them."""
        self.cable.deliver(self._piece)


class DataFrames(Frames):
    """Data frames arrive in one piece and are read; reading gives the peer its window back."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size * NUM_FRAMES
        self._piece = frame(DATA, 0, size, bytes(size)) * NUM_FRAMES

    async def once(self) -> None:
        """NUM_FRAMES of them."""
        self.cable.deliver(self._piece)
        await self.stream.read_exactly(self._size)
        self.cable.swallow()


class Messages:
    """An mplex session on records that hide nothing: messages of one stream in one piece, then read."""

    def __init__(self, size: int) -> None:
        self.cable = Cable(asyncio.get_running_loop())
        mailbox = self.cable.mailbox
        mailbox.insert(PlainChannel())
        self.session = MplexSession(False)
        mailbox.replace(self.session)
        self._size = size * NUM_FRAMES
        self._piece = message(MESSAGE_INITIATOR, bytes(size)) * NUM_FRAMES

    async def open(self) -> None:
        """The peer opens the stream."""
        self.cable.deliver(message(NEW_STREAM))
        self.stream = await self.session.accept_stream()

    async def once(self) -> None:
        """NUM_FRAMES of them."""
        self.cable.deliver(self._piece)
        await self.stream.read_exactly(self._size)

    async def close(self) -> None:
        """Ends the session."""
        self.cable.close()


def messages(size: int) -> Callable[[], Coroutine[Any, Any, Messages]]:
    """Messages with bodies of `size` bytes, at most 16,383."""

    async def start() -> Messages:
        work = Messages(size)
        await work.open()
        return work

    return start


class WebsocketFrames:
    """A server's WebSocket: frames of a client in one piece, and as many written."""

    def __init__(self, size: int) -> None:
        self.cable = Cable(asyncio.get_running_loop())
        self.cable.mailbox.insert(WebsocketLayer(is_client=False))
        self._data = bytes(size)
        head = bytes([0x82, 0xFE]) + size.to_bytes(2, "big") + b"mask"
        self._piece = (head + b"mask" * (size // 4)) * NUM_FRAMES

    async def once(self) -> None:
        """NUM_FRAMES of them each way."""
        mailbox = self.cable.mailbox
        self.cable.deliver(self._piece)
        await mailbox.read_exactly(len(self._data) * NUM_FRAMES)
        for _ in range(NUM_FRAMES):
            mailbox.write(self._data)
        self.cable.swallow()

    async def close(self) -> None:
        """Ends it."""
        self.cable.close()


def websocket_frames(size: int) -> Callable[[], Coroutine[Any, Any, WebsocketFrames]]:
    """Frames with payloads of `size` bytes: a multiple of 4, 128 to 8192."""

    async def start() -> WebsocketFrames:
        return WebsocketFrames(size)

    return start


def data_frames(size: int) -> Callable[[], Coroutine[Any, Any, DataFrames]]:
    """Frames with bodies of `size` bytes, at most 16 KiB."""

    async def start() -> DataFrames:
        work = DataFrames(size)
        await work.open()
        return work

    return start
