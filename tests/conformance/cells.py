"""The table of the transport suite: every transport with every security protocol and multiplexer.

Comes in: the names in compose.SECURITY and compose.MUXERS. Goes out: CELLS, and for each a node that listens
and one that dials. To add a transport, add a row to ROWS. Nothing is faked: hosts are made as users make
them, but the test accepts the connections.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from p2pcore import Host, RelayOptions, TcpOptions, compose
from p2pcore.interfaces import CapableConn, Transport
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import WebsocketOptions
from p2pcore.upgrade.listener import UpgradedListener
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId


@dataclass(frozen=True)
class Cell:
    """One combination."""

    row: str
    security: str
    muxer: str

    def __str__(self) -> str:
        return f"{self.row}-{self.security}-{self.muxer}"

    def ends(self) -> AbstractAsyncContextManager[Ends]:
        """Both nodes, closed at the end with every listener and connection made through them."""
        return (ROWS | VARIANTS)[self.row](self)


@dataclass
class Ends:
    """A node that listens and one that dials.

    Attributes:
        cell: their protocols; server: the id of the listening node; addr: where it is asked to listen.
        transport: its name in the state of connections.
    """

    cell: Cell
    server: PeerId
    addr: Multiaddr
    transport: str
    listening: Transport
    dialling: Transport
    conns: list[CapableConn] = field(default_factory=list)
    listeners: list[UpgradedListener] = field(default_factory=list)

    async def listen(self, addr: Multiaddr | None = None) -> UpgradedListener:
        listener = cast("UpgradedListener", await self.listening.listen(addr or self.addr))
        self.listeners.append(listener)
        return listener

    async def dial(self, addr: Multiaddr, peer: PeerId | None = None) -> CapableConn:
        conn = await self.dialling.dial(addr, peer or self.server)
        self.conns.append(conn)
        return conn

    async def connect(self, listener: UpgradedListener) -> tuple[CapableConn, CapableConn]:
        """A connection: the dialler's end, the listener's."""
        outbound = await self.dial(listener.multiaddr)
        inbound = await listener.accept()
        self.conns.append(inbound)
        return outbound, inbound

    async def close(self) -> None:
        for listener in self.listeners:
            await listener.close()
        for conn in self.conns:
            conn.abort()


Row = Callable[[Cell], AbstractAsyncContextManager[Ends]]


def direct(addr: str, transport: str, server: dict[str, Any] | None = None, **both: Any) -> Row:
    """Two hosts that reach each other at `addr`, in which {tmp} is a fresh folder.

    Args:
        transport: its name in ConnState; server: options of the listening Host; both: options of both.
    """

    @asynccontextmanager
    async def ends(cell: Cell) -> AsyncIterator[Ends]:
        options: dict[str, Any] = {"listen": (), "security": [cell.security], "muxers": [cell.muxer]} | both
        with tempfile.TemporaryDirectory() as tmp:
            where = Multiaddr(addr.format(tmp=tmp))
            async with Host(**options | (server or {})) as one, Host(**options) as two:
                listening = one.swarm.transport_for_listening(where)
                dialling = two.swarm.transport_for_listening(where)
                assert listening is not None
                assert dialling is not None
                made = Ends(cell, one.peer_id, where, transport, listening, dialling)
                try:
                    yield made
                finally:
                    await made.close()

    return ends


CERTIFICATE = WebCertificate.self_signed("127.0.0.1")
WEB = WebsocketOptions(certificate=CERTIFICATE, verify=False, use_proxies=False)
PSK = bytes(range(32))
SHARED = TcpOptions(share_port=True)


@asynccontextmanager
async def relayed(cell: Cell) -> AsyncIterator[Ends]:
    """Two hosts that reach each other through a third, on TCP; all use the protocols of the cell."""
    options: dict[str, Any] = {"listen": (), "security": [cell.security], "muxers": [cell.muxer]}
    service = RelayOptions(circuit_s=0, circuit_bytes=0, max_circuits_per_peer=64)
    async with (
        Host(**options | {"listen": ["/ip4/127.0.0.1/tcp/0"]}, relay_service=service) as relay,
        Host(**options) as one,
        Host(**options) as two,
    ):
        where = relay.addrs_with_peer[0].encapsulate("/p2p-circuit")
        made = Ends(cell, one.peer_id, where, "p2p-circuit", one.relay, two.relay)
        try:
            yield made
        finally:
            await made.close()


ROWS: dict[str, Row] = {
    "tcp": direct("/ip4/127.0.0.1/tcp/0", "tcp"),
    "unix": direct("/unix{tmp}/s", "unix"),
    "memory": direct("/memory/0", "memory"),
    "relayed": relayed,
    "shared": direct("/ip4/127.0.0.1/tcp/0", "tcp", tcp=SHARED),
    "ws": direct("/ip4/127.0.0.1/tcp/0/ws", "websocket", websocket=WEB),
    "wss": direct("/ip4/127.0.0.1/tcp/0/tls/ws", "websocket", websocket=WEB),
}
"""Every transport."""

VARIANTS: dict[str, Row] = {
    "shared_ws": direct("/ip4/127.0.0.1/tcp/0/ws", "websocket", websocket=WEB, tcp=SHARED),
    "shared_wss": direct("/ip4/127.0.0.1/tcp/0/tls/ws", "websocket", websocket=WEB, tcp=SHARED),
    "psk": direct("/ip4/127.0.0.1/tcp/0", "tcp", psk=PSK),
    "psk_unix": direct("/unix{tmp}/s", "unix", psk=PSK),
    "psk_shared": direct("/ip4/127.0.0.1/tcp/0", "tcp", psk=PSK, tcp=SHARED),
    "psk_shared_wss": direct("/ip4/127.0.0.1/tcp/0/tls/ws", "websocket", websocket=WEB, psk=PSK, tcp=SHARED),
}
"""The same with options that do not depend on security and muxer: once each."""

CELLS = [
    Cell(row, security, muxer) for row in ROWS for security in compose.SECURITY for muxer in compose.MUXERS
] + [Cell(row, "noise", "yamux") for row in VARIANTS]
