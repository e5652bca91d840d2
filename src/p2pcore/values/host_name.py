"""One normal form of host names, for DNS, SNI, Host, CONNECT, NO_PROXY and certificates.

Comes in: a name as people write it, "Bücher.Example." for instance, or an IP address. Goes out:
"xn--bcher-kva.example": ASCII, in lower case, without a dot at its end. Never asks DNS.
Specification: RFC 1035 section 2.3.1, RFC 3490 (IDNA 2003; see docs/decisions/0015-host-names.md).
"""

from __future__ import annotations

from ipaddress import ip_address

from p2pcore.errors import AddressError
from p2pcore.limits import MAX_HOST_LABEL_BYTES, MAX_HOST_NAME_BYTES

_FORBIDDEN = frozenset(map(chr, range(0x21))) | frozenset('"#%,/:<>?@[\\]^`{|}\x7f')
"""Characters that are in no host name, and that mean something in a URL (WHATWG URL, "forbidden host")."""


def normal_host(text: str) -> str:
    """The normal form of a host name; an IP address only becomes lower case.

    Raises: AddressError: `text` is not a host name: a part is empty or too long, or a character is forbidden.
    """
    name = text
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise AddressError(f"{text[:80]!r} is not a host name: {error}") from None
    name = name.removesuffix(".").lower()
    if ":" in name and _is_ip6(name):
        return name
    labels = name.split(".")
    if not all(0 < len(label) <= MAX_HOST_LABEL_BYTES for label in labels) or len(name) > MAX_HOST_NAME_BYTES:
        raise AddressError(
            f"{text[:80]!r} is not a host name: parts of 1 to {MAX_HOST_LABEL_BYTES} bytes expected"
        )
    if not _FORBIDDEN.isdisjoint(name):
        raise AddressError(f"{text[:80]!r} is not a host name: it has a forbidden character")
    return name


def _is_ip6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False
