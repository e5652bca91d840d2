"""The spans of a host, as the SDK of OpenTelemetry exports them, and with tracers of other kinds.

Comes in: hosts on the loopback, an exporter in memory. Goes out: names, parents, attributes, events.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from harness import eventually, looped
from hosts import BARE, pair
from p2pcore import DialError, Host, PrivateKey, RemoteProtocolError, Stream, StreamReset, TraceOptions
from p2pcore.contrib.otel_traces import Tracer
from p2pcore.metrics import traces

SERVER, CLIENT = trace.SpanKind.SERVER, trace.SpanKind.CLIENT
NOBODY = "/ip4/127.0.0.1/tcp/1"
"""Nobody listens there."""
STAGES = ["transport handshake", "security negotiation", "security handshake", "muxer negotiation"]


class Spans:
    """What one host has exported, and the options that make it do so."""

    def __init__(self, streams_every: int = 0) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.options = TraceOptions(Tracer(self.provider), streams_every)

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def of(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all() if each.name == name]


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[str]:
    return [each.name for each in span.events]


def is_below(span: ReadableSpan, above: ReadableSpan) -> bool:
    return span.parent is not None and above.context is not None and span.parent == above.context


@looped
async def test_a_dial_has_its_upgrade_and_identify_below_it() -> None:
    spans = Spans()
    async with pair({"identify": True}, {"identify": True, "traces": spans.options}) as both:
        await eventually(lambda: spans.of("p2pcore.identify"))
        (dial,), (upgrade,), (identify,) = (
            spans.of(f"p2pcore.{name}") for name in ("dial", "upgrade", "identify")
        )
        addr, port = both.server.addrs[0], int(both.server.addrs[0]["tcp"])
        far = {
            "network.transport": "tcp",
            "network.peer.address": "127.0.0.1",
            "network.peer.port": port,
            "network.protocol.name": "libp2p",
            "libp2p.peer_id": str(both.server.peer_id),
            "libp2p.outcome": "success",
        }
        assert about(dial) == far | {"libp2p.addresses": (str(addr),), "libp2p.conn": both.conn.id}
        assert events(dial) == ["address worked"]
        assert about(upgrade) == far | {
            "libp2p.security": "/noise",
            "libp2p.muxer": "/yamux/1.0.0",
            "libp2p.early_muxer": True,
        }
        assert events(upgrade) == STAGES
        protocol = {"network.protocol.name": "/ipfs/id/1.0.0", "libp2p.conn": both.conn.id}
        assert about(identify) == far | protocol
        assert is_below(upgrade, dial)
        assert is_below(identify, dial)
        assert {each.kind for each in (dial, upgrade, identify)} == {CLIENT}
        assert {each.status.status_code for each in (dial, upgrade, identify)} == {trace.StatusCode.UNSET}


@looped
async def test_what_a_peer_begins_is_the_first_of_its_trace() -> None:
    spans = Spans(streams_every=1)
    tracer = spans.provider.get_tracer("test")

    async def serve(stream: Stream) -> None:
        with tracer.start_as_current_span("of the handler"):
            await stream.write(await stream.read())

    with tracer.start_as_current_span("start of the program"):
        async with pair({"traces": spans.options}) as both:
            both.server.set_stream_handler("/test/1", serve)
            stream = await both.conn.new_stream("/test/1")
            await stream.write(b"x")
            await stream.read()
            await eventually(lambda: spans.of("p2pcore.stream"))
            (upgrade,), (served,), (own,) = map(
                spans.of, ("p2pcore.upgrade", "p2pcore.stream", "of the handler")
            )
            assert upgrade.parent is None
            assert served.parent is None
            assert is_below(own, served)
            assert (upgrade.kind, served.kind) == (SERVER, SERVER)
            assert about(served)["network.protocol.name"] == "/test/1"
            assert about(served)["libp2p.conn"] == both.server_conn.id
            assert about(served)["libp2p.peer_id"] == str(both.dialer.peer_id)


@looped
async def test_what_we_begin_is_below_the_span_of_the_caller() -> None:
    spans = Spans(streams_every=1)
    tracer = spans.provider.get_tracer("test")
    async with Host(echo=True, **BARE) as server, Host(listen=(), traces=spans.options, **BARE) as dialer:
        with tracer.start_as_current_span("request"):
            await dialer.echo(server.addrs_with_peer[0], b"x")
            assert trace.get_current_span().is_recording(), "a dial changes no context of the caller"
    (request,), (dial,), (stream,) = map(spans.of, ("request", "p2pcore.dial", "p2pcore.stream"))
    assert is_below(dial, request)
    assert is_below(stream, request)
    assert stream.kind is CLIENT


@looped
async def test_a_dial_says_each_address_that_failed() -> None:
    spans = Spans()
    async with Host(**BARE) as server, Host(listen=(), traces=spans.options, **BARE) as dialer:
        await dialer.swarm.dial_peer(server.peer_id, [NOBODY, server.addrs[0]])
        (dial,) = spans.of("p2pcore.dial")
        assert sorted(events(dial)) == ["address failed", "address worked"]
        assert set(about(dial)["libp2p.addresses"]) == {NOBODY, str(server.addrs[0])}
        (failed,) = (each for each in dial.events if each.name == "address failed")
        assert failed.attributes is not None
        assert failed.attributes["error.type"] == "ConnectionRefusedError"
        other = PrivateKey.generate().peer_id()
        with pytest.raises(DialError):
            await dialer.swarm.dial_peer(other, [server.addrs[0]])
        dial, upgrade = spans.of("p2pcore.dial")[1], spans.of("p2pcore.upgrade")[1]
        for span, kind in ((dial, "DialError"), (upgrade, "PeerIdMismatch")):
            assert (about(span)["error.type"], about(span)["libp2p.outcome"]) == (kind, "failed")
            assert span.status.status_code is trace.StatusCode.ERROR
        assert about(upgrade)["libp2p.stage"] == "security handshake"
        assert is_below(upgrade, dial)


@looped
async def test_a_dial_that_is_cancelled_is_no_failure() -> None:
    spans = Spans()
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with Host(listen=(), traces=spans.options, **BARE) as dialer:
        dialling = asyncio.ensure_future(dialer.connect(f"/ip4/127.0.0.1/tcp/{port}"))
        await eventually(lambda: dialer.swarm.dialer.num_dialling)
        await asyncio.sleep(0)
        dialling.cancel()
        with suppress(asyncio.CancelledError):
            await dialling
        (dial,) = spans.of("p2pcore.dial")
        assert about(dial)["libp2p.outcome"] == "cancelled"
        assert dial.status.status_code is trace.StatusCode.UNSET
    silent.close()


@looped
async def test_an_open_connection_is_no_dial() -> None:
    spans = Spans()
    async with pair({}, {"traces": spans.options}) as both:
        for _ in range(3):
            await both.dialer.connect(both.server.peer_id)
        assert len(spans.of("p2pcore.dial")) == 1


@looped
async def test_streams_are_sampled_both_ways() -> None:
    near, far = Spans(streams_every=3), Spans(streams_every=2)
    async with pair({"echo": True, "traces": far.options}, {"traces": near.options}) as both:
        for _ in range(12):
            await both.dialer.echo(both.conn, b"x")
        await eventually(lambda: len(far.of("p2pcore.stream")) == 6)
        assert len(near.of("p2pcore.stream")) == 4
    none = Spans()
    async with pair({"echo": True, "traces": none.options}) as both:
        await both.dialer.echo(both.conn, b"x")
    assert none.of("p2pcore.stream") == []


@looped
async def test_a_handler_that_raises_is_an_error_of_its_span() -> None:
    spans = Spans(streams_every=1)

    async def refuse(stream: Stream) -> None:
        raise RemoteProtocolError("bad request")

    async with pair({"traces": spans.options}) as both:
        both.server.set_stream_handler("/test/1", refuse)
        stream = await both.conn.new_stream("/test/1")
        with pytest.raises(StreamReset):
            await stream.read()
        await eventually(lambda: spans.of("p2pcore.stream"))
        (span,) = spans.of("p2pcore.stream")
        assert about(span)["error.type"] == "RemoteProtocolError"
        assert span.status.description == "bad request"


class Kept:
    """A tracer whose spans can be counted while they live, and that raises where it is told to."""

    def __init__(self, raises: str = "") -> None:
        self.raises = raises
        self.living: weakref.WeakSet[Any] = weakref.WeakSet()
        self.num_started = self.num_ended = 0

    def start(self, name: str, direction: Any, attributes: Any, parent: Any) -> Any:
        self.num_started += 1
        self._may_raise("start")
        span = KeptSpan(self)
        self.living.add(span)
        return span

    def _may_raise(self, where: str) -> None:
        if self.raises == where:
            raise asyncio.CancelledError if sys.version_info.minor % 2 else RuntimeError


class KeptSpan:
    def __init__(self, tracer: Kept) -> None:
        self.tracer = tracer

    def event(self, name: str, attributes: Any) -> None:
        self.tracer._may_raise("event")

    def make_current(self) -> None:
        self.tracer._may_raise("make_current")

    def end(self, attributes: Any, error: Any) -> None:
        self.tracer.num_ended += 1
        self.tracer._may_raise("end")


@looped
async def test_no_span_outlives_its_end() -> None:
    near, far = Kept(), Kept()
    async with pair(
        {"identify": True, "echo": True, "traces": TraceOptions(far, 1)},
        {"identify": True, "traces": TraceOptions(near, 1)},
    ) as both:
        await both.dialer.echo(both.conn, b"x")
        await both.dialer.identify(both.conn)
        await both.server.identify(both.server_conn)
        for tracer in (near, far):
            await eventually(lambda tracer=tracer: tracer.num_started == tracer.num_ended >= 4)  # type: ignore[misc]
        await asyncio.sleep(0)
        gc.collect()
        assert both.conn.num_streams == 0
        assert [len(near.living), len(far.living)] == [0, 0], "an open connection keeps a span"


@pytest.fixture(name="complaints")
def _complaints(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.ERROR, "p2pcore.traces"):
        yield caplog


@pytest.mark.parametrize("where", ["start", "event", "make_current", "end"])
@looped
async def test_a_tracer_that_raises_ends_nothing(where: str, complaints: pytest.LogCaptureFixture) -> None:
    tracer = TraceOptions(Kept(where), 1)
    options = {"identify": True, "echo": True, "traces": tracer}
    async with pair(options, options) as both:
        for _ in range(3):
            assert await both.dialer.echo(both.conn, b"x") == b"x"
        assert (await both.dialer.identify(both.conn)).peer == both.server.peer_id
        await both.server.identify(both.server_conn)
    records = [each for each in complaints.records if each.name == "p2pcore.traces"]
    assert 1 <= len(records) <= 2, "each host says it once"


@looped
async def test_off_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(traces.TracedSpan, "__init__", lambda *args: made.append(args))
    async with pair({"identify": True, "echo": True}, {"identify": True}) as both:
        await both.dialer.echo(both.conn, b"x")
        await both.dialer.identify(both.conn)
    assert made == []


def test_the_options_are_checked() -> None:
    with pytest.raises(TypeError, match=r"tracer must be a Tracer .*start"):
        TraceOptions(object())  # type: ignore[arg-type]
    for wrong in (-1, 1.5, True):
        with pytest.raises((TypeError, ValueError), match="streams_every must be"):
            TraceOptions(Tracer(), wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="traces must be"):
        Host(traces=Tracer())  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        TraceOptions(Tracer()).streams_every = 1  # type: ignore[misc]


def test_without_the_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "p2pcore.contrib.otel_traces")
    with pytest.raises(ImportError, match="pip install opentelemetry-api"):
        __import__("p2pcore.contrib.otel_traces")
