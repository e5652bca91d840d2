"""Asks a running node for its status, over its admin socket.

Comes in: the path of the socket. Goes out: statuses. Never waits longer than limits.ADMIN_ANSWER_S.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Self

from p2pcore import limits
from p2pcore.errors import ConnectionClosed, RemoteProtocolError

_ALWAYS = (
    *("kind", "peer_id", "version", "pid", "state", "uptime_s", "addrs"),
    *("conns", "conns_inbound", "streams", "handlers", "cpu_s", "rss_bytes", "fds", "counters", "limits"),
)
"""What every status has; see p2pcore.admin.describe."""


class AdminClient:
    """A conversation with a node. Made by `connect`; close it at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: str | os.PathLike[str]) -> Self:
        """Connects to the admin socket `path`. Raises OSError: no node listens there, or it is not ours."""
        async with asyncio.timeout(limits.ADMIN_ANSWER_S):
            return cls(*await asyncio.open_unix_connection(path, limit=limits.MAX_ADMIN_ANSWER_BYTES))

    async def status(self) -> dict[str, Any]:
        """The status of the node now; see p2pcore.admin.describe.

        Raises:
            ConnectionClosed: the node has ended. TimeoutError: it does not answer.
            RemoteProtocolError: the answer is an error, or is malformed.
        """
        async with asyncio.timeout(2 * limits.ADMIN_ANSWER_S):
            self._writer.write(b'{"do": "status"}\n')
            try:
                line = await self._reader.readline()
            except OSError:
                line = b""
            except ValueError as error:
                raise RemoteProtocolError(
                    f"the answer has over {limits.MAX_ADMIN_ANSWER_BYTES} bytes"
                ) from error
        return _parsed(line)

    def close(self) -> None:
        """Ends the conversation. Idempotent."""
        self._writer.close()


def _parsed(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ConnectionClosed("the node has ended")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("the answer is not JSON: is this the admin socket of a node?") from error
    if not isinstance(answer, dict) or "error" in answer:
        text = answer["error"] if isinstance(answer, dict) else "it is not an object"
        raise RemoteProtocolError(f"the node has no status: {text}")
    if missing := [name for name in _ALWAYS if name not in answer]:
        raise RemoteProtocolError(f"the status has no {missing[0]!r}: is the node of another version?")
    return answer
