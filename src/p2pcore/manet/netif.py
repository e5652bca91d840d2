"""The addresses of this machine's network interfaces.

Goes out: IP addresses as text, in the kernel's order. It reads them with getifaddrs(3), which Linux, macOS
and the BSDs share, and never opens a socket. IPv6 link-local addresses need a zone, so only a question about
one interface returns them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable, Iterator

from p2pcore.values.multiaddr import Multiaddr

_BSD = sys.platform == "darwin" or "bsd" in sys.platform
_OFFSETS = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}
"""Offset and size of an address in its sockaddr; the same on all systems."""


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("addr", ctypes.POINTER(ctypes.c_ubyte)),
]


def interface_addresses() -> list[str]:
    """IPv4 and IPv6 addresses of every interface that is up, without link-local IPv6 ones and without zones.

    Raises: OSError: getifaddrs(3) failed.
    """
    return list(dict.fromkeys(text for _, text in _interfaces() if not _is_link_local6(text)))


def _interfaces() -> list[tuple[str, str]]:
    """(name, address) of every interface that is up, once for each address. Raises OSError."""
    libc = ctypes.CDLL(ctypes.util.find_library("c") if _BSD else None, use_errno=True)
    head = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(head)):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    try:
        return _entries(head)
    finally:
        libc.freeifaddrs(head)


def expand_wildcards(addrs: Iterable[Multiaddr]) -> dict[Multiaddr, None]:
    """`addrs` in order, without duplicates; the interface addresses of its family replace a wildcard.

    A wildcard with a zone becomes the addresses of that interface; link-local ones keep their zone.
    """
    expanded: dict[Multiaddr, None] = {}
    texts: list[str] | None = None
    for addr in addrs:
        if not addr.is_unspecified:
            expanded[addr] = None
            continue
        if addr.protocols()[0].name == "ip6zone":
            expanded.update(dict.fromkeys(_of_interface(addr)))
            continue
        texts = interface_addresses() if texts is None else texts
        first, *rest = addr.split(1)
        family = first.protocols()[0].name
        same = (text for text in texts if (":" in text) is (family == "ip6"))
        expanded.update((Multiaddr.join(f"/{family}/{text}", *rest), None) for text in same)
    return expanded


def _of_interface(addr: Multiaddr) -> Iterator[Multiaddr]:
    """The addresses that `/ip6zone/INTERFACE/ip6/::` means."""
    zone = addr["ip6zone"]
    _, _, *rest = addr.split(2)
    for name, text in _interfaces():
        if ":" in text and zone in (name, _number_of(name)):
            front = f"/ip6zone/{zone}" if _is_link_local6(text) else ""
            yield Multiaddr.join(f"{front}/ip6/{text}", *rest)


def _number_of(interface: str) -> str:
    """The number of an interface, which a zone may use for its name; "" if there is no such interface."""
    try:
        return str(socket.if_nametoindex(interface))
    except OSError:
        return ""


def _is_link_local6(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return address.version == 6 and address.is_link_local


def _entries(head: ctypes._Pointer[_IfAddrs]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    entry = head
    while entry:
        item = entry.contents
        if item.addr and item.flags & 1:  # IFF_UP
            text = _address(item.addr)
            if text is not None:
                found[os.fsdecode(item.name), text] = None
        entry = item.next
    return list(found)


def _address(sockaddr: ctypes._Pointer[ctypes.c_ubyte]) -> str | None:
    """The address in a sockaddr. Its family has 16 bits on Linux; on the BSDs it is the second byte."""
    family = sockaddr[1] if _BSD else int.from_bytes(bytes(sockaddr[0:2]), sys.byteorder)
    if family not in _OFFSETS:
        return None
    start, size = _OFFSETS[socket.AddressFamily(family)]
    raw = bytes(sockaddr[start : start + size])
    if _BSD and size == 16 and raw[:2] == b"\xfe\x80":
        raw = raw[:2] + bytes(2) + raw[4:]  # BSD kernels store the interface number there
    return str(ipaddress.ip_address(raw))
