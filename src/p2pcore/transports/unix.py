"""UNIX stream sockets: dials and listens on /unix/PATH; /p2p/ID may follow the path.

Comes in: addresses with absolute paths; js-libp2p's form /unix/%2Ftmp%2Fx.sock works too. Goes out: upgraded
connections and listeners. A listener owns its file. It replaces a socket that nobody listens on, but never
one in use, and never another file. At its end it removes the file if that is still its own. Linux's abstract
names have no multiaddr: a path begins with a slash. See unix(7).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Any

from p2pcore import options
from p2pcore._fast.codec import varint
from p2pcore.errors import AddressError
from p2pcore.interfaces import CapableConn, Listener, Upgrader
from p2pcore.limits import (
    LISTEN_BACKLOG,
    MAX_UNIX_PATH_BYTES,
    TCP_CONNECT_TIMEOUT_S,
    UNIX_BIND_TIMEOUT_S,
    UNIX_CONNECT_PAUSE_S,
)
from p2pcore.manet.conn import MaConn
from p2pcore.manet.listener import MaListener
from p2pcore.manet.unix_file import file_of, open_unix, remove_unix
from p2pcore.transports.tcp.transport import expected_peer
from p2pcore.values.multiaddr import Multiaddr, check_local, protocol_with_name
from p2pcore.values.peer_id import PeerId

_UNIX = protocol_with_name("unix")


@dataclass(frozen=True, slots=True)
class UnixOptions:
    """How to dial and listen on UNIX sockets.

    Attributes:
        connect_timeout: seconds to wait for a listener whose backlog is full.
        mode: permissions of a listener's file, for instance 0o600; None: the umask decides. Every process
            that may write to the file may connect.
        backlog: connections the kernel may queue.
        sockets: listening sockets, made by `open_unix`. Listening on the address of one takes it over, once;
            its file is not removed at the end.

    Raises:
        TypeError, ValueError: a field has a wrong type or value.
    """

    connect_timeout: float = TCP_CONNECT_TIMEOUT_S
    mode: int | None = None
    backlog: int = LISTEN_BACKLOG
    sockets: tuple[socket.socket, ...] = ()

    def __post_init__(self) -> None:
        options.seconds("connect_timeout", self.connect_timeout)
        if self.mode is not None:
            options.file_mode("mode", self.mode)
        options.whole("backlog", self.backlog)
        options.items("sockets", self.sockets, "listening sockets", socket.socket)
        if any(sock.family != socket.AF_UNIX for sock in self.sockets):
            raise ValueError("sockets must be UNIX sockets; TCP sockets belong to TcpOptions")


class UnixConn(MaConn):
    """A connection over a UNIX socket. A dialler has no address: its `remote_multiaddr` is None."""

    __slots__ = ()

    transport = "unix"


class UnixListener(MaListener):
    """A MaListener on a file; use `UnixListener.listen` or `UnixListener.adopt`."""

    __slots__ = ("_file", "_mode")

    def __init__(self, sock: socket.socket, multiaddr: Multiaddr, reuse_port: bool, backlog: int) -> None:
        super().__init__(sock, multiaddr, reuse_port, backlog)
        self._mode: int | None = None
        self._file: tuple[int, int] | None = None

    @classmethod
    async def listen(
        cls, addr: Multiaddr, mode: int | None = None, backlog: int = LISTEN_BACKLOG
    ) -> UnixListener:
        """Binds and listens.

        Args:
            addr: /unix/PATH.
            mode, backlog: as in UnixOptions.

        Raises:
            AddressError: `addr` is not a UNIX address, its path is too long, or it names a peer.
            OSError: binding failed. EADDRINUSE: the path has a listener. EEXIST: the file is not a socket.
        """
        path = unix_path(addr)
        check_local(addr)
        self = cls._of(await _opened(path, mode, backlog), addr, False, backlog)
        self._mode = mode
        self._file = file_of(path)
        return self

    @classmethod
    def adopt(cls, sock: socket.socket, backlog: int = LISTEN_BACKLOG) -> UnixListener:
        """Takes over a listening socket. It never removes the file: other processes may use the socket."""
        return cls._of(sock, unix_multiaddr(sock), False, backlog)

    def _conn(self, sock: socket.socket, remote: Any) -> MaConn:
        return UnixConn(self._loop, sock, self._multiaddr, None)

    async def _reopened(self) -> socket.socket:
        path = unix_path(self._multiaddr)
        sock = await _opened(path, self._mode, self._backlog)
        self._file = file_of(path)
        return sock

    def _letting_go(self) -> None:
        """Removes the file before the socket is closed: until then no other file can have its inode."""
        if self._file is not None:
            remove_unix(unix_path(self._multiaddr), self._file)


class UnixTransport:
    """The UNIX socket transport.

    Args:
        upgrader: secures and multiplexes dialled and accepted connections.
        options: see UnixOptions.
    """

    __slots__ = ("_options", "_sockets", "_upgrader")

    protocols = ("unix",)
    is_proxy = False

    def __init__(self, upgrader: Upgrader, options: UnixOptions = UnixOptions()) -> None:
        self._upgrader = upgrader
        self._options = options
        self._sockets = {unix_multiaddr(sock): sock for sock in options.sockets}

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for a path that fits a socket address; a peer id may follow."""
        try:
            unix_path(addr)
        except AddressError:
            return False
        return True

    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects and upgrades.

        Args:
            addr: the address; the peer must prove the id at its end, if there is one.
            peer: the id that the peer must prove; None: the id in `addr`, or any.

        Raises:
            AddressError: not a UNIX address, or `addr` and `peer` name two peers.
            OSError: connecting failed; TimeoutError: the listener's backlog stayed full.
            NegotiationError, HandshakeError, UpgradeTimeout: the upgrade failed, see `.stage`.
        """
        path = unix_path(addr)
        expected = expected_peer(addr, addr.peer_id, peer)
        conn = await self._connect(path)
        return await self._upgrader.upgrade_outbound(conn, expected)

    async def _connect(self, path: str) -> UnixConn:
        target = _addr_of(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._connect_socket(sock, path)
            # The socket has no name of its own: both ends know only the name of the listener.
            return UnixConn(asyncio.get_running_loop(), sock, target, target)
        except BaseException:
            sock.close()
            raise

    async def _connect_socket(self, sock: socket.socket, path: str) -> None:
        timeout = self._options.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                while failed := sock.connect_ex(path):
                    if failed != errno.EAGAIN:
                        raise OSError(failed, os.strerror(failed), path)
                    await asyncio.sleep(UNIX_CONNECT_PAUSE_S)
        except TimeoutError as error:
            raise TimeoutError(f"the listener on {path} accepted no connection for {timeout:g} s") from error

    async def listen(self, addr: Multiaddr) -> Listener:
        """Binds, and starts to accept and upgrade connections. Raises as UnixListener.listen."""
        adopted = self._sockets.pop(addr, None)
        if adopted is not None:
            inner = UnixListener.adopt(adopted, self._options.backlog)
        else:
            inner = await UnixListener.listen(addr, self._options.mode, self._options.backlog)
        return self._upgrader.upgrade_listener(inner)


def unix_path(addr: Multiaddr) -> str:
    """The path of /unix/PATH[/p2p/ID].

    Raises:
        AddressError: it is another kind of address, or the path does not fit a socket address.
    """
    target = addr.without_p2p()
    if [protocol.name for protocol in target.protocols()] != ["unix"]:
        raise AddressError(f"{addr} is not /unix/PATH[/p2p/ID]")
    raw = target._raw_value(_UNIX.code) or b""  # its text may be escaped
    path, size = os.fsdecode(raw), len(raw)
    if size > MAX_UNIX_PATH_BYTES:
        raise AddressError(f"{addr}: a path of {size} bytes is over the limit of {MAX_UNIX_PATH_BYTES}")
    return path


def unix_multiaddr(sock: socket.socket) -> Multiaddr:
    """The address a UNIX socket is bound to. Raises AddressError: it has no name, or an abstract one."""
    return _addr_of(os.fsdecode(sock.getsockname()))


def _addr_of(path: str) -> Multiaddr:
    """The address of an absolute path, which may have any characters. Raises AddressError."""
    raw = os.fsencode(path)
    return Multiaddr(_UNIX.vcode + varint.encode(len(raw)) + raw)


async def _opened(path: str, mode: int | None, backlog: int) -> socket.socket:
    """As `open_unix`, but waits a while for other processes."""
    loop = asyncio.get_running_loop()
    end = loop.time() + UNIX_BIND_TIMEOUT_S
    while True:
        try:
            return open_unix(path, mode, backlog)
        except BlockingIOError:
            if loop.time() > end:
                raise
        await asyncio.sleep(UNIX_CONNECT_PAUSE_S)
