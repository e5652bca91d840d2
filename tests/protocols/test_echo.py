"""echo: both roles."""

from __future__ import annotations

import pytest

from harness import looped
from hosts import pair
from p2pcore import IncompleteRead, RemoteProtocolError, Stream
from p2pcore.protocols import echo

SERVES = {"echo": True}


@pytest.mark.parametrize("size", [0, 1, 65519, 65520, 262145, 2_000_000])
@looped
async def test_every_byte_comes_back_and_then_the_end(size: int) -> None:
    data = bytes(i % 251 for i in range(size))

    async with pair(SERVES) as p:
        assert await p.dialer.echo(p.conn, data) == data
        assert p.conn.num_streams == 0


@looped
async def test_bytes_come_back_before_the_end_is_sent() -> None:
    async with pair(SERVES) as p:
        stream = await p.conn.new_stream(echo.PROTOCOL)
        for data in (b"a", b"bc"):
            await stream.write(data)
            assert await stream.read_exactly(len(data)) == data
        await stream.close_write()
        assert await stream.read() == b""


@pytest.mark.parametrize(("extra", "error"), [(-1, IncompleteRead), (1, RemoteProtocolError)])
@looped
async def test_an_echo_of_another_length_is_an_error(extra: int, error: type[Exception]) -> None:
    async def handler(stream: Stream) -> None:
        data = b""
        while chunk := await stream.read():
            data += chunk
        await stream.write(bytes(len(data) + extra))

    async with pair() as p:
        p.server.set_stream_handler(echo.PROTOCOL, handler)
        with pytest.raises(error):
            await p.dialer.echo(p.conn, b"x" * 1000)
        assert p.conn.num_streams == 0
