"""Two sessions of one muxer, and a program for both: calls, bytes moved by hand, frames put in between.

Comes in: a byte that chooses the muxer, then three bytes a step. As long as no frame was put in, each byte
that is read is the one that was written. Always: only the promised errors, tables that add up, and nothing
that waits for ever once both sessions have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any

from promise import check, run, settle

from _fast.chains import Frame, RawMuxer
from _fast.mplex_chain import Message
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.errors import P2PError
from targets.muxers import adds_up, nothing_counted

KINDS: tuple[Any, ...] = (YamuxSession, MplexSession)
MAX_STREAMS = 8
MAX_TASKS = 32
ROUNDS = 30


class Half:
    """One side's end of a stream."""

    def __init__(self, stream: Any, side: int) -> None:
        self.stream = stream
        self.key = stream.id * 4 + (stream.is_inbound ^ side) * 2
        self.side = side
        self.written = self.read = 0
        self.closed: set[str] = set()

    def content(self, writer: int, start: int, n: int) -> bytes:
        """What `writer` writes at this place."""
        return bytes((self.key + writer + at * 7) % 251 for at in range(start, start + n))


class End(RawMuxer):
    """A session, the streams its side holds, and what of it is under way to the other side."""

    def __init__(self, kind: Any, side: int) -> None:
        self.kind = kind
        super().__init__(side == 0, max_inbound_streams=MAX_STREAMS, max_outbound_streams=MAX_STREAMS)
        self.side = side
        self.halves: list[Half] = []
        self.wire_bytes = b""
        self.session.set_stream_handler(self.hold)

    def hold(self, stream: Any) -> None:
        self.halves.append(Half(stream, self.side))

    def move(self, other: End, most: int | None = None) -> None:
        """What this side has sent arrives there, at most `most` bytes."""
        if not self.lost:
            self.drain()
            self.wire_bytes += self.sent()
        if other.reading and not other.closing:
            arriving, self.wire_bytes = (
                self.wire_bytes[:most],
                b"" if most is None else self.wire_bytes[most:],
            )
            other.deliver(arriving)


class Program:
    """Both ends and the steps that act on them."""

    def __init__(self, kind: Any) -> None:
        self.ends = End(kind, 0), End(kind, 1)
        self.tasks: list[asyncio.Future[Any]] = []
        self.is_clean = True
        self.kind = kind

    def start(self, call: Awaitable[Any]) -> None:
        if len(self.tasks) >= MAX_TASKS:
            self.tasks.pop(0).cancel()
            self.is_clean = False
        self.tasks.append(asyncio.ensure_future(_quiet(call)))

    # -- steps: (end, half or None, a number) ------------------------------------------------------

    async def open(self, end: End, half: Half | None, n: int) -> None:
        async def opened() -> None:
            end.hold(await end.session.open_stream())

        self.start(opened())
        await asyncio.sleep(0)

    async def write(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            size = n * n
            data = half.content(end.side, half.written, size)
            half.written += size
            self.start(half.stream.write(data))
            await asyncio.sleep(0)

    async def read(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            self.start(self.checked(half, half.stream.read(n * n + 1)))
            await asyncio.sleep(0)

    async def checked(self, half: Half, call: Awaitable[bytes]) -> None:
        data = await call
        expected = half.content(1 - half.side, half.read, len(data))
        half.read += len(data)
        check(not self.is_clean or data == expected, "other bytes than were written", half.key, half.read)

    async def close(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            half.closed = {"read", "write"}
            await half.stream.close()

    async def close_write(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            half.closed.add("write")
            await half.stream.close_write()

    async def close_read(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            half.closed.add("read")
            await half.stream.close_read()

    async def reset(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            half.stream.reset(n)

    async def deadline(self, end: End, half: Half | None, n: int) -> None:
        if half is not None:
            half.stream.set_deadline(0 if n & 1 else None)
            await asyncio.sleep(0)

    async def cancel(self, end: End, half: Half | None, n: int) -> None:
        if self.tasks:
            self.tasks.pop(n % len(self.tasks)).cancel()
            await asyncio.sleep(0)
            self.is_clean = False  # a cancelled write has sent a part, or nothing

    async def move(self, end: End, half: Half | None, n: int) -> None:
        """Up to n * n + 1 bytes of what this end has sent arrive."""
        end.move(self.ends[1 - end.side], n * n + 1)

    async def turn(self, end: End, half: Half | None, n: int) -> None:
        await settle(1 + n % 4)

    async def exchange(self, end: End, half: Half | None, n: int) -> None:
        """Everything arrives, both ways."""
        for each in (*self.ends, *self.ends):
            each.move(self.ends[1 - each.side])
            await settle(2)

    async def put_in(self, end: End, half: Half | None, n: int) -> None:
        """A frame that the other side never sent arrives here."""
        self.is_clean = False
        id, what = n & 7, n >> 3
        if self.kind is YamuxSession:
            flags = (0, 1, 4, 8, 2, 5, 9, 12)[what & 7]
            body = b"unsent" if what & 8 else b""
            raw = bytes(Frame(0 if body else 1, flags, id, len(body) or what >> 4, body))
        else:
            raw = bytes(Message(what & 7, id, b"unsent" if what & 8 else b""))
        if end.reading and not end.closing:
            end.deliver(raw)

    async def finish(self, end: End, half: Half | None, n: int) -> None:
        """Seldom: the session ends."""
        if n == 255:
            end.session.abort()
        elif n == 254:
            self.start(end.session.close())
        elif n == 253:
            end.deliver_eof()
        elif n == 252 and self.kind is YamuxSession:
            self.start(end.session.ping())
        await settle(2)

    STEPS = (open, write, read, close, close_write, close_read, reset, deadline, cancel, move, turn, exchange)
    STEPS = (*STEPS, put_in, finish, open, exchange)

    async def step(self, what: int, where: int, n: int) -> None:
        end = self.ends[where & 1]
        half = end.halves[(where >> 1) % len(end.halves)] if end.halves else None
        await self.STEPS[what % 16](self, end, half, n)
        for end in self.ends:
            reason = end.session.close_reason
            check(reason is None or isinstance(reason, P2PError), "another end than promised", reason)

    async def over(self) -> None:
        """What was sent arrives; the tables add up; after the end nothing is left."""
        for _ in range(ROUNDS):
            await self.exchange(self.ends[0], None, 0)
            if not any(end.wire_bytes for end in self.ends):
                break
        self.add_up()
        for end in self.ends:
            end.session.abort()
        await settle()
        for end in self.ends:
            end.wire.abort()
        await settle()
        self.add_up()
        done, waiting = (set(), set()) if not self.tasks else await asyncio.wait(self.tasks, timeout=5)
        check(not waiting, "a call waits though its session has ended", waiting)
        for task in done:
            task.result()
        for end in self.ends:
            for half in end.halves:
                await half.stream.close_read()  # what has come stays for the reader, and counts
            nothing_counted(end.ledger)
            end.near.close()
            end.far.close()

    def add_up(self) -> None:
        for end in self.ends:
            closed = [half.stream for half in end.halves if len(half.closed) == 2]
            adds_up(end.session, [half.stream for half in end.halves], closed)


async def _quiet(call: Awaitable[Any]) -> Any:
    """`call`, whose promised errors are results."""
    try:
        return await call
    except P2PError as error:
        return error


def _steps(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The step, the end and stream it acts on, and a number."""
    for at in range(0, len(data) - 2, 3):
        yield data[at], data[at + 1], data[at + 2]


def pair(data: bytes) -> None:
    """Bit 0 of the first byte chooses the muxer; then three bytes a step."""

    async def main() -> None:
        program = Program(KINDS[data[0] & 1])
        for step in _steps(data[1:601]):
            await program.step(*step)
        await program.over()

    if data:
        run(main())


TARGETS = {"pair": pair}
