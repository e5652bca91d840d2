"""js-libp2p and streams that end right behind a lazy proposal and its data (docs/decisions/0014).

Comes in: a js listener, directly and behind a path whose answers come later than our end of data. Goes out:
no request is lost. An end at once is taken where no data is before it. With data it may be lost, or not,
as js happens to be scheduled, so no test asserts either.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driver import ROOT, Listener

from harness import run
from interop_builder import load_builder
from p2pcore import Conn, Host, Stream, limits

pytestmark = pytest.mark.interop

ECHO = "/echo/1.0.0"
OPENING = b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\n"


@pytest.fixture(scope="module")
def js() -> Iterator[str]:
    """The address of a js listener."""
    peer = load_builder().build("js")
    if not peer.command:
        pytest.skip(f"no js peer: {peer.reason}")
    listener = Listener(peer.command)
    yield listener.address
    listener.close()


@contextmanager
def delayed(address: str, seconds: float) -> Iterator[str]:
    """`address` at the end of a path on which each way takes so long."""
    found = re.fullmatch(r"(/ip4/127\.0\.0\.1/tcp/)(\d+)(/.*)", address)
    assert found is not None
    to = ("--to", f"127.0.0.1:{found[2]}", "--delay-ms", str(1000 * seconds))
    command = [sys.executable, str(ROOT / "bench" / "delay_proxy.py"), *to]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield f"{found[1]}{proxy.stdout.readline().split()[1]}{found[3]}"
        finally:
            proxy.kill()


async def rest_of(stream: Stream) -> bytes:
    return b"".join([piece async for piece in pieces(stream)])


async def pieces(stream: Stream) -> Any:
    while piece := await stream.read():
        yield piece


async def lazily(conn: Conn, data: bytes) -> bytes:
    stream = await conn.new_stream(ECHO)
    await stream.write(data)
    await stream.close_write()
    return await rest_of(stream)


async def at_once(conn: Conn, data: bytes) -> bytes:
    stream = await conn.open_stream()
    await stream.write(OPENING + data)
    await stream.close_write()
    return (await rest_of(stream)).removeprefix(OPENING)


Ask = Callable[[Conn, bytes], Awaitable[bytes]]


async def answers(address: str, ask: Ask, data: list[bytes]) -> list[bytes | BaseException]:
    async with Host(listen=[], identify=False) as host:  # who the peer is is not known
        conn = await host.connect(address)
        return await asyncio.gather(*(ask(conn, each) for each in data), return_exceptions=True)


REQUESTS = [b"request %d" % number for number in range(100)]


def test_a_stream_closed_behind_a_lazy_request_is_answered(js: str) -> None:
    assert run(answers(js, lazily, REQUESTS)) == REQUESTS


def test_a_stream_closed_long_before_its_answer_can_come_is_answered(js: str) -> None:
    with delayed(js, 1.5 * limits.LAZY_END_WAIT_S) as address:
        assert run(answers(address, lazily, REQUESTS), timeout=60) == REQUESTS


def test_js_takes_an_end_at_once_where_no_data_is_before_it(js: str) -> None:
    assert run(answers(js, at_once, [b""] * 100)) == [b""] * 100
