"""The local end of a stream on the command line: its address, and the option --serve.

Comes in: text. Goes out: multiaddrs for p2pcore.streams, stream handlers on a host.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from p2pcore import AddressError, Host, Multiaddr
from p2pcore.cli.params import ProtocolType
from p2pcore.streams import to_local

if TYPE_CHECKING:
    from click import Context, Parameter

    LocalParam = click.ParamType[Multiaddr]
    ServeParam = click.ParamType["Serve"]
else:  # generic in the newest click only
    LocalParam = ServeParam = click.ParamType

LOOPBACK = "127.0.0.1"


class LocalType(LocalParam):
    """HOST:PORT, [IPV6]:PORT, PORT (of 127.0.0.1), unix:PATH, or a multiaddr of these kinds."""

    name = "address"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Multiaddr:
        if isinstance(value, Multiaddr):
            return value
        try:
            return _parsed(str(value))
        except (AddressError, ValueError):
            self.fail(f"{value!r} is no address: HOST:PORT, PORT or unix:PATH is expected", param, ctx)


def _parsed(text: str) -> Multiaddr:
    """Raises AddressError, ValueError."""
    if text.startswith("/"):
        addr = Multiaddr(text)
        to_local(addr)  # raises AddressError: it is of another kind
        return addr
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Multiaddr(f"/unix{os.path.abspath(text.removeprefix('unix:'))}")
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]").replace("localhost", LOOPBACK) or LOOPBACK
    version = ipaddress.ip_address(host).version
    return Multiaddr(f"/ip{version}/{host}/tcp/{port}")


def shown(local: Multiaddr) -> str:
    """`local` as people write it: HOST:PORT or unix:PATH."""
    path, port = local.get("unix"), local.get("tcp")
    if path is not None:
        return f"unix:{path}"
    host = local.get("ip4")
    return f"[{local.get('ip6')}]:{port}" if host is None else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Serve:
    """A protocol, and the local service that speaks it."""

    protocol: str
    local: Multiaddr

    def __str__(self) -> str:
        return f"{self.protocol}={shown(self.local)}"


class ServeType(ServeParam):
    """PROTOCOL=ADDRESS."""

    name = "protocol=address"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Serve:
        if isinstance(value, Serve):
            return value
        protocol, _, local = str(value).rpartition("=")
        return Serve(ProtocolType().convert(protocol, param, ctx), LocalType().convert(local, param, ctx))


def serve_all(host: Host, served: Iterable[Serve]) -> None:
    """`host` serves each protocol with its local service."""
    for each in served:
        host.set_stream_handler(each.protocol, to_local(each.local))
