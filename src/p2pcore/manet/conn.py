"""A connected stream socket with a multiaddr at each end: MaConn satisfies interfaces.RawConn.

Comes in: a connected socket, TCP or UNIX, which MaConn owns from then on. Goes out: a Wire whose mailbox the
upgrader negotiates over. It reads nothing before `start`, and the descriptor is closed whatever fails.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import socket
import struct
import sys
from typing import Any

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.wire import Wire
from p2pcore.limits import (
    TCP_KEEPALIVE_IDLE_S,
    TCP_KEEPALIVE_INTERVAL_S,
    TCP_KEEPALIVE_PROBES,
    TCP_USER_TIMEOUT_S,
)
from p2pcore.manet.sockaddr import to_multiaddr
from p2pcore.values.multiaddr import Multiaddr

OPTIONS_ARE_INHERITED = sys.platform == "linux"
"""Accepted sockets have the options of `tune` from their listening socket: six calls less each."""

_family_of = _socket.socket.family.__get__
_TIMES = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", TCP_KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", TCP_KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", TCP_KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", TCP_USER_TIMEOUT_S * 1000),  # milliseconds; Linux alone has it
    )
    if hasattr(socket, name)
)
"""When the kernel gives a peer up: option and value."""


class PlainSocket(socket.socket):
    """A socket whose family and type are plain numbers: event loops ask for them, and an enum takes 1 us."""

    __slots__ = ()
    family = _socket.socket.family  # type: ignore[assignment]
    type = _socket.socket.type  # type: ignore[assignment]


def accept(sock: socket.socket) -> tuple[PlainSocket, Any]:
    """As `sock.accept()`, for a listening socket that does not block. Whether the new one does is left open.

    Raises:
        OSError: of accept(2), BlockingIOError where nothing is queued.
    """
    fd, remote = sock._accept()  # type: ignore[attr-defined]  # what accept() itself calls
    return PlainSocket(_family_of(sock), socket.SOCK_STREAM, 0, fd), remote


def tune(sock: socket.socket) -> None:
    """Sets TCP_NODELAY, and has the kernel end the connection a minute after the peer has gone.

    Raises:
        OSError: the socket is dead.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _TIMES:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def set_linger(sock: socket.socket, seconds: int) -> None:
    """SO_LINGER on; see linger.py for what `seconds` does.

    Raises:
        OSError: the socket is dead.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


class MaConn:
    """A connection before any upgrade: TCP, or what a subclass says.

    Args:
        loop: the event loop the connection will live on.
        sock: connected; owned from here on.
        local, remote: what getsockname(2) and accept(2) or connect(2) gave, or a Multiaddr; converted
            only when asked for, since most failed handshakes never need them. `remote` is None where the
            socket's other end has no address.
    """

    __slots__ = ("_is_started", "_local", "_loop", "_remote", "_sock", "_wire")

    transport = "tcp"
    is_limited = False
    expected_peer = None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        local: Multiaddr | tuple[Any, ...],
        remote: Multiaddr | tuple[Any, ...] | None,
    ) -> None:
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._local = local
        self._remote = remote
        self._wire = Wire(loop, sock.fileno())
        self._is_started = False

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated.

        Raises:
            ConnectionClosed: it has been replaced, or is gone.
        """
        return self._wire.open_mailbox()

    @property
    def local_multiaddr(self) -> Multiaddr:
        """The socket's own address."""
        if isinstance(self._local, tuple):
            self._local = to_multiaddr(self._local)
        return self._local

    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's address; None where it has none."""
        if isinstance(self._remote, tuple):
            self._remote = to_multiaddr(self._remote)
        return self._remote

    def set_linger(self, seconds: int) -> None:
        """SO_LINGER. Called before `start`; a socket that is dead already is left for `start` to find."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                set_linger(self._sock, seconds)

    async def start(self) -> None:
        """Begins to read the socket; does nothing where it reads already.

        Raises:
            OSError: the socket is of no use, or `abort` came first; it is closed.
        """
        if self._is_started:
            return
        sock, self._sock = self._sock, None
        if sock is None:
            raise ConnectionAbortedError("the connection was closed before it was started")
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except BaseException:
            sock.close()  # does nothing where the event loop had taken the descriptor over
            raise
        self._is_started = True

    def _protocol(self) -> Any:
        """The wire itself on uvloop, which looks for methods; asyncio looks for the class as well."""
        is_uvloop = type(self._loop).__module__.startswith("uvloop")
        return self._wire if is_uvloop else _AsyncioProtocol(self._wire)

    def abort(self) -> None:
        """Closes at once. Idempotent."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        else:
            self._wire.abort()


class _AsyncioProtocol(asyncio.BufferedProtocol):
    """A wire as the protocol of asyncio's own event loops."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._wire.get_buffer(sizehint))  # asyncio asks for its len()

    def buffer_updated(self, nbytes: int) -> None:
        self._wire.buffer_updated(nbytes)

    def eof_received(self) -> bool:
        return self._wire.eof_received()

    def pause_writing(self) -> None:
        self._wire.pause_writing()

    def resume_writing(self) -> None:
        self._wire.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.connection_lost(exc)
