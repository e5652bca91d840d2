"""The HTTP port for scrapers and probes: what it answers, and what it does not put up with.

Comes in: hosts, requests as bytes on real sockets. Goes out: answers. No client here is in a hurry.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import eventually, looped
from hosts import BARE, pair
from p2pcore import Host, ListenError, MetricsServer, Stream, limits
from p2pcore.interfaces import ListenerState
from p2pcore.manet.listener import MaListener
from p2pcore.metrics import http_server
from p2pcore.metrics.health import Health
from p2pcore.metrics.http_server import parse_address

ANY = "127.0.0.1:0"


@asynccontextmanager
async def serving(*args: Any, **options: Any) -> AsyncIterator[tuple[Host, MetricsServer]]:
    async with Host(**BARE | options) as host, MetricsServer(host, *(args or (ANY,))) as server:
        yield host, server


async def opened(server: MetricsServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = parse_address(server.address)
    if isinstance(where, str):
        return await asyncio.open_unix_connection(where)
    return await asyncio.open_connection(*where)


async def exchange(server: MetricsServer, request: bytes) -> bytes:
    """All bytes of the answer; b"" if there is none."""
    reader, writer = await opened(server)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def get(server: MetricsServer, path: str, *headers: str, method: str = "GET") -> tuple[int, str, bytes]:
    """(status, head in lower case, body)."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    head, _, body = (await exchange(server, "\r\n".join(lines).encode())).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode().lower(), body


@looped
async def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    async with serving() as (_, server):
        status, head, body = await get(server, "/metrics")
        assert status == 200
        assert "content-type: text/plain; version=0.0.4; charset=utf-8" in head
        assert f"content-length: {len(body)}" in head
        assert any(
            each.name == "p2pcore_build_info" for each in text_string_to_metric_families(body.decode())
        )
        accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        _, head, body = await get(server, "/metrics?x=1", accept)
        assert "application/openmetrics-text; version=1.0.0" in head
        assert body.endswith(b"# EOF\n")


@looped
async def test_head_has_no_body_and_other_methods_and_paths_are_refused() -> None:
    async with serving() as (_, server):
        status, head, body = await get(server, "/metrics", method="HEAD")
        assert (status, body) == (200, b"")
        assert "content-length: 0" not in head
        status, head, _ = await get(server, "/metrics", method="POST")
        assert status == 405
        assert "allow: get, head" in head
        assert (await get(server, "/x"))[0] == 404
        assert (await get(server, "/../metrics"))[0] == 404
        status, _, body = await get(server, "/version")
        assert status == 200
        assert set(json.loads(body)) == {"p2pcore"}


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET\r\n\r\n", b"\x16\x03\x01\x00\x05hello\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 9000],
)
@looped
async def test_what_is_no_request_or_too_long_is_refused(request_bytes: bytes) -> None:
    async with serving() as (_, server):
        answer = await exchange(server, request_bytes)
        assert answer == b"" or answer.split()[1] in (b"400", b"431")
        assert (await get(server, "/healthz"))[0] == 200


@looped
async def test_a_client_that_says_nothing_or_never_ends_is_closed_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "METRICS_TIMEOUT_S", 0.2)
    async with serving() as (_, server):
        assert await exchange(server, b"") == b""
        reader, writer = await opened(server)
        writer.write(b"GET /metrics HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop: "the handler is closed"
            while not reader.at_eof():
                writer.write(b"a: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
    assert limits.METRICS_TIMEOUT_S == 5.0


@looped
async def test_the_seventeenth_connection_is_refused_and_the_next_is_served_later() -> None:
    async with serving() as (_, server):
        held = [await opened(server) for _ in range(limits.MAX_METRICS_CONNS)]
        await eventually(lambda: len(server._server._tasks) == limits.MAX_METRICS_CONNS)
        assert await exchange(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        for _, writer in held:
            writer.close()
        await eventually(lambda: not server._server._tasks)
        assert (await get(server, "/healthz"))[0] == 200


@looped
async def test_it_listens_on_a_unix_socket_that_only_we_may_use(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as dead:  # a file that is left of a process that was killed
        dead.bind(str(path))
    async with serving(f"unix:{path}") as (host, server):
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert (await get(server, "/healthz"))[0] == 200
        with pytest.raises(ListenError, match="cannot serve metrics on unix"):
            await MetricsServer(host, f"unix:{path}").start()
        assert (await get(server, "/healthz"))[0] == 200, "the first one still serves"
    assert not path.exists()


@looped
async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="not a socket"):
        async with serving(f"unix:{path}"):
            pass
    assert path.read_text() == "data"


@looped
async def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    async with serving() as (host, server):
        with pytest.raises(ListenError, match=server.address):
            await MetricsServer(host, server.address).start()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        (":9464", ("", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:80", ("localhost", 80)),
        ("unix:/run/x", "/run/x"),
    ],
)
def test_addresses_are_host_and_port_or_a_file(text: str, parsed: object) -> None:
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9464",
        "x:",
        "x:65536",
        "x:-1",
        "::1:80",
        "[::1",
        "[::1:80",
        "::1]:80",
        "[]:80",
        "unix:",
        "/ip4/1.2.3.4/tcp/1",
    ],
)
def test_a_wrong_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        parse_address(text)


def test_a_wrong_source_is_named() -> None:
    with pytest.raises(TypeError, match="Host or a Supervisor"):
        MetricsServer(object())  # type: ignore[arg-type]


# -- health ------------------------------------------------------------------------------------


async def ready(server: MetricsServer) -> tuple[int, dict[str, Any]]:
    status, _, body = await get(server, "/readyz")
    return status, json.loads(body)


@looped
async def test_a_host_is_ready_after_its_start_and_until_its_end() -> None:
    host = Host(**BARE)
    async with MetricsServer(host, ANY) as server:
        status, body = await ready(server)
        assert (status, body["status"]) == (503, "starting")
        await host.start()
        status, body = await ready(server)
        assert (status, body["status"]) == (200, "ready")
        assert set(body["checks"].values()) == {"ok"}
        await host.close()
        status, body = await ready(server)
        assert (status, body["status"]) == (503, "closed")
        assert (await get(server, "/healthz"))[0] == 200


@looped
async def test_readiness_goes_before_the_port_does() -> None:
    """While a drain waits: /readyz says no and /healthz yes, and at first the port still accepts."""

    async def hold(stream: Stream) -> None:
        await stream.read()

    async with pair() as both, MetricsServer(both.server, ANY) as server:
        both.server.set_stream_handler("/hold/1", hold)
        stream = await both.conn.new_stream("/hold/1")
        await stream.write(b"")
        await eventually(lambda: both.server.swarm.num_handlers_running)
        draining = asyncio.create_task(both.server.drain(60, delay_s=30))
        await eventually(lambda: both.server.is_draining)
        status, body = await ready(server)
        assert (status, body["status"]) == (503, "draining")
        assert (await get(server, "/healthz"))[0] == 200
        async with Host(listen=(), **BARE) as late:
            await late.connect(both.server.addrs_with_peer[0])  # the port still accepts
        assert b"p2pcore_draining 1" in (await get(server, "/metrics"))[2]
        draining.cancel()


@looped
async def test_a_listener_that_is_down_makes_a_node_not_ready_until_it_is_back() -> None:
    async with serving() as (host, server):
        (addr,) = host.addrs
        host.swarm._news.listener_changed(addr, ListenerState.RETRYING, OSError("the port is taken"))
        status, body = await ready(server)
        assert (status, body["status"]) == (503, "listeners")
        assert str(addr) in body["checks"]["listeners"]
        assert f'p2pcore_listener_up{{addr="{addr}"}} 0'.encode() in (await get(server, "/metrics"))[2]
        host.swarm._news.listener_changed(addr, ListenerState.LISTENING, None)
        assert (await ready(server))[0] == 200


@looped
async def test_a_port_that_another_program_has_taken_makes_a_node_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The socket is lost, and the port cannot be bound again at first."""
    taken = asyncio.Event()
    reopen = MaListener._reopened

    async def reopened(self: MaListener) -> socket.socket:
        if not taken.is_set():
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return await reopen(self)

    monkeypatch.setattr(MaListener, "_reopened", reopened)
    async with serving() as (host, server):
        (inner,) = (
            each for each in gc.get_objects() if isinstance(each, MaListener) and each._sock is not None
        )
        inner._sock.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: not host.ready.report().is_good)
        status, body = await ready(server)
        assert (status, body["status"]) == (503, "listeners")
        assert str(host.addrs[0]) in body["checks"]["listeners"]
        taken.set()
        await eventually(lambda: host.ready.report().is_good)
        async with Host(listen=(), **BARE) as dialer:
            await dialer.connect(host.addrs_with_peer[0])


@looped
async def test_a_listener_that_was_closed_on_purpose_is_missed_by_nobody() -> None:
    async with serving() as (host, server):
        await host.swarm.listen_close(*host.swarm.listen_addresses())
        assert (await ready(server))[0] == 200
        assert b"p2pcore_listener_up{" not in (await get(server, "/metrics"))[2]


@looped
async def test_a_check_of_the_program_counts_too() -> None:
    async with serving() as (host, server):
        host.ready.add("database", lambda: "cannot be reached")
        status, body = await ready(server)
        assert (status, body["status"], body["checks"]["database"]) == (503, "database", "cannot be reached")


def test_a_check_that_raises_has_failed_and_since_stays_while_nothing_changes() -> None:
    answers: list[str | None] = [None, None, "down", "down"]

    def check() -> str | None:
        if not answers:
            raise RuntimeError("broken")
        return answers.pop(0)

    health = Health("ready", {"check": check})
    reports = [health.report() for _ in range(5)]
    assert [each.is_good for each in reports] == [True, True, False, False, False]
    assert reports[0].since == reports[1].since
    assert reports[2].since == reports[3].since
    assert reports[4].checks == {"check": "RuntimeError: broken"}


@looped
async def test_several_hosts_are_served_by_name() -> None:
    async with pair() as both, MetricsServer({"a": both.server, "b": both.dialer}, ANY) as server:
        text = (await get(server, "/metrics"))[2].decode()
        assert 'p2pcore_stream_handlers{host="a"} 0' in text
        assert 'p2pcore_stream_handlers{host="b"} 0' in text
        assert text.count("# TYPE p2pcore_stream_handlers ") == text.count("\nprocess_open_fds ") == 1
        both.dialer.ready.add("x", lambda: "no")
        status, body = await ready(server)
        assert (status, body["checks"]["b: x"], body["checks"]["a: draining"]) == (503, "no", "ok")
