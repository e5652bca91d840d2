"""Forwarded ports: local sockets joined to streams, both ways, with their ends and resets kept.

Comes in: two hosts, programs that know only sockets. Goes out: what these programs see.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance.muxed_pairs import pattern
from harness import eventually, looped, settle
from hosts import Pair, pair
from p2pcore import errors
from p2pcore.streams import Forward, forward, to_local

PROTOCOL = "/tunnel/1"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers after the end: only half closes that stay half closes let this work."""
    writer.write(await reader.read())
    writer.close()


class Program:
    """A local program that listens on `local`, and what it has seen."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.errors: list[BaseException] = []
        self.num = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num += 1
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.CancelledError) as error:
            self.errors.append(error)
        finally:
            writer.close()


@asynccontextmanager
async def tunnel(
    tmp_path: Path, is_unix: bool, serve: Serve = echo, **options: Any
) -> AsyncIterator[tuple[Pair, Forward, Program]]:
    """Two hosts, a program behind the one, and a forwarded port at the other."""
    program = Program(serve)
    if is_unix:
        server: asyncio.Server = await asyncio.start_unix_server(program, tmp_path / "app")
        local, port = f"/unix{tmp_path}/app", f"/unix{tmp_path}/port"
    else:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # what is not read waits with the sender
        server = await asyncio.start_server(program, sock=sock)
        local, port = f"/ip4/127.0.0.1/tcp/{server.sockets[0].getsockname()[1]}", "/ip4/127.0.0.1/tcp/0"
    async with pair() as p:
        p.server.set_stream_handler(PROTOCOL, to_local(local))
        async with forward(port, lambda: p.dialer.new_stream(p.conn, PROTOCOL), **options) as port_:
            yield p, port_, program
        server.close()


async def dialled(port: Forward) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert port.local is not None
    path = port.local.get("unix")
    if path is not None:
        return await asyncio.open_unix_connection(path)
    parts = str(port.local).split("/")
    return await asyncio.open_connection(parts[2], int(parts[4]))


BOTH = pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])


@BOTH
@looped
async def test_bytes_and_half_closes_go_through(tmp_path: Path, is_unix: bool) -> None:
    async with tunnel(tmp_path, is_unix) as (p, port, program):
        for n in (0, 1, 3 << 20):
            reader, writer = await dialled(port)
            writer.write(pattern(n))
            writer.write_eof()
            assert await reader.read() == pattern(n)
            writer.close()
        await eventually(lambda: not port.num_conns and not p.server.swarm.num_handlers_running)
        assert not program.errors
        assert p.conn.num_streams == 0


@looped
async def test_a_reset_stays_a_reset_both_ways(tmp_path: Path) -> None:
    started = asyncio.Event()
    release = asyncio.Event()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        await release.wait()
        await reader.read()

    async with tunnel(tmp_path, False, cut) as (p, port, program):
        # the client's end: a socket closed with a reset
        assert port.local is not None
        client = socket.create_connection(("127.0.0.1", int(str(port.local).split("/")[4])))
        client.sendall(b"x")
        await started.wait()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        release.set()
        await eventually(lambda: program.errors)
        assert isinstance(program.errors[0], ConnectionResetError)
        # the stream's end: a connection that is lost
        started.clear()
        release.clear()
        reader, writer = await dialled(port)
        writer.write(b"x")
        await started.wait()
        p.conn.abort()
        with pytest.raises(ConnectionResetError):
            await reader.read()


@looped
async def test_an_upload_is_whole_though_the_program_answers_a_peer_that_has_left(tmp_path: Path) -> None:
    got: list[bytes] = []
    left, failed = asyncio.Event(), asyncio.Event()

    async def store(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        writer.write(b"stored")
        await failed.wait()
        got.append(await reader.read())

    data = pattern(600_000)  # more than asyncio's reader takes by itself: the kernel has the rest
    async with tunnel(tmp_path, False, store) as (p, _, program):
        stream = await p.dialer.new_stream(p.conn, PROTOCOL)
        await stream.write(data)
        await stream.close_write()
        await eventually(lambda: program.num and not p.server_conn.session.unread)
        await settle(50)
        await p.conn.close()
        left.set()
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        failed.set()
        await eventually(lambda: got or program.errors)
        assert got == [data]


@looped
async def test_a_slow_program_holds_back_the_client(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await echo(reader, writer)

    async with tunnel(tmp_path, True, slow) as (_, port, _):
        reader, writer = await dialled(port)
        writer.write(bytes(32 << 20))
        draining = asyncio.ensure_future(writer.drain())
        await settle(300)
        assert not draining.done()
        release.set()
        writer.write_eof()
        assert len(await reader.read()) == 32 << 20
        await draining


@looped
async def test_connections_are_bounded_and_the_next_one_waits(tmp_path: Path) -> None:
    async with tunnel(tmp_path, True, max_conns=2) as (_, port, program):
        conns = [await dialled(port) for _ in range(3)]
        for _, writer in conns:
            writer.write(b"x")
        await eventually(lambda: program.num == 2)
        await settle(100)
        assert (port.num_conns, program.num) == (2, 2)
        conns[0][1].write_eof()
        await eventually(lambda: program.num == 3)
        for _, writer in conns:
            writer.close()


@looped
async def test_a_stream_that_cannot_be_opened_resets_its_connection_alone(tmp_path: Path) -> None:
    async def fails() -> Any:
        raise errors.ConnectionClosed("gone")

    async with forward("/ip4/127.0.0.1/tcp/0", fails) as port:
        for _ in range(2):
            reader, _ = await dialled(port)
            with pytest.raises(ConnectionResetError):
                await reader.read()


@looped
async def test_a_program_that_is_not_there_resets_the_stream(tmp_path: Path) -> None:
    async with pair() as p:
        p.server.set_stream_handler(PROTOCOL, to_local(f"/unix{tmp_path}/nobody"))
        stream = await p.dialer.new_stream(p.conn, PROTOCOL)
        with pytest.raises(errors.StreamReset):
            await stream.read()


@looped
async def test_a_unix_port_is_ours_alone_and_leaves_no_file(tmp_path: Path) -> None:
    async def fails() -> Any:
        raise AssertionError

    path = tmp_path / "port"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with forward(f"/unix{path}", fails):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(OSError, match="somebody listens there"):
            async with forward(f"/unix{path}", fails):
                pass
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("addr", ["/ip4/127.0.0.1/udp/1", "/dns4/a.example/tcp/1", "/memory/x"])
def test_other_addresses_are_refused_by_name(addr: str) -> None:
    with pytest.raises(errors.AddressError, match=addr):
        to_local(addr)


def test_a_bound_of_no_connections_is_refused() -> None:
    with pytest.raises(ValueError, match="max_conns must be at least 1, not 0"):
        forward("/ip4/127.0.0.1/tcp/0", lambda: None, max_conns=0)  # type: ignore[arg-type, return-value]


@looped
async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="not a socket"):
        async with forward(f"/unix{path}", lambda: None):  # type: ignore[arg-type, return-value]
            pass
    assert path.read_text() == "data"


@looped
async def test_a_port_is_entered_once_at_a_time() -> None:
    port = forward("/ip4/127.0.0.1/tcp/0", lambda: None)  # type: ignore[arg-type, return-value]
    async with port:
        first = port.local
        with pytest.raises(RuntimeError, match="is forwarded already"):
            await port.__aenter__()
        assert port.local == first
    async with port:
        pass


@looped
async def test_a_port_leaves_the_file_of_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "port"
    async with forward(f"/unix{path}", lambda: None):  # type: ignore[arg-type, return-value]
        path.unlink()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(str(path))
    assert path.exists()
    successor.close()


@looped
async def test_an_unexpected_error_of_open_stream_is_logged_and_ends_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails() -> Any:
        raise ValueError("a bug of the program")

    async with forward("/ip4/127.0.0.1/tcp/0", fails) as port:
        assert port.local is not None
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port.local.get("tcp") or 0))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
        await eventually(lambda: not port.num_conns)
    gc.collect()
    assert [record.name for record in caplog.records] == ["p2pcore.streams"] * 2
    assert "open_stream() for a connection to /ip4/127.0.0.1/tcp/" in caplog.text
