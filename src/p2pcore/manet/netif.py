"""The addresses of this machine's network interfaces.

Goes out: IP addresses as text, in the kernel's order. It never opens a socket. IPv6 link-local addresses need
a zone, so only a question about one interface returns them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from p2pcore.late import Late
from p2pcore.values.multiaddr import Multiaddr

if TYPE_CHECKING:
    from p2pcore.manet import getifaddrs
else:  # it needs ctypes
    getifaddrs = Late("p2pcore.manet.getifaddrs")


def interface_addresses() -> list[str]:
    """IPv4 and IPv6 addresses of every interface that is up, without link-local IPv6 ones and without zones.

    Raises: OSError: getifaddrs(3) failed.
    """
    return list(dict.fromkeys(text for _, text in getifaddrs.interfaces() if not _is_link_local6(text)))


def prepare() -> None:
    """Imports what reads the interfaces. Call it when a wildcard listens: then no peer waits for it later."""
    from p2pcore.manet import getifaddrs  # noqa: F401


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
    for name, text in getifaddrs.interfaces():
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
