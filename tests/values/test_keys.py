"""keys.py: every vector of the peer-id specification, every bad input, and the text forms."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, strategies as st

from key_vectors import (
    ECDSA,
    ECDSA_GO,
    ED25519,
    ED25519_LEGACY_PRIVATE,
    ED25519_SIGNATURE,
    INITIATOR,
    MESSAGE,
    RESPONDER,
    RSA,
    RSA_2048,
    SECP256K1,
    SECP256K1_GO,
    SECP256K1_HIGH_S,
    SECP256K1_UNCOMPRESSED,
    Fixture,
    Identity,
    KeyVector,
)
from p2pcore.errors import IdentityError
from p2pcore.pb import keys_pb2
from p2pcore.values.key_schemes import _SECP256K1_ORDER
from p2pcore.values.keys import KeyType, PrivateKey, PublicKey

VECTORS = [
    pytest.param(KeyType.ED25519, ED25519, id="ed25519"),
    pytest.param(KeyType.SECP256K1, SECP256K1, id="secp256k1"),
    pytest.param(KeyType.ECDSA, ECDSA, id="ecdsa"),
    pytest.param(KeyType.RSA, RSA, id="rsa"),
]
PUBLICS = [bytes.fromhex(vector.public) for vector in (ED25519, SECP256K1, ECDSA, RSA)]
ED25519_GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


# -- vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "vector"), VECTORS)
def test_private_key_reads_and_writes_its_protobuf(kind: KeyType, vector: KeyVector) -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(vector.private))
    assert key.type is kind
    assert key.to_protobuf().hex() == vector.private
    assert key.public_key.to_protobuf().hex() == vector.public


@pytest.mark.parametrize(("kind", "vector"), VECTORS)
def test_public_key_reads_and_writes_its_protobuf(kind: KeyType, vector: KeyVector) -> None:
    key = PublicKey.from_protobuf(bytes.fromhex(vector.public))
    assert key.type is kind
    assert key.to_protobuf().hex() == vector.public


@pytest.mark.parametrize(("kind", "vector"), VECTORS)
def test_peer_id_of_a_key_in_every_text_form(kind: KeyType, vector: KeyVector) -> None:
    peer = PublicKey.from_protobuf(bytes.fromhex(vector.public)).peer_id()
    assert peer.to_bytes().hex() == vector.multihash
    assert str(peer) == vector.base58
    assert peer.to_base32() == vector.base32
    assert peer.to_base36() == vector.base36


@pytest.mark.parametrize(("kind", "vector"), VECTORS)
def test_canonical_form_is_what_a_protobuf_library_writes(kind: KeyType, vector: KeyVector) -> None:
    key = PublicKey.from_protobuf(bytes.fromhex(vector.public))
    message = keys_pb2.PublicKey(Type=int(kind), Data=key.data)
    assert message.SerializeToString() == key.to_protobuf()


def test_rsa_vector_has_the_hashes_of_the_specification() -> None:
    public = hashlib.sha256(bytes.fromhex(RSA.public)).hexdigest()
    private = hashlib.sha256(bytes.fromhex(RSA.private)).hexdigest()
    assert public == "b6c8a8c0a3105fc27afca4fb1173791f038e4343fd56b7c67b616dbc30a04ccd"
    assert private == "77b2fcfc1e7e5d8c6e9a39ca87f846d948afcd61e0d6da1047e32cd092477a4c"


def test_ed25519_signature_is_deterministic() -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(ED25519.private))
    assert key.sign(MESSAGE).hex() == ED25519_SIGNATURE


def test_old_96_byte_ed25519_form_is_read_and_written_in_the_new_form() -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(ED25519_LEGACY_PRIVATE))
    assert key.to_protobuf().hex() == ED25519.private


@pytest.mark.parametrize("fixture", [RSA_2048, SECP256K1_GO, ECDSA_GO], ids=["rsa", "secp256k1", "ecdsa"])
def test_signatures_of_go_verify(fixture: Fixture) -> None:
    key = PublicKey.from_protobuf(bytes.fromhex(fixture.public))
    assert str(key.peer_id()) == fixture.id
    assert key.verify(MESSAGE, bytes.fromhex(fixture.signature))
    assert not key.verify(MESSAGE + b"!", bytes.fromhex(fixture.signature))


@pytest.mark.parametrize("fixture", [SECP256K1_GO, ECDSA_GO], ids=["secp256k1", "ecdsa"])
def test_private_keys_of_go_belong_to_their_public_keys(fixture: Fixture) -> None:
    assert fixture.private is not None
    key = PrivateKey.from_protobuf(bytes.fromhex(fixture.private))
    assert key.public_key.to_protobuf().hex() == fixture.public


@pytest.mark.parametrize("identity", [INITIATOR, RESPONDER], ids=["I", "R"])
def test_fixed_identities_of_the_other_sheets(identity: Identity) -> None:
    key = PrivateKey.from_seed(identity.seed).public_key
    assert key.data.hex() == identity.public
    assert key.to_protobuf().hex() == identity.protobuf
    assert str(key.peer_id()) == identity.id
    assert key.peer_id().to_bytes().hex() == identity.multihash


# -- round trips -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(KeyType), ids=lambda kind: kind.name.lower())
def fresh(request: pytest.FixtureRequest) -> PrivateKey:
    """A key that was generated, once a type."""
    return PrivateKey.generate(request.param)


def test_generated_key_signs_what_its_public_key_verifies(fresh: PrivateKey) -> None:
    signature = fresh.sign(MESSAGE)
    public = PublicKey.from_protobuf(fresh.public_key.to_protobuf())
    assert public.verify(MESSAGE, signature)
    assert not public.verify(MESSAGE, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not public.verify(b"", signature)


def test_generated_keys_differ() -> None:
    assert PrivateKey.generate() != PrivateKey.generate()


def test_key_survives_protobuf_base64_pem_and_pkcs8(fresh: PrivateKey) -> None:
    assert PrivateKey.from_protobuf(fresh.to_protobuf()) == fresh
    assert PrivateKey.from_base64(fresh.to_base64()) == fresh
    assert PrivateKey.from_pem(fresh.to_pem()) == fresh
    assert PrivateKey.from_pkcs8(fresh.to_pkcs8()) == fresh
    assert PublicKey.from_base64(fresh.public_key.to_base64()) == fresh.public_key
    assert PublicKey.from_pem(fresh.public_key.to_pem()) == fresh.public_key


def test_keys_are_values(fresh: PrivateKey) -> None:
    again = PrivateKey.from_protobuf(fresh.to_protobuf())
    assert hash(again) == hash(fresh)
    assert len({again.public_key, fresh.public_key}) == 1
    assert again != "a key"


def test_repr_shows_the_peer_id_and_not_the_key(fresh: PrivateKey) -> None:
    assert str(fresh.peer_id()) in repr(fresh)
    assert str(fresh.peer_id()) in repr(fresh.public_key)
    assert fresh.to_protobuf().hex()[8:72] not in repr(fresh)
    assert len(repr(fresh)) < 100


def test_public_key_keeps_nothing_but_its_bytes() -> None:
    assert PublicKey.__slots__ == ("type", "data")


def test_pem_of_other_forms_is_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    sec1 = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert PrivateKey.from_pem(sec1).type is KeyType.ECDSA


def test_encrypted_pem_needs_its_password() -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    key = ec.generate_private_key(ec.SECP256K1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")).decode()
    assert PrivateKey.from_pem(pem, b"pw").type is KeyType.SECP256K1
    for password in (None, b"other"):
        with pytest.raises(IdentityError):
            PrivateKey.from_pem(pem, password)


def test_importing_keys_leaves_cryptography_alone() -> None:
    code = "import sys, p2pcore.values.keys; sys.exit(any(n.startswith('cryptography') for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- secp256k1: low S both ways ----------------------------------------------------------------


def test_secp256k1_high_s_does_not_verify() -> None:
    key = PublicKey.from_protobuf(bytes.fromhex(SECP256K1_GO.public))
    assert not key.verify(MESSAGE, bytes.fromhex(SECP256K1_HIGH_S))


def test_secp256k1_signatures_always_have_a_low_s() -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(SECP256K1.private))
    for i in range(32):  # OpenSSL alone gives a high S every other time
        message = bytes([i])
        assert key.public_key.verify(message, key.sign(message))


def test_p256_signatures_have_no_low_s_rule() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    _, s = decode_dss_signature(bytes.fromhex(ECDSA_GO.signature))
    assert s > 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 // 2


# -- bad input ---------------------------------------------------------------------------------

ED = bytes.fromhex(ED25519.public)
NOT_CANONICAL = {
    "empty": b"",
    "no type": ED[2:],
    "no data": ED[:2],
    "type only, tag of data": ED[:3],
    "type twice": ED[:2] + ED,
    "data twice": ED + ED[2:],
    "unknown field behind": ED + bytes.fromhex("1801"),
    "unknown field before": bytes.fromhex("1801") + ED,
    "data before type": ED[2:] + ED[:2],
    "padded type": bytes.fromhex("088100") + ED[2:],
    "padded length": bytes.fromhex("080112a000") + ED[4:],
    "padded tag": bytes.fromhex("880001") + ED[2:],
    "length too short": bytes.fromhex("0801121f") + ED[4:],
    "length too long": bytes.fromhex("08011221") + ED[4:],
    "length without end": bytes.fromhex("08011280"),
    "three-byte length": bytes.fromhex("080112a08000") + ED[4:],
    "trailing byte": ED + b"\0",
    "rsa without its type": bytes.fromhex(RSA.public)[2:],
}


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_protobuf_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        PublicKey.from_protobuf(data)
    with pytest.raises(IdentityError):
        PrivateKey.from_protobuf(data)


@pytest.mark.parametrize("number", [4, 5, 0x7F, 0x84])
def test_unknown_key_type_is_named_as_unsupported(number: int) -> None:
    data = bytes([0x08, number]) + ED[2:]
    with pytest.raises(IdentityError, match="unsupported key type"):
        PublicKey.from_protobuf(data)
    with pytest.raises(IdentityError, match="unsupported key type"):
        PrivateKey.from_protobuf(data)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_ed25519_public_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(IdentityError):
        PublicKey(KeyType.ED25519, bytes(size))


@pytest.mark.parametrize("size", [0, 32, 63, 65, 95, 97])
def test_ed25519_private_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(IdentityError):
        PrivateKey(KeyType.ED25519, bytes(size))


def test_ed25519_seed_of_another_length_is_refused() -> None:
    with pytest.raises(IdentityError):
        PrivateKey.from_seed(bytes(31))


def test_ed25519_with_unequal_copies_of_the_public_key_is_refused() -> None:
    legacy = bytearray.fromhex(ED25519_LEGACY_PRIVATE)
    legacy[-1] ^= 1
    with pytest.raises(IdentityError):
        PrivateKey.from_protobuf(bytes(legacy))


def test_ed25519_public_half_of_another_seed_is_refused() -> None:
    private = bytearray.fromhex(ED25519.private)
    private[-1] ^= 1
    with pytest.raises(IdentityError):
        PrivateKey.from_protobuf(bytes(private))


@pytest.mark.parametrize(
    "point",
    ["01" + "00" * 31, "ee" + "ff" * 30 + "7f", "ee" + "ff" * 31, "02" + "00" * 31],
    ids=["low order", "not canonical", "not canonical, signed", "not on the curve"],
)
def test_ed25519_bad_points_verify_nothing(point: str) -> None:
    assert not PublicKey(KeyType.ED25519, bytes.fromhex(point)).verify(
        MESSAGE, bytes.fromhex(ED25519_SIGNATURE)
    )
    # With R the neutral point and S zero, a low-order key would verify under a lenient rule.
    assert not PublicKey(KeyType.ED25519, bytes.fromhex(point)).verify(MESSAGE, b"\x01" + bytes(63))


def test_ed25519_signature_with_s_over_the_group_order_fails() -> None:
    key = PublicKey.from_protobuf(ED)
    signature = bytes.fromhex(ED25519_SIGNATURE)
    s = int.from_bytes(signature[32:], "little") + ED25519_GROUP_ORDER
    assert key.verify(MESSAGE, signature)
    assert not key.verify(MESSAGE, signature[:32] + s.to_bytes(32, "little"))


def test_ed25519_signature_of_another_length_fails_though_it_joins_up_with_the_message() -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(ED25519.private))
    signature = key.sign(MESSAGE)
    assert not key.public_key.verify(MESSAGE[1:], signature + MESSAGE[:1])
    assert not key.public_key.verify(signature[-1:] + MESSAGE, signature[:-1])


BAD_POINTS = {
    "uncompressed": bytes.fromhex(SECP256K1_UNCOMPRESSED),
    "short": b"\x02" + bytes(31),
    "long": b"\x02" + bytes(33),
    "empty": b"",
    "other tag": b"\x04" + bytes.fromhex(SECP256K1.public)[5:],
    "not on the curve": b"\x02" + (5).to_bytes(32),
    "not in the field": b"\x02" + b"\xff" * 32,
}


@pytest.mark.parametrize("data", BAD_POINTS.values(), ids=BAD_POINTS.keys())
def test_secp256k1_bad_points_are_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        PublicKey(KeyType.SECP256K1, data)


@pytest.mark.parametrize(
    "data",
    [
        bytes(32),
        _SECP256K1_ORDER.to_bytes(32),
        b"\xff" * 32,
        b"\x01" * 31,
        bytes(1) + b"\x01" * 32,
    ],
    ids=["zero", "order", "over the order", "short", "long"],
)
def test_secp256k1_bad_scalars_are_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        PrivateKey(KeyType.SECP256K1, data)


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | x25519.X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rsa_of(bits: int) -> bytes:
    return spki(rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1).public_key())


@pytest.mark.parametrize("bits", [1024, 2047, 8193, 16384])
def test_rsa_outside_its_bounds_is_refused(bits: int) -> None:
    with pytest.raises(IdentityError):
        PublicKey(KeyType.RSA, rsa_of(bits))


@pytest.mark.parametrize("bits", [2048, 8192])
def test_rsa_at_its_bounds_is_taken(bits: int) -> None:
    assert PublicKey.from_protobuf(PublicKey(KeyType.RSA, rsa_of(bits)).to_protobuf()).type is KeyType.RSA


@pytest.mark.parametrize(("bits", "is_taken"), [(2, True), (64, True), (65, False), (2000, False)])
def test_rsa_exponent_is_bounded(bits: int, is_taken: bool) -> None:
    data = spki(rsa.RSAPublicNumbers((1 << (bits - 1)) + 1, (1 << 2047) + 1).public_key())
    if is_taken:
        assert PublicKey(KeyType.RSA, data).verify(MESSAGE, bytes(256)) is False
    else:
        with pytest.raises(IdentityError, match="exponent"):
            PublicKey(KeyType.RSA, data)


def test_rsa_private_key_under_its_bound_is_refused() -> None:
    small = rsa.generate_private_key(65537, 1024)
    pem = small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(IdentityError):
        PrivateKey.from_pem(pem)


def test_rsa_private_key_whose_parts_do_not_fit_is_refused() -> None:
    data = bytearray.fromhex(RSA.private)
    data[-10] ^= 1
    with pytest.raises(IdentityError):
        PrivateKey.from_protobuf(bytes(data))


def test_key_over_the_size_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(IdentityError, match="limit"):
        PublicKey.from_protobuf(bytes.fromhex("08001280ffff03") + bytes(100_000))
    with pytest.raises(IdentityError, match="limit"):
        PrivateKey.from_protobuf(bytes(100_000))
    with pytest.raises(IdentityError, match="many"):
        PublicKey(KeyType.RSA, bytes(100_000))


@pytest.mark.parametrize("kind", [KeyType.RSA, KeyType.ECDSA])
def test_der_of_another_algorithm_is_refused(kind: KeyType) -> None:
    other = ECDSA if kind is KeyType.RSA else RSA
    with pytest.raises(IdentityError):
        PublicKey(kind, PublicKey.from_protobuf(bytes.fromhex(other.public)).data)
    with pytest.raises(IdentityError):
        PrivateKey(kind, bytes.fromhex(other.private)[4 if other is ECDSA else 5 :])
    with pytest.raises(IdentityError):
        PublicKey(kind, spki(x25519.X25519PrivateKey.generate().public_key()))


@pytest.mark.parametrize("vector", [RSA, ECDSA], ids=["rsa", "ecdsa"])
def test_trailing_or_damaged_der_is_refused(vector: KeyVector) -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(vector.private))
    data = key.public_key.data
    for damaged in (data + b"\0", data[:-1], b"", b"\0" + data):
        with pytest.raises(IdentityError):
            PublicKey(key.type, damaged)
    private = bytes.fromhex(vector.private)[5 if vector is RSA else 4 :]
    assert PrivateKey(key.type, private) == key
    for damaged in (private + b"\0", private[:-1], b"", key.to_pkcs8()):
        with pytest.raises(IdentityError):
            PrivateKey(key.type, damaged)


def test_ecdsa_in_another_form_of_der_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    head = spki(key)[:26]
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    compressed = bytes([0x30, 0x39]) + head[2:24] + bytes([34, 0]) + point
    with pytest.raises(IdentityError):
        PublicKey(KeyType.ECDSA, compressed)


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_ecdsa_on_another_curve_is_refused(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    with pytest.raises(IdentityError):
        PublicKey(KeyType.ECDSA, spki(key.public_key()))
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    with pytest.raises(IdentityError):
        PrivateKey(KeyType.ECDSA, der)


def test_pem_of_a_key_we_do_not_use_is_refused() -> None:
    key = x25519.X25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(IdentityError, match="unsupported"):
        PrivateKey.from_pem(pem)
    with pytest.raises(IdentityError, match="unsupported"):
        PublicKey.from_pem(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"])
def test_text_that_is_no_key_is_refused(text: str) -> None:
    for read in (PrivateKey.from_pem, PublicKey.from_pem, PrivateKey.from_base64, PublicKey.from_base64):
        with pytest.raises(IdentityError):
            read(text)
    with pytest.raises(IdentityError):
        PrivateKey.from_pkcs8(text.encode())
    with pytest.raises(IdentityError, match="characters"):
        PublicKey.from_base64("A" * 100_000)
    with pytest.raises(IdentityError, match="base64"):
        PrivateKey.from_base64("é")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_canonical_key_or_refused(data: bytes) -> None:
    for read in (PublicKey.from_protobuf, PrivateKey.from_protobuf):
        try:
            key = read(data)
        except IdentityError:
            continue
        assert key.to_protobuf() == data


@given(
    st.sampled_from(PUBLICS), st.integers(0), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])
)
def test_any_change_to_a_key_makes_another_key_or_is_refused(
    data: bytes, at: int, value: int, how: str
) -> None:
    at %= len(data)
    changed = data[:at] + (b"" if how == "cut" else bytes([value])) + data[at + (how != "insert") :]
    try:
        key = PublicKey.from_protobuf(changed)
    except IdentityError:
        return
    assert key.to_protobuf() == changed


@given(st.sampled_from(PUBLICS), st.binary(max_size=80), st.binary(max_size=80))
def test_no_signature_makes_verify_raise(data: bytes, message: bytes, signature: bytes) -> None:
    assert PublicKey.from_protobuf(data).verify(message, signature) is False


@given(st.sampled_from([RSA_2048, SECP256K1_GO, ECDSA_GO]), st.integers(0), st.integers(1, 255))
def test_no_damaged_signature_verifies(fixture: Fixture, at: int, flip: int) -> None:
    signature = bytearray.fromhex(fixture.signature)
    signature[at % len(signature)] ^= flip
    assert not PublicKey.from_protobuf(bytes.fromhex(fixture.public)).verify(MESSAGE, bytes(signature))
