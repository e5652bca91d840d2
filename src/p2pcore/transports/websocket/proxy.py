"""HTTP proxies from the environment, and the tunnel through a proxy.

Comes in: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as urllib.request understands them; a mailbox on top
of a connection to a proxy. Goes out: the proxy for a host; a mailbox that is connected to that host.
Never shows credentials in an error. Specification: RFC 9110, section 9.3.6 (CONNECT).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from p2pcore.errors import AddressError, NegotiationError, P2PError, blame_us
from p2pcore.transports.websocket.http import HttpEnd
from p2pcore.values.host_name import normal_host

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox

_DEFAULT_PORT = 80
_HOST_IS_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""Statuses by which a proxy says that the host failed, and not the proxy."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that accepts CONNECT without TLS.

    Attributes:
        host: a name in normal form, or a numeric address; port: 1..65535.
        authorization: value of Proxy-Authorization, "" for none.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy that the environment names for `scheme` ("http" or "https") and this host; None: no proxy.

    Args:
        host: a name in normal form, or a numeric address.

    Raises:
        AddressError: the environment names a malformed proxy, or one that is not an HTTP proxy.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib import request

    bypass: Callable[[str, dict[str, str]], bool] = request.proxy_bypass_environment  # type: ignore[attr-defined]
    proxies = request.getproxies_environment()
    url = proxies.get(scheme) or proxies.get("all")
    if "no" in proxies:
        proxies["no"] = ",".join(_normal_exception(entry.strip()) for entry in proxies["no"].split(","))
    bracketed = f"[{host}]" if ":" in host else host
    if not url or bypass(host, proxies) or bypass(f"{bracketed}:{port}", proxies):
        return None
    return parse_proxy(url)


def _normal_exception(entry: str) -> str:
    """An entry of NO_PROXY, [.]HOST[:PORT], with its host in normal form; unchanged if that is not a host."""
    name, colon, port = entry.rpartition(":")
    if not colon or not port.isdecimal() or ":" in name:
        name, colon, port = entry, "", ""
    try:
        return normal_host(name.lstrip(".")) + colon + port
    except AddressError:
        return entry


def parse_proxy(url: str) -> Proxy:
    """Parses [http://][USER[:PASSWORD]@]HOST[:PORT][/].

    Raises:
        AddressError: it has another form; the message does not contain user and password.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
        if parts.scheme != "http" or not host:
            raise ValueError(f"scheme {parts.scheme!r}, host {host!r}")
        host = normal_host(host)
    except ValueError as error:
        shown = url.rpartition("@")[2]
        raise AddressError(f"the environment's proxy {shown!r} is not http://HOST:PORT: {error}") from None
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
    return Proxy(host, port, authorization)


async def open_tunnel(mailbox: Mailbox, proxy: Proxy, host: str, port: int) -> None:
    """Makes `proxy` connect `mailbox` to `host`; on return `mailbox` talks to that host.

    Raises:
        NegotiationError: the proxy refuses; RemoteProtocolError, LimitExceeded: its answer is malformed.
        ConnectionClosed: the proxy left.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [("Host", target)]
    if proxy.authorization:
        headers.append(("Proxy-Authorization", proxy.authorization))
    try:
        answer = await HttpEnd(mailbox, is_client=True).ask("CONNECT", target, headers)
    except (P2PError, OSError) as error:
        blame_us(error)
        raise
    if not 200 <= answer.status_code < 300:
        text = f"the proxy {proxy.host}:{proxy.port} answered HTTP {answer.status_code} to CONNECT {target}"
        if answer.status_code in _HOST_IS_AWAY:
            raise NegotiationError(text)
        raise blame_us(NegotiationError(text))
