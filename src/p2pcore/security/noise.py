"""libp2p Noise: the XX handshake, with the host's identity in its payloads.

Comes in: handshake messages, a host key, the mailbox of a raw connection. Goes out: a NoiseChannel below that
mailbox, and the identity that the peer proved. Never accepts an unproved identity, never signs or makes a
static key per connection, never sends an alert. _fast/crypto has the pattern and its primitives.
Specification: libp2p noise.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.crypto.noise import Initiator, KeyPair, Responder
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore.errors import (
    HandshakeError,
    IdentityError,
    IncompleteRead,
    LimitExceeded,
    PeerIdMismatch,
    PeerIsSelf,
    ProtocolNotSupported,
    RemoteProtocolError,
)
from p2pcore.interfaces import Secured
from p2pcore.limits import MAX_NOISE_MUXERS, MAX_NOISE_PROOF_BYTES, MAX_NOISE_PROOFS, MAX_PROTOCOL_ID_BYTES
from p2pcore.values.keys import PrivateKey, PublicKey
from p2pcore.values.peer_id import PeerId

PROTOCOL: Final = "/noise"
"""The multistream-select id."""
SIGNATURE_PREFIX: Final = b"noise-libp2p-static-key:"
"""The prefix of the static key in the bytes that a host signs (spec noise)."""

_KEY_BYTES: Final = 32
_SHOWN: Final = 8  # how many of a peer's multiplexers an error names


class _Offer(NamedTuple):
    """Our payload for one list of multiplexers."""

    muxers: tuple[str, ...]
    names: tuple[bytes, ...]
    payload: bytes


class _Proof(NamedTuple):
    """The checked content of a peer's payload; `muxers` is empty if it sent no usable list."""

    peer: PeerId
    key: PublicKey
    muxers: Sequence[bytes]


class NoiseTransport:
    """`/noise` for one host; satisfies interfaces.SecureTransport.

    Args:
        private_key: the host's key. It signs once, here.
        static_secret: X25519 secret, 32 bytes; default: a new one, used as long as this object lives.
        entropy: returns n random bytes; each handshake takes 32 for its ephemeral key.
    """

    __slots__ = ("_entropy", "_identity", "_offer", "_payload_type", "_peer_id", "_proofs", "_static")

    protocol: Final = PROTOCOL

    def __init__(
        self,
        private_key: PrivateKey,
        *,
        static_secret: bytes | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        from p2pcore.pb.noise_pb2 import NoiseHandshakePayload  # takes 20 ms to import

        self._payload_type = NoiseHandshakePayload
        self._entropy = entropy
        self._peer_id = private_key.peer_id()
        self._static = KeyPair.of(static_secret or entropy(_KEY_BYTES))
        self._identity = (
            private_key.public_key.to_protobuf(),
            private_key.sign(SIGNATURE_PREFIX + self._static.public),
        )
        self._offer = self._offer_of(())
        self._proofs: OrderedDict[bytes, _Proof] = OrderedDict()  # by static key and payload, in order of use

    async def secure_inbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection."""
        try:
            return await self._respond(mailbox, expected, muxers)
        except (IncompleteRead, RemoteProtocolError, LimitExceeded) as error:
            raise _fault(error) from error

    async def secure_outbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection."""
        try:
            return await self._initiate(mailbox, expected, muxers)
        except (IncompleteRead, RemoteProtocolError, LimitExceeded) as error:
            raise _fault(error) from error

    async def _respond(self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]) -> Secured:
        message = await mailbox.read_frame()
        if len(message) != _KEY_BYTES:  # go ignores a payload here; rust and we refuse it
            raise HandshakeError(f"noise message 1 has {len(message)} bytes instead of {_KEY_BYTES}")
        noise = Responder(self._static, self._entropy(_KEY_BYTES))
        noise.read_1(message)
        offer = self._offer_of(muxers)
        mailbox.write(_frame(noise.write_2(offer.payload)))
        payload = noise.read_3(await mailbox.read_frame())
        proof = self._check(payload, noise.remote_static, expected)
        muxer = _agree(proof.muxers, offer.names, True)
        mailbox.insert(NoiseChannel(*noise.split()))
        return Secured(proof.peer, proof.key, muxer)

    async def _initiate(self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]) -> Secured:
        noise = Initiator(self._static, self._entropy(_KEY_BYTES))
        mailbox.write(_frame(noise.write_1()))
        payload = noise.read_2(await mailbox.read_frame())
        proof = self._check(payload, noise.remote_static, expected)
        offer = self._offer_of(muxers)
        mailbox.write(_frame(noise.write_3(offer.payload)))
        # Only after sending our list, so that the responder sees the reason too.
        muxer = _agree(offer.names, proof.muxers, False)
        mailbox.insert(NoiseChannel(*noise.split()))
        return Secured(proof.peer, proof.key, muxer)

    def _offer_of(self, muxers: Sequence[str]) -> _Offer:
        """Our payload. A host always offers the same list, so the last payload is kept."""
        wanted = tuple(muxers)
        offer: _Offer | None = getattr(self, "_offer", None)
        if offer is None or offer.muxers != wanted:
            names = tuple(name.encode() for name in wanted)
            key, signature = self._identity
            payload = self._payload_type(identity_key=key, identity_sig=signature)
            payload.extensions.stream_muxers.extend(names)
            if not names:
                payload.ClearField("extensions")
            offer = self._offer = _Offer(wanted, names, payload.SerializeToString())
        return offer

    def _check(self, payload: bytes, static: bytes, expected: PeerId | None) -> _Proof:
        """Who the peer is. A known proof is not checked again: nothing in it can have changed."""
        claim = static + payload
        proof = self._proofs.get(claim)
        if proof is not None:
            self._proofs.move_to_end(claim)
            self._check_peer(proof.peer, expected)
            return proof
        proof = self._prove(payload, static, expected)
        if len(claim) <= MAX_NOISE_PROOF_BYTES:
            self._proofs[claim] = proof
            if len(self._proofs) > MAX_NOISE_PROOFS:
                self._proofs.popitem(last=False)
        return proof

    def _check_peer(self, peer: PeerId, expected: PeerId | None) -> None:
        if expected is not None and peer != expected:
            raise PeerIdMismatch(expected, peer)
        if peer == self._peer_id:
            raise PeerIsSelf(peer)

    def _prove(self, payload: bytes, static: bytes, expected: PeerId | None) -> _Proof:
        """Who the peer is. In go's order: an unexpected id is reported first, whatever the signature."""
        try:
            message = self._payload_type.FromString(payload)
        except DecodeError as error:
            raise HandshakeError("the noise payload is not a protobuf message") from error
        if not message.HasField("identity_key") or not message.HasField("identity_sig"):
            raise HandshakeError("the noise payload lacks the identity key or its signature")
        try:
            key = PublicKey.from_protobuf(message.identity_key)
        except IdentityError as error:
            raise HandshakeError(f"the peer's identity key is not acceptable: {error}") from error
        peer = key.peer_id()
        self._check_peer(peer, expected)
        if not key.verify(SIGNATURE_PREFIX + static, message.identity_sig):
            raise HandshakeError(f"{peer} did not sign the noise static key")
        return _Proof(peer, key, _usable(message.extensions.stream_muxers))


def _usable(muxers: Sequence[bytes]) -> Sequence[bytes]:
    """The peer's list of multiplexers; empty if it is out of bounds (as in go)."""
    names = muxers[: MAX_NOISE_MUXERS + 1]  # a list: iterating over the field itself costs more
    if len(names) > MAX_NOISE_MUXERS or max(map(len, names), default=0) > MAX_PROTOCOL_ID_BYTES:
        return ()
    return tuple(names)


def _agree(initiator: Sequence[bytes], responder: Sequence[bytes], is_responder: bool) -> str | None:
    """The initiator's first multiplexer that the responder has too; None if one of them listed none."""
    if not initiator or not responder:
        return None
    for name in initiator:
        if name in responder:
            return name.decode()
    names = [name.decode(errors="backslashreplace") for name in initiator[:_SHOWN]]
    raise ProtocolNotSupported(names, "muxer negotiation", is_responder)


def _frame(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def _fault(error: Exception) -> HandshakeError:
    """The HandshakeError for a fault of the peer, for the upgrader."""
    if isinstance(error, IncompleteRead):
        return HandshakeError("the peer ended the connection during the noise handshake")
    return HandshakeError(f"the data after the peer's handshake is invalid: {error}")
