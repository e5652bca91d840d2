"""Streams of a swarm: opening them negotiated, and running a handler for each that a peer opens.

Comes in: muxed connections, bare streams. Goes out: streams that speak an agreed protocol. One task runs for
each inbound stream while its handler does, owned and counted here; none for a connection.
Never reads a byte past the negotiation. Source: libp2p/specs connections, multistream-select.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from p2pcore import codes, limits
from p2pcore.aio.eager import Begun
from p2pcore.errors import (
    DeadlineExceeded,
    LimitExceeded,
    LocalProtocolError,
    NegotiationError,
    NegotiationTimeout,
    P2PError,
    RemoteProtocolError,
)
from p2pcore.upgrade.multistream import STREAM_STEP, handle, propose, select

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, MuxedConn, ProtocolHandler, Stream

logger = logging.getLogger("p2pcore.streams")


async def open_negotiated(conn: MuxedConn, protocols: str | Sequence[str]) -> Stream:
    """A new stream of `conn` that speaks one of `protocols`; a single one is proposed lazily.

    Cancelled or failed: the stream is reset. Raises as Conn.new_stream does.
    """
    if not protocols:
        raise ValueError("no protocol to propose")
    opening = Begun(conn.open_stream())
    if opening.is_done:  # as nearly always; a timer would cost more than the stream
        stream = await opening
    else:
        async with asyncio.timeout(limits.NEW_STREAM_TIMEOUT_S):
            stream = await opening
    try:
        await _propose(stream, protocols)
    except BaseException:
        stream.reset(codes.STREAM_PROTOCOL_NEGOTIATION_FAILED)
        raise
    return stream


async def _propose(stream: Stream, protocols: str | Sequence[str]) -> None:
    if isinstance(protocols, str) or len(protocols) == 1:
        only = protocols if isinstance(protocols, str) else protocols[0]
        propose(stream, only)
        return
    stream.set_deadline(limits.STREAM_NEGOTIATION_TIMEOUT_S)
    try:
        stream.protocol = await select(stream, protocols)
    except DeadlineExceeded as error:
        late = NegotiationTimeout(f"{STREAM_STEP}: no answer to {', '.join(protocols)} in time")
        late.stage = STREAM_STEP
        raise late from error
    stream.set_deadline(None)


class StreamServer:
    """The handlers of a swarm by protocol, and the tasks that run them.

    Args:
        max_per_conn: streams of one connection served at once.
        refused: called when a stream is reset because too many are being served.
    """

    __slots__ = ("_ended", "_handlers", "_is_closed", "_max_per_conn", "_refused", "_running", "_tasks")

    def __init__(
        self,
        max_per_conn: int = limits.MAX_HANDLERS_PER_CONN,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_per_conn = max_per_conn
        self._refused = refused
        self._handlers: dict[str, ProtocolHandler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[Conn, int] = {}  # handlers of each connection that has any
        self._ended: set[Conn] = set()  # of those connections, the ones that have ended
        self._is_closed = False

    @property
    def protocols(self) -> tuple[str, ...]:
        """What is served, in order of registration."""
        return tuple(self._handlers)

    @property
    def num_running(self) -> int:
        """Handlers running now, those still negotiating included."""
        return len(self._tasks)

    def set(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serves `protocol` with `handler`, in place of an earlier one. Raises ValueError for a bad id."""
        size = len(protocol.encode())
        if not protocol.startswith("/") or "\n" in protocol or size > limits.MAX_PROTOCOL_ID_BYTES:
            raise ValueError(
                f"protocol id {protocol!r}: expected '/', then up to "
                f"{limits.MAX_PROTOCOL_ID_BYTES - 1} bytes without a newline"
            )
        self._handlers[protocol] = handler

    def remove(self, protocol: str) -> None:
        """Serves `protocol` no more; handlers that run go on."""
        self._handlers.pop(protocol, None)

    def serve(self, stream: Stream) -> None:
        """Negotiates and serves `stream` in a task of its own. The callback of every connection.

        A handler counts until it returns, also where its stream ended before: one that hangs is not free.
        """
        if self._is_closed:
            stream.reset(codes.STREAM_SHUTDOWN)
            return
        conn = stream.conn
        count = self._running.get(conn, 0)
        if count >= self._max_per_conn or len(self._tasks) >= limits.MAX_HANDLERS:
            self._refused()
            stream.reset(codes.STREAM_RESOURCE_LIMIT_EXCEEDED)
            return
        self._running[conn] = count + 1
        task = asyncio.get_running_loop().create_task(self._run(stream, conn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def shrink(self) -> None:
        """Gives back the memory of a time with many streams, if there are none now."""
        if not self._tasks:
            self._tasks.clear()
            self._running.clear()

    async def close(self) -> None:
        """Takes no more streams and cancels every handler; each resets its stream. Bounded in time."""
        self._is_closed = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=limits.SWARM_CLOSE_TIMEOUT_S)
            if stuck:
                logger.warning("%d stream handlers ignore their cancellation", len(stuck))

    def conn_ended(self, conn: Conn) -> None:
        """`conn` has ended: its streams give it as `conn` only until the last handler of them returns."""
        if conn in self._running:
            self._ended.add(conn)
        else:
            conn.session.owner = None  # session and connection name each other no more: both are freed

    def _left(self, conn: Conn) -> None:
        """A handler of `conn` has returned."""
        count = self._running.pop(conn) - 1
        if count:
            self._running[conn] = count
        elif conn in self._ended:
            self._ended.discard(conn)
            conn.session.owner = None

    async def _run(self, stream: Stream, conn: Conn) -> None:
        try:
            handler = await self._negotiate(stream)
            if await handler(stream) is None:
                await stream.close()
        except asyncio.CancelledError:
            stream.reset(codes.STREAM_SHUTDOWN)
            raise
        except Exception as error:
            _fail(stream, error)
        finally:
            self._left(conn)

    async def _negotiate(self, stream: Stream) -> ProtocolHandler:
        stream.set_deadline(limits.STREAM_NEGOTIATION_TIMEOUT_S)
        protocol = await handle(stream, self._handlers)
        handler = self._handlers.get(protocol)
        if handler is None:
            raise NegotiationError(f"{protocol} was removed while it was being agreed")
        stream.set_deadline(None)
        stream.protocol = protocol
        return handler


def _fail(stream: Stream, error: Exception) -> None:
    """Resets the stream of a handler that raised; only what is no peer's doing is logged as an error."""
    if stream.protocol is None:
        code = codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
    elif isinstance(error, RemoteProtocolError):
        code = codes.STREAM_PROTOCOL_VIOLATION
    elif isinstance(error, LimitExceeded):
        code = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
    elif isinstance(error, P2PError) and not isinstance(error, LocalProtocolError):
        code = 0
    else:
        logger.error("%s: the handler of %s raised", stream.conn, stream.protocol, exc_info=error)
        stream.reset()
        return
    logger.debug("%s: stream of %s failed: %r", stream.conn, stream.protocol, error)
    stream.reset(code)
