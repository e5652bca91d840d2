"""Dials from a listening port, so that peers and NATs see one port for both directions.

Comes in: our listening sockets, the address to dial. Goes out: a socket bound to the address of a listener.
If no listener fits, or its address cannot be used, the socket stays unbound and the kernel chooses the port.
The listener itself stays exclusive. But on Linux, after such a dial, a process of the same user that sets
SO_REUSEPORT could join its port; p2pcore never does so.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from p2pcore.manet.sockaddr import Endpoint

_UNUSABLE = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
_FORBIDDEN = (errno.EACCES, errno.EPERM)  # a low port, bound before the process gave up root


def choose(listeners: Iterable[socket.socket], target: Endpoint) -> socket.socket | None:
    """The listener to dial `target` from, chosen as in go-libp2p; None: none fits.

    The first choice is a listener on the source address of the route to `target`. For a loopback target, the
    second is a listener on a loopback address. The last is any listener on the unspecified address.
    """
    same = [sock for sock in listeners if sock.family == target.family]
    if not same:
        return None
    names = {sock: sock.getsockname() for sock in same}
    preferred = preferred_source(target)
    exact = [sock for sock, name in names.items() if preferred == source_of(name)]
    if exact:
        return exact[0]
    hosts = {sock: ip_address(source_of(name)[0]) for sock, name in names.items()}
    loopback = [sock for sock, host in hosts.items() if host.is_loopback]
    if loopback and ip_address(target.host).is_loopback:
        return loopback[0]
    anywhere = [sock for sock, host in hosts.items() if host.is_unspecified]
    return random.choice(anywhere) if anywhere else None


def source_of(name: tuple[Any, ...]) -> tuple[str, int]:
    """Host and scope of a socket's name. Two interfaces may have one link-local address: the scope tells."""
    host, *rest = name
    return host.partition("%")[0], rest[2] if len(rest) > 1 else 0


def preferred_source(target: Endpoint) -> tuple[str, int] | None:
    """Host and scope from which the kernel would dial `target`; None without a route. Sends nothing."""
    with socket.socket(target.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(target.sockaddr())
        except OSError:
            return None
        return source_of(probe.getsockname())


def bind_beside(sock: socket.socket, listener: socket.socket) -> bool:
    """Binds `sock` to the address of `listener`, which stays exclusive to its process.

    Both have SO_REUSEPORT only during bind(2); a listener that shares its port anyway keeps it.

    Returns: False if the address cannot be used; `sock` is not bound then.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    shared = listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(listener.getsockname())
    except OSError as error:
        if error.errno in _UNUSABLE + _FORBIDDEN:
            return False
        raise
    finally:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    return True


def is_unusable(error: OSError) -> bool:
    """True if a dial failed because of its local port: there is a connection to the same place already."""
    return error.errno in _UNUSABLE
