"""The certificate of libp2p TLS: makes one for a host, and reads one from a peer.

Comes in: a host key, or the DER bytes of a peer's certificate. Goes out: a self-signed certificate with the
libp2p extension only, or the peer's identity. Never trusts a name or an authority, never accepts DER that is
not strict, never reads a clock: the caller checks the validity. The cryptography is in `cryptography` and
PyNaCl. Specification: libp2p tls, "libp2p Public Key Extension".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import SignatureAlgorithmOID

from p2pcore._fast.codec.certificate import read_usual
from p2pcore.errors import HandshakeError
from p2pcore.limits import (
    MAX_RSA_BITS,
    MAX_RSA_EXPONENT_BITS,
    MAX_TLS_CERTIFICATE_BYTES,
    MIN_RSA_BITS,
    TLS_CERTIFICATE_DAYS,
    TLS_CERTIFICATES_KEPT,
    TLS_CLOCK_SKEW_S,
)
from p2pcore.values.keys import PrivateKey, PublicKey
from p2pcore.values.peer_id import PeerId

SIGNATURE_PREFIX: Final = b"libp2p-tls-handshake:"
"""The prefix of the certificate's SubjectPublicKeyInfo in the bytes that a host signs (spec tls)."""
EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
"""The libp2p extension (spec tls)."""

_V3: Final = 2
_POINT_BYTES: Final = 65  # of P-256, at the end of its SubjectPublicKeyInfo
_CURVE: Final = ec.SECP256R1()
_METHOD: Final = ec.ECDSA(SHA256())
_NOT_SELF_SIGNED: Final = "the peer's certificate is not signed by its own key"
# The signature algorithms that rust-libp2p accepts. In practice, everybody uses the first.
_ECDSA_HASHES: Final = {"secp256r1": "sha256", "secp384r1": "sha384"}
_RSA_HASHES: Final = {"sha256", "sha384", "sha512"}
_MALFORMED: Final = (
    ValueError,  # IdentityError is one
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@asn1.sequence
class _SignedKey:
    public_key: bytes
    signature: bytes


@asn1.sequence
class _Spki:
    algorithm: asn1.TLV
    key: asn1.BitString


@asn1.sequence
class _Body:
    """TBSCertificate of version 3, without the unique ids that the specification forbids (RFC 5280, 4.1)."""

    version: Annotated[int, asn1.Explicit(0)]
    serial: asn1.TLV
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    spki: _Spki
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    """Certificate (RFC 5280, 4.1). Only `body` is signed, so nothing else may vary."""

    body: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


@dataclass(frozen=True, slots=True)
class Identity:
    """The content of a certificate; all but its validity is verified.

    Attributes:
        peer, key: the host's id and public key.
        not_before, not_after: its validity, both times inclusive, UTC.
    """

    peer: PeerId
    key: PublicKey
    not_before: datetime
    not_after: datetime


class _Found(NamedTuple):
    """What a certificate says: the host's key, its signature of `spki`, and the validity."""

    key: PublicKey
    spki: bytes
    signature: bytes
    span: tuple[datetime, datetime]


def make_certificate(
    host_key: PrivateKey, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for `host_key` with a new P-256 key of its own, valid from an hour before `now`.

    Returns: the certificate and its private key, which is independent of the host's key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    nobody = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(nobody)
        .issuer_name(nobody)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=TLS_CLOCK_SKEW_S))
        .not_valid_after(now + timedelta(days=TLS_CERTIFICATE_DAYS))
        .public_key(key.public_key())
        .add_extension(_extension(host_key, key.public_key()), critical=False)
    )
    return builder.sign(key, SHA256()), key


def _extension(host_key: PrivateKey, key: ec.EllipticCurvePublicKey) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(EXTENSION, signed_key(host_key, _spki_of(key)))


def _spki_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signed_key(host_key: PrivateKey, spki: bytes) -> bytes:
    """The value of the extension: DER of SignedKey, with the host's signature of `spki`."""
    signature = host_key.sign(SIGNATURE_PREFIX + spki)
    return asn1.encode_der(_SignedKey(public_key=host_key.public_key.to_protobuf(), signature=signature))


@lru_cache(maxsize=TLS_CERTIFICATES_KEPT)
def read_certificate(der: bytes) -> Identity:
    """The identity in the certificate `der`.

    The result depends only on `der`, and is cached: a peer that connects again costs no signature checks
    here. TLS still makes it prove each time that it has the certificate's key.

    Raises:
        HandshakeError: it is malformed, lacks the extension, has an unknown critical extension, or has a
            signature that is wrong or not accepted.
    """
    if len(der) > MAX_TLS_CERTIFICATE_BYTES:
        raise HandshakeError(
            f"a certificate of {len(der)} bytes is over the limit of {MAX_TLS_CERTIFICATE_BYTES}"
        )
    try:
        found = _read_usual(der) or _read_any(der)
    except _MALFORMED as error:
        raise HandshakeError(f"the peer's certificate is not acceptable: {error}") from error
    peer = found.key.peer_id()
    if not found.key.verify(SIGNATURE_PREFIX + found.spki, found.signature):
        raise HandshakeError(f"{peer} did not sign the key of the certificate")
    return Identity(peer, found.key, *found.span)


def _read_usual(der: bytes) -> _Found | None:
    """What nearly every certificate says, as _read_any, but sooner. None: it has another form."""
    parts = read_usual(der)
    if parts is None:
        return None
    body, spki, own_signature, host_key, signature, since, until = parts
    try:
        span = datetime(*since, tzinfo=UTC), datetime(*until, tzinfo=UTC)
    except ValueError:
        return None  # no date: the general way has words for it
    key = PublicKey.from_protobuf(host_key)
    point = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, spki[-_POINT_BYTES:])
    try:
        point.verify(own_signature, body, _METHOD)
    except InvalidSignature:
        raise HandshakeError(_NOT_SELF_SIGNED) from None
    return _Found(key, spki, signature, span)


def _read_any(der: bytes) -> _Found:
    """What a certificate says, whose own signature is right. Raises HandshakeError, or one of _MALFORMED."""
    certificate = x509.load_der_x509_certificate(der)
    signed = asn1.decode_der(_SignedKey, _extension_value(certificate))
    body = asn1.decode_der(_Body, certificate.tbs_certificate_bytes)
    outer = asn1.decode_der(_Certificate, der)
    key = PublicKey.from_protobuf(signed.public_key)
    _check_self_signature(certificate)
    span = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if body.version != _V3:
        raise HandshakeError(f"the peer's certificate has version {body.version + 1} instead of 3")
    if outer.signature.padding_bits() or outer.algorithm.data != body.algorithm.data:
        raise HandshakeError("the peer's certificate has unsigned bits: in its signature, or its algorithm")
    return _Found(key, asn1.encode_der(body.spki), signed.signature, span)


def _extension_value(certificate: x509.Certificate) -> bytes:
    """The value of the one libp2p extension."""
    value = None
    for extension in certificate.extensions:  # raises if one occurs twice
        if extension.oid == EXTENSION and isinstance(extension.value, x509.UnrecognizedExtension):
            value = extension.value.value
        elif extension.critical:
            raise HandshakeError(
                f"the peer's certificate has the critical extension {extension.oid.dotted_string}"
            )
    if value is None:
        raise HandshakeError("the peer's certificate has no libp2p extension")
    return value


def _check_self_signature(certificate: x509.Certificate) -> None:
    """Raises HandshakeError unless the certificate's own key signed it, with an accepted algorithm."""
    key = certificate.public_key()
    method = certificate.signature_algorithm_parameters
    signature, body = certificate.signature, certificate.tbs_certificate_bytes
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(method, ec.ECDSA):
            if _ECDSA_HASHES.get(key.curve.name) == getattr(
                certificate.signature_hash_algorithm, "name", None
            ):
                return key.verify(signature, body, method)
        elif isinstance(key, ed25519.Ed25519PublicKey):
            if certificate.signature_algorithm_oid == SignatureAlgorithmOID.ED25519:
                return key.verify(signature, body)
        elif isinstance(key, rsa.RSAPublicKey) and isinstance(method, (padding.PKCS1v15, padding.PSS)):
            digest = certificate.signature_hash_algorithm
            if _is_fit(key) and digest is not None and digest.name in _RSA_HASHES:
                return key.verify(signature, body, method, digest)
    except InvalidSignature:
        raise HandshakeError(_NOT_SELF_SIGNED) from None
    raise HandshakeError(
        f"the peer's certificate has a key or signature algorithm that is not accepted"
        f" ({certificate.public_key_algorithm_oid.dotted_string},"
        f" {certificate.signature_algorithm_oid.dotted_string})"
    )


def _is_fit(key: rsa.RSAPublicKey) -> bool:
    """True if the key is not too weak, and not so large that checking it costs too much."""
    exponent_bits = key.public_numbers().e.bit_length()
    return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and exponent_bits <= MAX_RSA_EXPONENT_BITS
