"""A small HTTP/1.1 server for GET: on a TCP port or a UNIX socket, with every bound that such a port needs.

Comes in: requests, as h11 parses them. Goes out: the answer of a function, one for each connection. Bodies of
requests are never read. A connection has METRICS_TIMEOUT_S, and there are MAX_METRICS_CONNS at most.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from p2pcore.errors import ListenError
from p2pcore.limits import MAX_METRICS_CONNS, METRICS_HEAD_BYTES, METRICS_TIMEOUT_S
from p2pcore.manet.unix_file import file_of, open_unix, remove_unix

logger = logging.getLogger("p2pcore.metrics")

_READ_BYTES = 4096
_UNIX = "unix:"
JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    body: bytes
    status: int = 200
    content_type: str = PLAIN


Ask = Callable[[str, str], Awaitable[Answer]]
"""`await ask(path, accept)`: the path without its query, and the header Accept ("" if there is none)."""


def parse_address(address: str) -> tuple[str, int] | str:
    """(host, port), or the path of a UNIX socket.

    Args:
        address: "127.0.0.1:9464", "[::1]:9464", ":9464" (all addresses) or "unix:/run/p2pcore/metrics.sock".

    Raises:
        ValueError: it is none of these.
    """
    if address.startswith(_UNIX) and len(address) > len(_UNIX):
        return address.removeprefix(_UNIX)
    host, colon, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536
    is_ipv6 = host.startswith("[") and host.endswith("]") and ":" in host
    if not colon or not is_port or (not is_ipv6 and set(host) & set(":[]")):
        raise ValueError(f"{address!r} is not an address: expected HOST:PORT, [IPV6]:PORT or unix:PATH")
    return host.strip("[]"), int(port)


class HttpServer:
    """See above.

    Args:
        address: see `parse_address`. Port 0 takes a free port.
        ask: gives the answers. If it raises, the answer is 500.
        mode: permissions of the UNIX socket's file.
    """

    def __init__(self, address: str, ask: Ask, mode: int = 0o600) -> None:
        self._where = parse_address(address)
        if isinstance(self._where, str):
            self._where = os.path.abspath(self._where)
        self._ask = ask
        self._mode = mode
        self._file: tuple[int, int] | None = None  # of the UNIX socket
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, in the form of the argument, with the real port."""
        if isinstance(self._where, str):
            return f"{_UNIX}{self._where}"
        host, port = self._where
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Listens. Raises ListenError: the address cannot be used."""
        try:
            self._server = await self._listen()
        except OSError as error:
            raise ListenError(f"cannot serve metrics on {self.address}: {error}") from error

    async def _listen(self) -> asyncio.Server:
        if isinstance(self._where, str):
            sock = open_unix(self._where, self._mode)
            self._file = file_of(self._where)
            return await asyncio.start_unix_server(self._accepted, sock=sock, limit=METRICS_HEAD_BYTES)
        host, port = self._where
        server = await asyncio.start_server(self._accepted, host or None, port, limit=METRICS_HEAD_BYTES)
        self._where = (host, server.sockets[0].getsockname()[1])
        return server

    async def close(self) -> None:
        """Stops listening and ends every connection. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if isinstance(self._where, str):
            remove_unix(self._where, self._file)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_METRICS_CONNS or self._server is None:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(METRICS_TIMEOUT_S):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError) as error:
            logger.debug("a request for metrics ended: %r", error)
        except Exception:
            logger.exception("answering a request for metrics failed")
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        http = h11.Connection(h11.SERVER, METRICS_HEAD_BYTES)
        try:
            request = await _request(http, reader)
        except h11.RemoteProtocolError as error:
            _write(http, writer, Answer(b"", error.error_status_hint), b"GET")
            request = None
        if request is not None:
            _write(http, writer, await self._answer(request), request.method)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _answer(self, request: Any) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            return Answer(b"", HTTPStatus.METHOD_NOT_ALLOWED)
        path = request.target.decode("latin-1").partition("?")[0]
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        try:
            return await self._ask(path, accept.decode("latin-1"))
        except Exception:
            logger.exception("the answer to %s failed", path)
            return Answer(b"", HTTPStatus.INTERNAL_SERVER_ERROR)


async def _request(http: Any, reader: asyncio.StreamReader) -> Any:
    """The head of the request; None: the client left before it was whole."""
    import h11

    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_READ_BYTES))
    return event if isinstance(event, h11.Request) else None


def _write(http: Any, writer: asyncio.StreamWriter, answer: Answer, method: bytes) -> None:
    import h11

    status = HTTPStatus(answer.status)
    body = answer.body or f"{status.phrase}\n".encode()
    headers = [
        ("content-type", answer.content_type),
        ("content-length", str(len(body))),
        ("connection", "close"),
        ("cache-control", "no-store"),
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("allow", "GET, HEAD"))
    head = h11.Response(status_code=status, headers=headers, reason=status.phrase)
    writer.write(http.send(head) or b"")
    if method != b"HEAD":
        writer.write(body)
