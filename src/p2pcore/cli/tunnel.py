"""Joins TCP and UNIX sockets of this machine to streams of peers.

Comes in: local addresses, streams. Goes out: the same bytes both ways. The end of one direction is passed on
and the other goes on; a reset ends both sides at once. At most one read of each direction is in memory.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from p2pcore import Host, P2PError, Stream
from p2pcore.cli.failure import reason
from p2pcore.cli.output import error_line
from p2pcore.cli.params import ProtocolType
from p2pcore.limits import MAX_FORWARDED
from p2pcore.transports.unix import file_of, open_unix, remove_unix

if TYPE_CHECKING:
    from click import Context, Parameter

    LocalParam = click.ParamType["Local"]
    ServeParam = click.ParamType["Serve"]
else:  # generic in the newest click only
    LocalParam = ServeParam = click.ParamType

CHUNK_BYTES = 64 * 1024
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: the peer gets a reset

Joined = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Local:
    """A socket address of this machine: HOST:PORT, or the path of a UNIX socket.

    Attributes:
        host, port: of TCP. path: of a UNIX socket; None: it is TCP.
    """

    host: str = ""
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def connect(self) -> Joined:
        """A connection to it. Raises OSError."""
        if self.path is not None:
            return await asyncio.open_unix_connection(self.path)
        return await asyncio.open_connection(self.host, self.port)


class LocalType(LocalParam):
    """HOST:PORT, [IPV6]:PORT, PORT (of 127.0.0.1) or unix:PATH."""

    name = "address"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Local:
        if isinstance(value, Local):
            return value
        text = str(value)
        if text.startswith("unix:") and len(text) > len("unix:"):
            return Local(path=os.path.abspath(text.removeprefix("unix:")))
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
            self.fail(f"{text!r} is no address: HOST:PORT, PORT or unix:PATH is expected", param, ctx)
        return Local(host or "127.0.0.1", int(port))


@dataclass(frozen=True, slots=True)
class Serve:
    """A protocol, and the local service that speaks it."""

    protocol: str
    local: Local

    def __str__(self) -> str:
        return f"{self.protocol}={self.local}"


class ServeType(ServeParam):
    """PROTOCOL=ADDRESS."""

    name = "protocol=address"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Serve:
        if isinstance(value, Serve):
            return value
        protocol, _, local = str(value).rpartition("=")
        return Serve(ProtocolType().convert(protocol, param, ctx), LocalType().convert(local, param, ctx))


def serve_all(host: Host, served: Iterable[Serve]) -> None:
    """`host` serves each protocol with its local service."""
    for each in served:
        host.set_stream_handler(each.protocol, serve_with(each.local))


async def join(local: Joined, stream: Stream) -> None:
    """Copies both ways until both sides have ended. If one fails, resets the other.

    Raises: NegotiationError: the peer does not speak the protocol.
    """
    reader, writer = local
    both = (asyncio.create_task(_up(reader, stream)), asyncio.create_task(_down(stream, writer)))
    try:
        await asyncio.gather(*both)
        await stream.close()
        writer.close()
    except OSError:  # of either side: StreamReset and ConnectionClosed are some
        pass
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        if not stream.is_closed:
            stream.reset()
        if not writer.is_closing():
            abort(writer)


async def _up(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await stream.write(data)
    await stream.close_write()


async def _down(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def abort(writer: asyncio.StreamWriter) -> None:
    """Ends a local connection with a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()


def serve_with(local: Local) -> Callable[[Stream], Awaitable[None]]:
    """A stream handler that joins each stream to a new connection to `local`."""

    async def handle(stream: Stream) -> None:
        try:
            joined = await local.connect()
        except OSError as error:
            error_line(f"p2pcore: warning: no connection to {local}: {reason(error)}")
            stream.reset()
            return
        await join(joined, stream)

    return handle


class Forwarding:
    """Listens on `local`, and joins each connection to a stream. An async context manager.

    Args:
        local: port 0 takes a free port.
        open_stream: makes the stream of one connection. If it raises, the connection is reset.

    Attributes:
        local: the address, with its real port.
    """

    def __init__(self, local: Local, open_stream: Callable[[], Awaitable[Stream]]) -> None:
        self.local = local
        self._open_stream = open_stream
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._file: tuple[int, int] | None = None

    async def __aenter__(self) -> Forwarding:
        """Raises OSError: it cannot listen there."""
        if self.local.path is not None:
            sock = open_unix(self.local.path, 0o600, MAX_FORWARDED)
            self._file = file_of(self.local.path)
            self._server = await asyncio.start_unix_server(self._accepted, sock=sock)
        else:
            self._server = await asyncio.start_server(self._accepted, self.local.host, self.local.port)
            self.local = Local(self.local.host, self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        if self.local.path is not None:
            remove_unix(self.local.path, self._file)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= MAX_FORWARDED:
            abort(writer)
            return
        self._tasks.add(task)
        try:
            await join((reader, writer), await self._open_stream())
        except asyncio.CancelledError:  # by the end; asyncio reports a callback that ends so as a fault
            pass
        except (OSError, P2PError) as error:
            error_line(f"p2pcore: warning: a connection to {self.local} was not forwarded: {reason(error)}")
        finally:
            self._tasks.discard(task)
            if not writer.is_closing():
                abort(writer)
