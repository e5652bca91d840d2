"""Host keys: Ed25519, RSA, secp256k1 and ECDSA (P-256), their protobufs, signatures and text forms.

Comes in: protobuf bytes, PEM, PKCS#8, base64, files, messages and signatures. Goes out: PublicKey and
PrivateKey values. Never accepts a protobuf that is not canonical: a peer id hashes its bytes. Never prints a
private key, never guesses whether a key is private. Specification: libp2p peer-ids.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nacl.bindings import crypto_sign_seed_keypair

from p2pcore.errors import IdentityError
from p2pcore.limits import MAX_PRIVATE_KEY_BYTES, MAX_PUBLIC_KEY_BYTES
from p2pcore.values import key_files
from p2pcore.values.key_files import Form, Found
from p2pcore.values.key_schemes import SCHEMES, KeyType, import_private, import_public
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.hazmat.primitives.serialization import Encoding, KeySerializationEncryption

    _Loader = Callable[[bytes, bytes | None], PrivateKeyTypes]

__all__ = ["WRITTEN_FORMS", "KeyType", "PrivateKey", "PublicKey", "parse_key"]

WRITTEN_FORMS: Final = ("protobuf", "base64", "hex", "pem", "der")
"""The forms in which keys are written."""


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A public key, checked when it is created. It keeps only bytes: every connection has one.

    Attributes:
        type: its algorithm.
        data: `Data` of the protobuf: 32 raw bytes for Ed25519, 33 (compressed point) for secp256k1,
            DER SubjectPublicKeyInfo for RSA and ECDSA.

    Raises:
        IdentityError: `data` is not a key of this type, or the key is outside our bounds.
    """

    type: KeyType
    data: bytes

    def __post_init__(self) -> None:
        SCHEMES[self.type].check_public(self.data)

    @classmethod
    def from_protobuf(cls, data: bytes) -> PublicKey:
        """The key of a PublicKey protobuf, which must be canonical.

        Raises:
            IdentityError: malformed, not canonical, of an unknown type, or a bad key.
        """
        return cls(*_decode("public", data, MAX_PUBLIC_KEY_BYTES))

    def to_protobuf(self) -> bytes:
        """The canonical protobuf; a peer id is made from its bytes."""
        return _encode(self.type, self.data)

    @classmethod
    def from_base64(cls, text: str) -> PublicKey:
        """The key of a protobuf in standard base64. Raises IdentityError."""
        return cls.from_protobuf(_from_base64(text, MAX_PUBLIC_KEY_BYTES))

    def to_base64(self) -> str:
        """The protobuf in standard base64."""
        return base64.b64encode(self.to_protobuf()).decode()

    @classmethod
    def from_pem(cls, text: str) -> PublicKey:
        """The key of a PEM SubjectPublicKeyInfo. Raises IdentityError."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"not a PEM public key: {error}") from error
        return cls(*import_public(key))

    def to_pem(self) -> str:
        """The key as PEM SubjectPublicKeyInfo."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = SCHEMES[self.type].export_public(self.data)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def to_form(self, form: str) -> bytes:
        """The bytes of a key file; `form` as in PrivateKey.write. Raises ValueError: `form` is unknown."""
        if form == "pem":
            return self.to_pem().encode()
        if form == "der":
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

            key = SCHEMES[self.type].export_public(self.data)
            return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _written(self, form)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """True if this key made `signature` of `message`; False for anything else, even malformed."""
        return SCHEMES[self.type].verify(self.data, message, signature)

    def peer_id(self) -> PeerId:
        """The peer id of this key."""
        return PeerId.from_public_key_bytes(self.to_protobuf())

    def __repr__(self) -> str:
        return f"<PublicKey {self.type.name} {self.peer_id()}>"


class PrivateKey:
    """A private key with its public key. Compares by value. `repr` shows the peer id, never the key."""

    __slots__ = ("_data", "public_key", "type")

    type: KeyType
    public_key: PublicKey

    def __init__(self, type: KeyType, data: bytes) -> None:
        """Checks `data`, the `Data` of a PrivateKey protobuf. Raises IdentityError."""
        scheme = SCHEMES[type]
        self._data = scheme.check_private(data)
        self.type = type
        self.public_key = PublicKey(type, scheme.public_of(self._data))

    @classmethod
    def generate(cls, type: KeyType = KeyType.ED25519) -> PrivateKey:
        """A new key from the system's entropy. RSA takes about a second."""
        return cls(type, SCHEMES[type].generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """The Ed25519 key of a 32-byte seed. Raises IdentityError for another length."""
        if len(seed) != 32:
            raise IdentityError(f"an Ed25519 seed has 32 bytes, not {len(seed)}")
        return cls(KeyType.ED25519, crypto_sign_seed_keypair(seed)[1])

    @classmethod
    def from_protobuf(cls, data: bytes) -> PrivateKey:
        """The key of a PrivateKey protobuf, the old 96-byte Ed25519 form included. Raises IdentityError."""
        return cls(*_decode("private", data, MAX_PRIVATE_KEY_BYTES))

    def to_protobuf(self) -> bytes:
        """The PrivateKey protobuf. A secret."""
        return _encode(self.type, self._data)

    @classmethod
    def from_base64(cls, text: str) -> PrivateKey:
        """The key of a protobuf in standard base64, as go-libp2p writes it. Raises IdentityError."""
        return cls.from_protobuf(_from_base64(text, MAX_PRIVATE_KEY_BYTES))

    def to_base64(self) -> str:
        """The PrivateKey protobuf in standard base64. A secret."""
        return base64.b64encode(self.to_protobuf()).decode()

    @classmethod
    def from_pem(cls, text: str, password: bytes | None = None) -> PrivateKey:
        """The key of PEM: PKCS#8, PKCS#1 or SEC1. Raises IdentityError."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        return cls._load(load_pem_private_key, text.encode(), password)

    @classmethod
    def from_pkcs8(cls, der: bytes, password: bytes | None = None) -> PrivateKey:
        """The key of PKCS#8 DER. Raises IdentityError."""
        from cryptography.hazmat.primitives.serialization import load_der_private_key

        return cls._load(load_der_private_key, der, password)

    @classmethod
    def parse(cls, data: bytes, form: str | None = None, password: bytes | str | None = None) -> PrivateKey:
        """The key in the bytes of a file; see `read`. Raises IdentityError."""
        key = parse_key(data, form, password)
        if not isinstance(key, PrivateKey):
            raise IdentityError("a public key where a private key is needed")
        return key

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], form: str | None = None, password: bytes | str | None = None
    ) -> PrivateKey:
        """The private key in the file at `path`.

        It may be a protobuf as go-libp2p and `write` make it, binary or in base64 or hex; PEM or DER of
        PKCS#8, PKCS#1 or SEC1; OpenSSH; or the 64 bytes of libsodium. PEM may have comments around it.

        Args:
            form: the form of the file, if the file does not say it; no other is accepted then. "seed": an
                Ed25519 key of 32 bytes, as py-libp2p writes it: raw, hex, base64, or in a protobuf.
                "protobuf", "pem", "der": only that.
            password: for encrypted PEM, DER or OpenSSH.

        Raises:
            OSError: it cannot be read.
            IdentityError: there is no private key; it may also be a public key (then give `form`); the
                password is missing, wrong, or not needed.
            ValueError: `form` is unknown.
        """
        return cls.parse(key_files.read_file(path), form, password)

    def write(
        self,
        path: str | os.PathLike[str],
        form: str = "protobuf",
        password: bytes | str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes the key into a file that only its owner can read (mode 0600), completely or not at all.

        Args:
            form: "protobuf", "base64" (go-libp2p uses both), "hex", "pem" or "der" (PKCS#8).
            password: encrypts PEM and DER; at least one byte.
            overwrite: replace an existing file, in one step.

        Raises:
            FileExistsError: the file exists, and `overwrite` is False. OSError: it cannot be written.
            ValueError: `form` is unknown, or takes no password.
        """
        key_files.write_file(path, self.to_form(form, password), key_files.PRIVATE_MODE, overwrite)

    def to_form(self, form: str, password: bytes | str | None = None) -> bytes:
        """The bytes of a key file; see `write`. A secret."""
        if form not in ("pem", "der"):
            if password is not None:
                raise ValueError(f"{form} is not encrypted: pem and der take a password")
            return _written(self, form)
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            NoEncryption,
        )

        encoding = Encoding.PEM if form == "pem" else Encoding.DER
        secret = _password(password)
        return self._pkcs8(encoding, NoEncryption() if secret is None else BestAvailableEncryption(secret))

    @classmethod
    def _load(cls, load: _Loader, data: bytes, password: bytes | None) -> PrivateKey:
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            key = load(data, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: about the password
            # One wrong password in 256 decrypts to what looks like a broken key.
            hint = "" if password is None else " (or the password is wrong)"
            raise IdentityError(f"not a private key that we can read: {error}{hint}") from error
        return cls(*import_private(key))

    def to_pem(self) -> str:
        """The key as unencrypted PEM PKCS#8. A secret."""
        return self.to_form("pem").decode()

    def to_pkcs8(self) -> bytes:
        """The key as unencrypted PKCS#8 DER. A secret."""
        return self.to_form("der")

    def _pkcs8(self, encoding: Encoding, encryption: KeySerializationEncryption) -> bytes:
        from cryptography.hazmat.primitives.serialization import PrivateFormat

        return (
            SCHEMES[self.type]
            .export_private(self._data)
            .private_bytes(encoding, PrivateFormat.PKCS8, encryption)
        )

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, in the form of the key's type.

        Never sign bytes that a peer chose without our own context prefix before them.
        """
        return SCHEMES[self.type].sign(self._data, message)

    def peer_id(self) -> PeerId:
        """The peer id of the public key."""
        return self.public_key.peer_id()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PrivateKey):
            return NotImplemented
        return self.public_key == other.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.type.name} {self.peer_id()}>"


# -- files -------------------------------------------------------------------------------------


def parse_key(
    data: bytes, form: str | None = None, password: bytes | str | None = None
) -> PrivateKey | PublicKey:
    """The key in the bytes of a file, private or public; see PrivateKey.read. Never guesses which it is.

    Args:
        form: as in PrivateKey.read, or "public": a PublicKey protobuf, also in base64 or hex.

    Raises:
        IdentityError: as PrivateKey.read. ValueError: `form` is unknown.
    """
    found = key_files.recognize(data, form)
    secret = _password(password)
    key = _made(found, secret)
    if secret is not None and not (found.is_private or found.form is Form.DER):
        raise IdentityError("a password was given, but this key is not encrypted")
    return key


def _made(found: Found, secret: bytes | None) -> PrivateKey | PublicKey:
    data = found.data
    match found.form:
        case Form.SEED:
            return PrivateKey.from_seed(data) if len(data) == 32 else PrivateKey(KeyType.ED25519, data)
        case Form.PUBLIC:
            return PublicKey.from_protobuf(data)
        case Form.PROTOBUF:
            return _either(PrivateKey.from_protobuf, PublicKey.from_protobuf, data)
        case Form.DER:
            return _either(lambda der: PrivateKey.from_pkcs8(der, secret), _public_der, data)
        case Form.OPENSSH | Form.OPENSSH_PUBLIC:
            return _openssh(found, secret)
        case Form.PEM if found.is_private:
            return PrivateKey.from_pem(data.decode(), secret)
    return PublicKey.from_pem(data.decode())


def _either(
    private: Callable[[bytes], PrivateKey], public: Callable[[bytes], PublicKey], data: bytes
) -> PrivateKey | PublicKey:
    """The key in a form that is never both: its structure says whether it is private."""
    try:
        return private(data)
    except IdentityError as error:
        try:
            return public(data)
        except IdentityError:
            raise error from None


def _public_der(data: bytes) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return PublicKey(*import_public(load_der_public_key(data)))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"not a public key that we can read: {error}") from error


def _openssh(found: Found, secret: bytes | None) -> PrivateKey | PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

    try:
        if found.is_private:
            return PrivateKey(*import_private(load_ssh_private_key(found.data, secret)))
        return PublicKey(*import_public(load_ssh_public_key(found.data)))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # UnsupportedAlgorithm may mean that bcrypt, which decrypts them, is not installed: the text says so.
        raise IdentityError(
            f"not an OpenSSH key that we can read: {error} (`ssh-keygen -p -m PKCS8 -f FILE` makes it PEM)"
        ) from error


def _password(password: bytes | str | None) -> bytes | None:
    return password.encode() if isinstance(password, str) else password


def _written(key: PrivateKey | PublicKey, form: str) -> bytes:
    if form == "protobuf":
        return key.to_protobuf()
    if form == "base64":
        return key.to_base64().encode() + b"\n"
    if form == "hex":
        return key.to_protobuf().hex().encode() + b"\n"
    raise ValueError(f"form: one of {', '.join(WRITTEN_FORMS)} expected, not {form!r}")


# -- protobuf ----------------------------------------------------------------------------------
# Written by hand: the peer id hashes these bytes, so there is one encoding, and any other is refused.


def _encode(type: int, data: bytes) -> bytes:
    length = len(data)
    if length < 0x80:
        return bytes((0x08, type, 0x12, length)) + data
    return bytes((0x08, type, 0x12, length & 0x7F | 0x80, length >> 7)) + data


_ED25519_HEAD: Final = _encode(KeyType.ED25519, bytes(32))[:4]


def _decode(kind: str, encoded: bytes, max_bytes: int) -> tuple[KeyType, bytes]:
    """Type and Data of a canonical key protobuf with at most `max_bytes` (less than 16384) of Data."""
    if len(encoded) > max_bytes + 5:
        raise IdentityError(f"a {kind} key of {len(encoded)} bytes is over the limit of {max_bytes}")
    encoded = bytes(encoded)
    if len(encoded) == 36 and encoded.startswith(_ED25519_HEAD):  # nearly every key in use
        return KeyType.ED25519, encoded[4:]
    number, size = encoded[1:4:2] if len(encoded) >= 4 else (0, 0)
    data = encoded[4 if size < 0x80 else 5 :]
    if _encode(number, data) != encoded:
        raise IdentityError(f"not a canonical {kind} key: Type, then Data, and nothing else")
    if number > KeyType.ECDSA:
        raise IdentityError(f"unsupported key type {number}")
    return KeyType(number), data


def _from_base64(text: str, max_bytes: int) -> bytes:
    if len(text) > 2 * max_bytes:
        raise IdentityError(f"{len(text)} characters are too long for a key")
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise IdentityError(f"not base64: {error}") from error
