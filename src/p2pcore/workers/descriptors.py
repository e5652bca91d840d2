"""Passes descriptors of sockets from a supervisor to a worker, over a datagram socket of their own.

Comes in: sockets, and a number to go with each. Goes out: the same in the other process. Whoever sends never
waits: what the kernel does not take now waits in a short queue. A worker that has ended gets none.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from p2pcore import limits

_NUMBER_BYTES = 8
_Datagram = tuple[int, bytes]  # a descriptor of our own, and what goes with it


class DescriptorQueue:
    """The supervisor's end of the socket to one worker, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._queue: deque[_Datagram] = deque()

    def send(self, sock: socket.socket, number: int, is_client: bool) -> bool:
        """Sends a copy of `sock`. False: the worker has gone, or too many wait."""
        if len(self._queue) >= limits.HUB_MAX_DESCRIPTORS:
            return False
        data = number.to_bytes(_NUMBER_BYTES, "big") + bytes([is_client])
        try:
            self._queue.append((os.dup(sock.fileno()), data))
        except OSError:  # we have no descriptor left
            return False
        return self._flush()

    def _flush(self) -> bool:
        """Sends what the kernel takes. False: the worker has gone."""
        if self._sock.fileno() < 0:
            return False
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                fd, data = self._queue[0]
                socket.send_fds(self._sock, [data], [fd])
                os.close(fd)
                self._queue.popleft()
        except BlockingIOError:
            loop.add_writer(self._sock, self._flush)
            return True
        except OSError:
            self.close()
            return False
        loop.remove_writer(self._sock)
        return True

    def close(self) -> None:
        """What waits is dropped. Idempotent."""
        while self._queue:
            os.close(self._queue.popleft()[0])
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_writer(self._sock)
            self._sock.close()


class DescriptorReader:
    """The worker's end, which it owns.

    Args:
        received: called with each socket, its number, and whether this end is the client's.
    """

    def __init__(self, sock: socket.socket, received: Callable[[socket.socket, int, bool], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        asyncio.get_running_loop().add_reader(sock, self._read)

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _NUMBER_BYTES + 1, 1)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not fds:  # the kernel could not give us the descriptor: we have too many
            return
        number = int.from_bytes(data[:_NUMBER_BYTES], "big")
        sock = socket.socket(fileno=fds[0])
        sock.set_inheritable(False)
        self._received(sock, number, bool(data[_NUMBER_BYTES]))

    def close(self) -> None:
        """Idempotent."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
