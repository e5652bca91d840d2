"""Noise records against every transport vector and "Bad input" row of the noise sheet, cut anywhere.

Comes in: frames of handshakes A and 1, with their keys. Goes out: plaintexts, or the end of the
connection. Source: libp2p noise spec, "Wire format"; protocol sheet noise, sections 2, 3 and 7.
"""

from __future__ import annotations

import hashlib
import itertools

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings, strategies as st

from _fast.chains import KEY_A, KEY_B, Cable, secured
from harness import cuts, looped, settle
from p2pcore import errors, limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore._fast.loop.loop_state import loop_state

K1 = bytes.fromhex("56d4e8d25e8541ddae77f0fcaaa069c9ec79a48fc73e3745285714a8f400f28f")
K2 = bytes.fromhex("1dc96e79ff231dcd53515072f873ce4e77616801224dd46df24fbc0d48c7a932")
PROPOSAL = bytes.fromhex("132f6d756c746973747265616d2f312e302e300a0d2f79616d75782f312e302e300a")
I_TO_R = (
    (
        PROPOSAL,
        "003254990734413cf5cc5e7ea7ab34712c244765e21efa3669a7171fbbd21da7886e"
        "64875a67d3af1fafa4542453883b85324925",
    ),
    (b"hello", "00156618ef3d5a18d5ad32d4ab58ab6b33c7fe327df07a"),
)
R_TO_I = (
    (
        PROPOSAL,
        "00323cc1ce4c51633a6c01cef6bcae653280f9c99ffabfddca5502322065eea1fe45"
        "84b0e8b714ccd88a20feee9f07a0a474872e",
    ),
    (b"", "0010e6caafc14f090188c0c88e4216eb114c"),
)


def channel(send: bytes = KEY_A, receive: bytes = KEY_B) -> tuple[Cable, Mailbox]:
    cable = Cable()
    box = cable.mailbox
    box.insert(NoiseChannel(send, receive))
    return cable, box


def record(key: bytes, nonce: int, plain: bytes) -> bytes:
    """One record, made by another implementation than ours."""
    sealed = ChaCha20Poly1305(key).encrypt(bytes(4) + nonce.to_bytes(8, "little"), plain, None)
    return len(sealed).to_bytes(2, "big") + sealed


def records(key: bytes, plains: list[bytes], first: int = 0) -> bytes:
    return b"".join(record(key, first + i, plain) for i, plain in enumerate(plains))


@looped
async def test_sent_records_are_the_vectors() -> None:
    cable, box = channel(K1, K2)
    for plain, frame in I_TO_R:
        box.write(plain)
        await settle()
        assert cable.sent().hex() == frame
    cable, box = channel(K2, K1)
    box.write(R_TO_I[0][0])
    await settle()
    assert cable.sent().hex() == R_TO_I[0][1]


@pytest.mark.parametrize(("send", "receive", "vectors"), [(K1, K2, R_TO_I), (K2, K1, I_TO_R)])
@looped
async def test_received_vectors_open_however_they_are_cut(
    send: bytes, receive: bytes, vectors: tuple[tuple[bytes, str], ...]
) -> None:
    plain = b"".join(p for p, _ in vectors)
    for chunks in cuts(bytes.fromhex("".join(f for _, f in vectors))):
        cable, box = channel(send, receive)
        cable.deliver(*chunks)
        assert box.num_held == len(plain)
        assert await box.read_exactly(len(plain)) == plain


@looped
async def test_vectors_of_the_noise_specification_open() -> None:
    k1 = bytes.fromhex("4759d15f0f4cfb9c3cef133e60b44ea3479cae90880a7e71df96f111d78d5953")
    k2 = bytes.fromhex("a8b5dce3cef845d63c9671c350eb15cbb50b6c6d5f0d3231d32d711dab1ed191")
    cable, box = channel(k1, k2)
    box.write(b"yellowsubmarine")
    await settle()
    assert cable.sent().hex() == "001fa52ef02ba60e12696d1d6b9ef4245c88fca757b6134ad6e76b56e310a6adf6"
    cable.deliver(bytes.fromhex("001f2445aa438ebd649281c636cc7269ca82f1d9023d72520943aeabf909cdf521"))
    assert await box.read_exactly(15) == b"submarineyellow"


@looped
async def test_the_largest_record_is_the_vector() -> None:
    cable, box = channel(K1, K2)
    box.write(bytes(limits.MAX_NOISE_PLAINTEXT_BYTES))
    await settle()
    frame = cable.sent()
    assert len(frame) == 65537
    assert frame[:18].hex() == "ffff47b66a412d489cbf2a0cc2ca595e1d0a"
    assert frame[-16:].hex() == "360cddbad56601335914aee234c6a31c"
    digest = "d464ff82bd1ea0c68b645f591fd596a41cb562ad79d81d39932394cd5b9571a8"
    assert hashlib.sha256(frame).hexdigest() == digest
    for at in (1, 2, 17, 65536):
        other, reader = channel(K2, K1)
        other.deliver(frame[:at], frame[at:])
        assert await reader.read_exactly(65519) == bytes(65519)


@looped
async def test_what_one_iteration_writes_leaves_in_full_records() -> None:
    cable, box = channel()
    sent = bytes(range(256)) * 300
    for at in range(0, len(sent), 1000):
        box.write(sent[at : at + 1000])
    assert len(cable.sent()) == 65537  # a full record does not wait
    await settle()
    rest = cable.sent()
    assert rest == record(KEY_A, 1, sent[65519:])


@looped
async def test_many_records_in_one_read_and_their_nonces() -> None:
    plains = [bytes([i]) * i for i in range(1, 200)]
    raw = records(KEY_B, plains)
    for size in (1, 7, 1000, len(raw)):
        cable, box = channel()
        cable.deliver(*[raw[i : i + size] for i in range(0, len(raw), size)])
        got = await box.read_exactly(box.num_held)
        assert got == b"".join(plains)


@pytest.mark.parametrize("length", range(16))
@looped
async def test_a_record_shorter_than_its_tag_ends_the_connection(length: int) -> None:
    for chunks in cuts(length.to_bytes(2, "big") + bytes(length)):
        cable, box = channel()
        cable.deliver(*chunks)
        await settle()
        assert cable.aborted
        with pytest.raises(errors.RemoteProtocolError):
            await box.read_exactly(1)


@looped
async def test_a_forged_record_ends_the_connection_and_delivers_nothing() -> None:
    good = records(KEY_B, [b"good", b"forged", b"after"])
    for at in range(22 + 2, 22 + 24):
        bad = bytearray(good)
        bad[at] ^= 1
        for chunks in ([bytes(bad)], [bytes(bad[:30]), bytes(bad[30:])]):
            cable, box = channel()
            cable.deliver(*chunks)
            await settle()
            assert cable.aborted
            assert await box.read_exactly(4) == b"good"
            with pytest.raises(errors.RemoteProtocolError, match="authenticate"):
                await box.read_exactly(1)
            with pytest.raises(errors.RemoteProtocolError):
                box.write(b"x")


@looped
async def test_records_out_of_order_or_repeated_do_not_open() -> None:
    for frames in ([1, 0], [0, 0], [0, 2]):
        cable, _ = channel()
        cable.deliver(*[record(KEY_B, nonce, b"x") for nonce in frames])
        assert cable.aborted


@looped
async def test_empty_records_are_skipped_up_to_a_bound_in_a_row() -> None:
    most = limits.MAX_EMPTY_RECORDS
    cable, box = channel()
    cable.deliver(records(KEY_B, [b""] * most + [b"x"] + [b""] * most + [b"y"]))
    assert await box.read_exactly(2) == b"xy"
    cable, box = channel()
    cable.deliver(records(KEY_B, [b""] * (most + 1)))
    assert cable.aborted
    await settle()
    with pytest.raises(errors.LimitExceeded):
        await box.read_exactly(1)


@looped
async def test_an_end_inside_a_record_is_an_error_and_between_records_is_not() -> None:
    raw = record(KEY_B, 0, b"whole")
    for at in range(1, len(raw)):
        cable, box = channel()
        cable.deliver(raw[:at])
        cable.deliver_eof()
        await settle()
        with pytest.raises(errors.ConnectionClosed, match="inside"):
            await box.read_exactly(1)
    cable, box = channel()
    cable.deliver(raw)
    cable.deliver_eof()
    with pytest.raises(errors.IncompleteRead) as caught:
        await box.read_exactly(9)
    assert caught.value.partial == b"whole"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.booleans())
@looped
async def test_whatever_a_peer_sends_ends_in_no_other_error(raw: bytes, at: list[int], begun: bool) -> None:
    cable, box = channel()
    if begun:
        cable.deliver(record(KEY_B, 0, b"first")[: len(raw) or 1])
    edges = sorted({0, len(raw), *(min(a, len(raw)) for a in at)})
    for begin, end in itertools.pairwise(edges):
        cable.deliver(raw[begin:end])
    cable.deliver_eof()
    await settle()
    allowed = (
        errors.RemoteProtocolError,
        errors.LimitExceeded,
        errors.ConnectionClosed,
        errors.IncompleteRead,
    )
    with pytest.raises(allowed):
        await box.read_exactly(1000)


@looped
async def test_bytes_a_handshake_left_go_through_the_channel_first() -> None:
    for chunks in cuts(record(KEY_B, 0, b"early")):
        cable = Cable()
        box = cable.mailbox
        cable.deliver(chunks[0])
        box.insert(NoiseChannel(KEY_A, KEY_B))
        cable.deliver(*chunks[1:])
        assert await box.read_exactly(5) == b"early"


@looped
async def test_an_idle_channel_owns_no_buffer() -> None:
    state = loop_state(Cable().loop)
    channels = [channel() for _ in range(10)]  # more of them would send before the end of the turn
    for cable, box in channels:
        box.write(b"out")
        cable.deliver(record(KEY_B, 0, b"in")[:9])
    assert state.num_free_records == 0
    for cable, _ in channels:
        cable.deliver(record(KEY_B, 0, b"in")[9:])
    await settle()
    assert state.num_free_records == 20  # one of each for sending and for the part of a record


@looped
async def test_buffers_come_back_when_a_connection_ends_in_the_middle() -> None:
    cable, box = channel()
    state = loop_state(cable.loop)
    cable.deliver(record(KEY_B, 0, b"in")[:9])
    box.write(b"never sent")
    cable.abort()
    cable._lose()
    assert state.num_free_records == 2
    cable, box = channel()
    bad = bytearray(record(KEY_B, 0, b"in"))
    bad[-1] ^= 1
    cable.deliver(bytes(bad[:9]), bytes(bad[9:]))
    assert cable.aborted
    assert state.num_free_records == 2


@looped
async def test_a_buffer_filled_while_the_socket_is_full_comes_back() -> None:
    cable, box = channel()
    state = loop_state(cable.loop)
    cable.clog()
    box.write(bytes(65519 * 2))
    assert cable.queue
    await settle()
    free = state.num_free_records
    while cable.queue:
        cable.sent()
        cable.drain()
    await settle()
    assert state.num_free_records == free + 1


@looped
async def test_a_channel_put_on_a_full_socket_waits_like_any_other() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.clog()
    box.write(b"handshake")
    assert cable.queue == b"handshake"
    box.insert(NoiseChannel(KEY_A, KEY_B))
    box.write(b"first record")
    await settle()
    assert cable.queue == b"handshake"
    cable.sent()
    cable.drain()
    await settle()
    assert cable.sent().endswith(b"handshake" + record(KEY_A, 0, b"first record"))


@looped
async def test_a_plain_channel_changes_nothing() -> None:
    cable = Cable()
    box = cable.mailbox
    box.insert(PlainChannel())
    box.write(b"out")
    await settle()
    assert cable.sent() == b"out"
    cable.deliver(b"in")
    assert await box.read_exactly(2) == b"in"


@looped
async def test_keys_are_bytes() -> None:
    with pytest.raises(TypeError):
        NoiseChannel(None, KEY_B)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        NoiseChannel(bytearray(32), KEY_B)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_have_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseChannel(bytes(size), KEY_B)
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseChannel(KEY_A, bytes(size))


LENGTHS = [1, 367, 368, 369, 383, 384, 385, 2031, 2032, 2033, 2047, 2048, 2049, 65519]
"""Around each length at which another cipher library takes over, on either side."""


@pytest.mark.parametrize("has_ciphers", [False, True])
@looped
async def test_short_and_long_records_are_the_same_cipher(has_ciphers: bool) -> None:
    cable, box = channel()
    for nonce, size in enumerate(([65519] if has_ciphers else []) + LENGTHS):
        plain = bytes(range(256)) * (size // 256 + 1)
        box.write(plain[:size])
        await settle()
        assert cable.sent() == record(KEY_A, nonce, plain[:size])
        cable.deliver(record(KEY_B, nonce, plain[:size]))
        assert await box.read_exactly(size) == plain[:size]


@pytest.mark.parametrize("size", LENGTHS)
@looped
async def test_a_forged_record_of_any_length_ends_the_connection(size: int) -> None:
    cable, box = channel()
    forged = bytearray(record(KEY_B, 0, bytes(size)))
    forged[2 + size // 2] ^= 1
    cable.deliver(bytes(forged))
    with pytest.raises(errors.RemoteProtocolError, match="authenticate"):
        await box.read_exactly(1)


@looped
async def test_channels_in_channels_work() -> None:
    cable = Cable()
    box = secured(cable.wire, KEY_A, KEY_B)
    box.insert(NoiseChannel(K1, K2))
    box.write(b"twice")
    await settle()
    assert cable.sent() == record(KEY_A, 0, record(K1, 0, b"twice"))
    cable.deliver(record(KEY_B, 0, record(K2, 0, b"back")))
    assert await box.read_exactly(4) == b"back"
