"""The addresses of this machine's network interfaces.

Comes in: nothing. Goes out: IP addresses as texts, in the kernel's order. Reads them through getifaddrs(3),
which Linux, macOS and the BSDs share; never opens a socket. IPv6 link-local addresses are left out: without
a zone nobody could use them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable

from p2pcore.values.multiaddr import Multiaddr

_BSD = sys.platform == "darwin" or "bsd" in sys.platform
_OFFSETS = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}
"""Where an address lies in its sockaddr, and how long it is; the same everywhere."""


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("addr", ctypes.POINTER(ctypes.c_ubyte)),
]


def interface_addresses() -> list[str]:
    """IPv4 and IPv6 addresses of every interface that is up; texts without a zone.

    Raises: OSError: getifaddrs(3) failed.
    """
    libc = ctypes.CDLL(ctypes.util.find_library("c") if _BSD else None, use_errno=True)
    head = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(head)):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    try:
        return _texts(head)
    finally:
        libc.freeifaddrs(head)


def expand_wildcards(addrs: Iterable[Multiaddr]) -> dict[Multiaddr, None]:
    """`addrs` in order and once each, a wildcard replaced by every interface address of its family."""
    expanded: dict[Multiaddr, None] = {}
    texts: list[str] | None = None
    for addr in addrs:
        if not addr.is_unspecified:
            expanded[addr] = None
            continue
        texts = interface_addresses() if texts is None else texts
        first, *rest = addr.split(1)
        family = first.protocols()[0].name
        same = (text for text in texts if (":" in text) is (family == "ip6"))
        expanded.update((Multiaddr.join(f"/{family}/{text}", *rest), None) for text in same)
    return expanded


def _texts(head: ctypes._Pointer[_IfAddrs]) -> list[str]:
    texts: dict[str, None] = {}
    entry = head
    while entry:
        item = entry.contents
        if item.addr and item.flags & 1:  # IFF_UP
            text = _address(item.addr)
            if text is not None:
                texts[text] = None
        entry = item.next
    return list(texts)


def _address(sockaddr: ctypes._Pointer[ctypes.c_ubyte]) -> str | None:
    """The address in a sockaddr, whose family is 16 bits on Linux and the second byte on the BSDs."""
    family = sockaddr[1] if _BSD else int.from_bytes(bytes(sockaddr[0:2]), sys.byteorder)
    if family not in _OFFSETS:
        return None
    start, size = _OFFSETS[socket.AddressFamily(family)]
    address = ipaddress.ip_address(bytes(sockaddr[start : start + size]))
    if address.version == 6 and address.is_link_local:
        return None
    return str(address)
