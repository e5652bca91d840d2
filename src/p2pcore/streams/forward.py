"""Local TCP and UNIX ports that lead to a protocol of a peer, and streams that lead to a local port.

Comes in: a local multiaddr (/ip4, /ip6 or /unix), and a callable that opens a stream, or inbound streams.
Goes out: one stream for each local connection, and one local connection for each stream. Half closes stay
half closes, and resets stay resets. A sender whose receiver is slow is held back, both ways. A port never has
more connections than it may.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from p2pcore import limits
from p2pcore.errors import AddressError, P2PError
from p2pcore.manet.accept_errors import Backoff, is_temporary
from p2pcore.manet.conn import set_linger, tune
from p2pcore.manet.sockaddr import parse_endpoint, to_multiaddr
from p2pcore.manet.unix_file import file_of, open_unix, remove_unix
from p2pcore.values.multiaddr import Multiaddr

if TYPE_CHECKING:
    from p2pcore.interfaces import ProtocolHandler, Stream

logger = logging.getLogger("p2pcore.streams")

CHUNK_BYTES = 65536
"""What goes on at once, each way: what a read of a stream gives at most."""

OpenStream = Callable[[], Awaitable["Stream"]]
"""Opens the stream for one local connection, for instance `lambda: host.new_stream(peer, protocol)`."""


def forward(
    local: Multiaddr | str,
    open_stream: OpenStream,
    *,
    max_conns: int = limits.FORWARD_MAX_CONNS,
    mode: int = 0o600,
) -> Forward:
    """Listens on `local`, and gives each connection a stream of its own: `async with forward(...) as port:`.

    Args:
        local: /ip4/ADDRESS/tcp/PORT, /ip6/ADDRESS/tcp/PORT or /unix/PATH. Port 0 takes a free one. Whoever
            can connect there speaks with our identity: keep it on a loopback address.
        open_stream: see OpenStream. If it fails, the connection is reset, and that is logged.
        max_conns: local connections at once, 1 or more; others wait in the kernel's queue.
        mode: permissions of a UNIX socket's file; by default only our user may connect. A file that a dead
            socket has left is replaced.

    Raises: AddressError: `local` is something else. Entering the block raises OSError: it cannot be bound.
    """
    return Forward(_Place.parse(local), open_stream, max_conns, mode)


def to_local(
    local: Multiaddr | str, *, connect_timeout: float = limits.TCP_CONNECT_TIMEOUT_S
) -> ProtocolHandler:
    """A stream handler that connects each stream to `local`: `host.set_stream_handler(ID, to_local(...))`.

    Args:
        local: as for `forward`, where a program listens. If it cannot be reached, the stream is reset.
        connect_timeout: seconds.

    `set_stream_handler` bounds how many there may be (`max_streams`, `max_streams_per_peer`).
    Raises: AddressError: `local` is something else.
    """
    place = _Place.parse(local)

    async def serve(stream: Stream) -> None:
        try:
            async with asyncio.timeout(connect_timeout):
                sock = await place.connect()
        except OSError as error:  # TimeoutError is one
            logger.warning("cannot connect %s to %s: %r", stream.protocol, local, error)
            stream.reset()
            return
        await _join(stream, sock)

    return serve


class Forward:
    """A local port that leads to a peer; made by `forward`, an async context manager.

    Attributes:
        local: the address it listens on, with the real port; None before it listens.
    """

    def __init__(self, place: _Place, open_stream: OpenStream, max_conns: int, mode: int) -> None:
        if max_conns < 1:
            raise ValueError(f"max_conns must be at least 1, not {max_conns}")
        self.local: Multiaddr | None = None
        self._place = place
        self._open_stream = open_stream
        self._free = asyncio.Semaphore(max_conns)
        self._mode = mode
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._conns: dict[asyncio.Task[None], socket.socket] = {}

    @property
    def num_conns(self) -> int:
        """Local connections now."""
        return len(self._conns)

    async def __aenter__(self) -> Self:
        if self._socket is not None:
            raise RuntimeError(f"{self.local} is forwarded already: call forward() again for another port")
        self._socket = self._place.listen(self._mode)
        self.local = self._place.bound(self._socket)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops listening, and cuts the connections: both of their ends are reset. Idempotent."""
        tasks = {*self._conns, *([self._accepting] if self._accepting else [])}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._place.unlink()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            await self._free.acquire()
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._free.release()
                if not is_temporary(error):
                    logger.error("the forwarded port %s is lost: %r", self.local, error)
                    return
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            task = loop.create_task(self._carry(sock))
            self._conns[task] = sock
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._conns.pop(task).close()  # it is open if the task was cancelled before it began
        self._free.release()

    async def _carry(self, sock: socket.socket) -> None:
        try:
            stream = await self._open_stream()
        except Exception as error:
            _cut(sock)
            if isinstance(error, P2PError | OSError):
                logger.warning("no stream for a connection to %s: %s", self.local, error)
            else:
                logger.exception("open_stream() for a connection to %s raised", self.local)
            return
        except BaseException:
            _cut(sock)
            raise
        await _join(stream, sock)


# -- both ways --------------------------------------------------------------------------------------


async def _join(stream: Stream, sock: socket.socket) -> None:
    """Carries bytes both ways until both have ended, or one end is lost. Then both are closed."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        tune(sock)
    ways = [
        loop.create_task(_out(loop, stream, sock)),
        loop.create_task(_back(loop, sock, stream)),
    ]
    try:
        await _both(ways)
        await stream.close()
    except (P2PError, OSError) as error:
        logger.debug("a forwarded connection ended: %r", error)
        await _break(ways, stream, sock)
    except BaseException:
        await _break(ways, stream, sock, at_once=True)
        raise
    finally:
        sock.close()


async def _both(ways: list[asyncio.Task[None]]) -> None:
    """Waits until both are done, or raises what the first failed with."""
    done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
    for way in done:
        way.result()


async def _break(
    ways: list[asyncio.Task[None]], stream: Stream, sock: socket.socket, at_once: bool = False
) -> None:
    """One end is lost. The other one is reset, unless all that was to come to it has been passed on.

    A reset would take from it what it has not read yet.
    """
    out, back = (way.done() and not way.cancelled() and way.exception() is None for way in ways)
    for way in ways:
        way.cancel()
    await asyncio.gather(*ways, return_exceptions=True)
    if at_once or not out:
        _cut(sock)
    if at_once or not back:
        stream.reset()
    else:
        await stream.close()


async def _out(loop: asyncio.AbstractEventLoop, stream: Stream, sock: socket.socket) -> None:
    async for chunk in stream:
        await loop.sock_sendall(sock, chunk)
    sock.shutdown(socket.SHUT_WR)


async def _back(loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: Stream) -> None:
    while data := await loop.sock_recv(sock, CHUNK_BYTES):
        await stream.write(data)
    await stream.close_write()


def _cut(sock: socket.socket) -> None:
    """The next close of `sock` resets it. A UNIX socket has no resets: it ends."""
    if sock.family != socket.AF_UNIX:
        set_linger(sock, 0)


# -- the local address ------------------------------------------------------------------------------


class _Place:
    """A local address: `name` is what bind(2) and connect(2) take."""

    def __init__(self, family: int, name: Any) -> None:
        self._family = family
        self._name = name
        self._file: tuple[int, int] | None = None  # of the UNIX socket that listens

    @classmethod
    def parse(cls, local: Multiaddr | str) -> _Place:
        addr = Multiaddr(local)
        path = addr.get("unix")
        if path is not None:
            if addr != Multiaddr(f"/unix{path}"):
                raise AddressError(f"{addr} is not /unix/PATH")
            return cls(socket.AF_UNIX, path)
        endpoint = parse_endpoint(addr)
        if endpoint.peer is not None:
            raise AddressError(f"{addr} has a peer id; /ip4|ip6/ADDRESS/tcp/PORT is expected")
        return cls(endpoint.family, endpoint.sockaddr())

    async def connect(self) -> socket.socket:
        """A socket connected to it. Raises OSError."""
        sock = self._socket()
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._name)
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self, mode: int) -> socket.socket:
        """A socket that listens on it. Raises OSError."""
        if self._family == socket.AF_UNIX:
            sock = open_unix(self._name, mode)
            self._file = file_of(self._name)
            return sock
        sock = self._socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(self._name)
            sock.listen(limits.LISTEN_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def bound(self, sock: socket.socket) -> Multiaddr:
        """The address of a listening socket, with its real port."""
        if self._family == socket.AF_UNIX:
            return Multiaddr(f"/unix{self._name}")
        return to_multiaddr(sock.getsockname())

    def unlink(self) -> None:
        """The file of a UNIX socket goes, if it is still ours."""
        remove_unix(self._name, self._file)

    def _socket(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock
