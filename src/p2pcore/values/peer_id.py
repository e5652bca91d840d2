"""Peer ids.

Comes in: multihash bytes, any text form (base58btc, or CIDv1 in any multibase), or a serialized
public key. Goes out: `PeerId`, immutable, hashable, ordered by bytes. Everything malformed raises
IdentityError. Never parses a key: see `p2pcore.values.keys`. Source: libp2p specs peer-ids.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Self

from p2pcore import limits
from p2pcore._fast.codec.peer_id import PeerIdValue
from p2pcore.errors import IdentityError

_SHA2_256_PREFIX = b"\x12\x20"


class PeerId(PeerIdValue):
    """The multihash of a public key.

    `PeerId(value)` takes what `from_bytes` and `from_text` take, or another PeerId. `str()` is the base58btc
    text; show and log this one.
    """

    __slots__ = ()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """The peer id of a multihash from the wire.

        Raises:
            IdentityError: not a sha2-256 hash, nor an identity hash of at most 42 bytes.
        """
        if isinstance(data, str):
            raise TypeError("from_bytes takes bytes; text goes to from_text")
        return cls(data)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The peer id of a text: base58btc of the multihash, or CIDv1 with codec libp2p-key in any multibase.

        Raises:
            IdentityError: over 128 characters, a bad digit, or not a multihash or CID of a peer.
        """
        if not isinstance(text, str):
            raise TypeError("from_text takes str; bytes go to from_bytes")
        return cls(text)

    @classmethod
    def from_public_key_bytes(cls, serialized: bytes) -> Self:
        """The id of a public key.

        Args:
            serialized: the canonical PublicKey protobuf; it is hashed without being parsed.

        Raises:
            IdentityError: it is empty.
        """
        if not serialized:
            raise IdentityError("an empty public key has no peer id")
        if len(serialized) <= limits.MAX_IDENTITY_DIGEST_BYTES:
            return cls(bytes((0, len(serialized))) + serialized)
        return cls(_SHA2_256_PREFIX + sha256(serialized).digest())

    def public_key_bytes(self) -> bytes | None:
        """The PublicKey protobuf inside an identity hash, not checked; None if the key was hashed."""
        return self._bytes[2:] if self._bytes[0] == 0 else None

    def matches(self, serialized: bytes) -> bool:
        """True if this is the id of the public key in this canonical protobuf."""
        return bool(serialized) and PeerId.from_public_key_bytes(serialized)._bytes == self._bytes

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"PeerId({str(self)!r})"


__all__ = ["PeerId"]
