"""Multiaddrs: self-describing network addresses.

Comes in: text, bytes, or objects of the `multiaddr` package (through their text: its bytes are
wrong for some protocols). Goes out: `Multiaddr`, immutable, hashable, ordered by bytes, with the
method names of that package. Everything malformed raises AddressError. Never resolves a name, never
opens a socket; the codec is `p2pcore._fast.codec.multiaddr`. Source: multiformats multiaddr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import pairwise
from typing import Any, Final, Self, TypeVar

from p2pcore._fast.codec import varint
from p2pcore._fast.codec.multiaddr import TABLE, MultiaddrValue, empty, to_bytes
from p2pcore.errors import AddressError, IdentityError, ProtocolLookupError
from p2pcore.values.networks import Networks
from p2pcore.values.peer_id import PeerId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol of the table.

    Attributes:
        code, name: as in the multicodec table.
        size: bits of the value; 0: no value; -1: any size.
        path: True if the value takes the rest of the address.
    """

    code: int
    name: str
    size: int
    path: bool = False

    @property
    def vcode(self) -> bytes:
        """The code as a varint."""
        return varint.encode(self.code)

    def __str__(self) -> str:
        return self.name


_BY_CODE: Final[dict[int, Protocol]] = {}
_BY_NAME: Final[dict[str, Protocol]] = {}
for _name, _code, _size, _path in TABLE:
    _BY_NAME[_name] = _BY_CODE.setdefault(_code, Protocol(_code, _name, _size, _path))

PROTOCOLS: Final[tuple[Protocol, ...]] = tuple(_BY_CODE.values())
"""Every protocol p2pcore knows, by code."""

_P2P: Final = _BY_NAME["p2p"].code
_CIRCUIT: Final = _BY_NAME["p2p-circuit"].code
_ZONE: Final = _BY_NAME["ip6zone"].code
_UNIX: Final = _BY_NAME["unix"].code
_IP4: Final = _BY_NAME["ip4"].code
_IP4_CODE: Final = bytes((_IP4,))
_IP6: Final = _BY_NAME["ip6"].code
MAPPED: Final = bytes(10) + b"\xff\xff"
"""Before an IPv4 address in an IPv6 one."""
_LOOPBACK6: Final = bytes(15) + b"\1"
_HOSTS: Final = frozenset(_BY_NAME[name].code for name in ("dns", "dns4", "dns6", "dnsaddr"))

_PRIVATE_NETWORKS: Final = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
_UNROUTABLE_NETWORKS: Final = (
    "0.0.0.0/8",
    "192.0.0.0/26",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "ff00::/8",
    "2001:db8::/32",
)
_PRIVATE: Final = Networks(map(ip_network, _PRIVATE_NETWORKS))
_NOT_PUBLIC: Final = Networks(map(ip_network, _PRIVATE_NETWORKS + _UNROUTABLE_NETWORKS))
# Global unicast, and NAT64 (RFC 6052, RFC 8215), where each address means a public IPv4 address.
_GLOBAL6: Final = Networks(map(ip_network, ("2000::/3", "64:ff9b::/96", "64:ff9b:1::/48")))
# RFC 6761, 8375, 6762: names that never lead to a public host.
_LOCAL_NAMES: Final = (".in-addr.arpa", ".ip6.arpa", ".invalid", ".home.arpa", ".local", ".test")

_ABSENT: Final = object()


def protocol_with_name(name: str) -> Protocol:
    """The protocol with this name or alias. Raises AddressError: there is none."""
    found = _BY_NAME.get(name)
    if found is None:
        raise AddressError(f"{name[:80]!r}: the name of a known protocol expected")
    return found


def protocol_with_code(code: int) -> Protocol:
    """The protocol with this code. Raises AddressError: there is none."""
    found = _BY_CODE.get(code)
    if found is None:
        raise AddressError(f"{code}: the code of a known protocol expected")
    return found


def protocol_with_any(proto: object) -> Protocol:
    """The protocol of a name, a code, or a protocol object of this or the `multiaddr` package."""
    if isinstance(proto, Protocol):
        return proto
    if isinstance(proto, str):
        return protocol_with_name(proto)
    code = getattr(proto, "code", proto)
    if isinstance(code, int):
        return protocol_with_code(code)
    raise TypeError(f"a protocol's name, code or object expected, not {type(proto).__name__}")


def _known(proto: object) -> Protocol | None:
    if type(proto) is str:
        return _BY_NAME.get(proto)
    try:
        return protocol_with_any(proto)
    except (AddressError, TypeError):
        return None


class ProtocolsView(tuple[Protocol, ...]):
    """The protocols of an address, in order; `in` takes names and codes too."""

    __slots__ = ()

    def __contains__(self, proto: object) -> bool:
        return super().__contains__(_known(proto))


class ItemsView(tuple[tuple[Protocol, str | None], ...]):
    """(protocol, value) of each component, in order; `in` takes names and codes for the protocol."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        return super().__contains__((_known(item[0]), item[1]))


class Multiaddr(MultiaddrValue):
    """A network address as a list of components, each a protocol and perhaps a value.

    Args:
        addr: text, bytes, a Multiaddr, or a `multiaddr.Multiaddr`.

    Raises:
        AddressError: malformed, unknown protocol, or over the limits.
        TypeError: `addr` has another type.

    It is also a mapping from protocols (names, codes or objects) to the first value of each.
    Two addresses are equal if their bytes are; `str()` is the canonical text. Only `decapsulate`, `join`
    and `split` give the empty address, which has no text.
    """

    __slots__ = ()

    # -- making ------------------------------------------------------------------------------

    @staticmethod
    def _convert(addr: object) -> bytes:
        foreign = sys.modules.get("multiaddr")  # not imported: `addr` cannot be its object
        if foreign is None or not isinstance(addr, foreign.Multiaddr):
            return MultiaddrValue._convert(addr)
        if not addr.to_bytes():
            return b""
        try:
            text = str(addr)
        except Exception as error:  # it stores bytes unchecked, and its codecs raise anything
            raise AddressError(f"a multiaddr object without text: {error}") from error
        return to_bytes(text)

    @classmethod
    def join(cls, *addrs: object) -> Self:
        """One address with all components of `addrs`, outermost first; empty for no `addrs`."""
        data = b"".join(cls(addr)._bytes for addr in addrs)
        return cls(data) if data else empty(cls)

    def encapsulate(self, other: object) -> Self:
        """This address followed by `other`: /ip4/1.2.3.4 and /tcp/80 give /ip4/1.2.3.4/tcp/80.

        Raises:
            AddressError: the result is over the limits, or this address ends with a path.
        """
        return self.join(self, other)

    def decapsulate(self, other: object) -> Self:
        """This address before the last occurrence of `other`; unchanged if there is none."""
        part = type(self)(other)._bytes
        return self._cut(self._last(part) if part else -1)

    def decapsulate_code(self, code: object) -> Self:
        """This address before the last component of this protocol (code, name or object)."""
        wanted = protocol_with_any(code).code
        places = [at for at, found in zip(self._offsets(), self._codes(), strict=True) if found == wanted]
        return self._cut(places[-1] if places else -1)

    def with_p2p(self, peer: PeerId | str) -> Self:
        """This address with /p2p/`peer` at its end, added if missing. Works for paths (see `peer_id`).

        Raises:
            AddressError: it ends with the id of another peer. IdentityError: `peer` is not a peer id.
        """
        peer = PeerId(peer)
        last = self.peer_id
        if last is not None and last != peer:
            raise AddressError(f"{self} ends with another peer than {peer}")
        if last is not None:
            return self
        if self._last_code() == _UNIX:
            return type(self)(f"{self}/p2p/{peer}")
        return self.encapsulate(f"/p2p/{peer}")

    def without_p2p(self) -> Self:
        """This address without the peer id at its end, if there is one."""
        last = self._last_code()
        if last == _P2P:
            return self._cut(self._offsets()[-1])
        if last != _UNIX or self._path_peer() is None:
            return self
        return type(self)(str(self).rpartition("/p2p/")[0])

    def without_zone(self) -> Self:
        """This address without the zone at its start, which names an interface of this machine."""
        return self._head()

    def split(self, maxsplit: int = -1) -> list[Self]:
        """Addresses of one component each. After `maxsplit` of them, the rest is one address."""
        offsets = self._offsets()
        if 0 <= maxsplit < len(offsets):
            offsets = offsets[: maxsplit + 1]
        bounds = (*offsets, len(self._bytes))
        return [type(self)(self._bytes[at:end]) for at, end in pairwise(bounds)]

    def copy(self) -> Self:
        """Itself: it cannot change."""
        return self

    def _cut(self, offset: int) -> Self:
        if offset < 0:
            return self
        return type(self)(self._bytes[:offset]) if offset else empty(type(self))

    # -- looking in ----------------------------------------------------------------------------

    def to_multiaddr(self) -> Any:
        """The same address as a `multiaddr.Multiaddr`, through its text.

        Raises:
            ImportError: the package multiaddr is not installed.
            AddressError: that package does not know one of the protocols.
        """
        try:
            import multiaddr  # here: only callers of this method need the package
        except ImportError as error:
            raise ImportError(
                'to_multiaddr needs the package multiaddr: pip install "p2pcore[multiaddr]"', name="multiaddr"
            ) from error
        try:
            return multiaddr.Multiaddr(str(self) if self._bytes else b"")
        except Exception as error:  # its codecs raise anything
            raise AddressError(f"the multiaddr package does not accept {self}: {error}") from error

    def protocols(self) -> ProtocolsView:
        """The protocol of each component, in order."""
        return ProtocolsView(map(_BY_CODE.__getitem__, self._codes()))

    keys = protocols

    def items(self) -> ItemsView:
        """(protocol, value) of each component, in order; the value is text or None."""
        return ItemsView(zip(self.protocols(), self.values(), strict=True))

    def values(self) -> tuple[str | None, ...]:
        """The value of each component, in order: text, or None if its protocol has no value."""
        return tuple(value for _, value in self.components())

    def value_for_protocol(self, proto: object) -> str | None:
        """Text of the first component of this protocol (name, code or object); None if it has no value.

        Raises:
            ProtocolLookupError: there is no such component. AddressError: there is no such protocol.
        """
        wanted = protocol_with_any(proto)
        value = self._value(wanted.code, _ABSENT)
        if value is None or isinstance(value, str):
            return value
        raise ProtocolLookupError(f"{self}: no component of protocol {wanted.name}")

    __getitem__ = value_for_protocol

    def get(self, proto: object, default: T | None = None) -> str | T | None:
        """As value_for_protocol, but returns `default` if there is no such component."""
        known = _known(proto)
        return default if known is None else self._value(known.code, default)

    def __contains__(self, proto: object) -> bool:
        known = _known(proto)
        return known is not None and self._value(known.code, _ABSENT) is not _ABSENT

    def __iter__(self) -> Iterator[Protocol]:
        return iter(self.protocols())

    def starts_with(self, other: object) -> bool:
        """True if the first components are those of `other`."""
        # Comparing bytes is enough: at the same offset, equal bytes are equal components.
        return self._bytes.startswith(type(self)(other)._bytes)

    def ends_with(self, other: object) -> bool:
        """True if the last components are those of `other`."""
        part = type(self)(other)._bytes
        return not part or self._last(part) == len(self._bytes) - len(part)

    # -- peers ---------------------------------------------------------------------------------

    def _last_code(self) -> int:
        """Code of the last component; 0 for the empty address."""
        codes = self._codes()
        return codes[-1] if codes else 0

    def _path_peer(self) -> PeerId | None:
        """The peer id after /p2p/ at the end of a path, if there is still some path before it."""
        head, _, text = (self._value(_UNIX, None) or "").rpartition("/p2p/")
        try:
            return PeerId.from_text(text) if head else None
        except IdentityError:
            return None

    @property
    def peer_id(self) -> PeerId | None:
        """The peer that the address leads to: its last component, if that is p2p; else None.

        No component can follow a path. So in /unix/run/a.sock/p2p/ID the last two parts of the path count as
        the peer: a path that ends with /p2p/ and a peer id means the socket before it.
        """
        last = self._last_code()
        if last != _P2P:
            return self._path_peer() if last == _UNIX else None
        start = self._offsets()[-1] + 2  # the code of p2p
        read = varint.decode(self._bytes, start)
        return PeerId(self._bytes[read[1] :]) if read else None

    def get_peer_id(self) -> str | None:
        """Text of the last p2p component after every p2p-circuit; else None."""
        found = None
        for name, value in self.components():
            if name == "p2p":
                found = value
            elif name == "p2p-circuit":
                found = None
        return found

    @property
    def is_relayed(self) -> bool:
        """True if a component is p2p-circuit."""
        return _CIRCUIT in self._codes()

    # -- what kind of place it is (go-multiaddr, manet) ------------------------------------------

    def _head(self) -> Self:
        """This address without a zone at its start."""
        codes = self._codes()
        return self.split(1)[1] if len(codes) > 1 and codes[0] == _ZONE else self

    def _host_name(self) -> str | None:
        """The DNS name at its start, in lower case, with a dot before it and none at its end."""
        head = self._head()
        code = head._codes()[0] if head else 0
        name = head._value(code, None) if code in _HOSTS else None
        return f".{name.lower().removesuffix('.')}" if name else None

    def _packed_ip(self) -> bytes:
        """The IP address at its start, after a zone if there is one, as 4 or 16 bytes; b"" if there is none.

        A mapped IPv4 address has 4. Each connection asks, and `ipaddress` is slow.
        """
        data = self._bytes
        if data[:1] == _IP4_CODE:
            return data[1:5]
        head = self._head()
        code = head._codes()[0] if head else 0
        packed = (head._raw_value(code) or b"") if code in (_IP4, _IP6) else b""
        return packed[12:] if packed.startswith(MAPPED) else packed

    @property
    def is_loopback(self) -> bool:
        """True if it starts with an IP address of this machine: 127.0.0.0/8, ::1."""
        packed = self._packed_ip()
        return packed[0] == 127 if len(packed) == 4 else packed == _LOOPBACK6

    @property
    def is_unspecified(self) -> bool:
        """True if it starts with 0.0.0.0 or ::, which means every address of the machine."""
        packed = self._packed_ip()
        return bool(packed) and not any(packed)

    @property
    def is_private(self) -> bool:
        """True if it starts with an address of a private network, loopback included."""
        packed = self._packed_ip()
        if not packed:
            return (self._host_name() or "").endswith(".localhost")
        return packed in _PRIVATE

    @property
    def is_public(self) -> bool:
        """True if it starts with an address, or a name, that the whole internet can use."""
        packed = self._packed_ip()
        if not packed:
            name = self._host_name()
            return name is not None and not name.endswith((".localhost", *_LOCAL_NAMES))
        if packed in _NOT_PUBLIC:
            return False
        # A mapped address is not: nobody can dial it.
        return self._bytes[:1] == _IP4_CODE if len(packed) == 4 else packed in _GLOBAL6

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (type(self), (self._bytes,)) if self._bytes else (empty, (type(self),))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<Multiaddr {self}>"


Mapping.register(Multiaddr)

__all__ = [
    "PROTOCOLS",
    "Multiaddr",
    "Protocol",
    "protocol_with_any",
    "protocol_with_code",
    "protocol_with_name",
]


def check_local(addr: Multiaddr) -> None:
    """Checks an address to listen on. Raises AddressError: it has a peer id, but the id is always our own."""
    if addr.peer_id is not None:
        raise AddressError(f"{addr}: an address to listen on has no peer id")
