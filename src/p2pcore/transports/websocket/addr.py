"""Parses and builds WebSocket multiaddrs.

Comes in: /ip4|ip6|dns…/…/tcp/N, then /ws, /wss, /tls/ws or /tls/sni/NAME/ws, perhaps a /http-path, perhaps a
/p2p/ID. Also /sni/NAME/ws: no TLS, and the name has been resolved (see dialing/dns.py). Goes out: a
WebsocketEndpoint with normal host names. Never resolves names, never touches the network.
Specification: libp2p websockets, "Addressing".
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from p2pcore.errors import AddressError
from p2pcore.manet.sockaddr import Endpoint, parse_endpoint
from p2pcore.values.host_name import normal_host
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

PROTOCOLS = ("ws", "wss")
"""The last component of an address that a listener accepts."""

_PLAIN = [("ws",), ("sni", "ws")]
_SECURE = [("wss",), ("tls", "ws"), ("tls", "sni", "ws")]
_STARTS = {"ws", "wss", "tls", "sni"}
_NAMES = {"dns", "dns4", "dns6"}
_UNESCAPED = "!$&'()*+,;=:@/-._~"  # in a path, RFC 3986 section 3.3


@dataclass(frozen=True, slots=True)
class WebsocketEndpoint:
    """The parts of a WebSocket address.

    Attributes:
        tcp: the socket below, None if it has a host name; tcp_addr: its address; port: its TCP port.
        is_secure: there is TLS between TCP and HTTP.
        server_name: the host name in the address (sni, else the name of the socket), "" if there is none.
        reached_at: the host to ask a proxy for: the host name of the socket, or as `host`.
        target: of the request, with its leading slash.
        suffix: the part after the TCP port, in the form we print: "/tls/ws" for "/wss".
        peer: the id after /p2p, or None.
    """

    tcp: Endpoint | None
    tcp_addr: Multiaddr
    port: int
    is_secure: bool
    suffix: Multiaddr
    server_name: str
    reached_at: str
    target: str = "/"
    peer: PeerId | None = None

    @property
    def scheme(self) -> str:
        """The scheme of the HTTP request: "http" or "https"."""
        return "https" if self.is_secure else "http"

    @property
    def host(self) -> str:
        """The server's name, or its address if it has no name."""
        return self.server_name or self.reached_at

    @property
    def authority(self) -> str:
        """The Host header: with the port if it is not the scheme's default; IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.is_secure else 80
        return host if self.port == default else f"{host}:{self.port}"


def parse_websocket(addr: Multiaddr) -> WebsocketEndpoint:
    """Parses a WebSocket address.

    Raises:
        AddressError: it is not a WebSocket address.
    """
    names = [protocol.name for protocol in addr.protocols()]
    at = next((i for i, name in enumerate(names) if name in _STARTS), 0)
    tail = tuple(names[at:])
    if tail[-1:] == ("p2p",):
        tail = tail[:-1]
    form = tail[:-1] if tail[-1:] == ("http-path",) else tail
    if not at or form not in _PLAIN + _SECURE:
        raise AddressError(
            f"{addr} is not /ip4|ip6|dns/ADDRESS/tcp/PORT and then /ws, /wss, /tls/ws or /tls/sni/NAME/ws"
        )
    values = addr.values()
    sni = (values[at + form.index("sni")] or "") if "sni" in form else ""
    is_secure = form not in _PLAIN
    suffix = "/ws" if not is_secure else f"/tls/sni/{sni}/ws" if sni else "/tls/ws"
    target = "/"
    if form != tail:
        path = values[at + len(form)] or ""
        suffix += f"/http-path/{path}"
        target += quote(unquote(path).lstrip("/"), safe=_UNESCAPED)
    head = Multiaddr.join(*addr.split()[:at])
    tcp, name, port = _socket_of(addr, head)
    server_name = _normal(addr, sni) if sni else name
    reached_at = name or server_name or (tcp.host if tcp is not None else "")
    return WebsocketEndpoint(
        tcp, head, port, is_secure, Multiaddr(suffix), server_name, reached_at, target, addr.peer_id
    )


def _normal(addr: Multiaddr, name: str) -> str:
    try:
        return normal_host(name)
    except AddressError as error:
        raise AddressError(f"{addr}: {error}") from error


def _socket_of(addr: Multiaddr, head: Multiaddr) -> tuple[Endpoint | None, str, int]:
    """The endpoint (None for a name), the name ("" for an endpoint), the port. Raises AddressError."""
    protocols = [protocol.name for protocol in head.protocols()]
    if protocols[0] in _NAMES and protocols[1:] == ["tcp"]:
        name, port = head.values()
        return None, _normal(addr, name or ""), int(port or 0)
    endpoint = parse_endpoint(head)
    return endpoint, "", endpoint.port
