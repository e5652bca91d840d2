"""Serves the status of a node on a UNIX socket: a JSON object on each line asks, one line answers.

Comes in: {"do": "status"}. Goes out: the status, or {"error": TEXT}. Only who may open the file (mode 0600)
can ask. Requests, clients and waits are bounded. It changes nothing in the node.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

from p2pcore import limits
from p2pcore.admin.status import describe
from p2pcore.host import Host
from p2pcore.manet.unix_file import file_of, open_unix, remove_unix

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("p2pcore.admin")

MODE = 0o600


class Described(Protocol):
    """A node of several processes: a Supervisor."""

    async def describe(self) -> dict[str, Any]:
        """Its status, as values that JSON can hold."""


class AdminServer:
    """The admin socket of a node. An async context manager.

    Args:
        node: a Host or a Supervisor.
        path: the file of the socket. A file that nobody listens on is replaced.
    """

    def __init__(self, node: Host | Described, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._describe = _describer(node)
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._file: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listens. Raises OSError: somebody listens there already, or the file cannot be made."""
        sock = open_unix(self.path, MODE, limits.MAX_ADMIN_CLIENTS)
        self._file = file_of(self.path)
        self._server = await asyncio.start_unix_server(
            self._accepted, sock=sock, limit=limits.MAX_ADMIN_REQUEST_BYTES
        )

    async def close(self) -> None:
        """Ends every conversation and removes the file. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        remove_unix(self.path, self._file)
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._server is None:  # closed in the turn in which the client came
            writer.close()
            return
        if len(self._clients) >= limits.MAX_ADMIN_CLIENTS:
            writer.write(_line({"error": f"{limits.MAX_ADMIN_CLIENTS} clients are connected already"}))
            writer.close()
            return
        self._clients.add(task)
        try:
            await self._converse(reader, writer)
        except asyncio.CancelledError:  # by `close`; asyncio reports a callback that ends so as a fault
            pass
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: a line was too long
            logger.debug("an admin client was given up: %r", error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(limits.ADMIN_IDLE_S):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            answer = await self._answer(line)
            async with asyncio.timeout(limits.ADMIN_ANSWER_S):
                writer.write(_line(answer))
                await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "a request is one JSON object on a line"}
        if not isinstance(request, dict) or request.get("do") != "status":
            return {"error": 'the only request is {"do": "status"}'}
        try:
            async with asyncio.timeout(limits.ADMIN_ANSWER_S):
                return await self._describe()
        except TimeoutError:
            return {"error": f"no status in {limits.ADMIN_ANSWER_S:g} s"}


def _describer(node: Host | Described) -> Callable[[], Awaitable[dict[str, Any]]]:
    if not isinstance(node, Host):
        return node.describe

    async def of_host() -> dict[str, Any]:
        return describe(node)

    return of_host


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
