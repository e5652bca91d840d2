"""Chains for fuzz targets: the peer is a list of bytes.

Comes in: bytes in pieces. Goes out: the chain's mailbox, what it sent, why it ended. Closes its sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from promise import settle

from _fast.chains import Cable
from p2pcore._fast.chain.layer import Mailbox
from p2pcore.errors import P2PError


class Line(Cable):
    """A cable whose other end is a list of bytes. Like a real transport, it closes when both halves end."""

    has_ended = False

    def deliver_eof(self) -> None:
        self.has_ended = True
        super().deliver_eof()

    def write_eof(self) -> None:
        super().write_eof()
        if self.has_ended:
            self.close()

    async def finish(self) -> None:
        """Ends the chain; nothing of it is left."""
        self.wire.abort()
        await settle(2)
        self.near.close()
        self.far.close()


async def all_of(box: Mailbox) -> tuple[bytes, str | None]:
    """The bytes a mailbox gives until its end, and the kind of its error."""
    out = b""
    try:
        while data := await box.read(4096):
            out += data
    except P2PError as error:
        return out, type(error).__name__
    return out, None


async def spoken_to(
    pieces: list[bytes], call: Callable[[Mailbox], Awaitable[Any]], *, turns: bool
) -> tuple[Any, bytes, bytes]:
    """Runs `call` on the mailbox of a peer that sends `pieces` and then its end.

    Args:
        turns: whether the loop runs between the pieces; if not, all are there before `call` begins.

    Returns: the result, or the error; what the mailbox holds behind it; what was sent.
    """
    line = Line()
    box = line.mailbox
    if not turns:
        line.deliver(*pieces)
        line.deliver_eof()
    task = asyncio.ensure_future(_result(call, box))
    if turns:
        await asyncio.sleep(0)
        for piece in pieces:
            line.deliver(piece)
            await settle(3)
        line.deliver_eof()
    result = await task
    rest = b""
    if not isinstance(result, Exception):
        rest, _ = await all_of(box)
    await settle(2)
    sent = line.sent()
    await line.finish()
    return result, rest, sent


async def _result(call: Callable[[Mailbox], Awaitable[Any]], box: Mailbox) -> Any:
    try:
        return await call(box)
    except P2PError as error:
        return error
