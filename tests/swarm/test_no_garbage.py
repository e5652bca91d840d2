"""What ends or fails is freed at once: nothing is left that only the garbage collector can free.

Comes in: hosts, and peers that fail in many ways. Goes out: how many objects are in circles afterwards. A
circle keeps memory until the collector has walked over all objects, and makes it do so more often.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from harness import looped, settle
from p2pcore import Host, PrivateKey, Stream, rpc
from p2pcore.errors import P2PError

TIMES = 10
TCP = "/ip4/127.0.0.1/tcp/0"
SECURITY = pytest.mark.parametrize("security", ["noise", "tls"])
HELLO = b"\x13/multistream/1.0.0\n"
ECHO = rpc.Method("echo", rpc.BYTES, rpc.BYTES)
UNKNOWN = rpc.Method("unknown", rpc.BYTES, rpc.BYTES)
FAILURES = (P2PError, OSError, TimeoutError)


@dataclass
class Scene:
    """A host that serves, at `addr` and `port`, and one that dials it."""

    server: Host
    client: Host

    @property
    def addr(self) -> str:
        return str(self.server.addrs[0])

    @property
    def port(self) -> int:
        return int(self.addr.split("/tcp/")[1].split("/")[0])

    async def raw(self, data: bytes) -> None:
        """A peer that says `data` and leaves."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()

    async def comes_and_goes(self) -> None:
        conn = await self.client.connect(self.addr)
        await conn.close()

    async def another_peer(self) -> None:
        bare = self.addr.split("/p2p/")[0]
        peer = PrivateKey.generate().public_key.peer_id()
        with suppress(*FAILURES):
            await self.client.connect(f"{bare}/p2p/{peer}")

    async def refused(self) -> None:
        peer = PrivateKey.generate().public_key.peer_id()
        with suppress(*FAILURES):
            await self.client.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{peer}")

    async def no_connection(self) -> None:
        with suppress(*FAILURES):
            await self.client.new_stream(PrivateKey.generate().public_key.peer_id(), "/echo")

    async def stream(self, protocol: str) -> None:
        """A stream that its handler ends in its own way, read until then."""
        stream = await self.client.new_stream(self.server.peer_id, protocol)
        with suppress(*FAILURES):
            await stream.write(b"x")
            while await stream.read():
                pass
        await settle()

    async def reset_by_us(self) -> None:
        stream = await self.client.new_stream(self.server.peer_id, "/waits")
        await stream.write(b"x")
        stream.reset()
        with suppress(*FAILURES):
            await stream.read()
        await settle()

    async def too_late(self) -> None:
        stream = await self.client.new_stream(self.server.peer_id, "/waits")
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await stream.read()
        stream.reset()
        await settle()


async def _call(client: rpc.Client, method: rpc.Method[bytes, bytes]) -> None:
    with suppress(*FAILURES):
        await client.call(method, b"fails")


async def _fails(stream: Stream) -> None:
    await stream.read(1)
    raise ValueError("a handler failed on purpose")


async def _resets(stream: Stream) -> None:
    stream.reset()


async def _waits(stream: Stream) -> None:
    await stream.read_exactly(100)


async def _ends(stream: Stream) -> None:
    await stream.read(1)


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def scene(test: Callable[[Scene], Awaitable[None]], security: str, addr: str = TCP) -> None:
    """Runs `test` with two hosts."""

    @looped
    async def main() -> None:
        dialer = Host(listen=(), security=(security,))
        async with Host(listen=[addr], security=(security,)) as server, dialer as client:
            for handler in (_fails, _resets, _waits, _ends):
                server.set_stream_handler(handler.__name__.replace("_", "/"), handler)
            await test(Scene(server, client))

    main()


async def nothing_is_left(does: Callable[[], Awaitable[None]]) -> None:
    """Fails if `does` leaves objects in circles, even one each time."""
    for _ in range(3):  # what is made once only
        await does()
    await settle(20)
    gc.collect()
    for _ in range(TIMES):
        await does()
    await settle(20)
    assert gc.collect() < TIMES


@SECURITY
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.0\r\n\r\n", HELLO, HELLO + b"\x07/nope\n", HELLO[:7]])
def test_of_a_connection_that_fails_in_its_upgrade(security: str, said: bytes) -> None:
    scene(lambda s: nothing_is_left(lambda: s.raw(said)), security)


@SECURITY
def test_of_a_handshake_that_fails(security: str) -> None:
    proposal = f"/{security}\n" if security == "noise" else "/tls/1.0.0\n"
    said = HELLO + bytes([len(proposal)]) + proposal.encode() + b"\x00\x20" + bytes(32)
    scene(lambda s: nothing_is_left(lambda: s.raw(said)), security)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\1\2\3\r\n\r\n"])
def test_of_a_websocket_that_fails(said: bytes) -> None:
    scene(lambda s: nothing_is_left(lambda: s.raw(said)), "noise", TCP + "/ws")


@SECURITY
@pytest.mark.parametrize("addr", [TCP, TCP + "/ws"])
def test_of_a_connection_that_ends_in_good_order(security: str, addr: str) -> None:
    scene(lambda s: nothing_is_left(s.comes_and_goes), security, addr)


@SECURITY
@pytest.mark.parametrize("way", ["another_peer", "refused", "no_connection"])
def test_of_a_dial_that_fails(security: str, way: str) -> None:
    scene(lambda s: nothing_is_left(getattr(s, way)), security)


@pytest.mark.parametrize("protocol", ["/fails", "/resets", "/ends", "/nobody-serves-it"])
def test_of_a_stream_that_its_handler_ends(protocol: str) -> None:
    async def test(s: Scene) -> None:
        await s.client.connect(s.addr)
        await nothing_is_left(lambda: s.stream(protocol))

    scene(test, "noise")


@pytest.mark.parametrize("way", ["reset_by_us", "too_late"])
def test_of_a_stream_that_we_give_up(way: str) -> None:
    async def test(s: Scene) -> None:
        await s.client.connect(s.addr)
        await nothing_is_left(getattr(s, way))

    scene(test, "noise")


@pytest.mark.parametrize("method", [ECHO, UNKNOWN], ids=["raises", "unknown"])
def test_of_a_call_that_fails(method: rpc.Method[bytes, bytes]) -> None:
    async def test(s: Scene) -> None:
        service = rpc.Service("/service/1")

        @service.method(ECHO)
        async def echo(request: bytes, call: rpc.Call) -> bytes:
            raise rpc.RpcError(rpc.RpcCode.NOT_FOUND, "on purpose")

        service.serve(s.server)
        async with rpc.Client(s.client, s.addr, "/service/1") as client:
            await nothing_is_left(lambda: _call(client, method))

    scene(test, "noise")
