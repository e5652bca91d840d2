"""Signed envelopes, and the signed peer record they carry.

Comes in: envelope bytes from a peer, or our addresses and key. Goes out: Envelope and PeerRecord
values whose signature and signer have been checked. Never re-encodes signed bytes, never accepts
a record about a peer that did not sign it, never reads a clock: time is an argument.
Specification: libp2p RFC 0002 (envelope), RFC 0003 (routing record), with go's domain and type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from p2pcore._fast.codec.varint import encode as encode_varint
from p2pcore.errors import AddressError, IdentityError, LimitExceeded
from p2pcore.limits import MAX_ENVELOPE_BYTES, MAX_RECORD_ADDR_BYTES, MAX_RECORD_ADDRS
from p2pcore.values.keys import PrivateKey, PublicKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

PEER_RECORD_DOMAIN: Final = "libp2p-peer-record"
"""The context in which a peer record is signed (go, js; the older one of rust is not accepted)."""
PEER_RECORD_TYPE: Final = b"\x03\x01"
"""Multicodec libp2p-peer-record, two bytes big-endian (go, js)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signer; create one with `open` or `seal`, which check it.

    Attributes:
        public_key: the signer's; payload_type, payload, signature: as sent.
        raw: the whole envelope as received, to be passed on unchanged.
    """

    public_key: PublicKey
    payload_type: bytes
    payload: bytes
    signature: bytes
    raw: bytes

    @classmethod
    def seal(cls, key: PrivateKey, domain: str, payload_type: bytes, payload: bytes) -> Envelope:
        """Signs `payload` for `domain`; both sides know the domain, and it is not sent.

        Raises:
            ValueError: `domain` or `payload_type` is empty: the signature could be used for another purpose.
        """
        from p2pcore.pb.envelope_pb2 import Envelope as Message

        _check_purpose(domain, payload_type)
        signature = key.sign(_signed(domain, payload_type, payload))
        message = Message(
            public_key=key.public_key.to_protobuf(),
            payload_type=payload_type,
            payload=payload,
            signature=signature,
        )
        return cls(key.public_key, payload_type, payload, signature, message.SerializeToString())

    @classmethod
    def open(cls, data: bytes, domain: str, payload_type: bytes) -> Envelope:
        """The envelope in `data`, after checking its signature.

        Raises:
            IdentityError: over 8 KiB, malformed, forged, with a bad key, or with another domain or type.
            ValueError: `domain` or `payload_type` is empty, which is the caller's mistake.
        """
        from p2pcore.pb.envelope_pb2 import Envelope as Message

        _check_purpose(domain, payload_type)
        if len(data) > MAX_ENVELOPE_BYTES:
            raise IdentityError(f"an envelope of {len(data)} bytes is over the limit of {MAX_ENVELOPE_BYTES}")
        message = parse_signed(Message, data)
        if message.ByteSize() != len(data):  # a field that comes twice carries bytes that nobody has signed
            raise IdentityError("an envelope repeats a field, or is not encoded in the shortest way")
        if not (message.public_key and message.payload and message.signature):
            raise IdentityError("an envelope lacks its public key, payload or signature")
        key = PublicKey.from_protobuf(message.public_key)
        signed = _signed(domain, message.payload_type, message.payload)
        if not key.verify(signed, message.signature):
            raise IdentityError(f"{key.peer_id()} did not sign this envelope for {domain}")
        if message.payload_type != payload_type:
            raise IdentityError(f"payload type {message.payload_type.hex()} is not {payload_type.hex()}")
        return cls(key, message.payload_type, message.payload, message.signature, bytes(data))


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """The addresses that a peer has signed for itself.

    Attributes:
        peer_id: the peer; addrs: at most 64, possibly none.
        seq: grows with each record of a peer; compare it only between records of one peer.
    """

    peer_id: PeerId
    seq: int
    addrs: tuple[Multiaddr, ...]

    @classmethod
    def make(cls, peer_id: PeerId, addrs: Iterable[Multiaddr], previous_seq: int, now_ns: int) -> PeerRecord:
        """A record newer than all before it.

        Args:
            addrs: the best first. Only 64 fit, and an address of more than 512 bytes is left out.
            previous_seq: the seq of our last record, 0 if there is none; now_ns: unix time in nanoseconds.
        """
        fitting = tuple(addr for addr in addrs if len(addr.to_bytes()) <= MAX_RECORD_ADDR_BYTES)
        return cls(peer_id, max(previous_seq + 1, now_ns), fitting[:MAX_RECORD_ADDRS])

    def seal(self, key: PrivateKey) -> Envelope:
        """Signs the record. Raises IdentityError if `key` is not the key of `peer_id`."""
        from p2pcore.pb.peer_record_pb2 import PeerRecord as Message

        if key.peer_id() != self.peer_id:
            raise IdentityError(f"a record of {self.peer_id} cannot be signed by {key.peer_id()}")
        message = Message(peer_id=self.peer_id.to_bytes(), seq=self.seq)
        for addr in self.addrs:
            message.addresses.add(multiaddr=addr.to_bytes())
        return Envelope.seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, message.SerializeToString())

    def supersedes(self, stored: PeerRecord | None) -> bool:
        """True if this record is newer than `stored` and should replace it."""
        return stored is None or self.seq > stored.seq


def open_peer_record(data: bytes, expected: PeerId | None = None) -> PeerRecord:
    """The record in the envelope `data`, without addresses that we cannot read or that are too many.

    Keep `data` to pass it on: a record that is encoded again has no valid signature.

    Args:
        expected: the peer that it must be about; None for any.

    Raises:
        IdentityError: as Envelope.open; a malformed payload; or a record about a peer other than its
            signer or `expected`.
    """
    from p2pcore.pb.peer_record_pb2 import PeerRecord as Message

    envelope = Envelope.open(data, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE)
    message = parse_signed(Message, envelope.payload)
    peer_id = PeerId.from_bytes(message.peer_id)
    signer = envelope.public_key.peer_id()
    if peer_id != signer:
        raise IdentityError(f"{signer} signed a record about {peer_id}")
    if expected is not None and peer_id != expected:
        raise IdentityError(f"a record about {peer_id}, expected {expected}")
    found = (item.multiaddr for item in message.addresses[:MAX_RECORD_ADDRS])
    return PeerRecord(peer_id, message.seq, tuple(_readable(found)))


def unchecked_addrs(data: bytes) -> Iterator[Multiaddr]:
    """The addresses in an envelope that nobody has checked; none if it is no envelope.

    Never use them: they only say whether it is worth while to check the envelope.
    """
    from p2pcore.pb.envelope_pb2 import Envelope as Outer
    from p2pcore.pb.peer_record_pb2 import PeerRecord as Message

    try:
        message = parse_signed(Message, parse_signed(Outer, data).payload)
    except IdentityError:
        return iter(())
    return _readable(item.multiaddr for item in message.addresses[:MAX_RECORD_ADDRS])


def _check_purpose(domain: str, payload_type: bytes) -> None:
    if not domain or not payload_type:
        raise ValueError("the domain and the payload type of an envelope must not be empty")


def _signed(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """The signed bytes: each part with its length before it."""
    return b"".join(encode_varint(len(part)) + part for part in (domain.encode(), payload_type, payload))


def parse_signed(kind: type[M], data: bytes) -> M:
    """Parses an envelope or its payload; refuses unknown fields, since an envelope's own are not signed.

    Raises: IdentityError.
    """
    from google.protobuf.message import DecodeError

    try:
        message = kind.FromString(data)
    except DecodeError as error:
        raise IdentityError("an envelope or its payload is not the expected message") from error
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise IdentityError("an envelope or its payload has unknown fields")
    return message


def _readable(addresses: Iterable[bytes]) -> Iterator[Multiaddr]:
    for data in addresses:
        if len(data) <= MAX_RECORD_ADDR_BYTES:
            try:
                yield Multiaddr(data)
            except (AddressError, LimitExceeded):
                continue
