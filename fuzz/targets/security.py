"""Noise, TLS, plaintext and private networks: handshakes, payloads, certificates, and the records after them.

Where a cipher or a signature would stop every input, the target seals or signs it: what an authenticated peer
sends is the larger surface.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cables import Line, all_of, spoken_to
from cryptography.hazmat.primitives.asymmetric import ec
from promise import check, cut, named, run, same, settle, tried

import tls_pairs
from key_vectors import INITIATOR, RESPONDER
from p2pcore import limits
from p2pcore._fast.chain.multistream import HEADER
from p2pcore._fast.codec.certificate import read_usual
from p2pcore._fast.crypto.noise import KeyPair
from p2pcore._fast.crypto.pnet import PnetLayer
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore._fast.crypto.sodium import seal
from p2pcore._fast.crypto.tls import TlsChannel
from p2pcore.errors import ConnectionClosed, HandshakeError, ProtocolNotSupported
from p2pcore.interfaces import Secured
from p2pcore.security import tls_cert
from p2pcore.security.noise import NoiseTransport
from p2pcore.security.plaintext import PlaintextTransport
from p2pcore.security.tls import TlsTransport
from p2pcore.security.tls_cert import read_certificate
from p2pcore.values.keys import PrivateKey, PublicKey

OURS = PrivateKey.from_seed(RESPONDER.seed)
THEIRS = PrivateKey.from_seed(INITIATOR.seed)
STATIC = KeyPair.of(b"\x03" * 32)
KEY = bytes(range(32))
MUXERS = ("/yamux/1.0.0", "/mplex/6.7.0")
ERRORS = (HandshakeError, ProtocolNotSupported, ConnectionClosed)
RECORD_ERRORS = (None, "RemoteProtocolError", "LimitExceeded", "ConnectionClosed", "HandshakeError")
"""HandshakeError: an alert before any data is the peer's answer to our part of the handshake."""


def _judged(result: Any) -> str:
    """The kind of a handshake's result, which must be one that is promised."""
    if isinstance(result, Secured):
        return "secured"
    check(isinstance(result, ERRORS), "another error than promised", result)
    return str(named(result))


async def _shaken(make: Any, data: bytes, *, compares_rest: bool = True) -> None:
    """A handshake with a peer that sends `data` but for its first byte, which chooses our side."""
    outcomes = []
    for pieces, turns in (([data[1:]], False), (cut(data[1:]), True)):
        transport = make()
        step = transport.secure_outbound if data[0] & 1 else transport.secure_inbound
        result, rest, sent = await spoken_to(
            pieces, lambda box, step=step: step(box, None, MUXERS), turns=turns
        )
        outcomes.append((_judged(result), rest if compares_rest else b"", sent if compares_rest else b""))
    same(outcomes[0][:2], outcomes[1][:2], "a handshake depends on how it is cut")


# -- noise ---------------------------------------------------------------------------------------


def _noise_host() -> NoiseTransport:
    return NoiseTransport(OURS, static_secret=b"\x04" * 32, entropy=lambda n: b"\x06" * n)


_PROVER = _noise_host()


def noise(data: bytes) -> None:
    """A raw handshake, or, if the first byte is over 127, the payload in one that is valid."""
    if not data:
        return
    if data[0] < 128:
        run(_shaken(_noise_host, data))
        return
    proof = tried(lambda: _PROVER._prove(data[1:], STATIC.public, None), HandshakeError)
    if proof is not None:
        check(len(proof.muxers) <= limits.MAX_NOISE_MUXERS, "too many muxers", proof.muxers)
        tried(lambda: _noise_agree(proof.muxers), ProtocolNotSupported)


def _noise_agree(muxers: Any) -> Any:
    from p2pcore.security.noise import _agree

    return _agree(tuple(name.encode() for name in MUXERS), muxers, False)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A script: a byte of options, a byte of length, a body; again and again."""
    at = 0
    while at + 2 <= len(data):
        size = data[at + 1]
        yield data[at], data[at + 2 : at + 2 + size]
        at += 2 + size


def _noise_stream(data: bytes) -> bytes:
    """Records of a script: sealed in order, raw, or with a length of their own."""
    out, count = b"", 0
    for option, body in _parts(data):
        if option & 3 == 3:
            out += body
        elif option & 3 == 2:
            out += len(body).to_bytes(2) + body
        else:
            sealed = seal(KEY, count, body * (1 + option // 4), b"")
            out += len(sealed).to_bytes(2) + sealed
            count += 1
    return out


async def _received(pieces: list[bytes], layer: Any) -> tuple[bytes, str | None]:
    line = Line()
    box = line.mailbox
    box.insert(layer)
    line.deliver(*pieces)
    held = box.num_held
    check(held <= limits.MAILBOX_BYTES + limits.RECEIVE_BUFFER_BYTES, "a mailbox over its bound", held)
    line.deliver_eof()
    await settle()
    got = await all_of(box)
    await line.finish()
    return got


def noise_records(data: bytes) -> None:
    """What comes after the handshake."""

    async def main() -> None:
        raw = _noise_stream(data)
        whole = await _received([raw], NoiseChannel(KEY, KEY))
        pieces = await _received(cut(raw), NoiseChannel(KEY, KEY))
        same(whole, pieces, "noise records depend on how they are cut")

    run(main())


# -- TLS -----------------------------------------------------------------------------------------


def tls_certificate(data: bytes) -> None:
    """A certificate in DER. It has one form: no byte of an accepted one can be changed.

    What the quick reader takes, the general way reads too, with the same parts, whoever signed it.
    """
    parts = read_usual(data)
    if parts is not None:
        _compare(data, parts)
    read_certificate.cache_clear()
    found = tried(lambda: read_certificate(data), HandshakeError)
    if found is not None:
        check(data in _accepted(), "a certificate that nobody made was accepted", found.peer)


def _compare(data: bytes, parts: tuple[Any, ...]) -> None:
    """The general way, without signatures, for what the quick reader took. Both refuse bad keys and dates."""
    _, spki, _, host_key, signature, since, until = parts
    try:
        span = datetime(*since, tzinfo=UTC), datetime(*until, tzinfo=UTC)
        key = PublicKey.from_protobuf(host_key)
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[-65:])
    except ValueError:
        return
    checks = tls_cert._check_self_signature
    tls_cert._check_self_signature = lambda certificate: None
    try:
        same(tls_cert._read_any(data), (key, spki, signature, span), "two readers of certificates differ")
    finally:
        tls_cert._check_self_signature = checks


@functools.cache
def _accepted() -> frozenset[bytes]:
    """The certificates of the vectors that are valid: their keys are known to nobody here."""
    from seeds import accepted

    return frozenset(accepted())


@functools.cache
def _tls_host() -> TlsTransport:
    return TlsTransport(OURS)


def tls(data: bytes) -> None:
    """A raw handshake: records, their lengths, alerts, hellos."""
    if data:
        run(_shaken(_tls_host, data, compares_rest=False))


def tls_records(data: bytes) -> None:
    """Records after the handshake, sealed with the right keys: data, alerts, tickets, key updates."""

    async def main() -> None:
        client, server = tls_pairs.shaken(secrets=(secrets := []))
        sealer = secrets[0].sealer(True)
        raw = _tls_stream(data, sealer)
        content, error = await _received(cut(raw), TlsChannel(server))
        check(error in RECORD_ERRORS, "another error than promised", error)
        check(len(content) <= len(raw), "more came out than in")
        del client

    run(main())


def _tls_stream(data: bytes, sealer: Any) -> bytes:
    out = b""
    for option, body in _parts(data):
        kind = (tls_pairs.DATA, tls_pairs.ALERT, tls_pairs.HANDSHAKE, option >> 2)[option & 3]
        out += sealer.seal(body, kind, padding=option >> 6) if option != 255 else body
        if kind == tls_pairs.HANDSHAKE and body[:1] == b"\x18" and len(body) == 5:
            sealer.update()
    return out


# -- plaintext, private networks -----------------------------------------------------------------


def plaintext(data: bytes) -> None:
    """The exchange of plaintext."""
    if data:
        run(_shaken(lambda: PlaintextTransport(OURS), data))


async def _hidden(nonce: bytes, data: bytes) -> bytes:
    """`data` as a peer with our key sends it, its nonce in front."""
    line = Line()
    box = line.mailbox
    box.insert(PnetLayer(KEY, nonce))
    box.write(data)
    await settle(2)
    sent = line.sent()
    await line.finish()
    return sent


def pnet(data: bytes) -> None:
    """A peer of a private network, or a stranger: after an odd first byte comes what has a wrong key."""

    async def main() -> None:
        raw, is_ours = data[1:], data[0] % 2 == 0 and len(data) > 25
        if is_ours:
            raw = await _hidden(raw[:24], raw[24:])
        whole = await _received([raw], PnetLayer(KEY, bytes(24)))
        pieces = await _received(cut(raw), PnetLayer(KEY, bytes(24)))
        same(whole, pieces, "a private network depends on how it is cut")
        check(whole[1] in (None, "WrongNetworkKey", "ConnectionClosed"), "an error", whole[1])
        check(not whole[0] or whole[0].startswith(HEADER), "a byte of a stranger passed", whole[0])
        if whole[1] is None and is_ours and data[25:].startswith(HEADER):
            same(whole[0], data[25:], "a private network changes what it carries")

    if data:
        run(main())


TARGETS = {
    "noise": noise,
    "noise_records": noise_records,
    "tls": tls,
    "tls_certificate": tls_certificate,
    "tls_records": tls_records,
    "plaintext": plaintext,
    "pnet": pnet,
}
