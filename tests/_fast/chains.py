"""Chains for tests: over real sockets, and over a cable that cuts bytes exactly where a test wants.

Comes in: an event loop, options, bytes. Goes out: wires, sessions, frames. Never hides an error: the test
sees what a chain reports.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from harness import HANG_S, eventually, seconds, settle
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore._fast.loop.ledger import Ledger
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxSession

P = ParamSpec("P")

DATA, WU, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
WINDOW = 262144
HEADER_BYTES = 12
KEY_A = bytes(range(32))
KEY_B = bytes(range(32, 64))


# -- frames --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """One yamux frame; `length` is the length in the header, even without a body."""

    type: int
    flags: int
    id: int
    length: int
    body: bytes = b""

    def __bytes__(self) -> bytes:
        head = bytes([0, self.type]) + self.flags.to_bytes(2, "big")
        return head + self.id.to_bytes(4, "big") + self.length.to_bytes(4, "big") + self.body


def frame(kind: int, flags: int, id: int, length: int = 0) -> bytes:
    """A frame without a body."""
    return bytes(Frame(kind, flags, id, length))


def data(id: int, body: bytes, flags: int = 0) -> bytes:
    """A data frame."""
    return bytes(Frame(DATA, flags, id, len(body), body))


def split_frames(raw: bytes) -> tuple[list[Frame], bytes]:
    """Whole frames, and the bytes of the last, incomplete one."""
    out = []
    while len(raw) >= HEADER_BYTES:
        kind, length = raw[1], int.from_bytes(raw[8:12], "big")
        end = HEADER_BYTES + (length if kind == DATA else 0)
        if len(raw) < end:
            break
        flags, id = int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:8], "big")
        out.append(Frame(kind, flags, id, length, raw[HEADER_BYTES:end]))
        raw = raw[end:]
    return out, raw


def frames(raw: bytes) -> list[Frame]:
    """All frames of `raw`, which must end with a whole one."""
    out, rest = split_frames(raw)
    assert not rest, rest[:32]
    return out


# -- a cable: the transport of a wire, moved by hand ----------------------------------------------


class Cable:
    """An asyncio transport under a Wire: one `deliver` is one feed, `sent` is what has left."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.get_running_loop()
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.queue = b""
        self.reading = True
        self.closing = False
        self.lost = False
        self.eof_written = False
        self.aborted = False
        self.wire = Wire(self.loop)
        self.wire.connection_made(self)  # type: ignore[arg-type]

    @property
    def mailbox(self) -> Mailbox:
        assert self.wire.mailbox is not None
        return self.wire.mailbox

    def deliver(self, *chunks: bytes) -> None:
        """Each chunk arrives as one read of the socket (longer chunks in reads of the buffer's size)."""
        for chunk in chunks:
            while chunk and not self.closing:
                with memoryview(self.wire.get_buffer(len(chunk))) as buffer:
                    n = min(len(chunk), len(buffer))
                    buffer[:n] = chunk[:n]
                self.wire.buffer_updated(n)
                chunk = chunk[n:]

    def deliver_eof(self) -> None:
        if not self.closing and not self.wire.eof_received():
            self.close()

    def sent(self) -> bytes:
        """What has been sent since the last call."""
        out = bytearray()
        try:
            while piece := self.far.recv(1 << 20):
                out += piece
        except BlockingIOError:
            pass
        return bytes(out)

    async def all_sent(self) -> bytes:
        """As `sent`, and also all bytes that wait for the socket."""
        await settle()
        out = self.sent()
        while self.queue:
            self.drain()
            await settle()
            out += self.sent()
        return out

    def clog(self) -> int:
        """Fills the socket until it takes no more. Returns: how many of these bytes `sent` must skip."""
        n = 0
        try:
            while True:
                n += self.near.send(bytes(4096))
        except BlockingIOError:
            return n

    def drain(self) -> None:
        """Sends what is queued, and tells the wire when all has gone."""
        try:
            while self.queue:
                self.queue = self.queue[self.near.send(self.queue) :]
        except BlockingIOError:
            return
        if self.eof_written:
            self.near.shutdown(socket.SHUT_WR)
        self.wire.resume_writing()

    # the face of asyncio.Transport that Wire uses

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.near

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high == low == 0

    def get_write_buffer_size(self) -> int:
        return len(self.queue)

    def write(self, piece: bytes) -> None:
        assert not self.eof_written
        if not self.closing:
            self.queue += piece
            self.wire.pause_writing()

    def write_eof(self) -> None:
        self.eof_written = True
        if not self.queue:
            self.near.shutdown(socket.SHUT_WR)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.wire.connection_lost(None)
            self.near.close()

    def __del__(self) -> None:
        self.near.close()
        self.far.close()


class RawMuxer(Cable):
    """A session of the class `kind`, and its peer: frames by hand over a record layer without encryption.

    `ledger` counts it, as a connection of the peer `who`; with `counts` False, not before `count`.
    """

    kind: Callable[..., Any]

    def __init__(
        self,
        is_client: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        ledger: Ledger | None = None,
        who: str = "the peer",
        counts: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(loop)
        box = self.mailbox
        box.insert(PlainChannel())
        self.session = self.kind(is_client, **options)
        box.replace(self.session)
        self.ledger = ledger or Ledger()
        self._who = who
        if counts:
            self.count()

    def count(self) -> None:
        """The ledger counts the session from now on."""
        self.session.account(self.ledger, self.ledger.share(self._who))


class RawYamux(RawMuxer):
    """A yamux session, and its peer."""

    kind = YamuxSession
    session: YamuxSession

    async def answers(self) -> list[Frame]:
        """The frames it has sent since the last call."""
        return frames(await self.all_sent())

    async def open_inbound(self, id: int = 1) -> Stream:
        """A stream the peer opened, accepted."""
        self.deliver(frame(WU, SYN, id))
        stream = await self.session.accept_stream()
        assert Frame(WU, ACK, id, 0) in await self.answers()
        return stream


READS: dict[str, Callable[[Stream], Awaitable[Any]]] = {
    "read": lambda s: s.read(),
    "read_exactly": lambda s: s.read_exactly(4),
    "readinto": lambda s: s.readinto(bytearray(8)),
}
"""The ways to read at least one byte."""


async def opened(count: int = 1, **options: Any) -> tuple[RawYamux, Stream]:
    peer = RawYamux(**options)
    return peer, await peer.open_inbound()


def started(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    return asyncio.ensure_future(awaitable)


async def sent_bodies(peer: RawYamux) -> bytes:
    return b"".join(f.body for f in await peer.answers() if f.type == DATA)


# -- small limits ---------------------------------------------------------------------------------


def with_limits(code: str, **values: float) -> str:
    """Runs `code` (the body of an async function) in a separate process with `values` as limits.

    The compiled modules read their limits once, when they are imported. Returns what it printed.
    """
    head = "import asyncio\nfrom p2pcore import errors, limits\n"
    head += "".join(f"limits.{name} = {value}\n" for name, value in values.items())
    head += "from _fast.chains import *\nfrom harness import *\nasync def main():\n"
    body = head + textwrap.indent(textwrap.dedent(code), "    ") + "\nrun(main())\n"
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", body],
        env=os.environ | {"PYTHONPATH": tests},
        capture_output=True,
        text=True,
        timeout=seconds(2 * HANG_S),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


# -- real sockets ---------------------------------------------------------------------------------


async def socket_pair(tcp: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets."""
    if not tcp:
        near, far = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def wire_on(sock: socket.socket) -> Wire:
    """A wire that reads and writes `sock`."""
    loop = asyncio.get_running_loop()
    wire = Wire(loop)
    await loop.connect_accepted_socket(lambda: wire, sock)  # type: ignore[type-var]
    return wire


async def wire_pair(tcp: bool = False) -> tuple[Wire, Wire]:
    near, far = await socket_pair(tcp)
    return await wire_on(near), await wire_on(far)


def secured(wire: Wire, send: bytes, receive: bytes) -> Mailbox:
    """The mailbox of `wire`, on top of a noise channel."""
    box = wire.mailbox
    assert box is not None
    box.insert(NoiseChannel(send, receive))
    return box


async def session_pair(tcp: bool = False, **options: Any) -> tuple[YamuxSession, YamuxSession]:
    """A client's and a server's session over noise records and a socket."""
    a, b = await wire_pair(tcp)
    key_1, key_2 = os.urandom(32), os.urandom(32)
    box_a, box_b = secured(a, key_1, key_2), secured(b, key_2, key_1)
    client, server = YamuxSession(True, **options), YamuxSession(False, **options)
    box_a.replace(client)
    box_b.replace(server)
    return client, server


async def stream_pair(client: YamuxSession, server: YamuxSession) -> tuple[Stream, Stream]:
    opened = await client.open_stream()
    return opened, await server.accept_stream()


async def closed(*sessions: YamuxSession) -> None:
    """Closes, and waits until the sockets are gone."""
    for session in sessions:
        await session.close()


async def ended(session: YamuxSession) -> BaseException:
    """Waits for the end of a session and returns its reason."""
    await eventually(lambda: session.is_closed)
    assert session.close_reason is not None
    return session.close_reason
