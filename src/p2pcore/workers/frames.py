"""Frames between a worker and the hub in its supervisor: a JSON object, and bytes behind it.

Comes in: a connected UNIX socket. Goes out: whole frames, each given to a callback at once. Both ends are
this package, so no peer can write here; lengths are bounded all the same. It never waits: who writes asks
`num_queued` or awaits `room` first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from p2pcore import limits

logger = logging.getLogger("p2pcore.workers")

Header = dict[str, Any]
OnFrame = Callable[[Header, bytes], None]

_dumped = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder each time
_LENGTHS = 8
"""Bytes in front of a frame: the length of the header, then that of what is behind it, big-endian."""


def encode(header: Header, data: bytes = b"") -> bytes:
    """One frame."""
    head = _dumped(header).encode()
    return len(head).to_bytes(4, "big") + len(data).to_bytes(4, "big") + head + data


class FrameConn(asyncio.Protocol):
    """One end of a socket with frames.

    Args:
        on_frame: called with each frame. If it raises, the connection ends.
        on_end: called once, when the connection has ended.
        on_room: called whenever the queue of what was sent has become short again.
    """

    def __init__(
        self, on_frame: OnFrame, on_end: Callable[[], None], on_room: Callable[[], None] = lambda: None
    ) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._on_room = on_room
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    async def open(self, sock: socket.socket) -> None:
        """Takes over `sock`. Closes it if that fails."""
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def num_queued(self) -> int:
        """Bytes that were sent, and that the other side has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def send(self, frame: bytes) -> None:
        """Sends what `encode` made. After the end, nothing happens."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    @property
    def has_room(self) -> bool:
        """Whether `room` would return at once."""
        return self._may_write.is_set()

    async def room(self) -> None:
        """Waits until little is queued. Returns at the end of the connection too."""
        await self._may_write.wait()

    def close(self) -> None:
        """Ends the connection at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            for header, body in self._frames():
                self._on_frame(header, body)
        except Exception:
            logger.exception("a frame between a worker and its supervisor cannot be handled")
            self.close()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()
        self._on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write.set()
        self._on_end()

    def _frames(self) -> Iterator[tuple[Header, bytes]]:
        """Takes whole frames from what was received. Raises ValueError."""
        at = 0
        with memoryview(self._received) as received:
            while len(received) - at >= _LENGTHS:
                start = at + _LENGTHS + int.from_bytes(received[at : at + 4], "big")
                end = start + int.from_bytes(received[at + 4 : at + _LENGTHS], "big")
                if start - at > limits.HUB_MAX_HEADER_BYTES or end - start > limits.HUB_MAX_BODY_BYTES:
                    raise ValueError(f"a frame of {start - at} and {end - start} bytes")
                if len(received) < end:
                    break
                head = str(received[at + _LENGTHS : start], "utf-8")  # json.loads would guess the encoding
                yield json.loads(head), bytes(received[start:end])
                at = end
        del self._received[:at]


# -- entries of buckets -------------------------------------------------------------------------

Entries = Iterable[tuple[str, bytes | None]]
_GONE = -1


def pack(entries: Entries) -> Iterator[tuple[Header, bytes]]:
    """Entries as fields and bytes of frames, a bounded number in each. None: the entry is deleted."""
    keys: list[str] = []
    values: list[bytes | None] = []
    num_bytes = 0
    for key, value in entries:
        size = len(key) + len(value or b"")
        if keys and (num_bytes + size > limits.HUB_BATCH_BYTES or len(keys) == limits.HUB_BATCH_ENTRIES):
            yield _packed(keys, values)
            keys, values, num_bytes = [], [], 0
        keys.append(key)
        values.append(value)
        num_bytes += size
    if keys:
        yield _packed(keys, values)


def _packed(keys: list[str], values: list[bytes | None]) -> tuple[Header, bytes]:
    sizes = [_GONE if value is None else len(value) for value in values]
    return {"keys": keys, "sizes": sizes}, b"".join(value for value in values if value)


def unpack(header: Header, data: bytes) -> Iterator[tuple[str, bytes | None]]:
    """What `pack` has packed into one frame."""
    at = 0
    for key, size in zip(header["keys"], header["sizes"], strict=True):
        if size == _GONE:
            yield key, None
        else:
            yield key, data[at : at + size]
            at += size
