"""Traces: a span for each dial, upgrade and identify, and for some of the streams.

Comes in: what a host begins and ends, from the event loop. Goes out: spans of the tracer that the program has
given (interfaces.Tracer; contrib.otel_traces has one for OpenTelemetry). A span is let go when it ends, and
a tracer that raises ends nothing. Never a payload, never a key. Off, it does not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from p2pcore import options
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.codes import Direction
from p2pcore.errors import RequestAnswered
from p2pcore.interfaces import Attributes, Tracer

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn, Conn, RawConn, Span, Stream
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

C = TypeVar("C", bound="Conn")

logger = logging.getLogger("p2pcore.traces")

DIAL, UPGRADE, IDENTIFY, STREAM = "p2pcore.dial", "p2pcore.upgrade", "p2pcore.identify", "p2pcore.stream"
_TRANSPORTS = {"websocket": "tcp"}
"""What OpenTelemetry calls the transport of a connection, where it has another word."""


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What is traced, and who takes the spans.

    Attributes:
        tracer: takes the spans; see interfaces.Tracer and p2pcore.contrib.otel_traces.
        streams_every: one of so many streams gets a span; 1: all; 0: none. Dials, upgrades and identify
            always get one: there the tracer says which are recorded.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    tracer: Tracer
    streams_every: int = 0

    def __post_init__(self) -> None:
        options.satisfies("tracer", self.tracer, Tracer)
        options.whole("streams_every", self.streams_every)


class TracedSpan:
    """A span of the tracer. It is let go at its end; then calls do nothing.

    Args:
        begin: starts the span.
        complaints: hears of a tracer that raises.
    """

    __slots__ = ("_complaints", "inner")

    def __init__(self, begin: Callable[[], Span], complaints: Complaints) -> None:
        self._complaints = complaints
        self.inner: Span | None = None
        try:
            self.inner = begin()
        except RAISED:
            complaints.raised("the tracer")

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Something has happened within the span."""
        self._call(lambda span: span.event(name, attributes or {}))

    def make_current(self) -> None:
        """What the present task begins from now on belongs to this span."""
        self._call(lambda span: span.make_current())

    def end(self, attributes: Attributes | None = None, error: BaseException | None = None) -> None:
        """The end, with what is known now. `error`: what it failed with; to be cancelled is no failure."""
        known: dict[str, Any] = {**(attributes or {}), "libp2p.outcome": "success"}
        if isinstance(error, asyncio.CancelledError):
            known["libp2p.outcome"], error = "cancelled", None
        elif error is not None:
            known |= {"libp2p.outcome": "failed", "error.type": type(error).__name__}
        self._call(lambda span: span.end(known, error))
        self.inner = None

    def _call(self, call: Callable[[Span], None]) -> None:
        if self.inner is None:
            return
        try:
            call(self.inner)
        except RAISED:
            self._complaints.raised("a span of the tracer")


class _DialSpan(TracedSpan):
    """The span of a dial, which also says which addresses were dialled: at most MAX_DIAL_ADDRS."""

    __slots__ = ("tried",)

    def __init__(self, begin: Callable[[], Span], complaints: Complaints) -> None:
        super().__init__(begin, complaints)
        self.tried: list[str] = []


class UpgradeSpan(TracedSpan):
    """Satisfies interfaces.UpgradeSpan."""

    __slots__ = ()

    def worked(self, made: CapableConn) -> None:
        """The upgrade has made a connection."""
        state = made.kind.state
        self.end(
            {
                "libp2p.peer_id": str(made.remote_peer),
                "libp2p.security": state.security,
                "libp2p.muxer": state.muxer,
                "libp2p.early_muxer": state.early_muxer,
            }
        )

    def failed(self, error: BaseException) -> None:
        """It has failed, or it answered a plain HTTP request, which is no failure."""
        if isinstance(error, RequestAnswered):
            self.end({"network.protocol.name": "http"})
        else:
            stage = getattr(error, "stage", None)
            self.end({} if stage is None else {"libp2p.stage": str(stage)}, error)


_dial: ContextVar[_DialSpan | None] = ContextVar("p2pcore_dial", default=None)
"""The dial that the present task works for. One that has ended is empty, so a context that lives on keeps
no span."""


class Traces:
    """The traces of one host. Satisfies interfaces.UpgradeTraces.

    Args:
        settings: see TraceOptions.
    """

    def __init__(self, settings: TraceOptions) -> None:
        self._tracer = settings.tracer
        self._every = settings.streams_every
        self._num_streams = 0
        self._complaints = Complaints(logger)

    def _begin(
        self, name: str, direction: Direction, attributes: Attributes, parent: TracedSpan | None = None
    ) -> Callable[[], Span]:
        above = None if parent is None else parent.inner
        return lambda: self._tracer.start(name, direction, attributes, above)

    # -- dials ---------------------------------------------------------------------------------

    async def dial(self, peer: PeerId | None, work: Coroutine[Any, Any, C]) -> C:
        """Awaits `work`, a dial of `peer`, in a span. What it upgrades and dials is below that span."""
        about = {"network.protocol.name": "libp2p"} | _peer(peer)
        above = _dial.get()
        span = _DialSpan(self._begin(DIAL, Direction.OUTBOUND, about, above), self._complaints)
        _dial.set(span)
        try:
            conn = await work
        except BaseException as error:
            span.end({"libp2p.addresses": span.tried}, error)
            raise
        finally:
            _dial.set(above)
        span.end({"libp2p.addresses": span.tried} | _conn(conn))
        return conn

    def addr_worked(self, made: CapableConn) -> None:
        """A dial of one address has made a connection."""
        self._addr("address worked", made.remote_multiaddr, {})

    def addr_failed(self, addr: Multiaddr, error: BaseException) -> None:
        """A dial of one address has failed or was cancelled."""
        self._addr("address failed", addr, {"error.type": type(error).__name__, "error.message": str(error)})

    def _addr(self, event: str, addr: Multiaddr | None, about: dict[str, str]) -> None:
        span = _dial.get()
        if span is None or span.inner is None:
            return
        text = str(addr)
        span.tried.append(text)
        span.event(event, {"libp2p.address": text} | about)

    # -- connections ---------------------------------------------------------------------------

    def upgrade(self, conn: RawConn, direction: Direction) -> UpgradeSpan:
        """The upgrade of `conn` begins."""
        about = {"network.protocol.name": "libp2p"} | _where(conn.remote_multiaddr, conn.transport)
        parent = _dial.get() if direction is Direction.OUTBOUND else None
        return UpgradeSpan(self._begin(UPGRADE, direction, about, parent), self._complaints)

    def identify(self, conn: Conn, protocol: str) -> Callable[[asyncio.Task[None]], None]:
        """We ask the peer of `conn` about itself. Returns: what to call with the task when it is done."""
        about = {"network.protocol.name": protocol} | _conn(conn)
        begin = self._begin(IDENTIFY, Direction.OUTBOUND, about, _dial.get())
        span = TracedSpan(begin, self._complaints)

        def done(task: asyncio.Task[None]) -> None:
            span.end(error=asyncio.CancelledError() if task.cancelled() else task.exception())

        return done

    # -- streams -------------------------------------------------------------------------------

    async def new_stream(self, conn: Conn, opening: Coroutine[Any, Any, Stream]) -> Stream:
        """Awaits `opening` of a stream on `conn`; in a span, if it is one of those that get one."""
        if not self._is_sampled():
            return await opening
        span = TracedSpan(self._begin(STREAM, Direction.OUTBOUND, _conn(conn)), self._complaints)
        try:
            stream = await opening
        except BaseException as error:
            span.end(error=error)
            raise
        span.end(_protocol(stream))
        return stream

    def stream_began(self, stream: Stream) -> Callable[[BaseException | None], None]:
        """The task of an inbound stream begins. What its handler does belongs to the span from now on.

        Returns: what to call when the handler has returned, or raised an error.
        """
        if not self._is_sampled():
            return _nothing
        span = TracedSpan(self._begin(STREAM, Direction.INBOUND, _conn(stream.conn)), self._complaints)
        span.make_current()
        return lambda error: span.end(_protocol(stream), error)

    def _is_sampled(self) -> bool:
        if not self._every:
            return False
        self._num_streams += 1
        return self._num_streams % self._every == 0


def _nothing(error: BaseException | None) -> None: ...


# -- attributes --------------------------------------------------------------------------------


def _peer(peer: PeerId | None) -> dict[str, Any]:
    return {} if peer is None else {"libp2p.peer_id": str(peer)}


def _conn(conn: Conn) -> dict[str, Any]:
    where = _where(conn.remote_multiaddr, conn.state.transport)
    return {"libp2p.conn": conn.id} | _peer(conn.remote_peer) | where


def _protocol(stream: Stream) -> dict[str, Any]:
    return {} if stream.protocol is None else {"network.protocol.name": stream.protocol}


def _where(addr: Multiaddr | None, transport: str) -> dict[str, Any]:
    """The far end, by the semantic conventions of OpenTelemetry. Behind a relay it is the relay's."""
    found: dict[str, Any] = {"network.transport": _TRANSPORTS.get(transport, transport)}
    if addr is not None:
        host = addr.get("ip4") or addr.get("ip6") or addr.get("unix")
        port = addr.get("tcp")
        found |= {} if host is None else {"network.peer.address": host}
        found |= {} if port is None else {"network.peer.port": int(port)}
    return found
