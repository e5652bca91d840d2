"""A listening TCP socket with a multiaddr; each `accept` returns one MaConn.

Comes in: an address to bind. Goes out: connections. It takes them from the kernel only on request; the others
stay in the kernel's backlog. Never upgrades, never pauses after an error of accept(2): the caller decides
what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Any, Self

from p2pcore.aio.descriptors import descriptors_of
from p2pcore.errors import AddressError, ListenerClosed
from p2pcore.limits import LISTEN_BACKLOG, SOCKET_PROBE_S
from p2pcore.manet.conn import OPTIONS_ARE_INHERITED, MaConn, PlainSocket, accept, tune
from p2pcore.manet.sockaddr import Endpoint, parse_endpoint, to_multiaddr
from p2pcore.values.multiaddr import Multiaddr, check_local

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_MAX_LOCAL_ADDRS = 64  # distinct local addresses of a wildcard listener kept as one object each


class MaListener:
    """Use `MaListener.bind`.

    Attributes:
        shed: connections closed at once, because the process had no descriptor left for them.
    """

    __slots__ = (
        "_backlog",
        "_closed",
        "_descriptors",
        "_draining",
        "_identity",
        "_is_paused",
        "_is_wildcard",
        "_locals",
        "_loop",
        "_multiaddr",
        "_probe",
        "_readable",
        "_reuse_port",
        "_sock",
        "_spare",
        "_waiting",
        "_watching",
        "shed",
    )

    def __init__(self, sock: socket.socket, multiaddr: Multiaddr, reuse_port: bool, backlog: int) -> None:
        self._multiaddr = multiaddr
        self._is_wildcard = multiaddr.is_unspecified
        self._reuse_port = reuse_port
        self._backlog = backlog
        self._closed = False
        self._draining = False
        self._is_paused = False
        self._loop = asyncio.get_running_loop()
        self._descriptors = descriptors_of(self._loop)
        self._descriptors.look()
        self._readable = asyncio.Event()
        self._waiting = 0
        self._watching = False
        self._probe: asyncio.TimerHandle | None = None
        self._locals: dict[tuple[Any, ...], Multiaddr] = {}
        self.shed = 0
        self._sock: socket.socket | None = sock
        self._identity = _identity(sock.fileno())
        self._spare = _open_spare()

    @classmethod
    def bind(cls, addr: Multiaddr, reuse_port: bool = False, backlog: int = LISTEN_BACKLOG) -> Self:
        """Binds and listens; call it inside a running event loop.

        Args:
            addr: /ip4|ip6/…/tcp/N; 0 means any free port.
            reuse_port: let other sockets with the same option share the port. Off by default: a second
                process must fail, and not silently take half of the connections.
            backlog: connections the kernel may queue; it cuts this to net.core.somaxconn.

        Raises:
            AddressError: `addr` is not a TCP address, or names a peer.
            OSError: binding failed.
        """
        endpoint = parse_endpoint(addr)
        check_local(addr)
        sock = open_listening(endpoint, reuse_port, backlog)
        return cls._of(sock, _bound_multiaddr(sock, endpoint), reuse_port, backlog)

    @classmethod
    def adopt(cls, sock: socket.socket, backlog: int = LISTEN_BACKLOG) -> Self:
        """Takes over a listening socket, as `open_listening` makes it; call it inside a running event loop.

        Other processes may hold the same socket: when this listener closes, they keep its queue. If the
        socket is lost, its replacement has SO_REUSEPORT.

        Raises: OSError: the socket does not listen.
        """
        return cls._of(sock, to_multiaddr(sock.getsockname()), True, backlog)

    @classmethod
    def _of(cls, sock: socket.socket, multiaddr: Multiaddr, reuse_port: bool, backlog: int) -> Self:
        """A listener of this class that owns `sock`; closes `sock` if that fails."""
        try:
            return cls(sock, multiaddr, reuse_port, backlog)
        except BaseException:
            sock.close()
            raise

    @property
    def multiaddr(self) -> Multiaddr:
        """The bound address, with the real port."""
        return self._multiaddr

    @property
    def listening_socket(self) -> socket.socket | None:
        """The listening socket; None if it is lost or closed."""
        return self._sock

    async def accept(self) -> MaConn:
        """The next connection. If cancelled, it has taken none.

        Raises:
            ListenerClosed: `close` was called.
            OSError: accept(2) failed, or the socket is lost (then see `rebind`). EMFILE and ENFILE: nothing
                else could be closed (see aio/descriptors.py), so the first connection of the backlog has
                been: otherwise the socket would stay readable.
        """
        while True:
            if self._closed:
                raise ListenerClosed(f"the listener on {self._multiaddr} is closed")
            if self._is_paused and not self._draining:
                await self._wait_resumed()
                continue
            conn = self._accept_now()
            if conn is not None:
                return conn
            if self._draining:
                await self.close()
                continue
            await self._wait_readable()

    def _accept_now(self) -> MaConn | None:
        if self._sock is None:
            raise OSError(errno.EBADF, f"the socket of {self._multiaddr} is lost")
        try:
            sock, remote = accept(self._sock)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS:
                raise
            try:
                taken = self._accept_with_spare(self._sock)
            except BlockingIOError:
                return None
            if taken is None:
                raise
            sock, remote = taken
        else:
            number = sock.fileno()
            if number >= self._descriptors.scarce_from or self._descriptors.num_leaving:
                self._descriptors.opened(number)
        try:
            return self._conn(sock, remote)
        except AddressError as error:  # no multiaddr can express the address: only this one fails (W8)
            sock.close()
            raise OSError(errno.ECONNABORTED, str(error)) from error
        except BaseException:
            sock.close()
            raise

    def _conn(self, sock: socket.socket, remote: Any) -> MaConn:
        """The connection that `accept` returns for a new socket."""
        if not OPTIONS_ARE_INHERITED:
            tune(sock)
        return MaConn(self._loop, sock, self._local_of(sock), remote)

    def _local_of(self, sock: socket.socket) -> Multiaddr:
        if not self._is_wildcard:
            return self._multiaddr
        sockaddr = sock.getsockname()
        known = self._locals.get(sockaddr)
        if known is None:
            if len(self._locals) >= _MAX_LOCAL_ADDRS:
                self._locals.clear()
            known = self._locals[sockaddr] = to_multiaddr(sockaddr)
        return known

    def _accept_with_spare(self, listening: socket.socket) -> tuple[PlainSocket, Any] | None:
        """The first connection of the backlog instead of the spare descriptor; what matters less is closed.

        Returns: None: nothing else could be closed, so that connection has been.
        Raises: BlockingIOError: the backlog is empty. accept(2) needs a descriptor even then.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)
        self._descriptors.look()
        try:
            taken = accept(listening)
        except BlockingIOError:
            self._keep_spare()
            raise
        except OSError:  # another thread took the descriptor, or the peer gave up
            self._descriptors.relieve()
            self._keep_spare()
            return None
        if self._descriptors.relieve():
            self._loop.call_soon(self._keep_spare)  # the event loop closes a descriptor in its next turn
            return taken
        taken[0].close()
        self.shed += 1
        self._keep_spare()
        return None

    def _keep_spare(self) -> None:
        if self._spare is None and not self._closed:
            self._spare = _open_spare()

    async def _wait_resumed(self) -> None:
        self._unwatch()
        self._readable.clear()
        await self._readable.wait()

    async def _wait_readable(self) -> None:
        self._readable.clear()
        self._watch()
        if self._sock is None:
            return
        self._waiting += 1
        try:
            await self._readable.wait()
        finally:
            self._waiting -= 1

    def _watch(self) -> None:
        if self._watching or self._sock is None:
            return
        if not self._is_ours():  # libuv aborts the process if it cannot watch a descriptor
            self._drop()
            return
        self._loop.add_reader(self._sock, self._on_readable)
        self._watching = True
        if self._probe is None:
            self._probe = self._loop.call_later(SOCKET_PROBE_S, self._probe_socket)

    def _unwatch(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        if self._watching and self._sock is not None:
            self._watching = False
            with contextlib.suppress(OSError, RuntimeError):  # the descriptor may belong to other code by now
                self._loop.remove_reader(self._sock)

    def _on_readable(self) -> None:
        # The watch stays after an accept: under load that saves two epoll calls per connection. It ends at
        # the first event that nobody waits for; the peers stay in the backlog.
        if self._waiting:
            self._readable.set()
        else:
            self._unwatch()

    def _probe_socket(self) -> None:
        """Checks whether other code closed the descriptor: epoll does not report that."""
        self._probe = self._loop.call_later(SOCKET_PROBE_S, self._probe_socket)
        if not self._is_ours():
            self._drop()
            self._readable.set()

    async def rebind(self) -> None:
        """Replaces a lost socket by a new one on the same address and port.

        Raises:
            ListenerClosed: `close` was called.
            OSError: the address cannot be bound now; `accept` fails until a later call succeeds.
        """
        if self._closed:
            raise ListenerClosed(f"the listener on {self._multiaddr} is closed")
        self._drop()
        self._sock = sock = await self._reopened()
        self._identity = _identity(sock.fileno())
        if self._closed:  # closed meanwhile
            self._drop()
            raise ListenerClosed(f"the listener on {self._multiaddr} is closed")

    async def _reopened(self) -> socket.socket:
        """A new listening socket on the same address. Raises OSError."""
        return open_listening(parse_endpoint(self._multiaddr), self._reuse_port, self._backlog)

    def pause(self) -> None:
        """`accept` waits until `resume`; the kernel queues the peers, as many as the backlog has room for."""
        self._is_paused = True

    def resume(self) -> None:
        """`accept` returns connections again."""
        self._is_paused = False
        self._readable.set()

    def drain(self) -> None:
        """Drains: `accept` returns what the kernel has queued by now, then raises ListenerClosed.

        close(2) resets the connections that the kernel queues after the last accept(2). That is a matter of
        microseconds; see docs/workers.md.
        """
        self._draining = True
        self._readable.set()

    async def close(self) -> None:
        """Stops listening; a pending accept raises ListenerClosed. Idempotent."""
        self._closed = True
        self._drop()
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)
        self._readable.set()

    def _is_ours(self) -> bool:
        if self._sock is None:
            return False
        try:
            return _identity(self._sock.fileno()) == self._identity
        except OSError:
            return False

    def _drop(self) -> None:
        """Closes the socket, unless its descriptor number now belongs to other code."""
        self._unwatch()
        ours = self._is_ours()
        sock, self._sock = self._sock, None
        if sock is not None:
            if ours:
                self._letting_go()
                sock.close()
            else:
                sock.detach()

    def _letting_go(self) -> None:
        """Called just before the socket is closed."""


def open_bound(endpoint: Endpoint, reuse_port: bool) -> socket.socket:
    """A socket with the options of a listener, bound to `endpoint`, not listening yet. Raises OSError."""
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tune(sock)
        sock.bind(endpoint.sockaddr())
    except BaseException:
        sock.close()
        raise
    return sock


def open_listening(endpoint: Endpoint, reuse_port: bool, backlog: int = LISTEN_BACKLOG) -> socket.socket:
    """A socket that listens on `endpoint`. Raises OSError."""
    sock = open_bound(endpoint, reuse_port)
    try:
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bound_multiaddr(sock: socket.socket, endpoint: Endpoint) -> Multiaddr:
    host, port = endpoint.host, sock.getsockname()[1]
    zone = f"/ip6zone/{endpoint.zone}" if endpoint.zone else ""
    name = "ip4" if endpoint.family == socket.AF_INET else "ip6"
    return Multiaddr(f"{zone}/{name}/{host}/tcp/{port}")


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino)


def _open_spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # there is still none; the next shed tries again
        return None
