"""The listening side of the Python peer: what `listen` serves, and its answers to standard input.

Comes in: streams of the protocols in ../README.md, the lines stat, gc and quit. Goes out: their answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from common import (
    ECHO,
    GREETING_BYTES,
    HALFCLOSE,
    RESET,
    STAT,
    Wrong,
    cpu_s,
    identified,
    out,
    read_pattern,
    release_memory,
    rss,
    write_pattern,
)
from p2pcore import Host, P2PError, Stream, StreamReset


@dataclass(slots=True)
class Server:
    """A host and its counters, which `stat` shows."""

    host: Host
    halfclosed: int = 0
    halfclosed_bad: int = 0
    resets: int = 0
    resets_bad: int = 0
    reset_code: int | None = None

    def stat(self) -> dict[str, Any]:
        return {
            "rss": rss(),
            "cpu": cpu_s(),
            "conns": self.host.swarm.num_conns,
            "tasks": len(asyncio.all_tasks()),
            "halfclosed": self.halfclosed,
            "halfclosed_bad": self.halfclosed_bad,
            "resets": self.resets,
            "resets_bad": self.resets_bad,
            "reset_code": self.reset_code,
        }

    async def serve_halfclose(self, stream: Stream) -> None:
        try:
            await write_pattern(stream, 0, GREETING_BYTES, GREETING_BYTES)
            await read_pattern(stream, 0)
        except (P2PError, Wrong):
            self.halfclosed_bad += 1
            raise
        self.halfclosed += 1

    async def serve_reset(self, stream: Stream) -> None:
        order = await stream.read_exactly(5)
        if order[:1] == b"s":
            stream.reset(int.from_bytes(order[1:], "big"))
            return
        await stream.write(b"r")
        try:
            await stream.read(1)
        except StreamReset as error:
            if error.remote:
                self.resets += 1
                self.reset_code = error.code
                return
        except P2PError:
            pass
        self.resets_bad += 1

    async def serve_stat(self, stream: Stream) -> None:
        conn = stream.conn
        told = None
        if (info := self.host.info_of(conn)) is not None:
            told = identified(info, conn.remote_public_key)
        await stream.write(json.dumps(self.stat() | {"peer": told}).encode() + b"\n")


async def echo(stream: Stream) -> None:
    """The echo as a program writes it, in place of p2pcore's own."""
    while data := await stream.read():
        await stream.write(data)


async def listen(host: Host, bare: bool, handler: bool) -> None:
    """Serves until `quit` or the end of standard input."""
    server = Server(host)
    if handler:
        host.set_stream_handler(ECHO, echo)
    if not bare:
        host.set_stream_handler(HALFCLOSE, server.serve_halfclose)
        host.set_stream_handler(RESET, server.serve_reset)
        host.set_stream_handler(STAT, server.serve_stat)
    await obey(server)


async def obey(server: Server) -> None:
    """Prints the addresses of the host, and answers lines until `quit` or the end of standard input."""
    for addr in server.host.addrs_with_peer:
        print(f"ADDR {addr}", flush=True)
    lines = Lines()
    while (line := await lines.next()) not in (None, "quit"):
        if line == "gc":
            release_memory()
        if line in ("gc", "stat"):
            out(server.stat())


class Lines:
    """Lines of standard input, read on the event loop if it can watch the file, else in a thread."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._in_thread = False
        try:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._readable)
        except OSError:  # a regular file or /dev/null is always readable, so no system call waits for it
            self._in_thread = True

    def _readable(self) -> None:
        line = sys.stdin.buffer.raw.readline().decode()  # type: ignore[attr-defined]
        if not line:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self._queue.put_nowait(line)

    async def next(self) -> str | None:
        """The next line without its end; None at the end of input."""
        line = await (asyncio.to_thread(sys.stdin.readline) if self._in_thread else self._queue.get())
        return line.strip() if line else None
