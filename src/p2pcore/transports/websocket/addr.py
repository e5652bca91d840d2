"""WebSocket multiaddrs taken apart, and made.

Comes in: /ip4|ip6/…/tcp/N followed by /ws, /wss, /tls/ws or /tls/sni/NAME/ws, perhaps a /http-path, perhaps
a /p2p/ID. Goes out: a WebsocketEndpoint. Never resolves names, never touches the network.
Specification: libp2p websockets, "Addressing".
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from p2pcore.errors import AddressError
from p2pcore.manet.sockaddr import Endpoint, parse_endpoint
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

PROTOCOLS = ("ws", "wss")
"""The last components of addresses one can listen on."""

_PLAIN = [("ws",)]
_SECURE = [("wss",), ("tls", "ws"), ("tls", "sni", "ws")]
_STARTS = {"ws", "wss", "tls"}
_UNESCAPED = "!$&'()*+,;=:@/-._~"  # of a path, RFC 3986 section 3.3


@dataclass(frozen=True, slots=True)
class WebsocketEndpoint:
    """Where a WebSocket is.

    Attributes:
        tcp: the socket below; tcp_addr: its address.
        is_secure: TLS between TCP and HTTP.
        server_name: the host name in the address (sni), "" where there is none.
        target: of the request, with its leading slash.
        suffix: what follows the TCP port, in the form we print: "/tls/ws" for "/wss".
        peer: the id after /p2p, or None.
    """

    tcp: Endpoint
    tcp_addr: Multiaddr
    is_secure: bool
    suffix: Multiaddr
    server_name: str = ""
    target: str = "/"
    peer: PeerId | None = None

    @property
    def scheme(self) -> str:
        """Of the HTTP request: "http" or "https"."""
        return "https" if self.is_secure else "http"

    @property
    def host(self) -> str:
        """The server's name, or its address where it has no name."""
        return self.server_name or self.tcp.host

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the scheme's own, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.is_secure else 80
        return host if self.tcp.port == default else f"{host}:{self.tcp.port}"


def parse_websocket(addr: Multiaddr) -> WebsocketEndpoint:
    """Reads a WebSocket address.

    Raises:
        AddressError: it is none.
    """
    names = [protocol.name for protocol in addr.protocols()]
    at = next((i for i, name in enumerate(names) if name in _STARTS), 0)
    tail = tuple(names[at:])
    if tail[-1:] == ("p2p",):
        tail = tail[:-1]
    form = tail[:-1] if tail[-1:] == ("http-path",) else tail
    if not at or form not in _PLAIN + _SECURE:
        raise AddressError(
            f"{addr} is not /ip4|ip6/ADDRESS/tcp/PORT and then /ws, /wss, /tls/ws or /tls/sni/NAME/ws"
        )
    values = addr.values()
    name = (values[at + 1] or "") if "sni" in form else ""
    suffix = "/ws" if form in _PLAIN else f"/tls/sni/{name}/ws" if name else "/tls/ws"
    target = "/"
    if form != tail:
        path = values[at + len(form)] or ""
        suffix += f"/http-path/{path}"
        target += quote(unquote(path).lstrip("/"), safe=_UNESCAPED)
    head = Multiaddr.join(*addr.split()[:at])
    return WebsocketEndpoint(
        parse_endpoint(head), head, form not in _PLAIN, Multiaddr(suffix), name, target, addr.peer_id
    )
