"""The messages between a supervisor and a worker: JSON objects, one on each line, on a socket pair.

Comes in: an asyncio stream pair. Goes out: dicts. Both ends are this package, so no peer can write here.
Sizes are bounded all the same. The channel ends when the other process ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Self

from p2pcore import limits

Message = dict[str, Any]


class Channel:
    """One end of the socket pair.

    Attributes:
        dropped: messages that were not sent because the other side did not read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.dropped = 0

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """Makes a channel of one end of a socket pair, and owns it."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=limits.MAX_WORKER_MESSAGE_BYTES)
        return cls(reader, writer)

    def send(self, **message: object) -> bool:
        """Sends a message without waiting.

        Returns: False if WORKER_QUEUE_BYTES wait, or if it is too long; then it is dropped.
        """
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > limits.WORKER_QUEUE_BYTES:
            self.dropped += 1
            return False
        line = json.dumps(message).encode() + b"\n"
        if len(line) > limits.MAX_WORKER_MESSAGE_BYTES:  # it would end the channel
            self.dropped += 1
            return False
        self._writer.write(line)
        return True

    def send_bytes(self, data: bytes) -> None:
        """Sends the length of `data`, then `data`. The other side reads it before it has a channel."""
        self._writer.write(len(data).to_bytes(4, "big") + data)

    async def receive(self) -> Message | None:
        """The next message; None at the end. Raises ValueError: what came is not a message."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a message must be a JSON object")
        return message

    async def flush(self) -> None:
        """Waits until the kernel has taken everything that was sent."""
        try:
            await self._writer.drain()
        except OSError:
            pass

    def close(self) -> None:
        """Ends the channel. Idempotent."""
        self._writer.close()


def receive_bytes(sock: socket.socket) -> bytes:
    """Reads what `send_bytes` has sent. Blocks. Raises EOFError: the supervisor has ended."""
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
