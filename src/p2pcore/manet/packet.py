"""UDP packets with multiaddrs: MaPacketConn, like PacketConn of go-multiaddr's net.

Comes in: an address to bind, datagrams to send. Goes out: datagrams with the address of their sender, from a
bounded queue: when it is full, new datagrams are dropped and counted. Never resolves names, never pauses
after an error. It is the base for transports over UDP (QUIC, WebRTC).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import socket
from typing import Any

from p2pcore.errors import AddressError, ConnectionClosed
from p2pcore.limits import MAX_DATAGRAM_BYTES, MAX_DATAGRAMS_A_TURN, MAX_QUEUED_DATAGRAMS
from p2pcore.manet.sockaddr import parse_endpoint, to_multiaddr
from p2pcore.values.multiaddr import Multiaddr, check_local


class MaPacketConn:
    """Use `MaPacketConn.bind`.

    Attributes:
        dropped: datagrams that came while the queue was full.
        errors: errors of recvfrom(2), counted by the name of their errno; each concerns one datagram.
    """

    __slots__ = (
        "_changed",
        "_local",
        "_loop",
        "_max_queued",
        "_queue",
        "_sending",
        "_sock",
        "_writable",
        "dropped",
        "errors",
    )

    def __init__(self, sock: socket.socket, max_queued: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._local = to_multiaddr(sock.getsockname(), "udp")
        self._max_queued = max_queued
        self._queue: collections.deque[tuple[bytes, tuple[Any, ...]]] = collections.deque()
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._sending = 0
        self.dropped = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self._loop.add_reader(sock, self._on_readable)

    @classmethod
    def bind(
        cls, addr: Multiaddr, reuse_port: bool = False, max_queued: int = MAX_QUEUED_DATAGRAMS
    ) -> MaPacketConn:
        """Binds; call it inside a running event loop.

        Args:
            addr: /ip4|ip6/…/udp/N; 0 means any free port.
            reuse_port: let other sockets with the same option share the port.
            max_queued: datagrams kept for `recv_from`, at least 1.

        Raises:
            AddressError: `addr` is not a UDP address, or names a peer.
            OSError: binding failed. ValueError: `max_queued` is not positive.
        """
        endpoint = parse_endpoint(addr, "udp")
        check_local(addr)
        if max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, not {max_queued}")
        sock = socket.socket(endpoint.family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(endpoint.sockaddr())
            return cls(sock, max_queued)
        except BaseException:
            sock.close()
            raise

    @property
    def local_multiaddr(self) -> Multiaddr:
        """The bound address, with the real port."""
        return self._local

    @property
    def is_closed(self) -> bool:
        """True once `close` was called."""
        return self._sock.fileno() < 0

    async def recv_from(self) -> tuple[bytes, Multiaddr]:
        """The oldest datagram and its sender; a datagram may be b"". If cancelled, it has taken none.

        Raises: ConnectionClosed: `close` was called.
        """
        while not self._queue:
            self._check_open()
            self._changed.clear()
            await self._changed.wait()
        data, sender = self._queue.popleft()
        return data, to_multiaddr(sender, "udp")

    async def send_to(self, data: bytes | bytearray | memoryview, addr: Multiaddr) -> None:
        """Sends one datagram; waits while the kernel's buffer is full.

        Args:
            data: at most 65,507 bytes over IPv4.
            addr: /ip4|ip6/…/udp/N, of the same family as the bound address.

        Raises:
            AddressError: `addr` is of another kind or family; ConnectionClosed: `close` was called.
            OSError: EMSGSIZE: too long; or there is no route.
        """
        endpoint = parse_endpoint(addr, "udp")
        if endpoint.family != self._sock.family:
            raise AddressError(f"{addr}: expected an address of the same family as {self._local}")
        target = endpoint.sockaddr()
        while True:
            self._check_open()
            try:
                self._sock.sendto(data, target)
                return
            except BlockingIOError:
                await self._wait_writable()

    async def close(self) -> None:
        """Closes at once; queued datagrams are dropped, waiting calls raise ConnectionClosed. Idempotent."""
        if self.is_closed:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._queue.clear()
        self._changed.set()
        self._writable.set()

    def _check_open(self) -> None:
        if self.is_closed:
            raise ConnectionClosed(f"the packet connection on {self._local} is closed")

    def _on_readable(self) -> None:
        """Takes the datagrams that have come, since nobody counts what the kernel's queue drops."""
        for _ in range(MAX_DATAGRAMS_A_TURN):
            try:
                received = self._sock.recvfrom(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self.errors[errno.errorcode.get(error.errno or 0, type(error).__name__)] += 1
                break
            if len(self._queue) < self._max_queued:
                self._queue.append(received)
            else:
                self.dropped += 1
        self._changed.set()

    async def _wait_writable(self) -> None:
        self._writable.clear()
        self._sending += 1
        self._loop.add_writer(self._sock, self._writable.set)
        try:
            await self._writable.wait()
        finally:
            self._sending -= 1
            if not self._sending and not self.is_closed:
                with contextlib.suppress(OSError):
                    self._loop.remove_writer(self._sock)
