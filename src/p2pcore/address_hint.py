"""What somebody may have meant who wrote an address as other programs write it: for error messages.

Comes in: text that is no multiaddr. Goes out: the multiaddr, as text, or None. It never decides anything, and
never resolves a name.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

_ENDINGS = {"": "", "tcp": "", "ws": "/ws", "http": "/ws", "wss": "/tls/ws", "https": "/tls/ws"}
"""What follows the port, by the scheme of a URL."""
_USUAL_PORTS = {"ws": "80", "http": "80", "wss": "443", "https": "443"}

_WRITTEN = (  # a text, which `re` compiles when an error asks for a hint
    r"(?:/ip[46]/)?(?:(?P<scheme>[a-z]+)://)?"
    r"(?:\[(?P<ip6>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?/?"
)


def meant(text: str) -> str | None:
    """The multiaddr that `text` seems to mean: "127.0.0.1:4001" gives "/ip4/127.0.0.1/tcp/4001".

    None: it looks like no address of TCP or WebSocket either.
    """
    found = re.fullmatch(_WRITTEN, text.strip()[:300])
    if found is None or (found["scheme"] or "") not in _ENDINGS:
        return None
    scheme = found["scheme"] or ""
    port = found["port"] or _USUAL_PORTS.get(scheme, "PORT")
    host = _host(found["ip6"] or found["name"])
    if host is None or (port == "PORT" and host.startswith("/dns/")):
        return None
    return f"{host}/tcp/{port}{_ENDINGS[scheme]}"


def _host(host: str) -> str | None:
    try:
        ip = ip_address(host)
    except ValueError:
        return None if ":" in host else f"/dns/{host}"
    return f"/ip{ip.version}/{ip}"
