"""The operations of each type of host key: Ed25519, RSA, secp256k1 and ECDSA (P-256).

Comes in: `Data` of key protobufs, messages, signatures, keys of `cryptography`. Goes out: the same, checked
and in one form. It implements no cryptography: libsodium (PyNaCl) does Ed25519, `cryptography` the others;
it is imported when first needed. Never shows a private key. Specification: libp2p peer-ids.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair
from nacl.utils import random as secure_random

from p2pcore._fast.crypto.sodium import ed25519_verify
from p2pcore.errors import IdentityError
from p2pcore.limits import MAX_PUBLIC_KEY_BYTES, MAX_RSA_BITS, MAX_RSA_EXPONENT_BITS, MIN_RSA_BITS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

_SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order n of the group (SEC 2, section 2.4.1)."""
_NEW_RSA_BITS: Final = 3072
"""Size of the RSA keys we make: 128-bit security (NIST SP 800-57)."""


class KeyType(enum.IntEnum):
    """The `Type` of a key protobuf."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class Scheme(Protocol):
    """The operations of one key type. `check_*` raise IdentityError; the others expect checked data."""

    def check_public(self, data: bytes) -> None: ...
    def check_private(self, data: bytes) -> bytes:
        """Returns `data` in the form that we keep."""

    def generate(self) -> bytes: ...
    def public_of(self, data: bytes) -> bytes: ...
    def sign(self, data: bytes, message: bytes) -> bytes: ...
    def verify(self, data: bytes, message: bytes, signature: bytes) -> bool: ...
    def export_public(self, data: bytes) -> PublicKeyTypes: ...
    def export_private(self, data: bytes) -> PrivateKeyTypes: ...


class _Ed25519:
    """Private data: seed and public key, 64 bytes; libsodium calls that a secret key."""

    def check_public(self, data: bytes) -> None:
        if len(data) != 32:
            raise IdentityError(f"an Ed25519 public key has 32 bytes, not {len(data)}")

    def check_private(self, data: bytes) -> bytes:
        if len(data) not in (64, 96):
            raise IdentityError(f"an Ed25519 private key has 64 bytes (96 in an old form), not {len(data)}")
        public, secret = crypto_sign_seed_keypair(data[:32])
        if data[32:64] != public or data[64:] not in (b"", public):
            raise IdentityError("the public half of this Ed25519 key does not belong to its seed")
        return secret

    def generate(self) -> bytes:
        return crypto_sign_seed_keypair(secure_random(32))[1]

    def public_of(self, data: bytes) -> bytes:
        return data[32:]

    def sign(self, data: bytes, message: bytes) -> bytes:
        return crypto_sign(message, data)[:64]

    def verify(self, data: bytes, message: bytes, signature: bytes) -> bool:
        return ed25519_verify(data, message, signature)

    def export_public(self, data: bytes) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(data)

    def export_private(self, data: bytes) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(data[:32])


class _Der:
    """Common to RSA and ECDSA: public data is DER SubjectPublicKeyInfo, private data PKCS#1 or SEC1 DER."""

    def check_public(self, data: bytes) -> None:
        if _spki(self.export_public(data)) != data:
            raise IdentityError("the DER of a public key is not in its canonical form")

    def check_private(self, data: bytes) -> bytes:
        if _traditional(self._load(data, is_checked=False)) != data:
            raise IdentityError("the DER of a private key is not in its canonical form (PKCS#1, SEC1)")
        return data

    def public_of(self, data: bytes) -> bytes:
        return _spki(self.export_private(data).public_key())

    def export_public(self, data: bytes) -> PublicKeyTypes:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        if len(data) > MAX_PUBLIC_KEY_BYTES:
            raise IdentityError(f"{len(data)} bytes are too many for a public key")
        try:
            key = load_der_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"not a DER public key: {error}") from error
        self.check_kind(key)
        return key

    def export_private(self, data: bytes) -> RSAPrivateKey | EllipticCurvePrivateKey:
        return self._load(data, is_checked=True)

    def _load(self, data: bytes, is_checked: bool) -> RSAPrivateKey | EllipticCurvePrivateKey:
        """Loads a key. Checking its primes takes a third of a second, so each key is checked once."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_der_private_key

        try:
            key = load_der_private_key(data, None, unsafe_skip_rsa_key_validation=is_checked)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"not a DER private key: {error}") from error
        self.check_kind(key)
        return key  # type: ignore[return-value]  # check_kind has checked the type

    def check_kind(self, key: PublicKeyTypes | PrivateKeyTypes) -> None:
        raise NotImplementedError


class _Rsa(_Der):
    def check_kind(self, key: PublicKeyTypes | PrivateKeyTypes) -> None:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

        if not isinstance(key, RSAPublicKey | RSAPrivateKey):
            raise IdentityError("the DER of this RSA key holds a key of another kind")
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise IdentityError(
                f"an RSA key of {key.key_size} bits is outside {MIN_RSA_BITS} to {MAX_RSA_BITS}"
            )
        public = key if isinstance(key, RSAPublicKey) else key.public_key()
        if public.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
            raise IdentityError(f"an RSA exponent of more than {MAX_RSA_EXPONENT_BITS} bits")

    def generate(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

        return _traditional(generate_private_key(65537, _NEW_RSA_BITS))

    def sign(self, data: bytes, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256

        key = self.export_private(data)
        assert isinstance(key, RSAPrivateKey)
        return key.sign(message, PKCS1v15(), SHA256())

    def verify(self, data: bytes, message: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        key = self.export_public(data)
        assert isinstance(key, RSAPublicKey)
        try:
            key.verify(signature, message, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):  # ValueError: some versions of OpenSSL refuse the key
            return False
        return True


class _Ecdsa(_Der):
    """P-256 only, as in rust; no low-S rule on this curve (go's signatures break it)."""

    def check_kind(self, key: PublicKeyTypes | PrivateKeyTypes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ec import (
            SECP256R1,
            EllipticCurvePrivateKey,
            EllipticCurvePublicKey,
        )

        if not isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
            raise IdentityError("the DER of this ECDSA key holds a key of another kind")
        if not isinstance(key.curve, SECP256R1):
            raise IdentityError(f"ECDSA keys must be on P-256, not {key.curve.name}")

    def generate(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        return _traditional(generate_private_key(SECP256R1()))

    def sign(self, data: bytes, message: bytes) -> bytes:
        return _ec_sign(self.export_private(data), message)

    def verify(self, data: bytes, message: bytes, signature: bytes) -> bool:
        return _ec_verify(self.export_public(data), message, signature)


class _Secp256k1:
    """Public data: compressed point; private data: 32-byte scalar. We make and accept only low-S signatures.

    OpenSSL makes and accepts a high S too; rust and js refuse it.
    """

    def check_public(self, data: bytes) -> None:
        self.export_public(data)

    def check_private(self, data: bytes) -> bytes:
        if len(data) != 32:
            raise IdentityError(f"a secp256k1 private key has 32 bytes, not {len(data)}")
        if not 0 < int.from_bytes(data) < _SECP256K1_ORDER:
            raise IdentityError("a secp256k1 private key is zero or not below the group's order")
        return bytes(data)

    def generate(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key

        return generate_private_key(SECP256K1()).private_numbers().private_value.to_bytes(32)

    def public_of(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = self.export_private(data).public_key()
        return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def sign(self, data: bytes, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.utils import (
            decode_dss_signature,
            encode_dss_signature,
        )

        r, s = decode_dss_signature(_ec_sign(self.export_private(data), message))
        return encode_dss_signature(r, min(s, _SECP256K1_ORDER - s))

    def verify(self, data: bytes, message: bytes, signature: bytes) -> bool:
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        try:
            _, s = decode_dss_signature(signature)
        except ValueError:
            return False
        return 2 * s <= _SECP256K1_ORDER and _ec_verify(self.export_public(data), message, signature)

    def export_public(self, data: bytes) -> PublicKeyTypes:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePublicKey

        if len(data) != 33:
            raise IdentityError(f"a secp256k1 public key has 33 bytes (compressed), not {len(data)}")
        try:
            return EllipticCurvePublicKey.from_encoded_point(SECP256K1(), data)
        except ValueError as error:
            raise IdentityError(f"not a point of secp256k1: {error}") from error

    def export_private(self, data: bytes) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, derive_private_key

        return derive_private_key(int.from_bytes(data), SECP256K1())


SCHEMES: Final[tuple[Scheme, ...]] = (_Rsa(), _Ed25519(), _Secp256k1(), _Ecdsa())
"""Indexed by KeyType."""


def _spki(key: PublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _traditional(key: PrivateKeyTypes) -> bytes:
    """PKCS#1 or SEC1 DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _ec_sign(key: PrivateKeyTypes, message: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256

    assert isinstance(key, EllipticCurvePrivateKey)
    return key.sign(message, ECDSA(SHA256()))


def _ec_verify(key: PublicKeyTypes, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    assert isinstance(key, EllipticCurvePublicKey)
    try:
        key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def import_public(key: PublicKeyTypes) -> tuple[KeyType, bytes]:
    """Type and Data of a key that was in another format; PublicKey checks its bounds and its curve."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyType.ED25519, key.public_bytes_raw()
    if isinstance(key, rsa.RSAPublicKey):
        return KeyType.RSA, _spki(key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256K1):
            return KeyType.SECP256K1, key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        return KeyType.ECDSA, _spki(key)
    raise IdentityError(f"unsupported key type {type(key).__name__}")


def import_private(key: PrivateKeyTypes) -> tuple[KeyType, bytes]:
    """As import_public."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeyType.ED25519, crypto_sign_seed_keypair(key.private_bytes_raw())[1]
    if isinstance(key, rsa.RSAPrivateKey):
        return KeyType.RSA, _traditional(key)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if isinstance(key.curve, ec.SECP256K1):
            return KeyType.SECP256K1, key.private_numbers().private_value.to_bytes(32)
        return KeyType.ECDSA, _traditional(key)
    raise IdentityError(f"unsupported key type {type(key).__name__}")
