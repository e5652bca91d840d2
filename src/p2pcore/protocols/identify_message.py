"""The message of identify and identify push: encodes and decodes it, without streams.

Comes in: bytes as they arrive; what a host tells about itself. Goes out: IdentifyInfo; length-prefixed
messages. Whatever a peer sends, reading it returns, wants more, or raises RemoteProtocolError or
LimitExceeded. Skips each entry that cannot be parsed. Addresses outside a signed record are only claims.
Source: libp2p/specs identify; limits of go-libp2p.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from google.protobuf.message import DecodeError

from p2pcore import limits
from p2pcore._fast.codec import varint
from p2pcore.errors import AddressError, IdentityError, LimitExceeded, RemoteProtocolError
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.record import open_peer_record

if TYPE_CHECKING:
    from p2pcore.values.keys import PrivateKey

logger = logging.getLogger("p2pcore.identify")

S = TypeVar("S", str, tuple[str, ...])

MAX_SHARED = 256
"""Texts and lists of protocols kept to be shared. Not sys.intern: some Pythons never free its strings."""
MAX_SHARED_PROTOCOLS = 32
"""Protocol ids in a list that is shared; an ordinary peer has no longer list."""

TEXT_BYTES = 58
"""Memory of a text in a list, without its characters."""
ADDR_BYTES = 90
"""Memory of an address in a list, without its bytes."""

_SHARED: dict[Any, Any] = {}

_SHARED_LISTS: dict[tuple[bytes, ...], tuple[str, ...]] = {}
"""Lists of protocols as peers have sent them, with the tuple they become."""

_warned = (0, 0)
"""How many addresses and protocols were left out in the last warning."""


@dataclass(frozen=True, slots=True)
class IdentifyInfo:
    """What a peer has told about itself.

    Attributes:
        peer: the peer of the connection.
        protocol_version, agent_version: free text, at most MAX_AGENT_CHARS; escape it before showing it.
        protocols: the first ones in the peer's order, as far as MAX_IDENTIFY_PROTOCOLS_BYTES go.
        listen_addrs: unsigned claims, without /p2p; as far as the record leaves MAX_IDENTIFY_ADDRS_BYTES.
        observed_addr: our address as the peer sees it; only one vote, so never dial it without more evidence.
        signed_record: a verified envelope, as received, to be passed on; None if it is too long to keep;
            record_addrs: the addresses it certifies, or None; record_seq: a greater one replaces it.
    """

    peer: PeerId
    protocol_version: str = ""
    agent_version: str = ""
    protocols: tuple[str, ...] = ()
    listen_addrs: tuple[Multiaddr, ...] = ()
    observed_addr: Multiaddr | None = None
    signed_record: bytes | None = None
    record_addrs: tuple[Multiaddr, ...] | None = None
    record_seq: int = -1

    @property
    def addrs(self) -> tuple[Multiaddr, ...]:
        """The certified addresses if there are any, else the claimed ones."""
        return self.listen_addrs if self.record_addrs is None else self.record_addrs


# -- reading -----------------------------------------------------------------------------------


class MessageReader:
    """Merges the messages of one stream: `feed` it the bytes, then ask for the `result`."""

    __slots__ = ("_buffer", "_count", "_merged")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._count = 0
        self._merged = Identify()

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream; whole messages are merged at once.

        Raises: LimitExceeded: a message is too long, or there are too many;
            RemoteProtocolError: a length or a message is malformed.
        """
        self._buffer += data
        while (head := varint.decode(self._buffer)) is not None:
            size, start = head
            if size > limits.MAX_IDENTIFY_MESSAGE_BYTES:
                raise LimitExceeded("MAX_IDENTIFY_MESSAGE_BYTES", size, limits.MAX_IDENTIFY_MESSAGE_BYTES)
            if len(self._buffer) < start + size:
                return
            self._merge(bytes(self._buffer[start : start + size]))
            del self._buffer[: start + size]

    def _merge(self, message: bytes) -> None:
        self._count += 1
        if self._count > limits.MAX_IDENTIFY_MESSAGES:
            raise LimitExceeded("MAX_IDENTIFY_MESSAGES", self._count, limits.MAX_IDENTIFY_MESSAGES)
        try:
            self._merged.MergeFromString(message)
        except DecodeError as error:
            raise RemoteProtocolError("an identify message is malformed") from error

    def result(self) -> Identify:
        """The merged message. Raises RemoteProtocolError: the stream ended in a message, or before any."""
        if self._buffer or not self._count:
            raise RemoteProtocolError("identify ended before a complete message")
        return self._merged


def update(before: IdentifyInfo, message: Identify) -> IdentifyInfo | None:
    """`before`, updated with the fields of `message`; absent fields stay (push).

    Returns: None if the message belongs to another peer and must be ignored.
    """
    if message.HasField("publicKey") and not before.peer.matches(message.publicKey):
        logger.debug("identify of %s has another peer's key", before.peer)
        return None
    info = _with_record(before, message)
    room = limits.MAX_IDENTIFY_ADDRS_BYTES - _size(info.record_addrs or ()) - len(info.signed_record or b"")
    return replace(
        info,
        protocol_version=text_of(message.protocolVersion) or info.protocol_version,
        agent_version=text_of(message.agentVersion) or info.agent_version,
        protocols=protocols_of(message.protocols) or info.protocols,
        listen_addrs=_addrs(message.listenAddrs, info.peer, room)
        or _without_peer(info.listen_addrs, info.peer, room),
        observed_addr=_addr(message.observedAddr) or info.observed_addr,
    )


def _with_record(info: IdentifyInfo, message: Identify) -> IdentifyInfo:
    """`info` with the signed record, if that is valid and newer; otherwise the record is ignored."""
    if not message.signedPeerRecord:
        return info
    try:
        opened = open_peer_record(message.signedPeerRecord, info.peer)
    except (IdentityError, LimitExceeded) as error:
        logger.debug("signed record of %s ignored: %s", info.peer, error)
        return info
    if opened.seq <= info.record_seq:
        return info
    addrs = _without_peer(opened.addrs, info.peer, limits.MAX_IDENTIFY_ADDRS_BYTES)
    room = limits.MAX_IDENTIFY_ADDRS_BYTES - _size(addrs)
    raw = message.signedPeerRecord if len(message.signedPeerRecord) <= room else None
    return replace(info, signed_record=raw, record_addrs=addrs, record_seq=opened.seq)


def text_of(data: bytes) -> str:
    """Free text, cut to MAX_AGENT_CHARS; peers with the same text share the object."""
    return _shared(data[: 4 * limits.MAX_AGENT_CHARS].decode(errors="replace")[: limits.MAX_AGENT_CHARS])


def protocols_of(entries: Sequence[bytes]) -> tuple[str, ...]:
    """The valid ids without duplicates; peers with the same protocols share the objects."""
    listed = tuple(entries[: limits.MAX_IDENTIFY_PROTOCOLS])
    known = _SHARED_LISTS.get(listed)
    if known is None:
        known = _read_protocols(listed)
        if len(listed) <= MAX_SHARED_PROTOCOLS:
            if len(_SHARED_LISTS) >= MAX_SHARED:
                _SHARED_LISTS.clear()
            _SHARED_LISTS[listed] = known
    return known


def _read_protocols(entries: tuple[bytes, ...]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    room = limits.MAX_IDENTIFY_PROTOCOLS_BYTES
    for entry in entries:
        if not 0 < len(entry) <= limits.MAX_PROTOCOL_ID_BYTES:
            continue
        try:
            protocol = entry.decode()
        except UnicodeDecodeError:
            continue
        if protocol in found:
            continue
        room -= TEXT_BYTES + len(entry)
        if room < 0:
            break
        found[_shared(protocol)] = None
    return _shared(tuple(found)) if len(found) <= MAX_SHARED_PROTOCOLS else tuple(found)


def _shared(value: S) -> S:
    """The first of equal values: most peers of a node send the same, so one copy is enough."""
    if len(_SHARED) >= MAX_SHARED:
        _SHARED.clear()
    same: S = _SHARED.setdefault(value, value)
    return same


def _addrs(entries: Sequence[bytes], peer: PeerId, room: int) -> tuple[Multiaddr, ...]:
    return _without_peer(addrs_of(entries), peer, room)


def addrs_of(entries: Sequence[bytes]) -> Iterator[Multiaddr]:
    """The addresses that can be read, of the first MAX_IDENTIFY_ADDRS."""
    parsed = (_addr(entry) for entry in entries[: limits.MAX_IDENTIFY_ADDRS])
    return (addr for addr in parsed if addr is not None)


def _bytes(addrs: Iterable[Multiaddr]) -> Iterator[bytes]:
    return (addr.to_bytes() for addr in addrs)


def _size(addrs: Iterable[Multiaddr]) -> int:
    """The memory that `addrs` take."""
    return sum(ADDR_BYTES + len(data) for data in _bytes(addrs))


def _addr(data: bytes) -> Multiaddr | None:
    if not data:
        return None
    try:
        return Multiaddr(data)
    except (AddressError, LimitExceeded):
        return None


def _without_peer(addrs: Iterable[Multiaddr], peer: PeerId, room: int) -> tuple[Multiaddr, ...]:
    """`addrs` once each, without a trailing /p2p of `peer`, as far as `room` bytes of memory go.

    Addresses of other peers are left out.
    """
    found: dict[Multiaddr, None] = {}
    for addr in addrs:
        try:
            named = addr.peer_id
        except IdentityError:
            continue
        bare = addr.without_p2p()
        if (named is not None and named != peer) or bare in found:
            continue
        room -= ADDR_BYTES + len(bare.to_bytes())
        if room < 0:
            break
        found[bare] = None
    return tuple(found)


# -- writing -----------------------------------------------------------------------------------


class Prepared(NamedTuple):
    """A message to every peer, serialized: the fields in front of the observed address, and those behind."""

    head: bytes
    tail: bytes

    @classmethod
    def of(cls, message: Identify) -> Self:
        """`message`, which has no observed address."""
        head = Identify(
            publicKey=message.publicKey, listenAddrs=message.listenAddrs, protocols=message.protocols
        )
        tail = Identify()
        tail.CopyFrom(message)
        for field in ("publicKey", "listenAddrs", "protocols"):
            tail.ClearField(field)
        return cls(head.SerializeToString(), tail.SerializeToString())


def build(
    key: PrivateKey,
    protocols: Iterable[str],
    addrs: Iterable[Multiaddr],
    agent_version: str,
    protocol_version: str,
    signed_record: bytes | None = None,
) -> Identify:
    """What a host tells about itself, without the observed address; texts are cut to the readers' bound."""
    message = Identify(
        publicKey=key.public_key.to_protobuf(),
        listenAddrs=[addr.to_bytes() for addr in addrs],
        protocols=[protocol.encode() for protocol in protocols],
        protocolVersion=protocol_version[: limits.MAX_AGENT_CHARS].encode(),
        agentVersion=agent_version[: limits.MAX_AGENT_CHARS].encode(),
    )
    if signed_record is not None:
        message.signedPeerRecord = signed_record
    return message


def encode(message: Prepared, observed: Multiaddr | None) -> bytes:
    """`message` with the peer's observed address, framed: one message if MAX_IDENTIFY_SEND_BYTES suffice.

    Otherwise it makes several. rust-libp2p reads only the first, so that has what peers need most: addresses,
    in half of the space if there are many, then protocols. Further messages have the signed record and the
    rest. Entries that do not fit into MAX_IDENTIFY_MESSAGES are left out from the end, with a warning.
    """
    about = b"" if observed is None else Identify(observedAddr=observed.to_bytes()).SerializeToString()
    data = message.head + about + message.tail  # messages behind each other are one with the fields of all
    if len(data) <= limits.MAX_IDENTIFY_SEND_BYTES:
        return varint.encode(len(data)) + data
    return b"".join(map(_framed, _split(Identify.FromString(data))))


def _split(whole: Identify) -> list[Identify]:
    """Splits `whole` into messages that fit and that merge into `whole` again."""
    addrs, protocols = deque(whole.listenAddrs), deque(whole.protocols)
    first = Identify()
    first.CopyFrom(whole)
    for field in ("listenAddrs", "protocols", "signedPeerRecord"):
        first.ClearField(field)
    room = limits.MAX_IDENTIFY_SEND_BYTES - first.ByteSize()
    room -= _move(addrs, first.listenAddrs, room // 2)
    room -= _move(protocols, first.protocols, room)
    _move(addrs, first.listenAddrs, room)
    messages = [first]
    if whole.signedPeerRecord:
        messages.append(Identify(signedPeerRecord=whole.signedPeerRecord))
    while (addrs or protocols) and len(messages) < limits.MAX_IDENTIFY_MESSAGES:
        more = Identify()
        room = limits.MAX_IDENTIFY_SEND_BYTES
        room -= _move(addrs, more.listenAddrs, room)
        _move(protocols, more.protocols, room)
        messages.append(more)
    _warn(len(addrs), len(protocols))
    return [each for each in messages if each.ByteSize() <= limits.MAX_IDENTIFY_MESSAGE_BYTES]


def _move(entries: deque[bytes], field: Any, room: int) -> int:
    """Moves entries to a repeated field, in order, while they fit into `room` bytes. Returns: bytes used."""
    used = 0
    while entries:
        size = 1 + len(varint.encode(len(entries[0]))) + len(entries[0])
        if used + size > room:
            break
        used += size
        field.append(entries.popleft())
    return used


def _warn(num_addrs: int, num_protocols: int) -> None:
    """Warns about entries left out, once for the same numbers: it is called for each connection."""
    global _warned
    if (num_addrs, num_protocols) == _warned:
        return
    _warned = (num_addrs, num_protocols)
    if num_addrs or num_protocols:
        logger.warning(
            "identify leaves out %d addresses and %d protocols: they do not fit into %d messages of %d bytes",
            num_addrs,
            num_protocols,
            limits.MAX_IDENTIFY_MESSAGES,
            limits.MAX_IDENTIFY_SEND_BYTES,
        )


def _framed(message: Identify) -> bytes:
    data = message.SerializeToString()
    return varint.encode(len(data)) + data
