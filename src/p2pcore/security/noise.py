"""libp2p Noise: the XX handshake, with the host's identity in its payloads.

Comes in: handshake messages, a host key, the mailbox of a raw connection. Goes out: a NoiseChannel
seated under that mailbox, and who the peer proved to be. `Initiator` and `Responder` do no I/O;
`NoiseTransport` moves their messages. Never accepts an unproved identity, never signs or makes a
static key per connection, never sends an alert. Only the composition is ours: X25519 and the cipher
are libsodium, HKDF is OpenSSL (each the faster of the two). Specification: libp2p noise; Noise
Protocol Framework revision 34, sections 5 and 7.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from p2pcore._fast.layer import Mailbox
from p2pcore._fast.secure import NoiseChannel
from p2pcore._fast.sodium import seal, unseal, x25519, x25519_public
from p2pcore.errors import (
    HandshakeError,
    IdentityError,
    IncompleteRead,
    LimitExceeded,
    PeerIdMismatch,
    RemoteProtocolError,
)
from p2pcore.interfaces import Secured
from p2pcore.keys import PrivateKey, PublicKey
from p2pcore.limits import MAX_NOISE_MUXERS, MAX_PROTOCOL_ID_BYTES
from p2pcore.peer_id import PeerId

PROTOCOL: Final = "/noise"
"""The multistream-select id."""
SIGNATURE_PREFIX: Final = b"noise-libp2p-static-key:"
"""Before the static key in what a host signs (spec noise)."""

_NAME: Final = b"Noise_XX_25519_ChaChaPoly_SHA256"  # 32 bytes, so it is its own initial hash
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_SHA256: Final = SHA256()
_SEALED_KEY_BYTES: Final = _KEY_BYTES + _TAG_BYTES


class KeyPair(NamedTuple):
    """An X25519 key."""

    secret: bytes
    public: bytes

    @classmethod
    def of(cls, secret: bytes) -> KeyPair:
        """The pair of a 32-byte secret."""
        return cls(secret, x25519_public(secret))


# -- the symmetric half ------------------------------------------------------------------------


class SymmetricState:
    """Transcript hash, chaining key and cipher of a handshake (Noise, section 5.2).

    Attributes:
        h: the handshake hash so far; ck: the chaining key; key: the cipher's key, None before the first.
    """

    __slots__ = ("_nonce", "ck", "h", "key")

    def __init__(self, prologue: bytes = b"") -> None:
        self.ck = _NAME
        self.h = sha256(_NAME + prologue).digest()
        self.key: bytes | None = None
        self._nonce = 0

    def mix_hash(self, data: bytes) -> None:
        self.h = sha256(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self.ck, self.key = _hkdf(self.ck, secret)
        self._nonce = 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = plaintext
        if self.key is not None:
            sealed = seal(self.key, self._next_nonce(), plaintext, self.h)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        """Raises HandshakeError if `sealed` does not authenticate."""
        plaintext = sealed
        if self.key is not None:
            opened = unseal(self.key, self._next_nonce(), sealed, self.h)
            if opened is None:
                raise HandshakeError("a noise handshake message does not authenticate")
            plaintext = opened
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the transport phase: the initiator sends with the first."""
        return _hkdf(self.ck, b"")

    def _next_nonce(self) -> int:
        self._nonce += 1
        return self._nonce - 1


def _hkdf(ck: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Noise's HKDF is RFC 5869's with the chaining key as salt and no info."""
    both = HKDF(_SHA256, 64, ck, None).derive(secret)
    return both[:32], both[32:]


def _dh(secret: bytes, public: bytes) -> bytes:
    shared = x25519(secret, public)
    if shared is None:
        raise HandshakeError("the peer's X25519 key has a low order")
    return shared


# -- the XX pattern ----------------------------------------------------------------------------


class Initiator:
    """The dialler's side of XX; call write_1, read_2, write_3, split, in this order.

    Args:
        static: our static key; ephemeral: 32 fresh random bytes; prologue: what both sides must know.

    Attributes:
        state: the transcript, whose last `h` is the handshake hash.
        remote_static: the peer's static key, authenticated once read_2 returns.
    """

    __slots__ = ("_ephemeral", "_remote_ephemeral", "_static", "remote_static", "state")

    def __init__(self, static: KeyPair, ephemeral: bytes, prologue: bytes = b"") -> None:
        self.state = SymmetricState(prologue)
        self.remote_static = self._remote_ephemeral = b""
        self._static = static
        self._ephemeral = KeyPair.of(ephemeral)

    def write_1(self, payload: bytes = b"") -> bytes:
        """`-> e`. The payload is sent in clear."""
        public = self._ephemeral.public
        self.state.mix_hash(public)
        return public + self.state.encrypt_and_hash(payload)

    def read_2(self, message: bytes) -> bytes:
        """`<- e, ee, s, es`; returns the payload. Raises HandshakeError."""
        if len(message) < _KEY_BYTES + _SEALED_KEY_BYTES + _TAG_BYTES:
            raise HandshakeError(f"noise message 2 has only {len(message)} bytes")
        state = self.state
        secret = self._ephemeral.secret
        self._remote_ephemeral = message[:_KEY_BYTES]
        state.mix_hash(self._remote_ephemeral)
        state.mix_key(_dh(secret, self._remote_ephemeral))
        self.remote_static = state.decrypt_and_hash(message[_KEY_BYTES : _KEY_BYTES + _SEALED_KEY_BYTES])
        state.mix_key(_dh(secret, self.remote_static))
        return state.decrypt_and_hash(message[_KEY_BYTES + _SEALED_KEY_BYTES :])

    def write_3(self, payload: bytes) -> bytes:
        """`-> s, se`."""
        state = self.state
        sealed = state.encrypt_and_hash(self._static.public)
        state.mix_key(_dh(self._static.secret, self._remote_ephemeral))
        return sealed + state.encrypt_and_hash(payload)

    def split(self) -> tuple[bytes, bytes]:
        """(key to send with, key to receive with)."""
        return self.state.split()


class Responder:
    """The listener's side of XX; call read_1, write_2, read_3, split, in this order.

    Arguments and attributes as Initiator; remote_static is authenticated once read_3 returns.
    """

    __slots__ = ("_ephemeral", "_remote_ephemeral", "_static", "remote_static", "state")

    def __init__(self, static: KeyPair, ephemeral: bytes, prologue: bytes = b"") -> None:
        self.state = SymmetricState(prologue)
        self.remote_static = self._remote_ephemeral = b""
        self._static = static
        self._ephemeral = KeyPair.of(ephemeral)

    def read_1(self, message: bytes) -> bytes:
        """`-> e`; returns the payload, which nobody has authenticated. Raises HandshakeError."""
        if len(message) < _KEY_BYTES:
            raise HandshakeError(f"noise message 1 has only {len(message)} bytes")
        self._remote_ephemeral = message[:_KEY_BYTES]
        self.state.mix_hash(self._remote_ephemeral)
        return self.state.decrypt_and_hash(message[_KEY_BYTES:])

    def write_2(self, payload: bytes) -> bytes:
        """`<- e, ee, s, es`. Raises HandshakeError for a low-order key."""
        state = self.state
        ephemeral = self._ephemeral
        state.mix_hash(ephemeral.public)
        state.mix_key(_dh(ephemeral.secret, self._remote_ephemeral))
        sealed = state.encrypt_and_hash(self._static.public)
        state.mix_key(_dh(self._static.secret, self._remote_ephemeral))
        return ephemeral.public + sealed + state.encrypt_and_hash(payload)

    def read_3(self, message: bytes) -> bytes:
        """`-> s, se`; returns the payload. Raises HandshakeError."""
        if len(message) < _SEALED_KEY_BYTES + _TAG_BYTES:
            raise HandshakeError(f"noise message 3 has only {len(message)} bytes")
        state = self.state
        self.remote_static = state.decrypt_and_hash(message[:_SEALED_KEY_BYTES])
        state.mix_key(_dh(self._ephemeral.secret, self.remote_static))
        return state.decrypt_and_hash(message[_SEALED_KEY_BYTES:])

    def split(self) -> tuple[bytes, bytes]:
        """(key to send with, key to receive with)."""
        receive, send = self.state.split()
        return send, receive


# -- the libp2p handshake ----------------------------------------------------------------------


class _Offer(NamedTuple):
    """Our payload for one list of multiplexers."""

    muxers: tuple[str, ...]
    names: tuple[bytes, ...]
    payload: bytes


class _Proof(NamedTuple):
    """What a peer's payload says, checked; `muxers` is empty where it sent no usable list."""

    peer: PeerId
    key: PublicKey
    muxers: Sequence[bytes]


class NoiseTransport:
    """`/noise` for one host; satisfies interfaces.SecureTransport.

    Args:
        private_key: the host's key. It signs once, here.
        static_secret: X25519 secret, 32 bytes; by default a fresh one, for the life of this object.
        entropy: gives n random bytes; each handshake takes 32 for its ephemeral key.
    """

    __slots__ = ("_entropy", "_identity", "_offer", "_payload_type", "_peer_id", "_static")

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

    async def secure_inbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection."""
        return await _handshake(self._respond(mailbox, expected, muxers))

    async def secure_outbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection."""
        return await _handshake(self._initiate(mailbox, expected, muxers))

    async def _respond(self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]) -> Secured:
        message = await _read_frame(mailbox)
        if len(message) != _KEY_BYTES:  # go ignores a payload here, rust and we do not
            raise HandshakeError(f"noise message 1 has {len(message)} bytes instead of {_KEY_BYTES}")
        noise = Responder(self._static, self._entropy(_KEY_BYTES))
        noise.read_1(message)
        offer = self._offer_of(muxers)
        mailbox.write(_frame(noise.write_2(offer.payload)))
        payload = noise.read_3(await _read_frame(mailbox))
        proof = self._check(payload, noise.remote_static, expected)
        muxer = _agree(proof.muxers, offer.names)
        mailbox.insert(NoiseChannel(*noise.split()))
        return Secured(proof.peer, proof.key, muxer)

    async def _initiate(self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]) -> Secured:
        noise = Initiator(self._static, self._entropy(_KEY_BYTES))
        mailbox.write(_frame(noise.write_1()))
        payload = noise.read_2(await _read_frame(mailbox))
        proof = self._check(payload, noise.remote_static, expected)
        offer = self._offer_of(muxers)
        muxer = _agree(offer.names, proof.muxers)
        mailbox.write(_frame(noise.write_3(offer.payload)))
        mailbox.insert(NoiseChannel(*noise.split()))
        return Secured(proof.peer, proof.key, muxer)

    def _offer_of(self, muxers: Sequence[str]) -> _Offer:
        """Our payload; a host always offers the same list, so the last one made is kept."""
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
        """Who the peer is. The order is go's: another id is reported as that, whatever the signature."""
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
        if expected is not None and peer != expected:
            raise PeerIdMismatch(expected, peer)
        if peer == self._peer_id:
            raise HandshakeError(f"the peer is ourselves, {peer}")
        if not key.verify(SIGNATURE_PREFIX + static, message.identity_sig):
            raise HandshakeError(f"{peer} did not sign the noise static key")
        return _Proof(peer, key, _usable(message.extensions.stream_muxers))


def _usable(muxers: Sequence[bytes]) -> Sequence[bytes]:
    """The peer's list of multiplexers, or none where it is out of bounds (as go does)."""
    if len(muxers) > MAX_NOISE_MUXERS or any(len(name) > MAX_PROTOCOL_ID_BYTES for name in muxers):
        return ()
    return tuple(muxers)


def _agree(initiator: Sequence[bytes], responder: Sequence[bytes]) -> str | None:
    """The first of the initiator's multiplexers that the responder has too; None if either listed none."""
    if not initiator or not responder:
        return None
    for name in initiator:
        if name in responder:
            return name.decode()
    raise HandshakeError("no multiplexer in common")


def _frame(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


async def _read_frame(mailbox: Mailbox) -> bytes:
    return await mailbox.read_exactly(int.from_bytes(await mailbox.read_exactly(2)))


async def _handshake(steps: Coroutine[object, object, Secured]) -> Secured:
    """The result of `steps`, with every fault of the peer's as a HandshakeError."""
    try:
        return await steps
    except IncompleteRead as error:
        raise HandshakeError("the peer ended the connection during the noise handshake") from error
    except (RemoteProtocolError, LimitExceeded) as error:
        raise HandshakeError(f"what the peer sent behind its handshake is invalid: {error}") from error
