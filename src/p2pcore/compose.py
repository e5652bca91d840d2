"""What a host is made of, by name: security protocols, multiplexers, transports.

Comes in: names ("noise", "yamux") or ready objects, and the options a Host was given. Goes out: what the
upgrader and the swarm take. With `host` the only module that names concrete parts; a part that needs
another library is imported when it is first asked for.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from p2pcore.errors import AddressError
from p2pcore.manet.sockaddr import split_tcp

if TYPE_CHECKING:
    from p2pcore.interfaces import Multiplexer, Protector, SecureTransport, Transport, Upgrader
    from p2pcore.muxers.yamux import YamuxOptions
    from p2pcore.security.pnet import PSK
    from p2pcore.transports.websocket.transport import WebsocketOptions
    from p2pcore.values.keys import PrivateKey
    from p2pcore.values.multiaddr import Multiaddr

T = TypeVar("T")

SECURITY = {
    "noise": "security.noise.NoiseTransport",
    "tls": "security.tls.TlsTransport",
    "plaintext": "security.plaintext.PlaintextTransport",
}
"""Security protocols by name; each is made of the host's private key."""
MUXERS = {"yamux": "muxers.yamux.YamuxMultiplexer", "mplex": "muxers.mplex.MplexMultiplexer"}
"""Multiplexers by name."""


def security(choice: Sequence[str | SecureTransport], key: PrivateKey) -> list[SecureTransport]:
    """The security protocols of `choice`, in its order. Raises ValueError for a name there is not."""
    return _chosen("security protocol", SECURITY, choice, lambda name, make: make(key))


def muxers(choice: Sequence[str | Multiplexer], yamux: YamuxOptions) -> list[Multiplexer]:
    """The multiplexers of `choice`, in its order; what bounds yamux bounds others where they have the same.

    Raises ValueError for a name there is not.
    """
    return _chosen("multiplexer", MUXERS, choice, lambda name, make: make(_muxer_options(name, yamux)))


def _muxer_options(name: str, yamux: YamuxOptions) -> Any:
    if name == "yamux":
        return yamux
    from p2pcore.muxers.mplex import MplexOptions

    return MplexOptions(max_inbound_streams=yamux.max_inbound_streams)


def protector(psk: PSK | str | os.PathLike[str] | bytes | None) -> Protector | None:
    """The private network of `psk` (see PSK.of), None without one. Raises IdentityError, OSError."""
    if psk is None:
        return None
    from p2pcore.security.pnet import PSK, PrivateNetwork

    return PrivateNetwork(PSK.of(psk))


def transports(
    upgrader: Upgrader,
    listen: Iterable[Multiaddr],
    sockets: Iterable[socket.socket],
    websocket: WebsocketOptions | None,
    unix_mode: int | None,
    **tcp: Any,
) -> list[Transport]:
    """TCP and what runs on it, UNIX sockets, memory; in order of preference for dialling.

    Args:
        listen: addresses, of which those with one port share it; sockets: see TcpOptions and UnixOptions.
        tcp: further fields of TcpOptions.
    """
    from p2pcore.transports.memory import MemoryTransport
    from p2pcore.transports.tcp.transport import TcpOptions, TcpTransport
    from p2pcore.transports.unix import UnixOptions, UnixTransport
    from p2pcore.transports.websocket.transport import WebsocketOptions, WebsocketTransport

    files = tuple(sock for sock in sockets if sock.family == socket.AF_UNIX)
    ports = tuple(sock for sock in sockets if sock.family != socket.AF_UNIX)
    plain = TcpTransport(upgrader, TcpOptions(sockets=ports, shared=shared_ports(listen), **tcp))
    return [
        plain,
        WebsocketTransport(upgrader, plain, websocket or WebsocketOptions()),
        UnixTransport(upgrader, UnixOptions(mode=unix_mode, backlog=tcp["backlog"], sockets=files)),
        MemoryTransport(upgrader),
    ]


def shared_ports(addrs: Iterable[Multiaddr]) -> frozenset[Multiaddr]:
    """The IP addresses and ports that several of `addrs` name; port 0 is another one each time."""
    bases: Counter[Multiaddr] = Counter()
    for addr in addrs:
        with suppress(AddressError):
            bases[split_tcp(addr)[0]] += 1
    return frozenset(base for base, count in bases.items() if count > 1 and base["tcp"] != "0")


def _chosen(
    what: str, homes: dict[str, str], choice: Sequence[str | T], make: Callable[[str, Any], T]
) -> list[T]:
    """`choice` with each name replaced by what `make(name, class)` makes of it."""
    if isinstance(choice, str):
        raise ValueError(f"a sequence of {what}s is expected, not the text {choice!r}")
    return [make(each, _load(what, homes, each)) if isinstance(each, str) else each for each in choice]


def _load(what: str, homes: dict[str, str], name: str) -> Any:
    if name not in homes:
        raise ValueError(f"no {what} is named {name!r}; there are: {', '.join(homes)}")
    module, _, attribute = homes[name].rpartition(".")
    return getattr(import_module(f"p2pcore.{module}"), attribute)
