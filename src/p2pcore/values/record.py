"""Signed envelopes, and the signed peer record they carry.

Comes in: envelope bytes from a peer, or our addresses and key. Goes out: Envelope and PeerRecord
values whose signature and signer have been checked. Never re-encodes what was signed, never takes
a record whose subject is not its signer, never reads a clock: time is an argument.
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
"""The context a peer record is signed in (go, js; rust's older one is not accepted)."""
PEER_RECORD_TYPE: Final = b"\x03\x01"
"""Multicodec libp2p-peer-record, two bytes big-endian (go, js)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signer; `open` and `seal` are the ways to get one that is right.

    Attributes:
        public_key: the signer's; payload_type, payload, signature: as sent.
        raw: the whole envelope as it came, for handing it on unmodified.
    """

    public_key: PublicKey
    payload_type: bytes
    payload: bytes
    signature: bytes
    raw: bytes

    @classmethod
    def seal(cls, key: PrivateKey, domain: str, payload_type: bytes, payload: bytes) -> Envelope:
        """Signs `payload` for `domain`, which is known from the context and not sent.

        Raises:
            ValueError: `domain` or `payload_type` is empty: what is signed could be taken for something else.
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
        """The envelope in `data`, with its signature checked.

        Raises:
            IdentityError: over 8 KiB, malformed, with a bad key, forged, or of another domain or type.
            ValueError: `domain` or `payload_type` is empty, which is the caller's fault.
        """
        from p2pcore.pb.envelope_pb2 import Envelope as Message

        _check_purpose(domain, payload_type)
        if len(data) > MAX_ENVELOPE_BYTES:
            raise IdentityError(f"an envelope of {len(data)} bytes is over the limit of {MAX_ENVELOPE_BYTES}")
        message = parse_signed(Message, data)
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
    """The addresses a peer vouches for.

    Attributes:
        peer_id: whose they are; addrs: at most 64, possibly none.
        seq: grows with each record of a peer; meaningless between peers.
    """

    peer_id: PeerId
    seq: int
    addrs: tuple[Multiaddr, ...]

    @classmethod
    def make(cls, peer_id: PeerId, addrs: Iterable[Multiaddr], previous_seq: int, now_ns: int) -> PeerRecord:
        """A record newer than all before it.

        Args:
            addrs: the best first: only the first 64 fit, and none over 512 bytes.
            previous_seq: of our last record, 0 if there is none; now_ns: unix time in nanoseconds.
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
        """True if this record is to replace `stored`; one that is older or equal is no error, but no news."""
        return stored is None or self.seq > stored.seq


def open_peer_record(data: bytes, expected: PeerId | None = None) -> PeerRecord:
    """The record in the envelope `data`; addresses we cannot read or that are too many are left out.

    Keep `data` as it is: it can be handed on, a record encoded anew could not.

    Args:
        expected: the peer it must be about; None for any.

    Raises:
        IdentityError: what Envelope.open refuses, a malformed payload, or a record about
            somebody else than its signer or than `expected`.
    """
    from p2pcore.pb.peer_record_pb2 import PeerRecord as Message

    envelope = Envelope.open(data, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE)
    message = parse_signed(Message, envelope.payload)
    peer_id = PeerId.from_bytes(message.peer_id)
    signer = envelope.public_key.peer_id()
    if peer_id != signer:
        raise IdentityError(f"{signer} signed a record about {peer_id}")
    if expected is not None and peer_id != expected:
        raise IdentityError(f"a record about {peer_id} where one about {expected} belongs")
    found = (item.multiaddr for item in message.addresses[:MAX_RECORD_ADDRS])
    return PeerRecord(peer_id, message.seq, tuple(_readable(found)))


def _check_purpose(domain: str, payload_type: bytes) -> None:
    if not domain or not payload_type:
        raise ValueError("an envelope is for a domain and holds a type of payload: neither may be empty")


def _signed(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """What the signature is over: each part after its length."""
    return b"".join(encode_varint(len(part)) + part for part in (domain.encode(), payload_type, payload))


def parse_signed(kind: type[M], data: bytes) -> M:
    """The message in an envelope, or the envelope; unknown fields are refused, as nobody signed those of it.

    Raises: IdentityError.
    """
    from google.protobuf.message import DecodeError

    try:
        message = kind.FromString(data)
    except DecodeError as error:
        raise IdentityError("an envelope or its payload is not the message it should be") from error
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise IdentityError("an envelope or its payload holds more than it should")
    return message


def _readable(addresses: Iterable[bytes]) -> Iterator[Multiaddr]:
    for data in addresses:
        if len(data) <= MAX_RECORD_ADDR_BYTES:
            try:
                yield Multiaddr(data)
            except (AddressError, LimitExceeded):
                continue
