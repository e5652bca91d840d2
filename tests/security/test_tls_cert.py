"""security/tls_cert.py: every vector, our own certificates, and every certificate that must not pass."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st
from tls_vectors import (
    CERTIFICATES,
    EXTENSION_SEED,
    EXTENSION_SPKI,
    EXTENSIONS,
    SIGNED_KEY,
    CertificateVector,
)

from p2pcore.errors import HandshakeError
from p2pcore.limits import MAX_TLS_CERTIFICATE_BYTES, TLS_CERTIFICATES_KEPT
from p2pcore.security.tls_cert import EXTENSION, make_certificate, read_certificate, signed_key
from p2pcore.values.keys import KeyType, PrivateKey

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOST = PrivateKey.from_seed(EXTENSION_SEED)
KEY = ec.generate_private_key(ec.SECP256R1())


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def made(
    key: Any = KEY,
    digest: Any = None,
    value: bytes | None = None,
    extensions: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder,
    signer: Any = None,
    **options: Any,
) -> bytes:
    """A certificate of HOST with one thing changed; DER."""
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(1), NOW + timedelta(1))
    value = signed_key(HOST, spki(key)) if value is None else value
    if value:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, value), critical=False)
    builder = extensions(builder)
    digest = SHA256() if digest is None else digest or None
    return builder.sign(signer or key, digest, **options).public_bytes(Encoding.DER)


def refusal(der: bytes) -> str:
    with pytest.raises(HandshakeError) as caught:
        read_certificate(der)
    return str(caught.value)


# -- vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", CERTIFICATES, ids=range(1, len(CERTIFICATES) + 1))
def test_certificate_vectors(vector: CertificateVector) -> None:
    der = bytes.fromhex(vector.der)
    if vector.peer is None:
        refusal(der)
    else:
        identity = read_certificate(der)
        assert str(identity.peer) == vector.peer
        assert identity.key.peer_id() == identity.peer


@pytest.mark.parametrize("number", [4, 6])
def test_forged_extension_signatures_are_refused_as_such(number: int) -> None:
    assert "did not sign the key" in refusal(bytes.fromhex(CERTIFICATES[number - 1].der))


def test_validity_of_a_vector() -> None:
    identity = read_certificate(bytes.fromhex(CERTIFICATES[0].der))
    assert identity.not_before == datetime(1975, 1, 1, 13, tzinfo=UTC)
    assert identity.not_after == datetime(4096, 1, 1, 13, tzinfo=UTC)


def test_signed_key_vector() -> None:
    assert signed_key(HOST, bytes.fromhex(EXTENSION_SPKI)).hex() == SIGNED_KEY


@pytest.mark.parametrize(("is_critical", "extension"), EXTENSIONS)
def test_the_extension_is_read_critical_or_not(is_critical: bool, extension: str) -> None:
    value = bytes.fromhex(SIGNED_KEY)
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 1, NOW - timedelta(1), NOW + timedelta(1))
    builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, value), critical=is_critical)
    der = builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)
    assert bytes.fromhex(extension) in der
    # It is the right extension; that its signature is of another key is all there is to say against it.
    assert "did not sign the key" in refusal(der)


# -- our own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KeyType), ids=lambda kind: kind.name.lower())
def test_a_certificate_we_make_tells_whose_it_is(kind: KeyType) -> None:
    host = PrivateKey.generate(kind)
    certificate, _ = make_certificate(host, NOW)
    identity = read_certificate(certificate.public_bytes(Encoding.DER))
    assert identity.peer == host.peer_id()
    assert identity.key == host.public_key


def test_a_certificate_we_make_is_what_all_implementations_take() -> None:
    certificate, key = make_certificate(HOST, NOW)
    assert isinstance(key.curve, ec.SECP256R1)
    assert [extension.oid for extension in certificate.extensions] == [EXTENSION]
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate.not_valid_after_utc > NOW + timedelta(days=300)
    assert certificate.version is x509.Version.v3
    certificate.verify_directly_issued_by(certificate)


def test_keys_and_serial_numbers_of_certificates_are_fresh() -> None:
    (one, key_1), (two, key_2) = make_certificate(HOST, NOW), make_certificate(HOST, NOW)
    assert one.serial_number != two.serial_number
    assert key_1.private_numbers() != key_2.private_numbers()


# -- kinds of keys ---------------------------------------------------------------------------------

P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
PSS = {"rsa_padding": padding.PSS(padding.MGF1(SHA256()), 32)}


@pytest.mark.parametrize(
    ("key", "digest", "options"),
    [
        (KEY, SHA256(), {}),
        (P384, SHA384(), {}),
        (ED25519, False, {}),
        (RSA, SHA256(), {}),
        (RSA, SHA384(), {}),
        (RSA, SHA512(), {}),
        (RSA, SHA256(), PSS),
    ],
    ids=["p256", "p384", "ed25519", "rsa-sha256", "rsa-sha384", "rsa-sha512", "rsa-pss"],
)
def test_accepted_kinds_of_certificate_keys(key: Any, digest: Any, options: dict[str, Any]) -> None:
    assert read_certificate(made(key, digest, **options)).peer == HOST.peer_id()


@pytest.mark.parametrize(
    ("key", "digest"),
    [(KEY, SHA384()), (P384, SHA256()), (P521, SHA512()), (ED448, False), (WEAK_RSA, SHA256())],
    ids=["p256-sha384", "p384-sha256", "p521", "ed448", "rsa1024"],
)
def test_other_kinds_of_certificate_keys_are_refused(key: Any, digest: Any) -> None:
    assert "that is not accepted" in refusal(made(key, digest))


def test_sha1_is_refused() -> None:
    der = made(RSA, SHA256())
    sha256, sha1 = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010105")
    signed = x509.load_der_x509_certificate(der)
    body = signed.tbs_certificate_bytes.replace(sha256, sha1)
    signature = RSA.sign(body, padding.PKCS1v15(), SHA1())
    forged = der.replace(signed.tbs_certificate_bytes, body).replace(sha256, sha1)
    assert "that is not accepted" in refusal(forged.replace(signed.signature, signature))


# -- bad certificates ------------------------------------------------------------------------------


def another_extension(is_critical: bool) -> bytes:
    oid = x509.ObjectIdentifier("1.2.3.4")
    added = x509.UnrecognizedExtension(oid, b"\x05\x00")
    return made(extensions=lambda builder: builder.add_extension(added, critical=is_critical))


def test_an_extension_that_is_not_critical_does_not_matter() -> None:
    assert read_certificate(another_extension(False)).peer == HOST.peer_id()


def test_an_unknown_critical_extension_is_refused() -> None:
    assert "1.2.3.4" in refusal(another_extension(True))


def test_a_known_critical_extension_is_refused_as_well() -> None:
    usage = x509.BasicConstraints(ca=True, path_length=0)
    assert "critical extension" in refusal(made(extensions=lambda b: b.add_extension(usage, critical=True)))


def test_the_libp2p_extension_must_be_there() -> None:
    assert "no libp2p extension" in refusal(made(value=b""))


def test_the_libp2p_extension_must_not_come_twice() -> None:
    """The builder makes no such certificate: another extension of the same length becomes the second one."""
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.2")
    value = signed_key(HOST, spki(KEY))
    added = x509.UnrecognizedExtension(oid, value)
    der = made(extensions=lambda builder: builder.add_extension(added, critical=False))
    assert read_certificate(der).peer == HOST.peer_id()
    twice = der.replace(bytes.fromhex("060a2b0601040183a25a0102"), bytes.fromhex("060a2b0601040183a25a0101"))
    assert "uplicate" in refusal(resigned(twice))


def resigned(der: bytes) -> bytes:
    """The same certificate with a signature of KEY that fits its body."""
    header = 4
    body_end = header + 4 + int.from_bytes(der[header + 2 : header + 4])
    body = der[header:body_end]
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = b"\x00" + KEY.sign(body, ec.ECDSA(SHA256()))
    rest = body + algorithm + b"\x03" + bytes((len(signature),)) + signature
    return b"\x30\x82" + len(rest).to_bytes(2) + rest


def test_a_wrong_self_signature_is_refused() -> None:
    assert "not signed by its own key" in refusal(made(signer=ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize("bits", [1, 7])
def test_unused_bits_in_the_signature_are_refused(bits: int) -> None:
    """The signature is a bit string. Nothing signs the number of its unused bits."""
    der = made(ED25519, False)
    head = len(der) - 65
    assert der[head] == 0
    forged = der[:head] + bytes([bits]) + der[head + 1 : -1] + bytes([der[-1] & -1 << bits & 0xFF])
    with pytest.raises(HandshakeError):
        read_certificate(forged)
    clean = next(
        der for der in (made(ED25519, False, extensions=serial(n)) for n in range(99999)) if not der[-1]
    )
    head = len(clean) - 65
    assert "unsigned bits" in refusal(clean[:head] + bytes([bits]) + clean[head + 1 :])


def serial(number: int) -> Callable[[x509.CertificateBuilder], x509.CertificateBuilder]:
    """Makes certificates that differ, so that their signatures do."""
    oid = x509.ObjectIdentifier("1.2.3.4")
    added = x509.UnrecognizedExtension(oid, number.to_bytes(4))
    return lambda builder: builder.add_extension(added, critical=False)


def test_another_form_of_the_algorithm_outside_the_signed_part_is_refused() -> None:
    der = made(RSA, SHA256())
    with_null = bytes.fromhex("300d06092a864886f70d01010b0500")
    at = der.rindex(with_null)
    without = der[4:at] + b"\x30\x0b" + with_null[2:-2] + der[at + len(with_null) :]
    forged = b"\x30\x82" + len(without).to_bytes(2) + without
    assert x509.load_der_x509_certificate(forged).signature_hash_algorithm is not None, "others read it"
    assert "unsigned bits" in refusal(forged)


def test_a_signature_of_another_key_is_refused() -> None:
    assert "did not sign" in refusal(made(value=signed_key(HOST, spki(P384))))


VALUE = signed_key(HOST, spki(KEY))
LONG_FORM = b"\x30\x81" + VALUE[1:]


@pytest.mark.parametrize(
    "value",
    [
        VALUE + b"\0",
        VALUE[:-1],
        LONG_FORM,
        b"\x30\x80" + VALUE[2:] + b"\0\0",
        b"\x31" + VALUE[1:],
        VALUE[:2] + b"\x03" + VALUE[3:],
        b"\x05\x00",
        b"\x30\x00",
        b"garbage",
    ],
    ids=["trailing", "short", "long length", "indefinite", "set", "bit string", "null", "empty", "garbage"],
)
def test_a_malformed_extension_is_refused(value: bytes) -> None:
    assert "not acceptable" in refusal(made(value=value))


@pytest.mark.parametrize(
    "public_key",
    [
        HOST.public_key.to_protobuf() + b"\0",
        b"\x08\x09\x12\x01\x01",
        b"\x12" + HOST.public_key.to_protobuf()[1:],
        b"",
        b"\x08\x00\x12\x82\x01" + b"\x30" * 130,
    ],
    ids=["trailing", "unknown type", "no type", "empty", "no rsa key"],
)
def test_an_unsupported_host_key_is_refused(public_key: bytes) -> None:
    from cryptography.hazmat import asn1

    from p2pcore.security import tls_cert

    forged = asn1.encode_der(tls_cert._SignedKey(public_key=public_key, signature=bytes(64)))
    assert "not acceptable" in refusal(made(value=forged))


def test_a_host_key_of_rsa_outside_the_limits_is_refused() -> None:
    from cryptography.hazmat import asn1

    from p2pcore.security import tls_cert

    der = spki(WEAK_RSA)
    public_key = b"\x08\x00\x12" + bytes((len(der) & 0x7F | 0x80, len(der) >> 7)) + der
    forged = asn1.encode_der(tls_cert._SignedKey(public_key=public_key, signature=bytes(128)))
    assert "2048" in refusal(made(value=forged))


def test_a_huge_certificate_is_refused_before_it_is_read() -> None:
    note = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(MAX_TLS_CERTIFICATE_BYTES))
    der = made(extensions=lambda builder: builder.add_extension(note, critical=False))
    assert str(MAX_TLS_CERTIFICATE_BYTES) in refusal(der)


def test_unique_ids_are_refused() -> None:
    der = made()
    at = der.index(b"\x06\x0a\x2b") - 6  # the extensions; a subjectUniqueID goes in front
    unique = b"\x82\x02\x00\x01"
    body = der[:at] + unique + der[at:]
    longer = len(unique)
    body = b"\x30\x82" + (int.from_bytes(body[2:4]) + longer).to_bytes(2) + body[4:]
    body = body[:4] + b"\x30\x82" + (int.from_bytes(body[6:8]) + longer).to_bytes(2) + body[8:]
    assert "not acceptable" in refusal(resigned(body))


def test_resigning_alone_changes_nothing() -> None:
    assert read_certificate(resigned(made())).peer == HOST.peer_id()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_change_to_a_certificate_is_refused(at: int, flip: int) -> None:
    der = bytearray(made())
    der[at % len(der)] ^= flip
    refusal(bytes(der))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(garbage: bytes) -> None:
    refusal(garbage)


def test_every_shortened_certificate_is_refused() -> None:
    der = made()
    for end in range(len(der)):
        refusal(der[:end])


# -- what is kept ----------------------------------------------------------------------------------


def test_the_certificates_kept_are_bounded_and_hold_no_bad_one() -> None:
    read_certificate.cache_clear()
    der = made()
    for _ in range(2):
        refusal(der[:-1] + bytes((der[-1] ^ 1,)))
    assert read_certificate.cache_info().currsize == 0
    assert read_certificate(der) is read_certificate(bytes(bytearray(der)))
    info = read_certificate.cache_info()
    assert (info.maxsize, info.currsize, info.hits) == (TLS_CERTIFICATES_KEPT, 1, 1)


def test_the_certificate_used_longest_ago_leaves_first() -> None:
    read_certificate.cache_clear()
    first = made()
    read_certificate(first)
    for _ in range(TLS_CERTIFICATES_KEPT):
        read_certificate(made())  # each signature is another one
    info = read_certificate.cache_info()
    assert info.currsize == TLS_CERTIFICATES_KEPT
    read_certificate(first)
    assert read_certificate.cache_info().misses == info.misses + 1
