"""Copies standard input to a stream and the stream to standard output, both at the same time.

Comes in: bytes, with or without an end. Goes out: the same bytes. The end of each direction is passed on, and
the other one goes on. At most one read in each direction is in memory.
"""

from __future__ import annotations

import asyncio
import os

from p2pcore import Stream
from p2pcore.cli.node import Background
from p2pcore.cli.output import OutputFailed

CHUNK_BYTES = 64 * 1024
INPUT, OUTPUT = 0, 1


class Exchange:
    """Sends and receives on one stream. A subclass may look at what passes.

    Attributes:
        sent, received: the number of bytes so far.
    """

    def __init__(self, stream: Stream, is_shown: bool = True) -> None:
        self._stream = stream
        self._is_shown = is_shown
        self.sent = 0
        self.received = 0

    def sending(self, data: bytes) -> None:
        """`data` is about to be sent."""

    def receiving(self, data: bytes) -> None:
        """`data` has come. What this raises ends the exchange."""

    async def run(self) -> None:
        """Returns when both sides have ended. If it fails or is cancelled, the stream is reset."""
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        both = (sending, receiving)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            for task in both:
                if task.done():
                    task.result()
        except BaseException:
            self._stream.reset()
            raise
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        await self._stream.close()

    async def _send(self) -> None:
        source = Background()
        while data := await source.call(lambda: os.read(INPUT, CHUNK_BYTES)):
            self.sending(data)
            self.sent += len(data)
            await self._stream.write(data)
        await self._stream.close_write()

    async def _receive(self) -> None:
        sink = Background()
        while data := await self._stream.read(CHUNK_BYTES):
            self.received += len(data)
            self.receiving(data)
            if self._is_shown:
                await sink.call(lambda data=data: _write_all(data))  # type: ignore[misc]


def _write_all(data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(OUTPUT, rest) :]
    except OSError as error:
        raise OutputFailed from error
