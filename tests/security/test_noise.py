"""security/noise.py: XX vectors, both whole transcripts byte for byte, and every bad handshake."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise_parties import (
    ID_I,
    ID_R,
    KEY_I,
    KEY_R,
    MPLEX,
    MUXER,
    STATIC_I,
    STATIC_R,
    failure_inbound,
    frame,
    nonce,
    signed,
    transport_i,
    transport_r,
)
from noise_vectors import (
    B_MUXERS,
    BARE,
    DOMAIN,
    EPHEMERAL_PUBLICS,
    EPHEMERAL_SECRETS,
    FRAME1,
    K1,
    K2,
    LARGEST_ENDS,
    LARGEST_SHA256,
    LARGEST_STARTS,
    LOW_ORDER,
    PROLOGUE,
    SIGNATURES,
    STATIC_PUBLICS,
    STATIC_SECRETS,
    STEPS,
    TRANSPORT,
    A,
    B,
    Handshake,
    XXVector,
)

from harness import cuts, feeding, looped, run
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.noise import Initiator, KeyPair, Responder, SymmetricState
from p2pcore._fast.crypto.sodium import x25519
from p2pcore.errors import HandshakeError, PeerIdMismatch, PeerIsSelf, ProtocolNotSupported
from p2pcore.interfaces import Secured
from p2pcore.limits import MAX_NOISE_PROOF_BYTES
from p2pcore.security import noise
from p2pcore.security.noise import NoiseTransport
from p2pcore.values.keys import KeyType, PrivateKey, PublicKey
from wires import connected, received

# -- the XX pattern ----------------------------------------------------------------------------


def both(vector: XXVector) -> tuple[Initiator, Responder]:
    initiator = Initiator(KeyPair.of(vector.init_static), vector.init_ephemeral, vector.prologue)
    responder = Responder(KeyPair.of(vector.resp_static), vector.resp_ephemeral, vector.prologue)
    return initiator, responder


@pytest.mark.parametrize("vector", [BARE, PROLOGUE], ids=["bare", "prologue"])
def test_xx_vectors(vector: XXVector) -> None:
    initiator, responder = both(vector)
    one, two, three = vector.messages
    assert initiator.write_1(vector.payloads[0]) == one
    assert responder.read_1(one) == vector.payloads[0]
    assert responder.write_2(vector.payloads[1]) == two
    assert initiator.read_2(two) == vector.payloads[1]
    assert initiator.write_3(vector.payloads[2]) == three
    assert responder.read_3(three) == vector.payloads[2]
    assert initiator.state.h == responder.state.h == vector.handshake_hash
    assert initiator.split() == (vector.k1, vector.k2)
    assert responder.split() == (vector.k2, vector.k1)
    assert initiator.remote_static == KeyPair.of(vector.resp_static).public
    assert responder.remote_static == KeyPair.of(vector.init_static).public


@pytest.mark.parametrize("vector", [BARE, PROLOGUE], ids=["bare", "prologue"])
def test_transport_messages_of_the_xx_vectors(vector: XXVector) -> None:
    sent = {True: 0, False: 0}
    for from_initiator, plaintext, ciphertext in vector.transport:
        key = ChaCha20Poly1305(vector.k1 if from_initiator else vector.k2)
        assert key.encrypt(nonce(sent[from_initiator]), plaintext, None) == ciphertext
        sent[from_initiator] += 1


def test_another_prologue_does_not_authenticate() -> None:
    initiator, _ = both(PROLOGUE)
    _, responder = both(BARE)
    responder.read_1(initiator.write_1())
    with pytest.raises(HandshakeError):
        initiator.read_2(responder.write_2(b""))


class Recorder(SymmetricState):
    """Keeps (h, ck, k, dh) after each step, as the specification's table has it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str, str, str]] = []
        self._note()

    def _note(self, dh: str = "-") -> None:
        key = "-" if self.key is None else self.key.hex()
        self.steps.append((self.h.hex(), self.ck.hex(), key, dh))

    def mix_key(self, secret: bytes) -> None:
        super().mix_key(secret)
        self._note(secret.hex())

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = super().encrypt_and_hash(plaintext)
        self._note()
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plaintext = super().decrypt_and_hash(sealed)
        self._note()
        return plaintext


def test_state_after_every_step_of_handshake_a() -> None:
    initiator = Initiator(STATIC_I, EPHEMERAL_SECRETS[0])
    responder = Responder(STATIC_R, EPHEMERAL_SECRETS[1])
    initiator.state, responder.state = states = Recorder(), Recorder()
    responder.read_1(initiator.write_1())
    initiator.read_2(responder.write_2(bytes.fromhex(A.payload2)))
    responder.read_3(initiator.write_3(bytes.fromhex(A.payload3)))
    wanted = [(step.h, step.ck, step.k, step.dh) for step in STEPS]
    for state in states:
        assert state.steps == wanted


def test_key_pairs_of_handshake_a() -> None:
    publics = tuple(KeyPair.of(secret).public.hex() for secret in STATIC_SECRETS + EPHEMERAL_SECRETS)
    assert publics == STATIC_PUBLICS + EPHEMERAL_PUBLICS


def test_identity_signatures_of_handshake_a() -> None:
    assert noise.SIGNATURE_PREFIX.hex() == DOMAIN
    for key, static, signature in zip((KEY_I, KEY_R), (STATIC_I, STATIC_R), SIGNATURES, strict=True):
        assert key.sign(noise.SIGNATURE_PREFIX + static.public).hex() == signature


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[:4])
def test_low_order_keys_abort_in_every_place(point: str) -> None:
    low = bytes.fromhex(point)
    responder = Responder(STATIC_R, EPHEMERAL_SECRETS[1])
    responder.read_1(low)
    with pytest.raises(HandshakeError):
        responder.write_2(b"")
    with pytest.raises(HandshakeError):
        Initiator(STATIC_I, EPHEMERAL_SECRETS[0]).read_2(low + bytes(64))
    low_static = KeyPair(STATIC_SECRETS[0], low)
    initiator, responder = Initiator(low_static, bytes([5]) * 32), Responder(STATIC_R, bytes([6]) * 32)
    responder.read_1(initiator.write_1())
    initiator.read_2(responder.write_2(b""))
    with pytest.raises(HandshakeError, match="low order"):
        responder.read_3(initiator.write_3(b""))
    initiator = Initiator(STATIC_I, bytes([5]) * 32)
    message = sealed_static(initiator.write_1(), low)
    with pytest.raises(HandshakeError, match="low order"):
        initiator.read_2(message)


def sealed_static(message1: bytes, static: bytes) -> bytes:
    """Message 2 of a responder that claims any static key; its payload is noise."""
    ephemeral = KeyPair.of(bytes([6]) * 32)
    state = SymmetricState()
    state.mix_hash(message1)
    state.mix_hash(b"")
    state.mix_hash(ephemeral.public)
    shared = x25519(ephemeral.secret, message1)
    assert shared is not None
    state.mix_key(shared)
    return ephemeral.public + state.encrypt_and_hash(static) + bytes(16)


@pytest.mark.parametrize("size", [0, 31])
def test_message_1_without_a_whole_key_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError):
        Responder(STATIC_R, EPHEMERAL_SECRETS[1]).read_1(bytes(size))


@pytest.mark.parametrize("size", [0, 32, 80, 95])
def test_message_2_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError, match="message 2"):
        Initiator(STATIC_I, EPHEMERAL_SECRETS[0]).read_2(bytes.fromhex(A.frame2)[2 : 2 + size])


@pytest.mark.parametrize("size", [0, 48, 63])
def test_message_3_that_is_too_short_is_refused(size: int) -> None:
    responder = Responder(STATIC_R, EPHEMERAL_SECRETS[1])
    responder.read_1(bytes.fromhex(FRAME1)[2:])
    responder.write_2(b"")
    with pytest.raises(HandshakeError, match="message 3"):
        responder.read_3(bytes.fromhex(A.frame3)[2 : 2 + size])


# -- whole transcripts -------------------------------------------------------------------------

TRANSCRIPTS = pytest.mark.parametrize(
    ("handshake", "muxers", "agreed"),
    [(A, ((), ()), None), (B, B_MUXERS, MUXER)],
    ids=["A", "B"],
)


@TRANSCRIPTS
@looped
async def test_initiator_transcript(
    handshake: Handshake, muxers: Sequence[Sequence[str]], agreed: str | None
) -> None:
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(transport_i().secure_outbound(mailbox, ID_R, muxers[0]))
        assert (await received(theirs, 34)).hex() == FRAME1
        theirs.send(bytes.fromhex(handshake.frame2))
        assert (await received(theirs, len(handshake.frame3) // 2)).hex() == handshake.frame3
        assert await task == Secured(ID_R, KEY_R.public_key, agreed)
        await check_transport(mailbox, theirs, from_initiator=True)


@TRANSCRIPTS
@looped
async def test_responder_transcript(
    handshake: Handshake, muxers: Sequence[Sequence[str]], agreed: str | None
) -> None:
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(transport_r().secure_inbound(mailbox, None, muxers[1]))
        theirs.send(bytes.fromhex(FRAME1))
        assert (await received(theirs, len(handshake.frame2) // 2)).hex() == handshake.frame2
        theirs.send(bytes.fromhex(handshake.frame3))
        assert await task == Secured(ID_I, KEY_I.public_key, agreed)
        await check_transport(mailbox, theirs, from_initiator=False)


async def check_transport(mailbox: Any, theirs: socket.socket, from_initiator: bool) -> None:
    """Writes and reads the transport frames of the vectors."""
    for sender, _, plaintext, data in TRANSPORT:
        if sender is not from_initiator:
            theirs.send(bytes.fromhex(data))
            if plaintext:
                assert (await mailbox.read_exactly(len(plaintext) // 2)).hex() == plaintext
        elif plaintext:
            mailbox.write(bytes.fromhex(plaintext))
            assert (await received(theirs, len(data) // 2)).hex() == data


@pytest.mark.parametrize("handshake", [A, B], ids=["A", "B"])
def test_handshake_hash_of_the_transcripts(handshake: Handshake) -> None:
    initiator = Initiator(STATIC_I, EPHEMERAL_SECRETS[0])
    initiator.write_1()
    assert initiator.read_2(bytes.fromhex(handshake.frame2)[2:]).hex() == handshake.payload2
    assert initiator.write_3(bytes.fromhex(handshake.payload3)).hex() == handshake.frame3[4:]
    assert initiator.state.h.hex() == handshake.handshake_hash
    assert tuple(key.hex() for key in initiator.split()) == (K1, K2)


@pytest.mark.parametrize(("from_initiator", "n", "plaintext", "data"), TRANSPORT)
def test_transport_frames_by_the_cipher_alone(
    from_initiator: bool, n: int, plaintext: str, data: str
) -> None:
    key = ChaCha20Poly1305(bytes.fromhex(K1 if from_initiator else K2))
    assert frame(key.encrypt(nonce(n), bytes.fromhex(plaintext), None)).hex() == data


@looped
async def test_largest_frame() -> None:
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(transport_i().secure_outbound(mailbox, ID_R, ()))
        theirs.send(bytes.fromhex(A.frame2))
        await task
        await received(theirs, 34 + len(A.frame3) // 2)
        mailbox.write(bytes(65519))
        data = await received(theirs, 65537)
        assert data[:18].hex() == LARGEST_STARTS
        assert data[-16:].hex() == LARGEST_ENDS
        assert hashlib.sha256(data).hexdigest() == LARGEST_SHA256


@looped
async def test_responder_takes_its_input_in_any_cut_and_keeps_what_follows_frame_3() -> None:
    first = bytes.fromhex(TRANSPORT[0][3])
    plaintext = bytes.fromhex(TRANSPORT[0][2])
    second = ChaCha20Poly1305(bytes.fromhex(K1))

    for chunks, tail in feeding(bytes.fromhex(FRAME1 + A.frame3) + first):
        sealed = frame(second.encrypt(nonce(1), tail, None)) if tail else b""
        chunks[-1] = chunks[-1].removesuffix(tail) + sealed
        async with connected() as (mailbox, theirs):
            task = asyncio.create_task(transport_r().secure_inbound(mailbox, ID_I, ()))
            for chunk in chunks:
                theirs.send(chunk)
                await asyncio.sleep(0)
            assert (await task).remote_peer == ID_I
            assert await mailbox.read_exactly(len(plaintext + tail)) == plaintext + tail


@looped
async def test_initiator_takes_its_input_in_any_cut() -> None:
    first = bytes.fromhex(TRANSPORT[1][3])

    for chunks in cuts(bytes.fromhex(A.frame2) + first):
        async with connected() as (mailbox, theirs):
            task = asyncio.create_task(transport_i().secure_outbound(mailbox, ID_R, ()))
            for chunk in chunks:
                theirs.send(chunk)
                await asyncio.sleep(0)
            assert (await task).remote_peer == ID_R
            assert (await mailbox.read_exactly(34)).hex() == TRANSPORT[1][2]


# -- two of ours -------------------------------------------------------------------------------


@asynccontextmanager
async def two_wires() -> AsyncIterator[tuple[Any, Any]]:
    """The mailboxes of two Wires joined by a socket pair."""
    loop = asyncio.get_running_loop()
    wires = []
    for end in socket.socketpair():
        end.setblocking(False)
        wire = Wire(loop)
        await loop.create_connection(lambda wire=wire: wire, sock=end)
        wires.append(wire)
    try:
        yield wires[0].mailbox, wires[1].mailbox
    finally:
        for wire in wires:
            wire.abort()
            await wire.wait_closed()


async def shaken(
    ours: NoiseTransport,
    theirs: NoiseTransport,
    muxers: Sequence[Sequence[str]] = ((MUXER,), (MUXER,)),
) -> list[Secured | BaseException]:
    """What both sides of one handshake came to; on success data has gone both ways."""
    async with two_wires() as (a, b):

        async def one(step: Any, mailbox: Any) -> Secured:
            try:
                return await step
            except BaseException:
                mailbox.abort()
                raise

        results = await asyncio.gather(
            one(ours.secure_outbound(a, None, muxers[0]), a),
            one(theirs.secure_inbound(b, None, muxers[1]), b),
            return_exceptions=True,
        )
        if not any(isinstance(result, BaseException) for result in results):
            a.write(b"there")
            b.write(b"back")
            assert await b.read_exactly(5) == b"there"
            assert await a.read_exactly(4) == b"back"
        return results


@pytest.mark.parametrize("kind", list(KeyType), ids=lambda kind: kind.name.lower())
def test_identities_of_every_key_type(kind: KeyType) -> None:
    ours, theirs = PrivateKey.generate(kind), PrivateKey.generate()
    at_us, at_them = run(shaken(NoiseTransport(ours), NoiseTransport(theirs)))
    assert at_us == Secured(theirs.peer_id(), theirs.public_key, MUXER)
    assert at_them == Secured(ours.peer_id(), ours.public_key, MUXER)


@pytest.mark.parametrize(
    ("initiator", "responder", "agreed"),
    [
        ((MUXER, MPLEX), (MPLEX, MUXER), MUXER),
        ((MPLEX, MUXER), (MUXER, MPLEX), MPLEX),
        (("/other", MPLEX), (MUXER, MPLEX), MPLEX),
        ((), (MUXER,), None),
        ((MUXER,), (), None),
        ((), (), None),
    ],
)
def test_muxer_is_the_first_of_the_initiators_that_the_responder_has(
    initiator: Sequence[str], responder: Sequence[str], agreed: str | None
) -> None:
    results = run(shaken(NoiseTransport(KEY_I), NoiseTransport(KEY_R), (initiator, responder)))
    assert [result.muxer for result in results if isinstance(result, Secured)] == [agreed, agreed]


def test_lists_without_overlap_fail_the_handshake() -> None:
    results = run(shaken(NoiseTransport(KEY_I), NoiseTransport(KEY_R), ((MUXER,), (MPLEX,))))
    for result, by_peer in zip(results, (False, True), strict=True):
        assert isinstance(result, ProtocolNotSupported)
        assert (result.protocols, result.by_peer) == ((MUXER,), by_peer)
        assert result.stage == "muxer negotiation"


def test_self_dial_is_refused_by_both_sides() -> None:
    results = run(shaken(NoiseTransport(KEY_I), NoiseTransport(KEY_I)))
    assert isinstance(results[0], PeerIsSelf)
    error = failure_inbound(lambda static: signed(KEY_R, static))
    assert isinstance(error, PeerIsSelf)
    assert error.peer == KEY_R.peer_id()


def test_static_key_is_made_once_and_ephemeral_keys_always() -> None:
    asked: list[int] = []

    def entropy(n: int) -> bytes:
        asked.append(n)
        return bytes([len(asked)]) * n

    ours = NoiseTransport(KEY_I, entropy=entropy)
    for _ in range(3):
        run(shaken(ours, NoiseTransport(KEY_R)))
    assert asked == [32] * 4


def test_statics_of_two_hosts_differ() -> None:
    statics = {NoiseTransport(KEY_I)._static.secret for _ in range(4)}
    assert len(statics) == 4


def test_payload_is_made_again_only_for_another_list_of_muxers() -> None:
    transport = NoiseTransport(KEY_I)
    offer = transport._offer_of((MUXER,))
    assert transport._offer_of([MUXER]) is offer
    assert transport._offer_of((MPLEX,)).payload != offer.payload


# -- proofs that are kept ---------------------------------------------------------------------------


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The signatures that have been verified since the test began."""
    seen: list[bytes] = []
    verify = PublicKey.verify

    def noted(key: PublicKey, message: bytes, signature: bytes) -> bool:
        seen.append(signature)
        return verify(key, message, signature)

    monkeypatch.setattr(PublicKey, "verify", noted)
    return seen


def test_peer_that_comes_back_proves_itself_by_the_handshake_alone(verified: list[bytes]) -> None:
    ours, theirs = NoiseTransport(KEY_I), NoiseTransport(KEY_R)
    for _ in range(3):
        at_us, at_them = run(shaken(ours, theirs))
        assert at_us == Secured(ID_R, KEY_R.public_key, MUXER)
        assert at_them == Secured(ID_I, KEY_I.public_key, MUXER)
    assert len(verified) == 2  # once on either side
    run(shaken(ours, NoiseTransport(KEY_R)))
    assert len(verified) == 4  # another static key, although the same identity


def test_kept_proof_is_of_no_use_with_another_static_key_or_payload(verified: list[bytes]) -> None:
    ours = NoiseTransport(KEY_R)
    payload = signed(KEY_I, STATIC_I.public, MUXER)
    assert ours._check(payload, STATIC_I.public, None).peer == ID_I
    with pytest.raises(HandshakeError, match="did not sign"):
        ours._check(payload, STATIC_R.public, None)
    for at in range(len(payload)):
        forged = bytearray(payload)
        forged[at] ^= 1
        try:
            proof = ours._check(bytes(forged), STATIC_I.public, None)
        except HandshakeError:
            continue
        assert proof.peer == ID_I  # what is not signed may change: the list of multiplexers
        assert len(verified) > 1
    before = len(verified)
    assert ours._check(payload, STATIC_I.public, None).peer == ID_I
    assert len(verified) == before


def test_kept_proof_of_another_peer_than_expected_is_refused() -> None:
    ours = NoiseTransport(KEY_R)
    payload = signed(KEY_I, STATIC_I.public, MUXER)
    for _ in range(2):
        assert ours._check(payload, STATIC_I.public, ID_I).peer == ID_I
        with pytest.raises(PeerIdMismatch):
            ours._check(payload, STATIC_I.public, ID_R)


def test_bad_proof_is_never_kept(verified: list[bytes]) -> None:
    ours = NoiseTransport(KEY_R)
    payload = signed(KEY_I, STATIC_R.public)
    for times in (1, 2, 3):
        with pytest.raises(HandshakeError, match="did not sign"):
            ours._check(payload, STATIC_I.public, None)
        assert len(verified) == times
    assert not ours._proofs


def test_kept_proofs_are_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "MAX_NOISE_PROOFS", 3)
    ours = NoiseTransport(KEY_R)
    statics = [KeyPair.of(bytes([i]) * 32).public for i in range(1, 6)]
    for static in statics:
        ours._check(signed(KEY_I, static), static, None)
        ours._check(signed(KEY_I, statics[0]), statics[0], None)  # the one used last stays
    kept = [claim[:32] for claim in ours._proofs]
    assert kept == [statics[3], statics[4], statics[0]]
    long = signed(KEY_I, STATIC_I.public, *["/" + "x" * 200] * 3)
    assert len(long) > MAX_NOISE_PROOF_BYTES
    assert ours._check(long, STATIC_I.public, None).peer == ID_I
    assert len(ours._proofs) == 3
