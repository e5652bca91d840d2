"""Small nodes for tests: a key, an upgrader and a TCP transport, on loopback with real sockets.

Comes in: options. Goes out: nodes, raw connections, counts of what is open. Nothing is faked.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from p2pcore.interfaces import CapableConn, Direction, ListenerState, Multiplexer, SecureTransport
from p2pcore.manet.conn import MaConn
from p2pcore.manet.listener import MaListener
from p2pcore.manet.sockaddr import parse_endpoint
from p2pcore.muxers.yamux import YamuxMultiplexer
from p2pcore.security.noise import NoiseTransport
from p2pcore.transports.tcp.transport import TcpTransport
from p2pcore.upgrade.listener import ListenerHooks, ListenerOptions, UpgradedListener
from p2pcore.upgrade.upgrader import StreamUpgrader, UpgraderOptions
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")


class Reports:
    """Satisfies interfaces.ListenerNews: passes news to callbacks, with the listener's address last."""

    def __init__(
        self,
        failed: Callable[..., object] = lambda *_: None,
        changed: Callable[..., object] = lambda *_: None,
    ) -> None:
        self._failed = failed
        self._changed = changed

    def upgrade_failed(
        self,
        direction: Direction,
        stage: str,
        error: BaseException,
        local: Multiaddr | None,
        remote: Multiaddr | None,
    ) -> None:
        assert direction is Direction.INBOUND
        self._failed(stage, remote, error, local)

    def accept_refused(self, addr: Multiaddr, reason: str) -> None: ...

    def request_answered(self, addr: Multiaddr) -> None: ...

    def accept_failed(self, addr: Multiaddr, error: OSError) -> None: ...

    def listener_changed(self, addr: Multiaddr, state: ListenerState, error: BaseException | None) -> None:
        self._changed(state, error, addr)


@dataclass(frozen=True)
class Node:
    """One peer."""

    key: PrivateKey
    upgrader: StreamUpgrader
    transport: TcpTransport

    @property
    def peer(self) -> PeerId:
        return self.key.peer_id()

    @asynccontextmanager
    async def listening(self, addr: Multiaddr = LOOPBACK) -> AsyncIterator[UpgradedListener]:
        """A listener, closed at the end."""
        listener = self.upgrader.upgrade_listener(MaListener.bind(addr))
        try:
            yield listener
        finally:
            await listener.close()

    async def dial(self, addr: Multiaddr, peer: PeerId | None = None) -> CapableConn:
        return await self.transport.dial(addr, peer)


def make_node(
    key: PrivateKey | None = None,
    security: Sequence[SecureTransport] | None = None,
    muxers: Sequence[Multiplexer] | None = None,
    timeout: float = 30.0,
    **listener: Any,
) -> Node:
    """A node, by default with noise and yamux; `listener`: fields of ListenerOptions and ListenerHooks."""
    names = {field.name for field in fields(ListenerHooks)} & listener.keys()
    hooks = {name: listener.pop(name) for name in names}
    key = key or PrivateKey.generate()
    upgrader = StreamUpgrader(
        key,
        security or [NoiseTransport(key)],
        muxers or [YamuxMultiplexer()],
        UpgraderOptions(timeout, ListenerOptions(**listener), ListenerHooks(**hooks)),
    )
    return Node(key, upgrader, TcpTransport(upgrader))


def port_of(addr: Multiaddr) -> int:
    return parse_endpoint(addr).port


async def open_socket(addr: Multiaddr) -> socket.socket:
    """A plain connected socket, non-blocking."""
    endpoint = parse_endpoint(addr)
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr())
    return sock


async def open_raw(addr: Multiaddr) -> MaConn:
    """A raw connection that is not started."""
    sock = await open_socket(addr)
    return MaConn(asyncio.get_running_loop(), sock, sock.getsockname(), sock.getpeername())


async def read_all(sock: socket.socket) -> bytes:
    """All bytes up to the end or a reset."""
    loop, out = asyncio.get_running_loop(), b""
    try:
        while data := await loop.sock_recv(sock, 65536):
            out += data
    except ConnectionError:
        pass
    return out


def num_descriptors() -> int:
    """Open descriptors, after garbage of earlier tests is collected."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def settled_descriptors() -> int:
    """As num_descriptors, after a first connection has ended: from then on the loop keeps one descriptor."""
    node = make_node()
    async with node.listening() as listener:
        sock = await open_socket(listener.multiaddr)
        await asyncio.get_running_loop().sock_sendall(sock, b"this is not multistream")
        await read_all(sock)
        sock.close()
    return num_descriptors()


def other_tasks() -> int:
    return len(asyncio.all_tasks())
