"""The spans of a host in OpenTelemetry.

Comes in: a TracerProvider. Goes out: a Tracer for `Host(traces=TraceOptions(...))`. Needs opentelemetry-api;
without an SDK the API records no spans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pcore.codes import Direction
from p2pcore.values.version import __version__

try:
    from opentelemetry import context, trace
except ImportError as error:
    raise ImportError(
        "p2pcore.contrib.otel_traces needs opentelemetry-api: pip install opentelemetry-api"
    ) from error

if TYPE_CHECKING:
    from p2pcore.interfaces import Attributes, Span

_KINDS = {Direction.OUTBOUND: trace.SpanKind.CLIENT, Direction.INBOUND: trace.SpanKind.SERVER}


class Tracer:
    """Satisfies interfaces.Tracer. Several hosts may share one.

    Args:
        provider: None: the global one, as it is now.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("p2pcore", __version__, provider)

    def start(self, name: str, direction: Direction, attributes: Attributes, parent: Span | None) -> OtelSpan:
        """A span below `parent`, or below the current one. What a peer begins is the first of its trace."""
        above = context.Context() if direction is Direction.INBOUND else None
        if isinstance(parent, OtelSpan):
            above = trace.set_span_in_context(parent.otel)
        return OtelSpan(self._tracer.start_span(name, above, _KINDS[direction], attributes))


class OtelSpan:
    """Satisfies interfaces.Span.

    Attributes:
        otel: the span of OpenTelemetry.
    """

    __slots__ = ("otel",)

    def __init__(self, otel: trace.Span) -> None:
        self.otel = otel

    def event(self, name: str, attributes: Attributes) -> None:
        """Adds an event."""
        self.otel.add_event(name, attributes)

    def make_current(self) -> None:
        """Makes it the current span, up to the end of the present task."""
        context.attach(trace.set_span_in_context(self.otel))

    def end(self, attributes: Attributes, error: BaseException | None) -> None:
        """Ends it; its status is an error if there is one."""
        self.otel.set_attributes(attributes)
        if error is not None:
            self.otel.set_status(trace.StatusCode.ERROR, str(error))
        self.otel.end()
