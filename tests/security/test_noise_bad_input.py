"""security/noise.py: every bad handshake, in its payloads and in its frames."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st
from noise_parties import (
    ID_I,
    ID_R,
    KEY_I,
    MPLEX,
    MUXER,
    STATIC_I,
    STATIC_R,
    Meet,
    Payload,
    failure,
    frame,
    meet_initiator,
    meet_responder,
    signed,
    transport_i,
    transport_r,
)
from noise_vectors import (
    FRAME1,
    A,
)

from harness import looped, run
from key_vectors import INITIATOR
from p2pcore.errors import ConnectionClosed, HandshakeError, PeerIdMismatch, ProtocolNotSupported
from p2pcore.interfaces import Secured
from p2pcore.pb.noise_pb2 import NoiseExtensions
from p2pcore.security import noise
from p2pcore.values.keys import PrivateKey
from wires import connected

# -- what a peer may say in its payload -----------------------------------------------------------


ROLES = pytest.mark.parametrize("meet", [meet_initiator, meet_responder], ids=["initiator", "responder"])


def oversized_rsa() -> bytes:
    key = rsa.RSAPublicNumbers(65537, (1 << 8192) + 1).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"\x08\x00\x12" + bytes((len(der) & 0x7F | 0x80, len(der) >> 7)) + der


I_KEY = KEY_I.public_key.to_protobuf()
BAD_PAYLOADS: dict[str, Payload] = {
    "empty": lambda static: b"",
    "not a protobuf": lambda static: b"\xff\xff\xff",
    "cut short": lambda static: signed(KEY_I, static)[:-1],
    "no identity key": lambda static: signed(KEY_I, static, identity_key=None),
    "no signature": lambda static: signed(KEY_I, static, identity_sig=None),
    "empty identity key": lambda static: signed(KEY_I, static, identity_key=b""),
    "empty signature": lambda static: signed(KEY_I, static, identity_sig=b""),
    "unknown key type": lambda static: signed(KEY_I, static, identity_key=b"\x08\x04" + I_KEY[2:]),
    "oversized RSA": lambda static: signed(KEY_I, static, identity_key=oversized_rsa()),
    "key with a trailing field": lambda static: signed(KEY_I, static, identity_key=I_KEY + b"\x18\x01"),
    "key with its fields swapped": lambda static: signed(KEY_I, static, identity_key=I_KEY[2:] + I_KEY[:2]),
    "signature of zeros": lambda static: signed(KEY_I, static, identity_sig=bytes(64)),
    "signature over another static key": lambda static: signed(KEY_I, STATIC_R.public),
    "signature without the prefix": lambda static: signed(KEY_I, static, identity_sig=KEY_I.sign(static)),
    "signature of another key": lambda static: signed(
        KEY_I, static, identity_sig=PrivateKey.generate().sign(noise.SIGNATURE_PREFIX + static)
    ),
    "length in front": lambda static: frame(signed(KEY_I, static)),
}


@ROLES
@pytest.mark.parametrize("payload", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS.keys())
def test_bad_payload_fails_the_handshake(meet: Meet, payload: Payload) -> None:
    assert type(failure(meet, payload)) is HandshakeError


@ROLES
def test_no_muxer_in_common_is_a_failed_negotiation_and_no_bad_payload(meet: Meet) -> None:
    with pytest.raises(ProtocolNotSupported) as caught:
        run(meet(lambda static: signed(KEY_I, static, MPLEX), None, (MUXER,)))
    assert caught.value.stage == "muxer negotiation"


@ROLES
@pytest.mark.parametrize("case", ["empty", "no identity key", "no signature"])
def test_missing_part_of_a_payload_is_called_missing(meet: Meet, case: str) -> None:
    assert "lacks" in str(failure(meet, BAD_PAYLOADS[case]))


@ROLES
def test_another_peer_than_expected_is_named_with_the_expected_one(meet: Meet) -> None:
    other = PrivateKey.generate().peer_id()
    error = failure(meet, lambda static: signed(KEY_I, static), other)
    assert isinstance(error, PeerIdMismatch)
    assert (error.expected, error.actual) == (other, ID_I)
    assert str(other) in str(error)
    assert INITIATOR.id in str(error)


@ROLES
def test_another_peer_is_reported_before_its_signature_is_looked_at(meet: Meet) -> None:
    error = failure(meet, lambda static: signed(KEY_I, static, identity_sig=bytes(64)), ID_R)
    assert isinstance(error, PeerIdMismatch)


@ROLES
def test_expected_peer_is_taken(meet: Meet) -> None:
    secured = run(meet(lambda static: signed(KEY_I, static, MUXER), ID_I, (MUXER,)))
    assert secured == Secured(ID_I, KEY_I.public_key, MUXER)


LENIENT: dict[str, tuple[Payload, str | None]] = {
    "repeated key, the last wins": (lambda static: b"\x0a\x01x" + signed(KEY_I, static, MUXER), MUXER),
    "legacy data": (lambda static: signed(KEY_I, static, MUXER) + b"\x1a\x04data", MUXER),
    "unknown field": (lambda static: signed(KEY_I, static, MUXER) + b"\xfa\x7f\x01x", MUXER),
    "unknown extension": (lambda static: signed(KEY_I, static, MUXER) + b"\x22\x04\x82\x40\x01x", MUXER),
    "certificate hashes": (lambda static: signed(KEY_I, static) + b"\x22\x03\x0a\x01h", None),
    "100 muxers": (lambda static: signed(KEY_I, static, *["/x"] * 99, MUXER), MUXER),
    "101 muxers": (lambda static: signed(KEY_I, static, MUXER, *["/x"] * 100), None),
    "muxer of 255 bytes": (lambda static: signed(KEY_I, static, "/" + "x" * 254, MUXER), MUXER),
    "muxer of 256 bytes": (lambda static: signed(KEY_I, static, MUXER, "/" + "x" * 255), None),
    "muxer that is not UTF-8": (
        lambda static: signed(
            KEY_I, static, extensions=NoiseExtensions(stream_muxers=[b"\xff", MUXER.encode()])
        ),
        MUXER,
    ),
}


@ROLES
@pytest.mark.parametrize(("payload", "agreed"), LENIENT.values(), ids=LENIENT.keys())
def test_odd_payload_that_is_taken(meet: Meet, payload: Payload, agreed: str | None) -> None:
    assert run(meet(payload, ID_I, (MUXER,))) == Secured(ID_I, KEY_I.public_key, agreed)


@given(st.binary(max_size=120))
def test_any_payload_is_proof_or_a_handshake_error(payload: bytes) -> None:
    with pytest.raises(HandshakeError):
        transport_r()._check(payload, STATIC_I.public, None)


@given(st.integers(0), st.integers(1, 255))
def test_any_change_to_a_payload_keeps_the_identity_or_fails(at: int, flip: int) -> None:
    payload = bytearray(signed(KEY_I, STATIC_I.public, MUXER))
    payload[at % len(payload)] ^= flip
    try:
        proof = transport_r()._check(bytes(payload), STATIC_I.public, None)
    except HandshakeError:
        return
    assert proof.peer == ID_I


# -- frames --------------------------------------------------------------------------------------


def damaged(data: bytes) -> Iterator[bytes]:
    """`data` with one bit flipped, in each of its bytes behind the length."""
    for at in range(2, len(data)):
        yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def inbound(data: bytes, ends: bool = False) -> Secured:
    """secure_inbound of R with all of what the peer sends there at once."""
    async with connected() as (mailbox, theirs):
        theirs.send(data)
        if ends:
            theirs.shutdown(socket.SHUT_WR)
        return await transport_r().secure_inbound(mailbox, None, ())


async def outbound(data: bytes, ends: bool = False) -> Secured:
    """As inbound, for secure_outbound of I."""
    async with connected() as (mailbox, theirs):
        theirs.send(data)
        if ends:
            theirs.shutdown(socket.SHUT_WR)
        return await transport_i().secure_outbound(mailbox, None, ())


@pytest.mark.parametrize("size", [0, 1, 31, 33, 96, 65535])
def test_frame_1_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError, match="message 1"):
        run(inbound(frame(bytes(size))))


@pytest.mark.parametrize("size", [0, 95])
def test_frame_2_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError, match="message 2"):
        run(outbound(frame(bytes(size))))


@pytest.mark.parametrize("size", [0, 63])
def test_frame_3_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError, match="message 3"):
        run(inbound(bytes.fromhex(FRAME1) + frame(bytes(size))))


@looped
async def test_any_damage_to_frame_2_fails_the_handshake() -> None:
    for data in damaged(bytes.fromhex(A.frame2)):
        with pytest.raises(HandshakeError):
            await outbound(data)


@looped
async def test_any_damage_to_frames_1_and_3_fails_the_handshake() -> None:
    for data in damaged(bytes.fromhex(A.frame3)):
        with pytest.raises(HandshakeError):
            await inbound(bytes.fromhex(FRAME1) + data)
    for data in damaged(bytes.fromhex(FRAME1)):
        with pytest.raises(HandshakeError):
            await inbound(data + bytes.fromhex(A.frame3))


@looped
async def test_end_of_input_anywhere_fails_the_handshake() -> None:
    ours, theirs = bytes.fromhex(FRAME1 + A.frame3), bytes.fromhex(A.frame2)
    for at in range(len(ours)):
        with pytest.raises(HandshakeError):
            await inbound(ours[:at], ends=True)
    for at in range(len(theirs)):
        with pytest.raises(HandshakeError):
            await outbound(theirs[:at], ends=True)


def test_bad_record_right_behind_the_handshake_fails_it() -> None:
    handshake = bytes.fromhex(FRAME1 + A.frame3)
    for record in (frame(bytes(16)), frame(bytes(15)), frame(b"")):
        with pytest.raises(HandshakeError):
            run(inbound(handshake + record))


@looped
async def test_broken_connection_is_reported_as_such() -> None:
    for step in (transport_r().secure_inbound, transport_i().secure_outbound):
        async with connected() as (mailbox, _):
            task = asyncio.create_task(step(mailbox, None, ()))
            await asyncio.sleep(0)
            mailbox.abort()
            with pytest.raises(ConnectionClosed):
                await task


@looped
async def test_peer_that_stalls_is_left_to_the_callers_deadline() -> None:
    async with connected() as (mailbox, theirs):
        theirs.send(bytes.fromhex(FRAME1)[:20])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await transport_r().secure_inbound(mailbox, None, ())


@given(st.lists(st.binary(max_size=120), max_size=3), st.booleans())
@looped
async def test_any_frames_fail_with_a_handshake_error(messages: list[bytes], with_frame_1: bool) -> None:
    data = b"".join(map(frame, messages))

    with pytest.raises(HandshakeError):
        await outbound(data, ends=True)
    with pytest.raises(HandshakeError):
        await inbound((bytes.fromhex(FRAME1) if with_frame_1 else b"") + data, ends=True)
