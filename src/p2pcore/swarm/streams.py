"""The streams of a swarm: opens them, negotiates their protocol, and runs a handler for each inbound stream.

Comes in: muxed connections, streams without a protocol. Goes out: streams that speak an agreed protocol. One
task runs for each inbound stream until its handler returns. This module owns and counts these tasks. Never
reads a byte after the negotiation. Source: libp2p/specs connections, multistream-select.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from p2pcore import codes, limits, options
from p2pcore._fast.loop.ledger import Ledger, Share
from p2pcore._fast.loop.metrics import Protocols
from p2pcore.aio.eager import Begun
from p2pcore.aio.log_fields import of_conn
from p2pcore.errors import (
    DeadlineExceeded,
    LimitExceeded,
    LocalProtocolError,
    NegotiationError,
    NegotiationTimeout,
    P2PError,
    RemoteProtocolError,
)
from p2pcore.resources.options import UNLIMITED, Limits
from p2pcore.resources.refusals import Refusals, exceeded
from p2pcore.swarm.silent_streams import SilentStreams
from p2pcore.upgrade.multistream import STREAM_STEP, handle, propose, select

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, MuxedConn, ProtocolHandler, Stream
    from p2pcore.metrics.access_log import StreamLog
    from p2pcore.metrics.traces import Traces

    Ended = Callable[[BaseException | None], None]

logger = logging.getLogger("p2pcore.streams")


async def open_negotiated(conn: MuxedConn, protocols: str | Sequence[str]) -> Stream:
    """A new stream on `conn` that speaks one of `protocols`. A single protocol is proposed lazily.

    If this is cancelled or fails, the stream is reset. Raises: see Conn.new_stream.
    """
    if not isinstance(protocols, str):
        options.items("protocols", protocols, "protocol ids, or one as a text", str)
    if not protocols:
        raise ValueError("no protocol to propose")
    opening = Begun(conn.open_stream())
    if opening.is_done:  # nearly always; a timer would cost more than the stream
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
        max_per_conn: handlers of one connection that may run at once.
        refused: called when a stream is reset because too many handlers run.
        ledger: counts the handlers of each peer. refusals: hears of each refusal.

    Attributes:
        is_refusing: True: new streams are reset with STREAM_SHUTDOWN, which tells the peer to go elsewhere.
        metrics: counts streams by protocol; None: nobody does.
        access: hears of each stream that a handler gets, and of its end; None: nobody does.
    """

    __slots__ = (
        *("_ended", "_handlers", "_ledger", "_max", "_max_per_conn", "_max_per_peer"),
        *("_long", "_refusals", "_refused", "_running", "_silent", "_tasks", "_uncancelled"),
        *("access", "is_refusing", "metrics"),
    )

    def __init__(
        self,
        max_per_conn: int = limits.MAX_HANDLERS_PER_CONN,
        refused: Callable[[], None] = lambda: None,
        ledger: Ledger | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._max_per_conn = max_per_conn
        self._refused = refused
        self._ledger = ledger or Ledger()
        self._refusals = refusals or Refusals()
        self.set_limits(UNLIMITED)
        self._handlers: dict[str, ProtocolHandler] = {}
        self._uncancelled: set[str] = set()  # protocols whose handlers go on when their stream has failed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._silent = SilentStreams()
        self._running: dict[Conn, int] = {}  # number of running handlers, for connections that have any
        self._long: dict[Conn, set[Stream]] = {}  # negotiations that refuse one proposal after the other
        self._ended: set[Conn] = set()  # the connections in _running that have ended
        self.is_refusing = False
        self.metrics: Protocols | None = None
        self.access: StreamLog | None = None

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that are served, in order of registration."""
        return tuple(self._handlers)

    @property
    def num_running(self) -> int:
        """The number of handlers that run now, including streams that are being negotiated."""
        return len(self._tasks) + len(self._silent.since)

    def set_limits(self, in_force: Limits) -> None:
        """New limits from now on. Handlers that run go on."""
        self._max = in_force.max_streams or sys.maxsize
        self._max_per_peer = in_force.max_handlers_per_peer or sys.maxsize

    def set(self, protocol: str, handler: ProtocolHandler, cancel: bool = True) -> None:
        """Serves `protocol` with `handler`, which replaces an earlier one. Raises ValueError, TypeError.

        Args:
            cancel: whether a handler is cancelled when its stream fails (docs/streams.md).
        """
        options.instance("protocol", protocol, str)
        if not options.is_protocol_id(protocol, limits.MAX_PROTOCOL_ID_BYTES):
            raise ValueError(
                f"protocol id {protocol!r}: expected '/', then up to "
                f"{limits.MAX_PROTOCOL_ID_BYTES - 1} bytes without a newline"
            )
        self._handlers[protocol] = handler
        if cancel:
            self._uncancelled.discard(protocol)
        else:
            self._uncancelled.add(protocol)

    def remove(self, protocol: str) -> None:
        """Stops serving `protocol`. Handlers that run now continue."""
        self._handlers.pop(protocol, None)
        self._uncancelled.discard(protocol)

    def serve(self, stream: Stream) -> None:
        """Negotiates and serves `stream` in a task of its own, once the peer has spoken.

        Every session calls this for a new stream, and again for one that was set aside. A handler counts
        until it returns, even if its stream has ended: a handler that hangs costs memory.
        """
        if self._silent.since and self._silent.remove(stream):
            self._heard(stream)
            return
        if self.is_refusing:
            stream.reset(codes.STREAM_SHUTDOWN)
            return
        conn = stream.conn
        count = self._running.get(conn, 0)
        share = self._ledger.share(conn.remote_peer)
        if (
            count >= self._max_per_conn
            or share.handlers >= self._max_per_peer
            or len(self._tasks) + len(self._silent.since) >= self._max
        ):
            self._refuse(stream, conn, share)
            return
        self._running[conn] = count + 1
        share.handlers += 1
        if stream.set_aside():
            self._silent.add(stream)
        else:
            self._begin(stream, conn, share)

    def _begin(self, stream: Stream, conn: Conn, share: Share) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(self._run(stream, conn, share)))

    def _heard(self, stream: Stream) -> None:
        """The peer has spoken on `stream`, which was set aside, or it has ended."""
        conn = stream.conn
        share = self._ledger.share(conn.remote_peer)
        if stream.close_reason is None and not self.is_refusing:
            self._begin(stream, conn, share)
            return
        stream.reset(codes.STREAM_SHUTDOWN)
        self._left(conn, share)

    def _refuse(self, stream: Stream, conn: Conn, share: Share) -> None:
        self._refused()
        stream.reset(codes.STREAM_RESOURCE_LIMIT_EXCEEDED)
        num, of_peer = self.num_running, share.handlers
        if num >= self._max:
            self._refusals.add("max_streams", lambda: exceeded("max_streams", num, self._max))
        elif of_peer >= self._max_per_peer:
            full = ("max_handlers_per_peer", of_peer, self._max_per_peer)
            self._refusals.add(full[0], lambda: exceeded(*full, str(conn.remote_peer)))

    def refuse(self) -> None:
        """Takes no more streams. Handlers that run go on."""
        self.is_refusing = True

    def shrink(self) -> None:
        """Frees the memory of the tables, if no handler runs. Call it when the last connection has ended."""
        if not self.num_running:
            self._tasks.clear()
            self._running.clear()

    async def close(self) -> None:
        """Takes no more streams, and cancels every handler; each stream is reset. Bounded in time.

        A handler that was cancelled because its stream failed is not cancelled again: it may be cleaning up.
        """
        self.is_refusing = True
        self._silent.close()
        tasks = set(self._tasks)
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=limits.SWARM_CLOSE_TIMEOUT_S)
            self._tasks &= stuck  # one that was cancelled before its first step has never said that it ended
            if stuck:
                logger.warning("%d stream handlers were cancelled and did not end", len(stuck))

    def conn_ended(self, conn: Conn) -> None:
        """`conn` has ended. Its streams still have it as `stream.conn` until their last handler returns."""
        if conn in self._running:
            self._ended.add(conn)
        else:
            conn.session.owner = None  # breaks the reference cycle, so that both are freed

    def _left(self, conn: Conn, share: Share) -> None:
        """A handler of `conn` has returned."""
        share.handlers -= 1
        count = self._running.pop(conn) - 1
        if count:
            self._running[conn] = count
        elif conn in self._ended:
            self._ended.discard(conn)
            conn.session.owner = None
            self._ledger.forget(conn.remote_peer)

    async def _run(self, stream: Stream, conn: Conn, share: Share, ended: Ended | None = None) -> None:
        # Not before it runs: a task that is cancelled before its first step never comes to its `finally`.
        stream.handler_task = task = asyncio.current_task()
        try:
            handler = await self._negotiate(stream)
            if await handler(stream) is None:
                await stream.close()
            else:
                stream.handler_task = None
                if self.access is not None:
                    await stream.wait_closed()  # its record tells of the whole stream
        except Exception as error:
            if _fail(stream, error) and self.metrics is not None:
                self.metrics.row(stream.protocol or "").errors += 1
            self._over(stream, error, ended)
        except BaseException as error:
            stream.reset(codes.STREAM_SHUTDOWN)
            self._over(stream, error, ended)
            raise
        else:
            self._over(stream, None, ended)
        finally:
            self._tasks.discard(cast("asyncio.Task[Any]", task))
            self._left(conn, share)

    def _over(self, stream: Stream, error: BaseException | None, ended: Ended | None) -> None:
        """A handler has returned, or raised `error`. Never keeps it: it refers to the handler's frames."""
        if self.access is not None:
            self.access.stream_ended(stream, error)
        if ended is not None:
            ended(error)

    async def _negotiate(self, stream: Stream) -> ProtocolHandler:
        stream.set_deadline(limits.STREAM_NEGOTIATION_TIMEOUT_S)
        try:
            protocol = await handle(stream, self._handlers, is_long=self._begin_long)
        finally:
            if self._long:
                self._end_long(stream)
        handler = self._handlers.get(protocol)
        if handler is None:
            raise NegotiationError(f"{protocol} was removed during its negotiation")
        stream.set_deadline(None)
        stream.protocol = protocol
        if self._uncancelled and protocol in self._uncancelled:
            stream.handler_task = None
        if self.metrics is not None:
            row = stream.count_in(self.metrics, self.access is not None)
            if self.access is not None:
                self.access.stream_began(stream, row)
        return handler

    def _begin_long(self, stream: Stream) -> None:
        """The negotiation of `stream` refuses one proposal after the other. Raises LimitExceeded: many do."""
        others = self._long.setdefault(stream.conn, set())
        if len(others) >= limits.MAX_LONG_NEGOTIATIONS:
            raise LimitExceeded("MAX_LONG_NEGOTIATIONS", len(others) + 1, limits.MAX_LONG_NEGOTIATIONS)
        others.add(stream)

    def _end_long(self, stream: Stream) -> None:
        others = self._long.get(stream.conn)
        if others is not None:
            others.discard(stream)
            if not others:
                del self._long[stream.conn]


class TracedStreams(StreamServer):
    """The same, with a span for some of the inbound streams, which is current while its handler runs.

    Args:
        traces: makes the spans.
    """

    __slots__ = ("_traces",)

    def __init__(self, traces: Traces, *args: Any) -> None:
        super().__init__(*args)
        self._traces = traces

    async def _run(self, stream: Stream, conn: Conn, share: Share, ended: Ended | None = None) -> None:
        await super()._run(stream, conn, share, self._traces.stream_began(stream))


def _fail(stream: Stream, error: Exception) -> bool:
    """Resets the stream of a handler that raised. An error that no peer can cause is logged as an error.

    Returns: whether it is such an error.
    """
    if stream.protocol is None:
        code = codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
    elif isinstance(error, RemoteProtocolError):
        code = codes.STREAM_PROTOCOL_VIOLATION
    elif isinstance(error, LimitExceeded):
        code = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
    elif isinstance(error, P2PError) and not isinstance(error, LocalProtocolError):
        code = 0
    else:
        about = of_conn(stream.conn)
        text = "%s: the handler of %s raised"
        logger.error(text, stream.conn, stream.protocol, exc_info=error, extra=about)
        stream.reset()
        return True
    if logger.isEnabledFor(logging.DEBUG):
        extra = of_conn(stream.conn)
        logger.debug("%s: stream of %s failed: %r", stream.conn, stream.protocol, error, extra=extra)
    stream.reset(code)
    return False
