"""A connected stream socket with a multiaddr at each end: MaConn satisfies interfaces.RawConn.

Comes in: a connected socket, TCP or UNIX, which MaConn owns from then on. Goes out: a Wire with a mailbox
for the upgrader. It reads nothing before `start`, and closes the descriptor whatever fails.
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
from p2pcore.aio.first_bytes import FirstBytes
from p2pcore.limits import (
    TCP_KEEPALIVE_IDLE_S,
    TCP_KEEPALIVE_INTERVAL_S,
    TCP_KEEPALIVE_PROBES,
    TCP_USER_TIMEOUT_S,
)
from p2pcore.manet.sockaddr import block_of, to_multiaddr
from p2pcore.values.multiaddr import Multiaddr

OPTIONS_ARE_INHERITED = sys.platform == "linux"
"""Accepted sockets inherit the options of `tune` from their listening socket, which saves six calls each."""

_family_of = _socket.socket.family.__get__
_TIMES = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", TCP_KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", TCP_KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", TCP_KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", TCP_USER_TIMEOUT_S * 1000),  # milliseconds; only Linux has it
    )
    if hasattr(socket, name)
)
"""Socket options that say when the kernel treats a peer as dead, with their values."""


class PlainSocket(socket.socket):
    """A socket whose family and type are plain integers: event loops read them, and an enum costs 1 us."""

    __slots__ = ()
    family = _socket.socket.family  # type: ignore[assignment]
    type = _socket.socket.type  # type: ignore[assignment]


def accept(sock: socket.socket) -> tuple[PlainSocket, Any]:
    """As `sock.accept()`, for a non-blocking listening socket. The new socket may be blocking or not.

    Raises:
        OSError: from accept(2); BlockingIOError: nothing is queued.
    """
    fd, remote = sock._accept()  # type: ignore[attr-defined]  # what accept() itself calls
    return PlainSocket(_family_of(sock), socket.SOCK_STREAM, 0, fd), remote


def tune(sock: socket.socket) -> None:
    """Sets TCP_NODELAY, and makes the kernel end the connection a minute after the peer has gone.

    Raises:
        OSError: the socket is dead.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _TIMES:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def set_linger(sock: socket.socket, seconds: int) -> None:
    """Sets SO_LINGER; see linger.py for the effect of `seconds`.

    Raises:
        OSError: the socket is dead.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


class MaConn:
    """A connection before any upgrade; TCP, unless a subclass says otherwise.

    Args:
        loop: the event loop the connection will live on.
        sock: connected; owned from here on.
        local, remote: results of getsockname(2) and accept(2) or connect(2), or a Multiaddr. They are
            converted only when needed, because most failed handshakes never need them. `remote` is None if
            the other end has no address.
    """

    __slots__ = ("_first", "_is_started", "_local", "_loop", "_remote", "_sock", "_wire")

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
        self._wire: Wire | None = None  # silent peers need none
        self._first: FirstBytes[Any] | None = None
        self._is_started = False

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated.

        Raises:
            ConnectionClosed: the mailbox has been replaced, or the connection is gone.
        """
        return self._made_wire().open_mailbox()

    def _made_wire(self) -> Wire:
        if self._wire is None:
            self._wire = Wire(self._loop, -1 if self._sock is None else self._sock.fileno())
        return self._wire

    @property
    def local_multiaddr(self) -> Multiaddr:
        """The socket's own address."""
        if isinstance(self._local, tuple):
            self._local = to_multiaddr(self._local)
        return self._local

    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's address; None if it has none."""
        if isinstance(self._remote, tuple):
            self._remote = to_multiaddr(self._remote)
        return self._remote

    @property
    def remote_sockaddr(self) -> tuple[Any, ...] | None:
        """The peer's socket address, for callers that need no multiaddr; None: not known in this form."""
        return self._remote if isinstance(self._remote, tuple) else None

    @property
    def block(self) -> str:
        """See interfaces.RawConn."""
        remote = self._remote
        if isinstance(remote, Multiaddr):
            remote = (remote.get("ip4") or remote.get("ip6") or "",)
        return self.transport if remote is None else block_of(remote)

    def set_linger(self, seconds: int) -> None:
        """Sets SO_LINGER. Call it before `start`. It ignores a dead socket: `start` will report it."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                set_linger(self._sock, seconds)

    def wait_first(self, first: FirstBytes[Any]) -> bool:
        """Before `start`: has `first` call when the peer has sent something, or has gone.

        Returns: False: it will not call.
        """
        if self._sock is None or not first.add(self._sock.fileno(), self):
            return False
        self._first = first
        return True

    def _wait_no_more(self, sock: socket.socket) -> None:
        first, self._first = self._first, None
        if first is not None:
            first.remove(sock.fileno())

    async def start(self) -> None:
        """Begins to read the socket. Does nothing if it already reads.

        Raises:
            OSError: the socket cannot be used, or `abort` came first; the socket is closed.
        """
        if self._is_started:
            return
        if self._sock is None:
            raise ConnectionAbortedError("the connection was closed before it was started")
        self._made_wire()
        sock, self._sock = self._sock, None
        self._wait_no_more(sock)
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except BaseException:
            sock.close()  # does nothing if the event loop already owns the descriptor
            raise
        self._is_started = True

    def _protocol(self) -> Any:
        """On uvloop the wire itself, since uvloop only needs its methods; asyncio also checks the class."""
        is_uvloop = type(self._loop).__module__.startswith("uvloop")
        wire = self._made_wire()
        return wire if is_uvloop else _AsyncioProtocol(wire)

    def abort(self) -> None:
        """Closes at once. Idempotent.

        Before `start` this is a reset: the peer learns it at once, and the kernel keeps no state.
        """
        sock, self._sock = self._sock, None
        if sock is not None:
            self._wait_no_more(sock)
            with contextlib.suppress(OSError):
                set_linger(sock, 0)
            sock.close()
        elif self._wire is not None:
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
