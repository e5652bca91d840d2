"""What a supervisor and a worker say to each other: JSON objects, one a line, on a socket pair.

Comes in: an asyncio stream pair. Goes out: dicts. Both ends are this package, so nothing here is a peer's; it
is bounded all the same, and the end of the channel is the end of the other process.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Self

from p2pcore import limits

Message = dict[str, Any]


class Channel:
    """One end.

    Attributes:
        dropped: messages not sent because the other side does not read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.dropped = 0

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """Takes over one end of a socket pair."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=limits.MAX_WORKER_MESSAGE_BYTES)
        return cls(reader, writer)

    def send(self, **message: object) -> bool:
        """Sends a message without waiting; drops it where WORKER_QUEUE_BYTES wait already, and says so."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > limits.WORKER_QUEUE_BYTES:
            self.dropped += 1
            return False
        self._writer.write(json.dumps(message).encode() + b"\n")
        return True

    def send_bytes(self, data: bytes) -> None:
        """Sends what the other side reads before it has a channel: `data` after its length."""
        self._writer.write(len(data).to_bytes(4, "big") + data)

    async def receive(self) -> Message | None:
        """The next message; None at the end. Raises ValueError: that was none."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a message is an object")
        return message

    async def flush(self) -> None:
        """Waits until the other side's kernel has what was sent."""
        try:
            await self._writer.drain()
        except OSError:
            pass

    def close(self) -> None:
        """Ends the channel. Idempotent."""
        self._writer.close()


def receive_bytes(sock: socket.socket) -> bytes:
    """The other end of `send_bytes`, blocking. Raises EOFError."""
    size = int.from_bytes(_exactly(sock, 4), "big")
    return _exactly(sock, size)


def _exactly(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError("the supervisor has ended")
        data += more
    return data
