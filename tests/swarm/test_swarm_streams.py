"""Inbound streams: negotiated in bounded time, served in one task each, reset for a reason."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from harness import eventually, looped, run, seconds
from hosts import pair
from p2pcore import Conn, Direction, Stream, codes, limits
from p2pcore.errors import (
    LimitExceeded,
    NegotiationError,
    NegotiationTimeout,
    ProtocolNotSupported,
    RemoteProtocolError,
    StreamReset,
)
from p2pcore.upgrade.multistream import HEADER, encode


async def drain(stream: Stream) -> None:
    while await stream.read():
        pass


async def request(conn: Conn, protocols: str | list[str]) -> bytes:
    stream = await conn.new_stream(protocols)
    await stream.write(b"request")
    return await stream.read()


async def reset_code_of(stream: Stream) -> int:
    """The code the peer resets `stream` with."""
    with pytest.raises(StreamReset) as caught:
        await drain(stream)
    assert caught.value.remote
    return caught.value.code


@looped
async def test_a_handler_gets_the_stream_negotiated_and_knows_its_connection() -> None:
    seen: list[Any] = []

    async def handler(stream: Stream) -> None:
        seen.extend((stream.protocol, stream.direction, stream.conn, await stream.read()))
        await stream.write(b"answer")

    async with pair() as p:
        p.server.set_stream_handler("/x", handler)
        stream = await p.conn.new_stream("/x")
        await stream.write(b"question")
        assert await stream.read() == b"answer"
        assert await stream.read() == b"", "the stream is closed when the handler returns"
        assert seen == ["/x", Direction.INBOUND, p.server_conn, b"question"]
        assert (stream.protocol, stream.conn) == ("/x", p.conn)


@pytest.mark.parametrize("proposed", [["/b"], ["/a", "/b"], ["/b", "/a"]])
@looped
async def test_the_first_protocol_the_peer_has_is_agreed(proposed: list[str]) -> None:
    async def handler(stream: Stream) -> None:
        await stream.write((stream.protocol or "").encode())

    async with pair() as p:
        p.server.set_stream_handler("/b", handler)
        stream = await p.conn.new_stream(proposed)
        assert await stream.read() == b"/b"
        assert stream.protocol == "/b"


@looped
async def test_a_protocol_nobody_serves_is_not_supported() -> None:
    async with pair() as p:
        with pytest.raises(ProtocolNotSupported):
            await p.conn.new_stream(["/a", "/b"])
        lazy = await p.conn.new_stream("/a")
        with pytest.raises(ProtocolNotSupported):
            await lazy.read()


@looped
async def test_a_removed_handler_serves_no_more() -> None:
    async with pair({"echo": True}) as p:
        assert await p.dialer.echo(p.conn, b"x") == b"x"
        p.server.remove_stream_handler("/echo/1.0.0")
        with pytest.raises(ProtocolNotSupported):
            await p.dialer.echo(p.conn, b"x")


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n" * 9, HEADER + b"\x00", HEADER + b"\xff\xff\xff"])
@looped
async def test_bad_negotiation_is_reset_with_its_code(data: bytes) -> None:
    async with pair() as p:
        stream = await p.conn.open_stream()
        await stream.write(data)
        assert await reset_code_of(stream) == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
        await eventually(lambda: not p.server.swarm.num_handlers_running)


@looped
async def test_negotiation_that_does_not_go_on_is_reset_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_NEGOTIATION_TIMEOUT_S", 0.05)

    async with pair() as p:
        stream = await p.conn.open_stream()
        await stream.write(HEADER[:5])
        assert await reset_code_of(stream) == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED


@looped
async def test_few_negotiations_of_a_connection_may_refuse_one_proposal_after_the_other() -> None:
    bad = HEADER + b"".join(encode(f"/x/{number}") for number in range(limits.PROPOSALS_AT_ONCE + 1))
    async with pair() as p:
        streams = [await p.conn.open_stream() for _ in range(limits.MAX_LONG_NEGOTIATIONS + 10)]
        for stream in streams:
            await stream.write(bad)
        await eventually(lambda: sum(stream.is_closed for stream in streams) == 10)
        for stream in streams:
            stream.reset()
        await eventually(lambda: p.server.swarm.num_handlers_running == 0)


@looped
async def test_a_client_with_a_few_protocols_opens_hundreds_of_streams_at_once() -> None:
    async with pair() as p:
        p.server.set_stream_handler("/known", drain)
        proposals = [f"/x/{number}" for number in range(limits.PROPOSALS_AT_ONCE - 1)]
        opened = await asyncio.gather(*(p.conn.new_stream([*proposals, "/known"]) for _ in range(200)))
        assert {stream.protocol for stream in opened} == {"/known"}
        for stream in opened:
            stream.reset()


@pytest.mark.parametrize("proposed", ["/x", ["/x", "/y"]])
@looped
async def test_a_peer_that_never_answers_a_proposal_is_given_up_in_time(
    proposed: str | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_NEGOTIATION_TIMEOUT_S", 0.05)

    async with pair() as p:
        kept: list[Stream] = []
        p.server_conn.session.set_stream_handler(kept.append)
        with pytest.raises(NegotiationTimeout) as caught:
            await request(p.conn, proposed)
        assert caught.value.stage == "stream protocol"
        assert "/x" in str(caught.value)
        assert await reset_code_of(kept[0]) == codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
        assert p.conn.num_streams == 0


@looped
async def test_streams_closed_before_a_mute_peer_answers_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STREAM_NEGOTIATION_TIMEOUT_S", 0.05)

    async with pair() as p:
        kept: list[Stream] = []
        p.server_conn.session.set_stream_handler(kept.append)
        for _ in range(200):
            stream = await p.conn.new_stream("/x")
            await stream.write(b"note")
            await stream.close()
        await eventually(lambda: len(kept) == 200 and p.conn.num_streams == 0)
        await eventually(lambda: all(each.is_closed for each in kept))


@looped
async def test_a_busy_client_of_a_slow_and_honest_peer_loses_nothing() -> None:
    """3,000 notes, each stream closed at once, 500 under way; the peer negotiates each a while later."""
    notes: list[bytes] = []

    async def keep(stream: Stream) -> None:
        notes.append(await stream.read())
        assert await stream.read() == b""

    async with pair() as p:
        p.server.set_stream_handler("/note", keep)
        loop = asyncio.get_running_loop()
        serve: Any = p.server.swarm._streams.serve
        p.server_conn.session.set_stream_handler(
            lambda stream: loop.call_later(seconds(0.7), serve, stream) and None
        )
        for number in range(3000):
            stream = await p.conn.new_stream("/note")
            await stream.write(b"%d" % number)
            await stream.close()
            if p.conn.num_streams >= 500:
                await eventually(lambda: p.conn.num_streams < 500)
        await eventually(lambda: len(notes) == 3000, timeout=60)
        assert sorted(map(int, notes)) == list(range(3000))
        await eventually(lambda: p.conn.num_streams == 0)


@looped
async def test_an_agreed_stream_has_no_deadline_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_NEGOTIATION_TIMEOUT_S", seconds(0.3))

    async with pair({"echo": True}) as p:
        stream = await p.conn.new_stream(["/x", "/echo/1.0.0"])
        await asyncio.sleep(seconds(0.7))
        await stream.write(b"still here")
        assert await stream.read() == b"still here"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("a bug"), 0),
        (RemoteProtocolError("nonsense"), codes.STREAM_PROTOCOL_VIOLATION),
        (LimitExceeded("x", 2, 1), codes.STREAM_RESOURCE_LIMIT_EXCEEDED),
        (NegotiationError("a request inside failed"), 0),
    ],
)
def test_a_handler_that_raises_resets_its_stream_and_no_other(
    error: Exception, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def handler(stream: Stream) -> None:
            raise error

        async with pair({"echo": True}) as p:
            p.server.set_stream_handler("/x", handler)
            other = await p.conn.new_stream("/echo/1.0.0")
            stream = await p.conn.new_stream("/x")
            with pytest.raises(StreamReset) as caught:
                await stream.read()
            assert caught.value.code == code
            await other.write(b"fine")
            assert await other.read() == b"fine"

    with caplog.at_level(logging.DEBUG, "p2pcore.streams"):
        run(main())
    levels = [record.levelno for record in caplog.records if record.name == "p2pcore.streams"]
    expected = logging.ERROR if isinstance(error, RuntimeError) else logging.DEBUG
    assert levels[:1] == [expected]


@looped
async def test_closing_cancels_handlers_and_tells_their_peers() -> None:
    ended: list[str] = []

    async def handler(stream: Stream) -> None:
        try:
            await stream.read()
        finally:
            ended.append("yes")

    async with pair() as p:
        p.server.set_stream_handler("/x", handler)
        stream = await p.conn.new_stream("/x")
        await eventually(lambda: p.server.swarm.num_handlers_running == 1)
        await p.server.close()
        assert ended == ["yes"]
        assert p.server.swarm.num_handlers_running == 0
        assert await reset_code_of(stream) == codes.STREAM_SHUTDOWN


@looped
async def test_closing_does_not_wait_for_a_handler_that_ignores_its_cancellation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "SWARM_CLOSE_TIMEOUT_S", 0.05)

    release = asyncio.Event()

    async def handler(stream: Stream) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with pair() as p:
        p.server.set_stream_handler("/x", handler)
        await p.conn.new_stream("/x")
        await eventually(lambda: p.server.swarm.num_handlers_running == 1)
        await p.server.close()
        release.set()
        await eventually(lambda: not p.server.swarm.num_handlers_running)
    assert "were cancelled and did not end" in caplog.text


@looped
async def test_a_handler_may_close_the_host_it_runs_on() -> None:
    async with pair() as p:

        async def handler(stream: Stream) -> None:
            await p.server.close()

        p.server.set_stream_handler("/x", handler)
        stream = await p.conn.new_stream("/x")
        with pytest.raises(StreamReset):
            await stream.read()
        await eventually(lambda: p.server.swarm.is_closed and not p.server.swarm.num_conns)


@looped
async def test_a_handler_has_its_connection_until_it_returns_even_where_that_has_ended() -> None:
    release, seen = asyncio.Event(), []

    async with pair() as p:

        async def handler(stream: Stream) -> None:
            seen.append(stream.conn)
            await release.wait()
            seen.append(stream.conn)

        p.server.set_stream_handler("/x", handler, cancel=False)
        for _ in range(2):
            await p.conn.new_stream("/x")
        await eventually(lambda: len(seen) == 2)
        await p.conn.close()
        await eventually(lambda: not p.server.swarm.num_conns)
        release.set()
        await eventually(lambda: len(seen) == 4)
        assert seen == [p.server_conn] * 4
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        assert p.server_conn.session.owner is None, "session and connection are freed without the collector"
