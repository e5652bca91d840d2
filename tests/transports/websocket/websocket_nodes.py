"""Listeners and dials of the WebSocket transport for its tests, and raw requests.

Comes in: options, addresses. Goes out: transports, listeners that are closed at the end, answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nodes import Node, make_node, open_socket, read_all
from p2pcore import Multiaddr
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import (
    WebsocketOptions,
    WebsocketTransport,
)
from p2pcore.upgrade.listener import UpgradedListener

WS = Multiaddr("/ip4/127.0.0.1/tcp/0/ws")
WSS = Multiaddr("/ip4/127.0.0.1/tcp/0/tls/ws")
CERTIFICATE = WebCertificate.self_signed("localhost", "127.0.0.1", "::1", "*.example.com")
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def websocket(node: Node, **options: Any) -> WebsocketTransport:
    return WebsocketTransport(node.upgrader, node.transport, WebsocketOptions(**options))


@asynccontextmanager
async def listening(
    addr: Multiaddr = WS, node: Node | None = None, **options: Any
) -> AsyncIterator[UpgradedListener]:
    options.setdefault("certificate", CERTIFICATE)
    listener = await websocket(node or make_node(), **options).listen(addr)
    assert isinstance(listener, UpgradedListener)
    try:
        yield listener
    finally:
        await listener.close()


def tcp_part(addr: Multiaddr) -> Multiaddr:
    return Multiaddr.join(*addr.split()[:2])


async def talk(addr: Multiaddr, raw: bytes) -> bytes:
    """The answer to `raw`, up to the end of the connection."""
    sock = await open_socket(tcp_part(addr))
    with sock:
        await asyncio.get_running_loop().sock_sendall(sock, raw)
        return await read_all(sock)
