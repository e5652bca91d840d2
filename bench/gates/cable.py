"""A wire without a real socket: a work gives it the bytes that it receives, in exactly these pieces.

Comes in: bytes. Goes out: a Wire on a socket pair. Never waits for the kernel, so the same work takes the
same instructions each time.
"""

from __future__ import annotations

import asyncio
import socket

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.wire import Wire


class Cable:
    """The asyncio transport under a Wire."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._sink = bytearray(1 << 18)
        self.wire = Wire(loop)
        self.wire.connection_made(self)  # type: ignore[arg-type]

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain."""
        mailbox = self.wire.mailbox
        assert mailbox is not None
        return mailbox

    def deliver(self, data: bytes) -> None:
        """`data` as one read of the socket; at most limits.RECEIVE_BUFFER_BYTES."""
        with memoryview(self.wire.get_buffer(len(data))) as buffer:
            buffer[: len(data)] = data
        self.wire.buffer_updated(len(data))

    def swallow(self) -> None:
        """Takes away what was sent."""
        try:
            while self._far.recv_into(self._sink):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Closes both ends."""
        self._near.close()
        self._far.close()
        self.wire.connection_lost(None)

    # the face of asyncio.Transport that Wire uses while it lives

    def get_extra_info(self, name: str) -> socket.socket:
        """The socket, for any name."""
        return self._near

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Nothing is ever queued."""
