"""WebSocket: dials and listens on /ip4|ip6/…/tcp/N/ws, /wss, /tls/ws and /tls/sni/NAME/ws.

Comes in: addresses with numeric hosts, or with names that a proxy resolves. Goes out: upgraded connections,
and listeners over TCP's sockets. TLS, proxies and the HTTP upgrade run when the upgrader starts a connection,
under its deadline and its bounds. Never resolves a peer's name, never answers HTTP twice.
Specification: libp2p websockets; RFC 6455.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcore import options
from p2pcore.errors import AddressError, blame_us
from p2pcore.interfaces import CapableConn, Listener, RawConn, RawListener, Upgrader
from p2pcore.late import Late
from p2pcore.limits import WEBSOCKET_HANDSHAKE_TIMEOUT_S
from p2pcore.manet.sockaddr import Endpoint
from p2pcore.transports.tcp.shared import Kind, TcpReuseListener
from p2pcore.transports.tcp.transport import TcpTransport, expected_peer
from p2pcore.transports.websocket.addr import PROTOCOLS, WebsocketEndpoint, parse_websocket
from p2pcore.values.multiaddr import Multiaddr, check_local
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from OpenSSL import SSL

    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore.transports.websocket import proxy as proxies, tls as web_tls, upgrade
    from p2pcore.transports.websocket.proxy import Proxy
    from p2pcore.transports.websocket.tls import WebCertificate
    from p2pcore.transports.websocket.upgrade import HttpHandler
else:
    proxies, web_tls = Late("p2pcore.transports.websocket.proxy"), Late("p2pcore.transports.websocket.tls")
    upgrade = Late("p2pcore.transports.websocket.upgrade")

Handshake = Callable[["Mailbox"], Awaitable[None]]
"""Turns a started connection into a WebSocket: TLS, proxy and HTTP upgrade."""

_MAX_PROXY_ADDRS = 4  # how many addresses of a proxy are tried


@dataclass(frozen=True, slots=True)
class WebsocketOptions:
    """How to dial and listen on WebSocket.

    Attributes:
        certificate: for listeners on secure addresses. An OpenSSL.SSL.Context is used unchanged; you may give
            it a renewed certificate while it listens.
        ca_file: PEM file of the authorities that a dialler trusts; None: the system's.
        verify: False accepts every certificate of a dialled host. The peer must still prove its id.
        handshake_timeout: seconds for TLS, proxy and HTTP together; the deadline of the upgrade applies too.
        http_handler: answers plain HTTP requests on listening ports; None: answer 404.
        use_proxies: dial through the proxies named by the environment.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. OSError: `ca_file` cannot be read, or has no
            certificate.
    """

    certificate: WebCertificate | SSL.Context | None = None
    ca_file: str | os.PathLike[str] | None = None
    verify: bool = True
    handshake_timeout: float = WEBSOCKET_HANDSHAKE_TIMEOUT_S
    http_handler: HttpHandler | None = None
    use_proxies: bool = True

    def __post_init__(self) -> None:
        if self.certificate is not None and not isinstance(self.certificate, web_tls.WebCertificate):
            from OpenSSL import SSL

            options.instance(
                "certificate", self.certificate, web_tls.WebCertificate, SSL.Context, is_secret=True
            )
        if self.ca_file is not None:
            options.instance("ca_file", self.ca_file, str, os.PathLike)
        options.flag("verify", self.verify)
        if self.ca_file is not None:
            web_tls.client_context(self.ca_file, self.verify)
        options.seconds("handshake_timeout", self.handshake_timeout)
        if self.http_handler is not None:
            options.function("http_handler", self.http_handler)
        options.flag("use_proxies", self.use_proxies)


@functools.lru_cache(maxsize=64)
def _with_suffix(addr: Multiaddr, suffix: Multiaddr) -> Multiaddr:
    """`addr` followed by `suffix`; all connections of a listener share the object."""
    return addr.encapsulate(suffix)


class WebsocketConn:
    """A raw connection that speaks WebSocket after `start`: satisfies interfaces.RawConn.

    Args:
        raw: the connection below; owned. It may be started already; its own `start` then does nothing.
        handshake: run by `start`; timeout: seconds that it may take.
        suffix: added to the multiaddrs of `raw`.
        remote: the peer's multiaddr, if it is not that of `raw` with `suffix`.
    """

    __slots__ = ("_handshake", "_raw", "_remote", "_suffix", "_timeout")

    transport = "websocket"

    def __init__(
        self,
        raw: RawConn,
        handshake: Handshake,
        suffix: Multiaddr,
        timeout: float = WEBSOCKET_HANDSHAKE_TIMEOUT_S,
        remote: Multiaddr | None = None,
    ) -> None:
        self._raw = raw
        self._handshake = handshake
        self._suffix = suffix
        self._timeout = timeout
        self._remote = remote

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated."""
        return self._raw.mailbox

    @property
    def local_multiaddr(self) -> Multiaddr:
        """The socket's own address as a WebSocket's."""
        return _with_suffix(self._raw.local_multiaddr, self._suffix)

    @property
    def remote_multiaddr(self) -> Multiaddr | None:
        """The peer's address as a WebSocket's; through a proxy, the dialled address."""
        if self._remote is not None:
            return self._remote
        remote = self._raw.remote_multiaddr
        return None if remote is None else remote.encapsulate(self._suffix)

    @property
    def block(self) -> str:
        """As for the connection below."""
        return self._raw.block

    @property
    def is_limited(self) -> bool:
        """As for the connection below."""
        return self._raw.is_limited

    @property
    def expected_peer(self) -> PeerId | None:
        """As for the connection below."""
        return self._raw.expected_peer

    async def start(self) -> None:
        """Begins to read the socket, and becomes a WebSocket.

        Raises:
            OSError: the socket cannot be used; TimeoutError: the handshake took too long.
            NegotiationError, HandshakeError, RemoteProtocolError, ConnectionClosed: the handshake failed.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._raw.start()
                await self._handshake(self._raw.mailbox)
        except TimeoutError as error:
            raise TimeoutError(
                str(error) or f"the WebSocket handshake did not end within {self._timeout:g} s"
            ) from error

    def abort(self) -> None:
        """Closes at once, started or not. Idempotent."""
        self._raw.abort()


class WebsocketAcceptor:
    """Turns accepted connections of any listener into WebSockets.

    Args:
        options: see WebsocketOptions.
        suffix: the part of the listener's address after its port: "/ws", "/tls/ws", ...

    Raises:
        AddressError: `suffix` needs a certificate. ValueError: the key does not belong to the certificate.
    """

    __slots__ = ("_context", "_options", "suffix")

    def __init__(self, options: WebsocketOptions, suffix: Multiaddr) -> None:
        self._options = options
        self.suffix = suffix
        self._context: SSL.Context | None = None
        if "tls" in suffix:
            if options.certificate is None:
                raise AddressError(f"{suffix} needs a certificate: WebsocketOptions(certificate=...)")
            given = options.certificate
            self._context = (
                web_tls.server_context(given) if isinstance(given, web_tls.WebCertificate) else given
            )

    def __call__(self, raw: RawConn) -> WebsocketConn:
        """The server's side over `raw`; nobody may have read `raw` before."""
        return WebsocketConn(raw, self._accept, self.suffix, self._options.handshake_timeout)

    async def _accept(self, mailbox: Mailbox) -> None:
        if self._context is not None:
            await web_tls.serve(mailbox, self._context)
        await upgrade.accept_upgrade(mailbox, self._options.http_handler)


class WebsocketListener:
    """A listener whose connections are WebSockets: satisfies interfaces.RawListener.

    Args:
        inner: where connections come from; owned. accept: turns them into WebSockets.
    """

    __slots__ = ("_accept", "_inner")

    def __init__(self, inner: RawListener, accept: WebsocketAcceptor) -> None:
        self._inner = inner
        self._accept = accept

    @property
    def multiaddr(self) -> Multiaddr:
        """The bound address, with the real port."""
        return self._inner.multiaddr.encapsulate(self._accept.suffix)

    async def accept(self) -> WebsocketConn:
        """As RawListener.accept."""
        return self._accept(await self._inner.accept())

    def screen(self, admits: Callable[[RawConn], bool]) -> bool:
        """As TcpReuseListener.screen; False: the port is not shared."""
        return isinstance(self._inner, TcpReuseListener) and self._inner.screen(admits)

    async def rebind(self) -> None:
        """As RawListener.rebind."""
        await self._inner.rebind()

    def pause(self) -> None:
        """As RawListener.pause."""
        self._inner.pause()

    def resume(self) -> None:
        """As RawListener.resume."""
        self._inner.resume()

    def drain(self) -> None:
        """As RawListener.drain."""
        self._inner.drain()

    async def close(self) -> None:
        """As RawListener.close."""
        await self._inner.close()


class WebsocketTransport:
    """The WebSocket transport.

    Args:
        upgrader: secures and multiplexes dialled and accepted connections.
        tcp: its sockets, with its options, carry the WebSockets.
        options: see WebsocketOptions.
    """

    __slots__ = ("_context", "_options", "_tcp", "_upgrader")

    protocols = PROTOCOLS
    is_proxy = False

    def __init__(
        self, upgrader: Upgrader, tcp: TcpTransport, options: WebsocketOptions = WebsocketOptions()
    ) -> None:
        self._upgrader = upgrader
        self._tcp = tcp
        self._options = options
        self._context: SSL.Context | None = None

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for a WebSocket at an IP address, or at a name that a proxy resolves; a peer id may follow."""
        try:
            endpoint = parse_websocket(addr)
            return endpoint.port != 0 and (endpoint.tcp is not None or self._proxy(endpoint) is not None)
        except AddressError:
            return False

    def keeps_name(self, addr: Multiaddr) -> bool:
        """True for a WebSocket at a host name that a proxy resolves. See interfaces.NameKeeper."""
        try:
            endpoint = parse_websocket(addr)
            return endpoint.tcp is None and self._proxy(endpoint) is not None
        except AddressError:
            return False

    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects, directly or through a proxy, and upgrades.

        Args:
            addr: the address; the peer must prove the id at its end, if there is one.
            peer: the id that the peer must prove; None: the id in `addr`, or any.

        Raises:
            AddressError: not a WebSocket address, `addr` and `peer` name two peers, or a malformed proxy.
            OSError: connecting failed, or `ca_file` cannot be used; TimeoutError: it took too long.
            NegotiationError, HandshakeError, UpgradeTimeout: the upgrade failed, see `.stage`.
        """
        endpoint = parse_websocket(addr)
        expected = expected_peer(addr, endpoint.peer, peer)
        context = self._client_context() if endpoint.is_secure else None
        proxy = self._proxy(endpoint)
        raw = await self._connected(endpoint, proxy)

        async def handshake(mailbox: Mailbox) -> None:
            if proxy is not None:
                await proxies.open_tunnel(mailbox, proxy, endpoint.reached_at, endpoint.port)
            if context is not None:
                await web_tls.connect(mailbox, context, endpoint.host)
            await upgrade.request_upgrade(mailbox, endpoint.authority, endpoint.target)

        timeout = self._options.handshake_timeout
        remote = addr.without_p2p() if endpoint.is_secure else endpoint.tcp_addr.encapsulate(endpoint.suffix)
        conn = WebsocketConn(raw, handshake, endpoint.suffix, timeout, remote)
        return await self._upgrader.upgrade_outbound(conn, expected)

    def _client_context(self) -> SSL.Context:
        """One context for all dials: reading the system's authorities takes milliseconds."""
        if self._context is None:
            try:
                self._context = web_tls.client_context(self._options.ca_file, self._options.verify)
            except OSError as error:
                blame_us(error)
                raise
        return self._context

    async def _connected(self, endpoint: WebsocketEndpoint, proxy: Proxy | None) -> RawConn:
        """A connection to the host, or to its proxy. Raises as TcpTransport.connect."""
        if proxy is None:
            if endpoint.tcp is None:
                raise AddressError(f"{endpoint.tcp_addr}: a host name needs a proxy that resolves it")
            return await self._tcp.connect(endpoint.tcp)
        try:
            return await self._reach(proxy)
        except OSError as error:
            blame_us(error)  # the proxy failed, not the dialled host
            raise

    def _proxy(self, endpoint: WebsocketEndpoint) -> Proxy | None:
        if not self._options.use_proxies:
            return None
        return proxies.proxy_for(endpoint.scheme, endpoint.reached_at, endpoint.port)

    async def _reach(self, proxy: Proxy) -> RawConn:
        """A connection to the proxy. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
        failure: OSError = OSError(f"the proxy {proxy.host} has no address")
        for family, _, _, _, sockaddr in found[:_MAX_PROXY_ADDRS]:
            try:
                host, _, _ = str(sockaddr[0]).partition("%")
                zone = str(sockaddr[3]) if len(sockaddr) > 3 and sockaddr[3] else ""
                return await self._tcp.connect(Endpoint(family, host, proxy.port, zone))
            except OSError as error:
                failure = error
        try:
            raise failure
        finally:
            del failure  # else it keeps itself alive by its traceback

    async def listen(self, addr: Multiaddr) -> Listener:
        """Binds, and starts to accept and upgrade connections.

        Raises:
            AddressError: not a WebSocket address, or a secure one without a certificate.
            OSError: binding failed. ValueError: the key does not belong to the certificate.
        """
        endpoint = parse_websocket(addr)
        check_local(addr)
        if endpoint.server_name and not endpoint.is_secure:
            raise AddressError(f"{addr}: only listeners with TLS may have a name")
        accept = self.acceptor(endpoint.suffix)
        inner = self._tcp.bind(endpoint.tcp_addr, Kind.TLS if endpoint.scheme == "https" else Kind.HTTP)
        return self._upgrader.upgrade_listener(WebsocketListener(inner, accept))

    def acceptor(self, suffix: Multiaddr) -> WebsocketAcceptor:
        """An acceptor for any listener whose addresses end with `suffix`. Raises as WebsocketAcceptor."""
        import h11  # noqa: F401  (what an upgrade needs is imported now, so that the first peer does not wait)

        from p2pcore.transports.websocket import proxy, tls, upgrade  # noqa: F401

        return WebsocketAcceptor(self._options, suffix)
