"""Makes the parts of a host from their names: security protocols, multiplexers, transports.

Comes in: names ("noise", "yamux") or ready objects, and the options of a Host. Goes out: objects for the
upgrader and the swarm. Only this module and `host` name concrete parts. A part is imported when it is first
used.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from p2pcore import limits, options
from p2pcore.errors import AddressError
from p2pcore.interfaces import Multiplexer, SecureTransport
from p2pcore.manet.sockaddr import split_tcp
from p2pcore.muxers.yamux import YamuxOptions

if TYPE_CHECKING:
    from p2pcore.interfaces import Protector, Transport, Upgrader
    from p2pcore.muxers.mplex import MplexOptions
    from p2pcore.security.pnet import PSK
    from p2pcore.transports.tcp.ports import TcpOptions
    from p2pcore.transports.unix import UnixOptions
    from p2pcore.transports.websocket.transport import WebsocketOptions
    from p2pcore.values.keys import PrivateKey
    from p2pcore.values.multiaddr import Multiaddr

T = TypeVar("T")

SECURITY = {
    "noise": "security.noise.NoiseTransport",
    "tls": "security.tls.TlsTransport",
    "plaintext": "security.plaintext.PlaintextTransport",
}
"""Security protocols by name. Each takes the host's private key."""
MUXERS = {"yamux": "muxers.yamux.YamuxMultiplexer", "mplex": "muxers.mplex.MplexMultiplexer"}
"""Multiplexers by name."""


def security(choice: Sequence[str | SecureTransport], key: PrivateKey) -> list[SecureTransport]:
    """The security protocols of `choice`, in the same order. Raises: see `_chosen`."""
    return _chosen("security", SECURITY, choice, SecureTransport, lambda name, make: make(key))


def muxers(
    choice: Sequence[str | Multiplexer], yamux: YamuxOptions | None, mplex: MplexOptions | None
) -> list[Multiplexer]:
    """The multiplexers of `choice`, in the same order, each with its options. None: default options.

    Raises: TypeError: options of a wrong class. See also `_chosen`.
    """
    if yamux is not None:
        options.instance("yamux", yamux, YamuxOptions)
    if mplex is not None:
        from p2pcore.muxers.mplex import MplexOptions

        options.instance("mplex", mplex, MplexOptions)
    given = {"yamux": yamux, "mplex": mplex}
    return _chosen("muxers", MUXERS, choice, Multiplexer, lambda name, make: make(given[name]))


def max_inbound_streams(
    choice: Sequence[str | Multiplexer], yamux: YamuxOptions | None, mplex: MplexOptions | None
) -> int:
    """Streams that a peer may open on one connection: the highest number of all multiplexers in `choice`."""
    default = limits.YAMUX_MAX_INBOUND_STREAMS
    yamuxes = default if yamux is None else yamux.max_inbound_streams
    mplexes = limits.MPLEX_MAX_INBOUND_STREAMS if mplex is None else mplex.max_inbound_streams
    counts = {"yamux": yamuxes, "mplex": mplexes}
    return max(counts.get(each, default) if isinstance(each, str) else default for each in choice)


def protector(psk: PSK | str | os.PathLike[str] | bytes | None) -> Protector | None:
    """The private network of `psk` (see PSK.of). None if `psk` is None.

    Raises:
        TypeError: `psk` has a wrong type.
        IdentityError: it is not a key. OSError: its file cannot be read.
    """
    if psk is None:
        return None
    from p2pcore.security.pnet import PSK, PrivateNetwork

    options.instance("psk", psk, PSK, str, os.PathLike, bytes, is_secret=True)
    return PrivateNetwork(PSK.of(psk))


def transports(
    upgrader: Upgrader,
    listen: Iterable[Multiaddr],
    tcp: TcpOptions | None,
    websocket: WebsocketOptions | None,
    unix: UnixOptions | None,
    is_psk: bool,
) -> list[Transport]:
    """The transports TCP, WebSocket, UNIX and memory, in order of preference for dialling.

    Args:
        listen: the addresses to listen on. Addresses with the same port share it.
        tcp, websocket, unix: options; None: the defaults.
        is_psk: True if the network is private.

    Raises: TypeError: options of a wrong class.
    """
    from p2pcore.transports.memory import MemoryTransport
    from p2pcore.transports.tcp.ports import TcpOptions, TcpPorts
    from p2pcore.transports.tcp.transport import TcpTransport
    from p2pcore.transports.unix import UnixOptions, UnixTransport
    from p2pcore.transports.websocket.transport import WebsocketOptions, WebsocketTransport

    ports = TcpPorts(options.given("tcp", tcp, TcpOptions), shared_ports(listen), is_psk)
    plain = TcpTransport(upgrader, ports=ports)
    return [
        plain,
        WebsocketTransport(upgrader, plain, options.given("websocket", websocket, WebsocketOptions)),
        UnixTransport(upgrader, options.given("unix", unix, UnixOptions)),
        MemoryTransport(upgrader),
    ]


def shared_ports(addrs: Iterable[Multiaddr]) -> frozenset[Multiaddr]:
    """Each IP address and port that several of `addrs` have. Port 0 is left out: it means a new port."""
    bases: Counter[Multiaddr] = Counter()
    for addr in addrs:
        with suppress(AddressError):
            bases[split_tcp(addr)[0]] += 1
    return frozenset(base for base, count in bases.items() if count > 1 and base["tcp"] != "0")


def _chosen(
    argument: str,
    homes: dict[str, str],
    choice: Sequence[str | T],
    interface: type,
    make: Callable[[str, Any], T],
) -> list[T]:
    """`choice` with the result of `make(name, class)` in the place of each name.

    Raises:
        TypeError: `choice` is not a list, or an item is neither a name nor an object with this interface.
        ValueError: a name is unknown, or `choice` is empty.
    """
    options.items(argument, choice, "names or objects", object)
    if not choice:
        known = ", ".join(map(repr, homes))
        raise ValueError(f"{argument} must have at least one of {known}, not be an empty list")
    for each in choice:
        if isinstance(each, str):
            options.one_of(f"each item of {argument}", each, tuple(homes))
        else:
            options.satisfies(f"each item of {argument}", each, interface)
    return [make(each, _load(homes[each])) if isinstance(each, str) else each for each in choice]


def _load(home: str) -> Any:
    module, _, attribute = home.rpartition(".")
    return getattr(import_module(f"p2pcore.{module}"), attribute)
