"""A stream as an asyncio.Transport, and as a pair of StreamReader and StreamWriter.

Comes in: an open Stream, an asyncio protocol. Goes out: calls of the protocol, in the order and with the
meaning that asyncio gives them. One task reads; another one exists only while writes wait. It holds no more
than one chunk unread. It tells the protocol when too much is unsent, and aborts one that does not listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.aio.eager import Begun
from p2pcore.errors import AddressError, LimitExceeded
from p2pcore.manet.sockaddr import parse_endpoint, split_tcp

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream
    from p2pcore.values.multiaddr import Multiaddr

READ_BYTES = 65536
"""What data_received gets at most. It is also what a transport that is paused holds."""


def open_pair(
    stream: Stream, limit: int = limits.STREAM_TRANSPORT_HIGH_BYTES
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A reader and a writer of asyncio for `stream`. From now on only they use it.

    Args:
        stream: open and negotiated, and nobody reads it.
        limit: of the reader, in bytes. It reads ahead up to twice as many; `readuntil` finds no longer line.

    The writer closes the stream with `close`, and resets it with `transport.abort()`.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = StreamTransport(stream, protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class StreamTransport(asyncio.Transport):
    """A stream as a transport. It calls `protocol.connection_made` at once, and owns the stream from then on.

    Its extra information: "stream", "conn", "peer_id" (a PeerId), "protocol" (its id), and "peername"
    and "sockname": (host, port) where the connection has IP addresses, else None.

    Args:
        stream: open and negotiated, and nobody reads it.
        protocol: an asyncio.Protocol or BufferedProtocol.
    """

    def __init__(self, stream: Stream, protocol: asyncio.BaseProtocol) -> None:
        super().__init__(_extra(stream))
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._protocol = protocol
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._closed = asyncio.Event()
        self._queue: list[bytes] = []  # written, and not yet given to the stream
        self._unsent = 0  # bytes of the queue, and of the write that waits
        self._sender: asyncio.Task[None] | None = None
        self._low, self._high = limits.STREAM_TRANSPORT_LOW_BYTES, limits.STREAM_TRANSPORT_HIGH_BYTES
        self._is_closing = self._ends = self._is_lost = self._told_to_pause = False
        protocol.connection_made(self)
        self._reader = self._loop.create_task(self._read())

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "closing" if self._is_closing else "open"
        return f"<StreamTransport {state} of {self._stream!r}>"

    def get_protocol(self) -> asyncio.BaseProtocol:
        """What it calls."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on it calls `protocol`."""
        self._protocol = protocol

    # -- reading -------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether the protocol gets what comes."""
        return self._may_read.is_set() and not self._is_closing

    def pause_reading(self) -> None:
        """What comes stays in the stream, and at last with the peer. Idempotent."""
        if not self._is_closing:
            self._may_read.clear()

    def resume_reading(self) -> None:
        """Ends a pause. Idempotent."""
        self._may_read.set()

    async def _read(self) -> None:
        try:
            while True:
                await self._may_read.wait()
                data = await self._stream.read(READ_BYTES)
                await self._may_read.wait()  # it may have been paused meanwhile
                if self._is_closing:
                    return
                if not data:
                    break
                self._deliver(data)
            if not self._call("eof_received"):
                self.close()
                return
            await self._stream.wait_closed()  # so that the protocol hears of a peer that gives up
            if self._stream.close_reason is not None:
                raise copy(self._stream.close_reason)  # the stream keeps it
        except (Exception, asyncio.CancelledError) as error:
            if not self._is_closing:
                self._fail(error if isinstance(error, Exception) else None)

    def _deliver(self, data: bytes) -> None:
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._call("data_received", data)
            return
        at = 0
        while at < len(data) and not self._is_closing:
            buffer = memoryview(self._call("get_buffer", len(data) - at)).cast("B")
            k = min(len(buffer), len(data) - at)
            if not k:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:k] = data[at : at + k]
            at += k
            self._call("buffer_updated", k)

    # -- writing -------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends `data`, or keeps a copy of it until it can be sent.

        If more than limits.STREAM_TRANSPORT_MAX_BYTES wait already, the protocol ignores `pause_writing`: the
        stream is reset, and `connection_lost` gets LimitExceeded.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, a bytearray or a memoryview, not {type(data).__name__}")
        if self._ends:
            raise RuntimeError("write() after write_eof()")
        if not data or self._is_closing:
            return
        most = limits.STREAM_TRANSPORT_MAX_BYTES
        if self._unsent > most:
            self._fail(LimitExceeded("STREAM_TRANSPORT_MAX_BYTES", self._unsent, most))
        elif self._sender is None:
            self._begin(bytes(data))
        else:
            self._queue.append(bytes(data))
            self._unsent += len(data)
            self._maybe_pause_protocol()

    def _begin(self, data: bytes) -> None:
        """Sends `data` at once, or starts a task that waits until it can be sent."""
        try:
            begun = Begun(self._stream.write(data))
        except Exception as error:
            self._fail(error)
            return
        if not begun.is_done:
            self._unsent = len(data)
            self._sender = self._loop.create_task(self._send(begun))
            self._maybe_pause_protocol()

    async def _send(self, begun: Begun[None]) -> None:
        try:
            await begun
            while self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                self._unsent = len(data)
                self._maybe_resume_protocol()
                await self._stream.write(data)
            self._unsent = 0
            self._sender = None
            self._maybe_resume_protocol()  # it may write, and begin anew
        except Exception as error:
            self._fail(error)
        if self._sender is None:
            self._all_sent()

    def _all_sent(self) -> None:
        if self._is_closing:
            self._finish()
        elif self._ends:
            self._now(self._stream.close_write)

    def write_eof(self) -> None:
        """Ends our half, after what waits. Reading goes on. Idempotent."""
        if not self._ends and not self._is_closing:
            self._ends = True
            if self._sender is None:
                self._all_sent()

    def can_write_eof(self) -> bool:
        """True."""
        return True

    # -- flow control of writes ----------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Bytes written that the stream has not taken yet, rounded up to whole writes."""
        return self._unsent

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high): above `high` the protocol is told to pause, and at `low` to go on."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Sets both; what is missing follows from the other one, as in asyncio. Raises ValueError."""
        if high is None:
            high = limits.STREAM_TRANSPORT_HIGH_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), and low at least 0")
        self._low, self._high = low, high
        self._maybe_pause_protocol()

    def _maybe_pause_protocol(self) -> None:
        if self._unsent > self._high and not self._told_to_pause:
            self._told_to_pause = True
            self._call_safely("pause_writing")

    def _maybe_resume_protocol(self) -> None:
        if self._told_to_pause and self._unsent <= self._low:
            self._told_to_pause = False
            self._call_safely("resume_writing")

    # -- the end -------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether it is closed, or will be when all has been sent."""
        return self._is_closing

    def close(self) -> None:
        """Drops what still comes, sends what waits, then ends our half of the stream. Idempotent."""
        if self._is_closing:
            return
        self._is_closing = True
        self._may_read.set()
        self._now(self._stream.close_read)  # a read that waits ends
        if self._sender is None:
            self._finish()

    def abort(self) -> None:
        """Resets the stream at once; what waits is dropped. Idempotent."""
        self._fail(None)

    async def wait_closed(self) -> None:
        """Returns when `connection_lost` has been called. A stream handler awaits it before it returns."""
        await self._closed.wait()

    def _finish(self) -> None:
        """All has been sent."""
        self._now(self._stream.close)
        self._lose_soon(None)

    def _fail(self, error: Exception | None) -> None:
        """The stream is of no use any more."""
        self._is_closing = True
        self._may_read.set()
        self._queue.clear()
        self._unsent = 0
        self._stream.reset()  # whoever waits for it ends
        self._lose_soon(error)

    def _lose_soon(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._closed.set()

    # -- inside --------------------------------------------------------------------------------

    def _now(self, call: Callable[[], Any]) -> None:
        """Ends of streams do not wait."""
        try:
            Begun(call())
        except Exception as error:
            self._fail(error)

    def _call(self, name: str, *args: Any) -> Any:
        """Calls the protocol. What it raises is its own fault: it is reported, and ends the stream."""
        try:
            return getattr(self._protocol, name)(*args)
        except Exception as error:
            self._report(name, error)
            raise

    def _call_safely(self, name: str) -> None:
        try:
            getattr(self._protocol, name)()
        except Exception as error:
            self._report(name, error)

    def _report(self, name: str, error: Exception) -> None:
        context = {
            "message": f"{name}() of a protocol raised",
            "exception": error,
            "transport": self,
            "protocol": self._protocol,
        }
        self._loop.call_exception_handler(context)


def _extra(stream: Stream) -> dict[str, Any]:
    conn = stream.conn
    known: dict[str, Any] = {"stream": stream, "protocol": stream.protocol, "conn": conn}
    if conn is not None:
        known["peer_id"] = conn.remote_peer
        known["peername"] = _socket_name(conn.remote_multiaddr)
        known["sockname"] = _socket_name(conn.local_multiaddr)
    return known


def _socket_name(addr: Multiaddr | None) -> tuple[str, int] | None:
    if addr is None or addr.is_relayed:
        return None
    try:
        endpoint = parse_endpoint(split_tcp(addr)[0])
    except AddressError:
        return None
    return endpoint.host, endpoint.port
