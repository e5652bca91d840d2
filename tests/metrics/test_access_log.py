"""The access log: which records there are, what is in them, and that a flood makes few.

Comes in: hosts on the loopback, made refusals. Goes out: log records.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from typing import Any

import pytest

from harness import eventually, looped
from hosts import BARE, pair
from p2pcore import AccessLogOptions, DialError, Host, Limits, RemoteProtocolError, Stream, StreamReset, codes
from p2pcore.contrib.json_log import JsonFormatter
from p2pcore.errors import GaterRefused, HandshakeError
from p2pcore.limits import ACCESS_LOG_PER_S
from p2pcore.metrics.access_log import AccessLog
from p2pcore.swarm.events import Refused

PROTOCOL = "/test/1"


class Records(logging.Handler):
    """The records of the access log, as dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def of(self, event: str) -> list[Any]:
        return [record for record in self.all if vars(record).get("event") == event]


@pytest.fixture(name="records")
def _records(monkeypatch: pytest.MonkeyPatch) -> Any:
    records = Records()
    logger = logging.getLogger("p2pcore.access")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(records)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    yield records
    logger.removeHandler(records)
    monkeypatch.undo()
    logger.manager._clear_cache()  # type: ignore[attr-defined]


async def answer(stream: Stream) -> None:
    data = await stream.read()
    await stream.write(data * 2)


@looped
async def test_a_connection_that_ends_is_one_record(records: Records) -> None:
    async with pair({"access_log": True, "identify": True}, {"identify": True}) as both:
        both.server.set_stream_handler(PROTOCOL, answer)
        stream = await both.conn.new_stream(PROTOCOL)
        await stream.write(b"12345")
        assert await stream.read_exactly(10) == b"12345" * 2
        await both.server.identify(both.server_conn)
        conn_id, remote = both.server_conn.id, str(both.server_conn.remote_multiaddr)
        await both.conn.close(codes.CONN_SHUTDOWN)
        await eventually(lambda: records.of("connection"))
        (record,) = records.of("connection")
        assert (record.conn, record.peer, record.addr) == (conn_id, str(both.dialer.peer_id), remote)
        assert (record.dir, record.transport, record.security) == ("inbound", "tcp", "/noise")
        assert record.muxer == "/yamux/1.0.0"
        assert (record.reason, record.code) == ("closed by the peer", codes.CONN_SHUTDOWN)
        assert record.bytes_in > 100
        assert record.bytes_out > 100
        assert record.streams_in >= 1
        assert record.agent.startswith("p2pcore/")
        assert 0 <= record.seconds < 3600
        assert conn_id in record.getMessage()
        assert records.of("stream") == []


@looped
async def test_streams_are_recorded_if_asked(records: Records) -> None:
    options = AccessLogOptions(streams=True)

    async def refuse(stream: Stream) -> None:
        raise RemoteProtocolError("bad request")

    async with pair({"access_log": options}) as both:
        both.server.set_stream_handler(PROTOCOL, answer)
        both.server.set_stream_handler("/refuse/1", refuse)
        stream = await both.conn.new_stream(PROTOCOL)
        await stream.write(b"12345")
        await stream.read_exactly(10)
        await stream.close()
        await eventually(lambda: records.of("stream"))
        (record,) = records.of("stream")
        assert (record.protocol, record.bytes_in, record.bytes_out) == (PROTOCOL, 5, 10)
        assert (record.conn, record.reason) == (both.server_conn.id, "ended")
        stream = await both.conn.new_stream("/refuse/1")
        with pytest.raises(StreamReset):
            await stream.read()
        await eventually(lambda: len(records.of("stream")) == 2)
        assert records.of("stream")[1].reason == "RemoteProtocolError"
        name = "p2pcore_stream_bytes_total"
        family = next(each for each in both.server.metrics.families() if each.name == name)
        assert family.samples["in", PROTOCOL] == 5, "what counts for one stream counts for its protocol too"


@looped
async def test_the_record_of_a_stream_that_outlives_its_handler_tells_all_of_it(records: Records) -> None:
    """The echo service hands its stream on to code that no task waits for."""
    async with pair({"access_log": AccessLogOptions(streams=True), "echo": True}) as both:
        stream = await both.conn.new_stream("/echo/1.0.0")
        for _ in range(4):
            await stream.write(b"12345")
            assert await stream.read_exactly(5) == b"12345"
        assert not records.of("stream")
        await stream.close()
        await eventually(lambda: records.of("stream"))
        (record,) = records.of("stream")
        assert (record.bytes_in, record.bytes_out, record.reason) == (20, 20, "ended")


@looped
async def test_a_sample_takes_whole_connections(records: Records) -> None:
    async with (
        Host(access_log=AccessLogOptions(every=3), **BARE) as server,
        Host(listen=(), **BARE) as dialer,
    ):
        for _ in range(9):
            conn = await dialer.swarm.dial_addr(server.addrs_with_peer[0])
            await eventually(lambda: server.swarm.num_conns)
            await conn.close()
            await eventually(lambda: not server.swarm.num_conns)
        assert [int(each.conn.rpartition("-")[2]) % 3 for each in records.of("connection")] == [0, 0, 0]


@looped
async def test_off_no_record_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name in ("p2pcore.access", "p2pcore.swarm", "p2pcore.streams", "p2pcore.session"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "makeRecord", lambda *args, **_: made.append(args[0]))
    async with pair({"echo": True}) as both:
        await both.dialer.echo(both.conn, b"x")
        await both.conn.close()
        await eventually(lambda: not both.server.swarm.num_conns)
        assert both.server.access_log is None
    assert made == []


@looped
async def test_a_host_logs_nothing_while_the_level_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("p2pcore.access")
    monkeypatch.setattr(logger, "makeRecord", lambda *_, **__: pytest.fail("made"))
    assert not logger.isEnabledFor(logging.INFO)
    async with pair({"access_log": AccessLogOptions(streams=True), "echo": True}) as both:
        await both.dialer.echo(both.conn, b"x")
        await both.conn.close()
        await eventually(lambda: not both.server.swarm.num_conns)


@looped
async def test_a_refused_connection_is_a_record(records: Records) -> None:
    limits = Limits(max_conns_per_peer=1)
    async with Host(limits=limits, access_log=True, **BARE) as server, Host(listen=(), **BARE) as dialer:
        target = server.addrs_with_peer[0].without_p2p()
        await dialer.swarm.dial_addr(target)
        with contextlib.suppress(DialError):
            await dialer.swarm.dial_addr(target)
        await eventually(lambda: records.of("refused"))
        (record,) = records.of("refused")
        assert (record.reason, record.limit) == ("max_conns_per_peer", 1)
        assert record.addr.startswith("/ip4/127.0.0.1/")


@looped
async def test_a_failed_handshake_is_a_record(records: Records) -> None:
    async with Host(access_log=True, **BARE) as server, Host(listen=(), security=("tls",), **BARE) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(server.addrs_with_peer[0])
        await eventually(lambda: records.of("failed"))
        (record,) = records.of("failed")
        assert record.reason == "security negotiation"
        assert record.error


@looped
async def test_a_flood_of_refusals_makes_ten_records_and_a_sum(records: Records) -> None:
    log = AccessLog(AccessLogOptions())
    made: list[int] = []

    def event() -> Refused:
        made.append(1)
        return Refused(None, None, GaterRefused("accept", "a connection"))

    for _ in range(1000):
        log.refused(event)
        log.failed("timeout", HandshakeError("late"), None)
    assert len(made) == len(records.of("refused")) == len(records.of("failed")) == ACCESS_LOG_PER_S
    log.close()
    sums = records.of("left out")
    assert {each.reason: each.count for each in sums} == {"refused": 990, "timeout": 990}
    log.refused(event)
    assert len(records.of("refused")) == ACCESS_LOG_PER_S + 1, "a new second has begun"
    log.close()
    assert len(records.all) == 2 * ACCESS_LOG_PER_S + 3


@looped
async def test_the_sum_comes_by_itself_after_a_second(records: Records) -> None:
    log = AccessLog(AccessLogOptions())
    for _ in range(ACCESS_LOG_PER_S + 1):
        log.failed("timeout", HandshakeError("late"), None)
    await eventually(lambda: records.of("left out"))


@looped
async def test_refusals_can_be_left_out(records: Records) -> None:
    log = AccessLog(AccessLogOptions(refused=False))
    log.failed("timeout", HandshakeError("late"), None)
    log.refused(lambda: pytest.fail("an event was made"))
    await asyncio.sleep(0)
    assert records.all == []


# -- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_orjson", [False, True])
@looped
async def test_json_lines_have_the_fields_of_extra(
    records: Records, with_orjson: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_orjson:
        monkeypatch.setitem(sys.modules, "orjson", None)
    formatter = JsonFormatter()
    async with pair({"access_log": True}) as both:
        await both.conn.close()
        await eventually(lambda: records.of("connection"))
    line = formatter.format(records.of("connection")[0])
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["logger"] == "p2pcore.access"
    assert fields["level"] == "info"
    assert fields["event"] == "connection"
    assert fields["peer"] == str(both.dialer.peer_id)
    assert fields["time"].endswith("+00:00")
    assert not {"args", "msg", "levelno", "process"} & set(fields)


def test_json_shows_what_it_does_not_know_as_text_and_errors_with_their_traceback() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "msg": "a\nb %s", "args": (1,), "thing": {1}, "bad": "\ud800"}
    )
    try:
        raise ValueError("wrong")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["message"] == "a\nb 1"
    assert fields["thing"] == "{1}"
    assert fields["error"].endswith("ValueError: wrong")


# -- other records -----------------------------------------------------------------------------


@looped
async def test_records_about_a_connection_name_it_and_its_peer(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(stream: Stream) -> None:
        raise ValueError("a bug")

    async with pair() as both:
        both.server.set_stream_handler(PROTOCOL, fail)
        stream = await both.conn.new_stream(PROTOCOL)
        with pytest.raises(StreamReset):
            await stream.read()
        (record,) = [each for each in caplog.records if each.name == "p2pcore.streams"]
        assert vars(record)["conn"] == both.server_conn.id
        assert vars(record)["peer"] == str(both.dialer.peer_id)
        assert record.exc_info is not None
