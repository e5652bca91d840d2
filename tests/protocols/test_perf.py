"""perf: both roles, its vectors, and every bad input."""

from __future__ import annotations

import asyncio

import pytest

from harness import looped
from hosts import Pair, pair
from p2pcore import PerfRun, ProtocolNotSupported, RemoteProtocolError, Stream, StreamReset, codes, limits
from p2pcore.protocols import perf

SERVES = {"perf": True}


async def open_perf(p: Pair) -> Stream:
    return await p.conn.new_stream(perf.PROTOCOL)


async def read_all(stream: Stream) -> int:
    total = 0
    while data := await stream.read():
        total += len(data)
    return total


@pytest.mark.parametrize(
    ("request_hex", "answer"), [("00000000000003e800000000000000000000", 1000), ("0000000000000000", 0)]
)
@looped
async def test_vectors(request_hex: str, answer: int) -> None:
    async with pair(SERVES) as p:
        stream = await open_perf(p)
        await stream.write(bytes.fromhex(request_hex))
        await stream.close_write()
        assert await read_all(stream) == answer


@looped
async def test_the_client_sends_the_vector_in_one_write() -> None:
    got: list[bytes] = []

    async def handler(stream: Stream) -> None:
        while data := await stream.read():
            got.append(data)
        await stream.write(bytes(1000))

    async with pair() as p:
        p.server.set_stream_handler(perf.PROTOCOL, handler)
        run_ = await p.dialer.perf(p.conn, 10, 1000)
        assert b"".join(got) == bytes.fromhex("00000000000003e800000000000000000000")
        assert len(got[0]) >= 8, "js wants the count in its first read"
        assert (run_.sent, run_.received) == (10, 1000)


@pytest.mark.parametrize(("up", "down"), [(0, 0), (1, 0), (0, 1), (65536, 65537), (3_000_001, 2_000_003)])
@looped
async def test_exact_counts_both_ways(up: int, down: int) -> None:
    async with pair(SERVES) as p:
        result = await p.dialer.perf(p.conn, up, down)
        assert (result.sent, result.received) == (up, down)
        assert result.upload_s is not None
        assert result.download_s is not None
        assert p.conn.num_streams == 0


@looped
async def test_small_blocks_arrive_as_well() -> None:
    async with pair(SERVES) as p:
        result = PerfRun(await open_perf(p), 10_001, 5, block=100)
        await result.run()
        assert (result.sent, result.received) == (10_001, 5)


@looped
async def test_the_server_sends_nothing_before_the_client_has_ended() -> None:
    async with pair(SERVES) as p:
        stream = await open_perf(p)
        await stream.write((100_000).to_bytes(8, "big") + bytes(100))
        reading = asyncio.create_task(stream.read())
        for _ in range(3):
            await p.dialer.swarm.conns()[0].session.ping()  # type: ignore[attr-defined]
        assert not reading.done()
        await stream.close_write()
        first = len(await reading)
        assert first + await read_all(stream) == 100_000


@looped
async def test_a_node_without_perf_answers_na() -> None:
    async with pair() as p:
        with pytest.raises(ProtocolNotSupported):
            await p.dialer.perf(p.conn, 0, 1)


@pytest.mark.parametrize("data", [b"", b"\x00" * 7])
@looped
async def test_a_request_shorter_than_its_count_is_reset(data: bytes) -> None:
    async with pair(SERVES) as p:
        stream = await open_perf(p)
        await stream.write(data)
        await stream.close_write()
        with pytest.raises(StreamReset) as caught:
            await read_all(stream)
        assert caught.value.code == codes.STREAM_PROTOCOL_VIOLATION


@looped
async def test_a_huge_request_is_refused_and_a_large_one_stops_at_a_reset() -> None:
    async with pair(SERVES) as p:
        stream = await open_perf(p)
        await stream.write(b"\xff" * 8)
        with pytest.raises(StreamReset) as caught:
            await read_all(stream)
        assert caught.value.code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        stream = await open_perf(p)
        await stream.write(limits.MAX_PERF_DOWNLOAD_BYTES.to_bytes(8, "big"))
        await stream.close_write()
        assert await stream.read()
        assert p.server.swarm.num_handlers_running == 1
        stream.reset()
        from harness import eventually

        await eventually(lambda: not p.server.swarm.num_handlers_running)


@looped
async def test_an_inbound_stream_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PERF_TIMEOUT_S", 0.05)

    async with pair(SERVES) as p:
        stream = await open_perf(p)
        await stream.write(bytes(8))
        with pytest.raises(StreamReset):
            await read_all(stream)


@pytest.mark.parametrize("answer", [999, 1001])
@looped
async def test_a_wrong_count_of_bytes_is_an_error(answer: int) -> None:
    async def handler(stream: Stream) -> None:
        await read_all(stream)
        await stream.write(bytes(answer))

    async with pair() as p:
        p.server.set_stream_handler(perf.PROTOCOL, handler)
        with pytest.raises(RemoteProtocolError):
            await p.dialer.perf(p.conn, 0, 1000)
        assert p.conn.num_streams == 0


@looped
async def test_bad_counts_are_refused_before_anything_is_sent() -> None:
    async with pair(SERVES) as p:
        stream = await open_perf(p)
        for up, down, block in [(-1, 0, 1), (0, -1, 1), (0, 1 << 64, 1), (0, 0, 0)]:
            with pytest.raises(ValueError, match="perf"):
                PerfRun(stream, up, down, block)
