"""record.py: every envelope vector, the acceptance rules, and every bad input."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from key_vectors import INITIATOR, RESPONDER
from p2pcore._fast.codec import varint
from p2pcore.errors import IdentityError
from p2pcore.pb import envelope_pb2, peer_record_pb2
from p2pcore.values import record
from p2pcore.values.keys import KeyType, PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.record import (
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    Envelope,
    PeerRecord,
    open_peer_record,
)
from record_vectors import GO, GO_ID, GO_PRIVATE, LEGACY, OWN, EnvelopeVector

KEY = PrivateKey.from_seed(INITIATOR.seed)
OTHER = PrivateKey.from_seed(RESPONDER.seed)
ADDRS = (Multiaddr("/ip4/127.0.0.1/tcp/4001"), Multiaddr("/ip4/127.0.0.1/udp/4001/quic-v1"))
OWN_RECORD = PeerRecord(KEY.peer_id(), 1700000000000000000, ADDRS)
GO_KEY = PrivateKey.from_protobuf(bytes.fromhex(GO_PRIVATE))
GO_RECORD = PeerRecord(
    PeerId.from_text(GO_ID),
    1598453001624231000,
    tuple(Multiaddr(f"/ip4/1.2.3.4/tcp/{port}") for port in range(10)),
)
LEGACY_DOMAIN = "libp2p-routing-state"
LEGACY_TYPE = b"/libp2p/routing-state-record"
CURRENT = pytest.mark.parametrize(
    ("vector", "key", "value"), [(GO, GO_KEY, GO_RECORD), (OWN, KEY, OWN_RECORD)], ids=["go", "own"]
)


def sealed(payload: bytes, key: PrivateKey = KEY) -> bytes:
    """A right envelope round any payload."""
    return Envelope.seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload).raw


def payload(seq: int = 1, peer: bytes | None = None, addrs: tuple[bytes, ...] = ()) -> bytes:
    """A record's payload, right or wrong."""
    message = peer_record_pb2.PeerRecord(peer_id=KEY.peer_id().to_bytes() if peer is None else peer, seq=seq)
    for addr in addrs:
        message.addresses.add(multiaddr=addr)
    return message.SerializeToString()


@pytest.mark.parametrize(("domain", "kind"), [("", b"\x03\x01"), ("a-domain", b""), ("", b"")])
def test_an_envelope_without_a_purpose_is_neither_sealed_nor_opened(domain: str, kind: bytes) -> None:
    """What is signed for nothing in particular could be taken for anything."""
    with pytest.raises(ValueError, match="must not be empty") as sealing:
        Envelope.seal(KEY, domain, kind, b"payload")
    with pytest.raises(ValueError, match="must not be empty") as opening:
        Envelope.open(Envelope.seal(KEY, "a-domain", b"\x03\x01", b"payload").raw, domain, kind)
    assert not isinstance(sealing.value, IdentityError)  # it is the caller's fault, not a peer's
    assert not isinstance(opening.value, IdentityError)


# -- vectors -----------------------------------------------------------------------------------


@CURRENT
def test_record_is_sealed_byte_for_byte(vector: EnvelopeVector, key: PrivateKey, value: PeerRecord) -> None:
    envelope = value.seal(key)
    assert envelope.payload.hex() == vector.payload
    assert envelope.signature.hex() == vector.signature
    assert envelope.raw.hex() == vector.envelope


@CURRENT
def test_record_is_opened(vector: EnvelopeVector, key: PrivateKey, value: PeerRecord) -> None:
    assert open_peer_record(bytes.fromhex(vector.envelope)) == value
    assert open_peer_record(bytes.fromhex(vector.envelope), key.peer_id()) == value


@CURRENT
def test_signed_buffer(vector: EnvelopeVector, key: PrivateKey, value: PeerRecord) -> None:
    buffer = record._signed(PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, bytes.fromhex(vector.payload))
    assert buffer.hex() == vector.signed
    assert key.public_key.verify(buffer, bytes.fromhex(vector.signature))


def test_envelope_is_kept_as_it_came() -> None:
    data = bytes.fromhex(OWN.envelope)
    envelope = Envelope.open(data, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE)
    assert envelope.raw == data
    assert envelope.public_key == KEY.public_key
    reordered = data[38:] + data[:38]
    assert Envelope.open(reordered, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE).raw == reordered


def test_legacy_form_is_right_in_its_own_domain_and_refused_as_a_record() -> None:
    data = bytes.fromhex(LEGACY.envelope)
    envelope = Envelope.open(data, LEGACY_DOMAIN, LEGACY_TYPE)
    assert record._signed(LEGACY_DOMAIN, LEGACY_TYPE, envelope.payload).hex() == LEGACY.signed
    assert envelope.signature.hex() == LEGACY.signature
    assert Envelope.seal(KEY, LEGACY_DOMAIN, LEGACY_TYPE, envelope.payload).raw == data
    with pytest.raises(IdentityError):
        open_peer_record(data)


@pytest.mark.parametrize("kind", list(KeyType), ids=lambda kind: kind.name.lower())
def test_records_of_every_key_type(kind: KeyType) -> None:
    key = PrivateKey.generate(kind)
    value = PeerRecord(key.peer_id(), 7, ADDRS)
    assert open_peer_record(value.seal(key).raw, key.peer_id()) == value


# -- making and comparing ------------------------------------------------------------------------


@pytest.mark.parametrize(("previous", "now", "seq"), [(0, 50, 50), (50, 50, 51), (60, 50, 61), (49, 50, 50)])
def test_seq_is_the_clock_and_always_grows(previous: int, now: int, seq: int) -> None:
    assert PeerRecord.make(KEY.peer_id(), ADDRS, previous, now).seq == seq


def test_made_record_holds_what_fits() -> None:
    long = Multiaddr("/unix/" + "x" * 600)
    many = [Multiaddr(f"/ip4/10.0.0.1/tcp/{port}") for port in range(1, 100)]
    made = PeerRecord.make(KEY.peer_id(), [long, *many], 0, 1)
    assert made.addrs == tuple(many[:64])
    assert open_peer_record(made.seal(KEY).raw) == made


def test_record_without_addresses_is_right() -> None:
    empty = PeerRecord(KEY.peer_id(), 0, ())
    assert open_peer_record(empty.seal(KEY).raw) == empty


def test_record_supersedes_older_ones_only() -> None:
    stored = PeerRecord(KEY.peer_id(), 5, ())
    assert PeerRecord(KEY.peer_id(), 6, ()).supersedes(stored)
    assert PeerRecord(KEY.peer_id(), 2**64 - 1, ()).supersedes(stored)
    assert not PeerRecord(KEY.peer_id(), 5, ADDRS).supersedes(stored)
    assert not PeerRecord(KEY.peer_id(), 4, ()).supersedes(stored)
    assert stored.supersedes(None)


def test_record_is_not_signed_by_anothers_key() -> None:
    with pytest.raises(IdentityError):
        OWN_RECORD.seal(OTHER)


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["public_key", "payload", "signature"])
def test_envelope_that_lacks_a_part_is_refused(field: str) -> None:
    message = envelope_pb2.Envelope.FromString(bytes.fromhex(OWN.envelope))
    message.ClearField(field)
    with pytest.raises(IdentityError, match="lacks"):
        open_peer_record(message.SerializeToString())


def test_unknown_key_type_is_refused() -> None:
    data = bytes.fromhex(OWN.envelope)
    assert data[2:4] == b"\x08\x01"
    with pytest.raises(IdentityError, match="unsupported key type"):
        open_peer_record(data[:3] + b"\x04" + data[4:])


def test_public_key_that_is_not_canonical_is_refused() -> None:
    message = envelope_pb2.Envelope.FromString(bytes.fromhex(OWN.envelope))
    message.public_key += b"\x18\x01"
    with pytest.raises(IdentityError):
        open_peer_record(message.SerializeToString())


def test_any_flipped_bit_is_refused() -> None:
    data = bytes.fromhex(OWN.envelope)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IdentityError):
            open_peer_record(bytes(changed))


def test_envelope_with_another_signers_key_is_refused() -> None:
    message = envelope_pb2.Envelope.FromString(bytes.fromhex(OWN.envelope))
    message.public_key = bytes.fromhex(RESPONDER.protobuf)
    with pytest.raises(IdentityError):
        open_peer_record(message.SerializeToString())


def test_envelope_of_another_domain_is_refused() -> None:
    with pytest.raises(IdentityError):
        Envelope.open(bytes.fromhex(OWN.envelope), LEGACY_DOMAIN, PEER_RECORD_TYPE)
    other = Envelope.seal(KEY, LEGACY_DOMAIN, PEER_RECORD_TYPE, bytes.fromhex(OWN.payload))
    with pytest.raises(IdentityError):
        open_peer_record(other.raw)


def test_another_payload_type_is_refused_though_it_is_signed() -> None:
    voucher = Envelope.seal(KEY, PEER_RECORD_DOMAIN, b"\x03\x02", bytes.fromhex(OWN.payload))
    with pytest.raises(IdentityError, match="payload type"):
        open_peer_record(voucher.raw)


def test_record_about_another_peer_than_its_signer_is_refused() -> None:
    with pytest.raises(IdentityError, match="signed a record about"):
        open_peer_record(sealed(payload(peer=OTHER.peer_id().to_bytes())))


def test_record_about_another_peer_than_expected_is_refused() -> None:
    with pytest.raises(IdentityError, match="expected"):
        open_peer_record(bytes.fromhex(OWN.envelope), OTHER.peer_id())


@pytest.mark.parametrize("peer", [b"\0", b"\x12\x20", bytes(100), b"\x11\x14" + bytes(20)])
def test_malformed_peer_id_is_refused(peer: bytes) -> None:
    with pytest.raises(IdentityError):
        open_peer_record(sealed(payload(peer=peer)))


def test_missing_peer_id_is_refused() -> None:
    with pytest.raises(IdentityError):
        open_peer_record(sealed(payload(peer=b"")))


def test_addresses_that_cannot_be_read_are_skipped() -> None:
    right = ADDRS[0].to_bytes()
    bad = (b"", b"\xff\xff\xff\xff", right[:-1], Multiaddr("/unix/" + "x" * 600).to_bytes())
    assert open_peer_record(sealed(payload(addrs=(*bad, right)))).addrs == (ADDRS[0],)


def test_addresses_over_the_limit_are_left_out() -> None:
    many = tuple(Multiaddr(f"/ip4/10.0.0.1/tcp/{port}").to_bytes() for port in range(1, 100))
    assert len(open_peer_record(sealed(payload(addrs=many))).addrs) == 64


def test_far_future_seq_is_taken() -> None:
    assert open_peer_record(sealed(payload(seq=2**64 - 1))).seq == 2**64 - 1


def test_an_envelope_that_repeats_a_field_is_refused_wherever_it_comes() -> None:
    """The last one counts, so the others would carry bytes that nobody has signed."""
    data = bytes.fromhex(OWN.envelope)
    message = envelope_pb2.Envelope.FromString(data)
    decoy = payload(seq=9)
    for number, value in (
        (1, message.public_key),
        (2, message.payload_type),
        (3, decoy),
        (3, message.payload),
        (5, b"signature"),
        (5, message.signature),
    ):
        field = bytes([number << 3 | 2]) + varint.encode(len(value)) + value
        for repeated in (field + data, data + field):
            with pytest.raises(IdentityError):
                open_peer_record(repeated)


def test_an_envelope_with_a_long_varint_is_refused() -> None:
    data = bytes.fromhex(OWN.envelope)
    assert data[:2] == b"\x0a\x24"
    with pytest.raises(IdentityError, match="shortest"):
        open_peer_record(b"\x0a\xa4\x00" + data[2:])


def test_a_field_that_comes_twice_in_a_payload_is_signed_like_the_rest() -> None:
    assert open_peer_record(sealed(b"\x10\x09" + bytes.fromhex(OWN.payload))) == OWN_RECORD


@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"\x20", b"\x20\x01", b"\x32\x01x", b"garbage"])
def test_trailing_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(IdentityError):
        open_peer_record(bytes.fromhex(OWN.envelope) + garbage)
    with pytest.raises(IdentityError):
        open_peer_record(sealed(bytes.fromhex(OWN.payload) + garbage))


def test_oversized_envelope_is_refused_before_its_signature_is_looked_at() -> None:
    room = 8192 - len(sealed(payload(addrs=(b"",))))
    for size, taken in ((room - 8, True), (room + 8, False)):
        data = sealed(payload(addrs=(b"x" * size,)))
        assert (len(data) <= 8192) is taken
        if taken:
            assert open_peer_record(data).addrs == ()
        else:
            with pytest.raises(IdentityError, match="limit"):
                open_peer_record(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        open_peer_record(data)


@given(st.binary(max_size=200))
def test_any_signed_payload_of_noise_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError):
        open_peer_record(sealed(data))


@given(st.integers(0, 2**64 - 1), st.lists(st.binary(max_size=40), max_size=6))
def test_any_addresses_leave_a_record_that_can_be_sealed_again(seq: int, addrs: list[bytes]) -> None:
    opened = open_peer_record(sealed(payload(seq, addrs=tuple(addrs))))
    assert opened.seq == seq
    assert open_peer_record(opened.seal(KEY).raw) == opened
