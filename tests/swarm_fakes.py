"""Connections, listeners and transports without sockets, so a test can choose the order of all events.

Comes in: the events that a test wants. Goes out: objects like interfaces.CapableConn, Listener, Transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from p2pcore.errors import ConnectionClosed, GoAway, ListenerClosed
from p2pcore.interfaces import ConnKind, ConnState, Direction
from p2pcore.swarm.swarm import Swarm
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

STATE = ConnState("/fake", "/fake", "fake", False)


def peer(number: int) -> PeerId:
    """A peer id, the same for the same number."""
    return PrivateKey.from_seed(bytes([number]) * 32).peer_id()


US = peer(0)


def addr(port: int, ip: str = "127.0.0.1") -> Multiaddr:
    return Multiaddr(f"/ip4/{ip}/tcp/{port}")


class FakeStream:
    """Accepts writes and answers nothing."""

    def __init__(self, conn: FakeConn) -> None:
        self.conn = conn
        self.protocol: str | None = None
        self.written = b""
        self.reset_code: int | None = None
        self.expected: tuple[bytes, str] | None = None
        self.handler_task: asyncio.Task[None] | None = None

    def expect(self, reply: bytes, protocol: str, step: str) -> None:
        self.expected = (reply, protocol)
        self.protocol = protocol

    def take_opening(self) -> bytes | None:
        return None

    def set_aside(self) -> bool:
        return False

    async def turn(self) -> None: ...

    async def write(self, data: bytes) -> None:
        self.write_later(data)

    def write_later(self, data: bytes) -> None:
        if self.conn.write_error is not None:
            raise self.conn.write_error
        self.written += data

    async def read(self, max_bytes: int = 65536) -> bytes:
        return await self.read_exactly(max_bytes)

    async def read_exactly(self, n: int) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    def set_deadline(self, seconds: float | None) -> None: ...

    async def close(self) -> None: ...

    def reset(self, code: int = 0) -> None:
        self.reset_code = code


class FakeConn:
    """The result of an upgrade and its session in one object. A test decides its end, streams and delays."""

    def __init__(
        self,
        remote: PeerId,
        direction: Direction = Direction.INBOUND,
        streams: int = 0,
        *,
        is_limited: bool = False,
        at: Multiaddr | str | None = None,
    ) -> None:
        self.session = self
        self.kind = ConnKind(US, direction, STATE, is_limited)
        self.remote_peer = remote
        self.remote_public_key: Any = None
        self.local_multiaddr = addr(1)
        self.remote_multiaddr = addr(2) if at is None else Multiaddr(at)
        self.owner: Any = None
        self.is_closed = False
        self.has_go_away = False
        self.has_arrived = False
        self.error: BaseException | None = None
        self.num_streams = streams
        self.num_refused = 0
        self.active_at = 0.0
        self.unread = self.unsent = 0
        self.bytes_in = self.bytes_out = self.num_streams_in = self.num_streams_out = 0
        self.rtt = 0.0
        self.loop = asyncio.get_running_loop()
        self.handler: Callable[[Any], None] | None = None
        self.callbacks: list[Callable[[BaseException | None], None]] = []
        self.open_error: Exception | None = None
        self.write_error: Exception | None = None
        self.opened: list[FakeStream] = []
        self.close_code: int | None = None
        self.close_gate: asyncio.Event | None = None
        self.aborted = False
        self.abort_code: int | None = None
        self.reset_code: int | None = None

    @property
    def can_open(self) -> bool:
        return not (self.is_closed or self.has_go_away)

    def account(self, ledger: Any, share: Any) -> None: ...

    async def open_stream(self) -> FakeStream:
        if self.open_error is not None:
            raise self.open_error
        stream = FakeStream(self)
        self.opened.append(stream)
        return stream

    async def accept_stream(self) -> FakeStream:
        raise ConnectionClosed("fake")

    def set_stream_handler(self, handler: Callable[[Any], None] | None) -> None:
        self.handler = handler

    def add_close_callback(self, callback: Callable[[BaseException | None], None]) -> None:
        if self.is_closed:
            asyncio.get_running_loop().call_soon(callback, self.error)
        else:
            self.callbacks.append(callback)

    def end(self, error: BaseException | None = None) -> None:
        """The peer ends the connection: the event loop runs the callbacks, once."""
        self.is_closed = True
        self.error = error
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            asyncio.get_running_loop().call_soon(callback, error)

    async def close(self, code: int = 0) -> None:
        self.close_code = code
        self.end(GoAway(code, False))
        if self.close_gate is not None:
            await self.close_gate.wait()
        await asyncio.sleep(0)

    def reset_streams(self, code: int = 0) -> None:
        self.reset_code = code

    def abort(self, code: int = 0) -> None:
        self.aborted = True
        self.abort_code = code
        self.end(GoAway(code, False))


class FakeListener:
    """Gives out what a test puts in `queue`: connections, or an exception to raise."""

    def __init__(self, multiaddr: Multiaddr) -> None:
        self.multiaddr = multiaddr
        self.queue: asyncio.Queue[FakeConn | Exception] = asyncio.Queue()
        self.is_closed = False
        self.is_paused = False

    async def accept(self) -> FakeConn:
        if self.is_closed:
            raise ListenerClosed("closed")
        item = await self.queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def pause_accepting(self) -> None:
        self.is_paused = True

    def resume_accepting(self) -> None:
        self.is_paused = False

    async def drain(self, accept_queued: bool = True) -> None:
        await self.close()

    async def close(self) -> None:
        self.is_closed = True
        self.queue.put_nowait(ListenerClosed("closed"))


class FakeTransport:
    """Dials as `on_dial` says; listens on every address that is not in `broken`."""

    is_proxy = False

    def __init__(self, *protocols: str, is_proxy: bool = False) -> None:
        self.protocols = protocols or ("tcp",)
        self.is_proxy = is_proxy
        self.dialled: list[Multiaddr] = []
        self.cancelled: list[Multiaddr] = []
        self.running = 0
        self.most_running = 0
        self.gates: dict[Multiaddr, asyncio.Event] = {}
        self.errors: dict[Multiaddr, Exception] = {}
        self.conns: list[FakeConn] = []
        self.broken: set[Multiaddr] = set()
        self.listeners: list[FakeListener] = []
        self.answers = peer(1)

    def can_dial(self, target: Multiaddr) -> bool:
        return target.protocols()[-1].name in self.protocols

    def gate(self, target: Multiaddr) -> asyncio.Event:
        """The dial of `target` waits for this event."""
        return self.gates.setdefault(target, asyncio.Event())

    async def dial(self, target: Multiaddr, expected: PeerId | None) -> FakeConn:
        self.dialled.append(target)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if target in self.gates:
                await self.gates[target].wait()
        except asyncio.CancelledError:
            self.cancelled.append(target)
            raise
        finally:
            self.running -= 1
        if target in self.errors:
            raise self.errors[target]
        conn = FakeConn(expected or self.answers, Direction.OUTBOUND)
        self.conns.append(conn)
        return conn

    async def listen(self, target: Multiaddr) -> FakeListener:
        if target in self.broken:
            raise OSError(98, "address in use")
        listener = FakeListener(target)
        self.listeners.append(listener)
        return listener


class Recorder:
    """A notifiee that records its news, and does what `on` says for an event."""

    def __init__(self, log: list[tuple[Any, ...]], name: str = "") -> None:
        self.log = log
        self.name = name
        self.on: dict[str, Callable[[Any, Any], None]] = {}

    def _told(self, event: str, network: Any, what: Any) -> None:
        self.log.append((self.name, event, what) if self.name else (event, what))
        if event in self.on:
            self.on[event](network, what)

    def listen(self, network: Any, target: Any) -> None:
        self._told("listen", network, target)

    def listen_close(self, network: Any, target: Any) -> None:
        self._told("listen_close", network, target)

    def connected(self, network: Any, conn: Any) -> None:
        self._told("connected", network, conn)

    def disconnected(self, network: Any, conn: Any) -> None:
        self._told("disconnected", network, conn)


def make_swarm(*transports: Any, **options: Any) -> tuple[Swarm, FakeTransport]:
    """A swarm of US with a TCP-like fake transport first; `options` as Swarm has them."""
    tcp = FakeTransport()
    return Swarm(US, [tcp, *transports], **options), tcp
