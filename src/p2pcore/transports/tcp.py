"""TCP: dials and listens on /ip4|ip6/…/tcp/N.

Comes in: addresses with numeric hosts. Goes out: upgraded connections and listeners. It never resolves
names, and closes the socket whatever fails.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address

from p2pcore.errors import AddressError
from p2pcore.interfaces import CapableConn, Listener, RawListener, Upgrader
from p2pcore.limits import LISTEN_BACKLOG, TCP_CONNECT_TIMEOUT_S
from p2pcore.multiaddr import Multiaddr
from p2pcore.peer_id import PeerId
from p2pcore.transports.conn import MaConn, set_linger, tune
from p2pcore.transports.linger import LingerListener
from p2pcore.transports.malistener import MaListener
from p2pcore.transports.sockaddr import Endpoint, parse_endpoint, to_multiaddr

_IP_BIND_ADDRESS_NO_PORT = 24
"""Of linux/in.h; Python has no name for it."""


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """How to dial and listen.

    Attributes:
        connect_timeout: seconds for the TCP handshake alone.
        linger: None leaves closing to the kernel, which delivers what is written. 0 resets at close:
            no TIME_WAIT, but bytes written just before are lost. See LingerListener for more than 0.
        reuse_port: let other processes share the port of a listener.
        backlog: connections the kernel may queue.
        dial_from: the local IP address outbound connections of its family leave from; None: the kernel's
            choice. One local address reaches one listener at most some 28,000 times (ip_local_port_range).
        sockets: sockets that listen already, as `malistener.open_listening` makes them. Listening on the
            address of one takes it over, once; its queue may be shared with other processes.
    """

    connect_timeout: float = TCP_CONNECT_TIMEOUT_S
    linger: int | None = None
    reuse_port: bool = False
    backlog: int = LISTEN_BACKLOG
    dial_from: str | None = None
    sockets: tuple[socket.socket, ...] = ()


class TcpTransport:
    """The TCP transport.

    Args:
        upgrader: secures and multiplexes what is dialled and accepted.
        options: see TcpOptions.
    """

    __slots__ = ("_options", "_sockets", "_source", "_upgrader")

    protocols = ("tcp",)
    is_proxy = False

    def __init__(self, upgrader: Upgrader, options: TcpOptions = TcpOptions()) -> None:
        self._upgrader = upgrader
        self._options = options
        self._source = None if options.dial_from is None else _source(options.dial_from)
        self._sockets = {to_multiaddr(sock.getsockname()): sock for sock in options.sockets}

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for a numeric IP address and a TCP port, with or without a peer id behind."""
        try:
            return parse_endpoint(addr).port != 0
        except AddressError:
            return False

    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects and upgrades.

        Args:
            addr: where to; a peer id at its end must be proved.
            peer: the id that must be proved; None: the one of `addr`, or any.

        Raises:
            AddressError: not a TCP address, or `addr` and `peer` name two peers.
            OSError: the connection failed; TimeoutError: it took too long.
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
        loop = asyncio.get_running_loop()
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            tune(sock)
            if self._options.linger is not None:
                set_linger(sock, self._options.linger)
            if self._source is not None and self._source.family is endpoint.family:
                _bind_source(sock, self._source)
            async with asyncio.timeout(self._options.connect_timeout):
                await _connect_socket(loop, sock, endpoint.connect_address())
            return MaConn(loop, sock, sock.getsockname(), sock.getpeername())
        except TimeoutError as error:
            sock.close()
            where = f"{endpoint.host} port {endpoint.port}"
            raise TimeoutError(
                f"no TCP connection to {where} in {self._options.connect_timeout} s"
            ) from error
        except BaseException:
            sock.close()
            raise

    async def listen(self, addr: Multiaddr) -> Listener:
        """Binds, and starts to accept and upgrade.

        Raises:
            AddressError: not a TCP address; OSError: it cannot be bound.
        """
        return self._upgrader.upgrade_listener(self.bind(addr))

    def bind(self, addr: Multiaddr) -> RawListener:
        """Binds, or takes over the socket given for `addr`; what it gives out is not upgraded.

        Raises:
            AddressError: not a TCP address; OSError: it cannot be bound.
        """
        options = self._options
        adopted = self._sockets.pop(addr, None)
        if adopted is not None:
            bound = MaListener.adopt(adopted, options.backlog)
        else:
            bound = MaListener.bind(addr, options.reuse_port, options.backlog)
        return bound if options.linger is None else LingerListener(bound, options.linger)


async def _connect_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[str, int]
) -> None:
    """connect(2), waiting where it must. uvloop's sock_connect asks a resolver thread even for numbers."""
    failed = sock.connect_ex(address)
    if failed == errno.EINPROGRESS:
        writable = loop.create_future()
        loop.add_writer(sock, _set_done, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _source(host: str) -> Endpoint:
    """Where outbound connections leave from. Raises ValueError: `host` is no numeric address."""
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    return Endpoint(family, host, 0)


def _bind_source(sock: socket.socket, source: Endpoint) -> None:
    """Leaves the choice of the port to connect(2), which may give one to several destinations."""
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind(source.bind_address())


def expected_peer(addr: Multiaddr, named: PeerId | None, peer: PeerId | None) -> PeerId | None:
    """The id to be proved: `peer`, or the one `addr` names. Raises AddressError: they differ."""
    if peer is not None and named is not None and peer != named:
        raise AddressError(f"{addr} does not belong to peer {peer}")
    return named if peer is None else peer
