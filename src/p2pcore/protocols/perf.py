"""perf: measures throughput, both ways.

Comes in: streams of /perf/1.0.0, byte counts. Goes out: as many bytes as were requested, and times. The
server is for measurements only, so a host must be told to serve it. It never sends before the client has
ended its half. Source: libp2p/specs perf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pcore import codes, limits
from p2pcore._fast.loop.clock import now
from p2pcore.errors import IncompleteRead, LimitExceeded, RemoteProtocolError

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream

PROTOCOL = "/perf/1.0.0"
HEADER_BYTES = 8
RECEIVE_BYTES = 4 * limits.PERF_BLOCK_BYTES
"""Bytes of one read: as many as the event loop's receive buffer holds."""


async def serve(stream: Stream) -> None:
    """The stream handler: reads a count and all data after it, then writes that many bytes.

    Raises: RemoteProtocolError: the count is incomplete; LimitExceeded: it is over MAX_PERF_DOWNLOAD_BYTES;
        DeadlineExceeded: PERF_TIMEOUT_S is over.
    """
    stream.set_deadline(limits.PERF_TIMEOUT_S)
    try:
        wanted = int.from_bytes(await stream.read_exactly(HEADER_BYTES), "big")
    except IncompleteRead as error:
        raise RemoteProtocolError("a perf request of less than 8 bytes") from error
    if wanted > limits.MAX_PERF_DOWNLOAD_BYTES:
        raise LimitExceeded("MAX_PERF_DOWNLOAD_BYTES", wanted, limits.MAX_PERF_DOWNLOAD_BYTES)
    buffer = bytearray(RECEIVE_BYTES)
    while await stream.readinto(buffer):
        pass
    await _write_zeros(stream, wanted)


async def _write_zeros(stream: Stream, count: int) -> None:
    block = bytes(min(count, limits.PERF_BLOCK_BYTES))
    for _ in range(count // len(block) if block else 0):
        await stream.write(block)
    if block and count % len(block):
        await stream.write(block[: count % len(block)])


class PerfRun:
    """One measurement on a new stream: sends `upload` bytes, then receives `download` bytes.

    Args:
        stream: PROTOCOL is agreed on it, or proposed; closed or reset at the end.
        upload, download: bytes; block: bytes per write.

    Attributes:
        sent, received: bytes so far; another task may read them while it runs.
        upload_s: from the first write to the first byte (or the end) of the answer; download_s: from there to
            the end of the answer. None before that.
    """

    __slots__ = ("_block", "_download", "_stream", "_upload", "download_s", "received", "sent", "upload_s")

    def __init__(
        self, stream: Stream, upload: int, download: int, block: int = limits.PERF_BLOCK_BYTES
    ) -> None:
        if not 0 <= download < 1 << 64 or upload < 0 or block < 1:
            raise ValueError("perf: counts of 0 or more, and blocks of 1 byte or more, are expected")
        self._stream = stream
        self._upload = upload
        self._download = download
        self._block = bytes(block)
        self.sent = 0
        self.received = 0
        self.upload_s: float | None = None
        self.download_s: float | None = None

    async def run(self) -> None:
        """Runs the measurement. Resets the stream on any failure.

        Raises: RemoteProtocolError: fewer or more bytes came than requested; StreamReset,
            ConnectionClosed; ProtocolNotSupported: the peer does not serve perf.
        """
        began = now()
        try:
            await self._send()
            await self._receive(began)
            await self._stream.close()
        except BaseException:
            self._stream.reset(codes.STREAM_PROTOCOL_VIOLATION)
            raise

    async def _send(self) -> None:
        """Sends the count and the first data in one write: js needs 8 bytes in its first read."""
        write, block = self._stream.write, self._block
        size = len(block)
        first = min(self._upload, size)
        await write(self._download.to_bytes(HEADER_BYTES, "big") + block[:first])
        self.sent = first
        while self._upload - self.sent >= size:
            await write(block)
            self.sent += size
        if self.sent < self._upload:
            await write(block[: self._upload - self.sent])
            self.sent = self._upload
        await self._stream.close_write()

    async def _receive(self, began: float) -> None:
        buffer = bytearray(RECEIVE_BYTES)
        count = await self._stream.readinto(buffer)
        first = now()
        self.upload_s = first - began
        while count:
            self.received += count
            if self.received > self._download:
                raise RemoteProtocolError("more bytes came than requested")
            count = await self._stream.readinto(buffer)
        self.download_s = now() - first
        if self.received < self._download:
            raise RemoteProtocolError(f"{self.received} of {self._download} bytes came")


async def perf(stream: Stream, upload: int, download: int) -> PerfRun:
    """Runs one measurement to its end; see PerfRun."""
    run = PerfRun(stream, upload, download)
    await run.run()
    return run
