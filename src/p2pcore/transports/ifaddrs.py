"""Addresses of this machine's interfaces, and wildcard listen addresses spelled out with them.

Comes in: multiaddrs a listener is bound to. Goes out: the addresses a peer can dial. Asks getifaddrs(3), at
most every few seconds. Link-local IPv6 addresses are left out: without a zone nobody else can use them.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Iterable

from p2pcore.limits import IFADDRS_CACHE_S
from p2pcore.multiaddr import Multiaddr

_IFF_UP = 0x1
_HAS_LENGTH_BYTE = sys.platform not in ("linux", "cygwin")  # BSD and macOS put sa_len before the family


class _Ifaddrs(ctypes.Structure):
    """struct ifaddrs of <ifaddrs.h>, as far as it is the same everywhere."""


_Ifaddrs._fields_ = [
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("addr", ctypes.c_void_p),
]

_libc = ctypes.CDLL(None, use_errno=True)


def interface_hosts() -> list[str]:
    """Numeric addresses of all interfaces that are up: IPv4, loopback included, and IPv6 but link-local.

    Raises:
        OSError: the kernel gave none.
    """
    head = ctypes.POINTER(_Ifaddrs)()
    if _libc.getifaddrs(ctypes.byref(head)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, "getifaddrs failed")
    try:
        hosts = list(_walk(head))
    finally:
        _libc.freeifaddrs(head)
    return list(dict.fromkeys(host for host in hosts if not _is_link_local(host)))


def _walk(node: ctypes._Pointer[_Ifaddrs]) -> Iterable[str]:
    while node:
        entry = node.contents
        if entry.addr and entry.flags & _IFF_UP:
            host = _host_at(entry.addr)
            if host:
                yield host
        node = entry.next


def _host_at(sockaddr: int) -> str | None:
    """The numeric address in the struct sockaddr at this place, None for another family."""
    head = ctypes.string_at(sockaddr, 2)
    family = head[1] if _HAS_LENGTH_BYTE else int.from_bytes(head, sys.byteorder)
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, ctypes.string_at(sockaddr + 4, 4))
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, ctypes.string_at(sockaddr + 8, 16))
    return None


def _is_link_local(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return address.version == 6 and address.is_link_local


class InterfaceAddrs:
    """Spells out /ip4/0.0.0.0 and /ip6/:: with the addresses of the interfaces.

    Args:
        clock: monotonic seconds.
        hosts: where addresses come from.
    """

    __slots__ = ("_clock", "_hosts", "_known", "_until")

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        hosts: Callable[[], list[str]] = interface_hosts,
    ) -> None:
        self._clock = clock
        self._hosts = hosts
        self._known: list[str] = []
        self._until = float("-inf")

    def hosts(self) -> list[str]:
        """As interface_hosts, at most IFADDRS_CACHE_S old."""
        now = self._clock()
        if now >= self._until:
            self._known = self._hosts()
            self._until = now + IFADDRS_CACHE_S
        return self._known

    def forget(self) -> None:
        """The next call asks the kernel."""
        self._until = float("-inf")

    def expand(self, addrs: Iterable[Multiaddr]) -> list[Multiaddr]:
        """Each address, or what it stands for if its host is unspecified; in order, without repetition.

        Raises:
            OSError: the kernel gave no addresses.
        """
        expanded: dict[Multiaddr, None] = {}
        for addr in addrs:
            expanded.update(dict.fromkeys(self._expand_one(addr)))
        return list(expanded)

    def _expand_one(self, addr: Multiaddr) -> list[Multiaddr]:
        parts = str(addr).split("/")
        if parts[1:3] not in (["ip4", "0.0.0.0"], ["ip6", "::"]):
            return [addr]
        rest = "/".join(["", *parts[3:]])
        is_ip6 = parts[1] == "ip6"
        hosts = [host for host in self.hosts() if (":" in host) is is_ip6]
        return [Multiaddr(f"/{parts[1]}/{host}{rest}") for host in hosts]


_shared = InterfaceAddrs()


def expand(addrs: Iterable[Multiaddr]) -> list[Multiaddr]:
    """InterfaceAddrs.expand of one cache that the whole process shares."""
    return _shared.expand(addrs)
