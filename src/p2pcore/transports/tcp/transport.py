"""TCP: dials and listens on /ip4|ip6/…/tcp/N.

Comes in: addresses with numeric hosts. Goes out: upgraded connections and listeners. It never resolves names.
It closes the socket after every failure.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from p2pcore.errors import AddressError, blame_us
from p2pcore.interfaces import CapableConn, Listener, RawListener, Upgrader
from p2pcore.manet.conn import MaConn
from p2pcore.manet.sockaddr import Endpoint, parse_endpoint
from p2pcore.transports.tcp.ports import TcpOptions, TcpPorts
from p2pcore.transports.tcp.shared import Kind
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId


class TcpTransport:
    """The TCP transport.

    Args:
        upgrader: secures and multiplexes dialled and accepted connections.
        options: see TcpOptions.
        ports: the ports of the host, if other transports listen on them too; they have their own options.
    """

    __slots__ = ("_ports", "_upgrader")

    protocols = ("tcp",)
    is_proxy = False

    def __init__(
        self, upgrader: Upgrader, options: TcpOptions | None = None, ports: TcpPorts | None = None
    ) -> None:
        self._upgrader = upgrader
        self._ports = ports or TcpPorts(options or TcpOptions())

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for a numeric IP address and a TCP port; a peer id may follow."""
        try:
            return parse_endpoint(addr).port != 0
        except AddressError:
            return False

    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects and upgrades.

        Args:
            addr: the address; the peer must prove the id at its end, if there is one.
            peer: the id that the peer must prove; None: the id in `addr`, or any.

        Raises:
            AddressError: not a TCP address, or `addr` and `peer` name two peers.
            OSError: connecting failed; TimeoutError: it took too long.
            NegotiationError, HandshakeError, UpgradeTimeout: the upgrade failed, see `.stage`.
        """
        endpoint = parse_endpoint(addr)
        expected = expected_peer(addr, endpoint.peer, peer)
        conn = await self.connect(endpoint)
        return await self._upgrader.upgrade_outbound(conn, expected)

    async def connect(self, endpoint: Endpoint) -> MaConn:
        """A connection before any upgrade.

        Raises:
            OSError: it failed; TimeoutError: it took too long.
        """
        ports = self._ports
        timeout = ports.options.connect_timeout
        try:
            try:
                return await _connect_with(ports.open_socket(endpoint), endpoint, timeout)
            except OSError as error:
                if not ports.is_port_taken(error):
                    raise
            return await _connect_with(ports.open_socket(endpoint, is_retry=True), endpoint, timeout)
        except TimeoutError as error:
            where = f"{endpoint.host} port {endpoint.port}"
            raise TimeoutError(f"no TCP connection to {where} in {timeout} s") from error

    async def listen(self, addr: Multiaddr) -> Listener:
        """Binds, and starts to accept and upgrade connections.

        Raises:
            AddressError: not a TCP address; OSError: binding failed.
        """
        return self._upgrader.upgrade_listener(self.bind(addr))

    def bind(self, addr: Multiaddr, kind: Kind = Kind.PLAIN) -> RawListener:
        """Binds, or joins a shared port; the connections it accepts are not upgraded.

        Args:
            addr: /ip4|ip6/…/tcp/N and nothing more; 0 means any free port.
            kind: how the wanted connections begin, on a shared port.

        Raises:
            AddressError: not a TCP address; OSError: binding failed; EADDRINUSE also means that the port has
                a listener of this kind.
        """
        return self._ports.listen(addr, kind)


async def _connect_with(sock: socket.socket, endpoint: Endpoint, timeout: float) -> MaConn:
    loop = asyncio.get_running_loop()
    try:
        await _connect_socket(loop, sock, endpoint.sockaddr(), timeout)
        return MaConn(loop, sock, sock.getsockname(), sock.getpeername())
    except BaseException:
        sock.close()
        raise


async def _connect_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[Any, ...], timeout: float
) -> None:
    """connect(2), waiting if needed. uvloop's sock_connect would ask a resolver thread even for numbers.

    The second call returns whether the first has succeeded meanwhile, as it does on the loopback. Otherwise
    it costs one more system call and changes nothing.
    """
    failed = sock.connect_ex(address)
    if failed == errno.EHOSTUNREACH:  # immediate: the routes of this machine say so, not the network
        raise blame_us(OSError(failed, os.strerror(failed)))
    if failed == errno.EINPROGRESS:
        failed = sock.connect_ex(address)
    if failed in (errno.EALREADY, errno.EINPROGRESS):
        async with asyncio.timeout(timeout):
            await _wait_writable(loop, sock)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed not in (0, errno.EISCONN):
        raise OSError(failed, os.strerror(failed))


async def _wait_writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    writable = loop.create_future()
    loop.add_writer(sock, _set_done, writable)
    try:
        await writable
    finally:
        loop.remove_writer(sock)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def expected_peer(addr: Multiaddr, named: PeerId | None, peer: PeerId | None) -> PeerId | None:
    """The id that the peer must prove: `peer`, or the one in `addr`. Raises AddressError: they differ."""
    if peer is not None and named is not None and peer != named:
        raise AddressError(f"{addr} does not belong to peer {peer}")
    return named if peer is None else peer


__all__ = ["TcpOptions", "TcpTransport", "expected_peer"]
