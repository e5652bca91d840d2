"""The quick reader of certificates: whatever it takes, the general way reads with the same parts.

Comes in: certificates of all implementations, and changed ones. The general way, by `cryptography`, is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings, strategies as st
from tls_vectors import CERTIFICATES

from p2pcore._fast.codec.certificate import read_usual
from p2pcore.errors import HandshakeError
from p2pcore.security import tls_cert
from p2pcore.security.tls_cert import EXTENSION, Identity, make_certificate, read_certificate, signed_key
from p2pcore.values.keys import PrivateKey

HOST = PrivateKey.from_seed(b"\x07" * 32)
KEY = ec.generate_private_key(ec.SECP256R1())
VECTORS = [bytes.fromhex(each.der) for each in CERTIFICATES]
P256_VECTORS = VECTORS[:-1]
NAME = x509.Name(
    [
        x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, "314159"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "a peer"),
    ]
)


def named() -> bytes:
    """As go makes it: with names, and an end after 2050."""
    since, until = datetime(2020, 1, 2, 3, 4, 5), datetime(2126, 6, 7, 8, 9)
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), 2**70 + 1, since, until)
    value = x509.UnrecognizedExtension(EXTENSION, signed_key(HOST, tls_cert._spki_of(KEY.public_key())))
    return builder.add_extension(value, critical=True).sign(KEY, SHA256()).public_bytes(Encoding.DER)


def ours() -> bytes:
    return make_certificate(HOST, datetime(2026, 6, 1, tzinfo=UTC))[0].public_bytes(Encoding.DER)


BASES = [named(), ours(), *P256_VECTORS]


def compare(der: bytes) -> bool:
    """Whether the quick reader takes `der`. If so, the general way takes it too, and finds the same."""
    parts = read_usual(der)
    if parts is None:
        return False
    body, spki, own, host_key, signature, since, until = parts
    try:
        span = datetime(*since, tzinfo=UTC), datetime(*until, tzinfo=UTC)
        key = tls_cert.PublicKey.from_protobuf(host_key)
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[-65:])
    except ValueError:
        return False  # both ways refuse it
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tls_cert, "_check_self_signature", lambda certificate: certificate.public_key())
        assert tls_cert._read_any(der) == (key, spki, signature, span)
    certificate = x509.load_der_x509_certificate(der)
    assert (certificate.tbs_certificate_bytes, certificate.signature) == (body, own)
    assert isinstance(certificate.signature_algorithm_parameters, ec.ECDSA)
    assert isinstance(certificate.signature_hash_algorithm, SHA256)
    return True


def test_the_certificates_of_all_implementations_are_usual() -> None:
    assert all(map(compare, BASES))


def test_another_key_is_left_to_the_general_way() -> None:
    assert read_usual(VECTORS[-1]) is None


@pytest.mark.parametrize("der", BASES, ids=range(len(BASES)))
def test_every_byte_changed_in_some_ways(der: bytes) -> None:
    for at in range(len(der)):
        for change in (1, 0x80, 0xFF, 0x40, 3):
            compare(der[:at] + bytes((der[at] ^ change,)) + der[at + 1 :])


@settings(max_examples=1000)
@given(st.data())
def test_pieces_taken_out_put_in_and_changed(data: Any) -> None:
    der = bytearray(data.draw(st.sampled_from(BASES)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(der)))
        end = at + data.draw(st.integers(0, 4))
        der[at:end] = data.draw(st.binary(max_size=4))
        if data.draw(st.booleans()):  # so that the lengths outside are right again
            der = bytearray(with_lengths(bytes(der)))
    compare(bytes(der))


def with_lengths(der: bytes) -> bytes:
    """`der` with lengths of the certificate and its body that fit, if they had two bytes."""
    if der[:2] != b"\x30\x82" or der[4:6] != b"\x30\x82" or len(der) < 300:
        return der
    tail = der.rfind(bytes.fromhex("300a06082a8648ce3d040302"))
    body = der[8 : tail if tail > 8 else len(der)]
    rest = der[8 + len(body) :]
    inside = b"\x30\x82" + (len(body) & 0xFFFF).to_bytes(2) + body + rest
    return b"\x30\x82" + (len(inside) & 0xFFFF).to_bytes(2) + inside


@pytest.mark.parametrize("der", BASES, ids=range(len(BASES)))
def test_nothing_shorter_or_longer_is_taken(der: bytes) -> None:
    for end in range(len(der)):
        assert read_usual(der[:end]) is None
    assert read_usual(der + b"\0") is None


@given(st.binary(max_size=300))
def test_any_bytes(garbage: bytes) -> None:
    assert read_usual(garbage) is None


def forms() -> Iterator[tuple[str, bytes, bytes]]:
    """Pieces of a certificate, and what may not stand in their place here."""
    yield "longer length", b"\x17\x0d2001", b"\x17\x81\x0d2001"
    yield "a month 13 is no date", b"200102030405Z", b"201302030405Z"
    yield "a time without Z", b"200102030405Z", b"200102030405+"
    yield "digits", b"200102030405Z", b"2001020304 5Z"
    yield "GeneralizedTime before 2050", b"21260607080900Z", b"20260607080900Z"
    yield "version 2", bytes.fromhex("a003020102"), bytes.fromhex("a003020101")
    yield "another curve", bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030106")
    yield "another extension", bytes.fromhex("0601040183a25a0101"), bytes.fromhex("0601040183a25a0102")
    yield "FALSE written out", b"\x01\x01\xff", b"\x01\x01\x00"
    yield "TRUE as 1", b"\x01\x01\xff", b"\x01\x01\x01"
    yield "another text", b"a peer", b"a\x00peer"
    yield "SHA-384", bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040303")


@pytest.mark.parametrize(("why", "old", "new"), list(forms()))
def test_what_is_not_usual_is_left_to_the_general_way(why: str, old: bytes, new: bytes) -> None:
    der = named()
    assert old in der, why
    changed = der.replace(old, new)
    if len(new) == len(old):
        assert not compare(changed), why
    assert with_lengths(der) == der
    assert not compare(with_lengths(changed)), why


@pytest.mark.parametrize("serial", ["0200", "020100", "020180", "02020001", "0201ff", "0215" + "01" * 21])
def test_serial_numbers_that_are_not_positive_and_short_are_left_to_the_general_way(serial: str) -> None:
    der = named()
    at = 8 + 5
    end = at + 2 + der[at + 1]
    changed = with_lengths(der[:at] + bytes.fromhex(serial) + der[end:])
    assert read_usual(with_lengths(der[:at] + bytes.fromhex("020105") + der[end:])) is not None
    assert read_usual(changed) is None


def general_way(der: bytes) -> Identity:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tls_cert, "read_usual", lambda der: None)
        return read_certificate.__wrapped__(der)


@pytest.mark.parametrize("der", [named(), ours()])
def test_both_ways_give_the_same_identity(der: bytes) -> None:
    assert read_certificate.__wrapped__(der) == general_way(der)
    assert general_way(der).peer == HOST.peer_id()


@pytest.mark.parametrize("at", [-1, 60])
def test_a_wrong_signature_is_refused_in_the_same_words(at: int) -> None:
    der = bytearray(named())
    der[at] ^= 1
    words = []
    for way in (read_certificate.__wrapped__, general_way):
        with pytest.raises(HandshakeError) as caught:
            way(bytes(der))
        words.append(str(caught.value))
    assert words[0] == words[1]
