"""Reads the addresses of this machine's network interfaces with getifaddrs(3).

Comes in: nothing. Goes out: pairs of an interface and an address. Linux, macOS and the BSDs share the
function and most of its structures. Never opens a socket.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import sys

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


def interfaces() -> list[tuple[str, str]]:
    """(name, address) of every interface that is up, once for each address. Raises OSError."""
    libc = ctypes.CDLL(_libc(), use_errno=True)
    head = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(head)):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    try:
        return _entries(head)
    finally:
        libc.freeifaddrs(head)


def _libc() -> str | None:
    """The name of the C library; None: it is part of the process anyway."""
    if not _BSD:
        return None
    from ctypes.util import find_library  # slow to import

    return find_library("c")


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
