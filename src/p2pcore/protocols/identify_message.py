"""The message of identify and identify push: bytes there and back, no streams.

Comes in: bytes as they arrive; what a host knows of itself. Goes out: IdentifyInfo; length-prefixed messages.
Whatever a peer sends, reading it returns, wants more, or raises RemoteProtocolError or LimitExceeded. Entries
that cannot be parsed are skipped one by one. Never trusts: addresses outside a signed record are claims.
Source: libp2p/specs identify; limits of go-libp2p.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

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
"""Texts and lists of protocols kept for sharing. Not sys.intern: some Pythons never free what it is given."""
MAX_SHARED_PROTOCOLS = 32
"""Protocol ids in a list worth sharing; a longer one is no ordinary peer's."""

_SHARED: dict[Any, Any] = {}

_warned = (0, 0)
"""Addresses and protocols that were left out when that was last logged."""


@dataclass(frozen=True, slots=True)
class IdentifyInfo:
    """What a peer has said of itself.

    Attributes:
        peer: whom the connection belongs to.
        protocol_version, agent_version: free text, at most MAX_AGENT_CHARS; escape it before showing it.
        protocols: in the peer's order, at most MAX_IDENTIFY_PROTOCOLS.
        listen_addrs: unsigned claims, without /p2p.
        observed_addr: how the peer sees us; one vote, never to be dialled blindly.
        signed_record: a verified envelope, as it came, to be handed on; record_addrs: what it certifies,
            or None; record_seq: its number, a later one replaces it.
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
        """The certified addresses where there are any, else the claimed ones."""
        return self.listen_addrs if self.record_addrs is None else self.record_addrs


# -- reading -----------------------------------------------------------------------------------


class MessageReader:
    """Puts the messages of one stream together: feed it what comes, then `finish` at the end."""

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

    def finish(self) -> Identify:
        """The merged message. Raises RemoteProtocolError: the stream ended inside one, or before any."""
        if self._buffer or not self._count:
            raise RemoteProtocolError("identify ended before a whole message")
        return self._merged


def update(before: IdentifyInfo, message: Identify) -> IdentifyInfo | None:
    """`before` with what `message` has; what is absent stays (push).

    Returns: None where the message belongs to another peer: it must be ignored.
    """
    if message.HasField("publicKey") and not before.peer.matches(message.publicKey):
        logger.debug("identify of %s has another peer's key", before.peer)
        return None
    info = _with_record(before, message)
    return replace(
        info,
        protocol_version=_text(message.protocolVersion) or info.protocol_version,
        agent_version=_text(message.agentVersion) or info.agent_version,
        protocols=_protocols(message.protocols) or info.protocols,
        listen_addrs=_addrs(message.listenAddrs, info.peer) or info.listen_addrs,
        observed_addr=_addr(message.observedAddr) or info.observed_addr,
    )


def _with_record(info: IdentifyInfo, message: Identify) -> IdentifyInfo:
    """`info` with the signed record if it verifies and is newer; else it is as if there were none."""
    if not message.signedPeerRecord:
        return info
    try:
        opened = open_peer_record(message.signedPeerRecord, info.peer)
    except (IdentityError, LimitExceeded) as error:
        logger.debug("signed record of %s ignored: %s", info.peer, error)
        return info
    if opened.seq <= info.record_seq:
        return info
    addrs = _without_peer(opened.addrs, info.peer)
    return replace(info, signed_record=message.signedPeerRecord, record_addrs=addrs, record_seq=opened.seq)


def _text(data: bytes) -> str:
    return _shared(data[: 4 * limits.MAX_AGENT_CHARS].decode(errors="replace")[: limits.MAX_AGENT_CHARS])


def _protocols(entries: Iterable[bytes]) -> tuple[str, ...]:
    """Valid ids once each, shared between the peers that speak the same."""
    found: dict[str, None] = {}
    for entry in entries:
        if len(found) == limits.MAX_IDENTIFY_PROTOCOLS:
            break
        if not 0 < len(entry) <= limits.MAX_PROTOCOL_ID_BYTES:
            continue
        try:
            found[_shared(entry.decode())] = None
        except UnicodeDecodeError:
            continue
    return _shared(tuple(found)) if len(found) <= MAX_SHARED_PROTOCOLS else tuple(found)


def _shared(value: S) -> S:
    """The first of equal values: most peers of a node say the same, so it needs keeping only once."""
    if len(_SHARED) >= MAX_SHARED:
        _SHARED.clear()
    same: S = _SHARED.setdefault(value, value)
    return same


def _addrs(entries: Iterable[bytes], peer: PeerId) -> tuple[Multiaddr, ...]:
    parsed = (_addr(entry) for entry in entries)
    return _without_peer((addr for addr in parsed if addr is not None), peer)


def _addr(data: bytes) -> Multiaddr | None:
    if not data:
        return None
    try:
        return Multiaddr(data)
    except (AddressError, LimitExceeded):
        return None


def _without_peer(addrs: Iterable[Multiaddr], peer: PeerId) -> tuple[Multiaddr, ...]:
    """Each once, less a trailing /p2p of `peer`; those that name another peer are left out."""
    found: dict[Multiaddr, None] = {}
    for addr in addrs:
        if len(found) == limits.MAX_IDENTIFY_ADDRS:
            break
        try:
            named = addr.peer_id
        except IdentityError:
            continue
        if named is None or named == peer:
            found[addr.without_p2p()] = None
    return tuple(found)


# -- writing -----------------------------------------------------------------------------------


def build(
    key: PrivateKey,
    protocols: Iterable[str],
    addrs: Iterable[Multiaddr],
    agent_version: str,
    protocol_version: str,
    signed_record: bytes | None = None,
) -> Identify:
    """What a host says of itself, but for the observed address; free text is cut as readers do."""
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


def encode(message: Identify, observed: Multiaddr | None) -> bytes:
    """`message` and the peer's address as bytes for the wire: one message of MAX_IDENTIFY_SEND_BYTES at most.

    Where that is too small, the first has what is most needed, for rust-libp2p reads no other: addresses, in
    half of the room if there are many, and then protocols. The signed record and the rest follow in further
    messages. What does not fit MAX_IDENTIFY_MESSAGES is left out from the end, with a warning.
    """
    whole = Identify()
    whole.CopyFrom(message)
    if observed is not None:
        whole.observedAddr = observed.to_bytes()
    if whole.ByteSize() <= limits.MAX_IDENTIFY_SEND_BYTES:
        return _framed(whole)
    return b"".join(map(_framed, _split(whole)))


def _split(whole: Identify) -> list[Identify]:
    """`whole` in messages that fit, which merge into it again."""
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
    """Moves entries to a repeated field, in order, as long as they fit `room` bytes. Returns: bytes used."""
    used = 0
    while entries:
        size = 1 + len(varint.encode(len(entries[0]))) + len(entries[0])
        if used + size > room:
            break
        used += size
        field.append(entries.popleft())
    return used


def _warn(num_addrs: int, num_protocols: int) -> None:
    """Says that so many are not told, once for the same numbers: each connection comes here."""
    global _warned
    if (num_addrs, num_protocols) == _warned:
        return
    _warned = (num_addrs, num_protocols)
    if num_addrs or num_protocols:
        logger.warning(
            "identify leaves out %d addresses and %d protocols: they do not fit %d messages of %d bytes",
            num_addrs,
            num_protocols,
            limits.MAX_IDENTIFY_MESSAGES,
            limits.MAX_IDENTIFY_SEND_BYTES,
        )


def _framed(message: Identify) -> bytes:
    data = message.SerializeToString()
    return varint.encode(len(data)) + data
