"""The two parties of the noise vectors, and frames to talk to them.

Comes in: the secrets of the vectors. Goes out: keys, ids, and transports with known entropy.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from noise_vectors import (
    EPHEMERAL_SECRETS,
    STATIC_SECRETS,
)

from harness import run
from key_vectors import INITIATOR, RESPONDER
from p2pcore._fast.crypto.noise import KeyPair
from p2pcore.errors import HandshakeError
from p2pcore.interfaces import Secured
from p2pcore.pb.noise_pb2 import NoiseExtensions, NoiseHandshakePayload
from p2pcore.security import noise
from p2pcore.security.noise import Initiator, NoiseTransport, Responder
from p2pcore.values.keys import PrivateKey
from p2pcore.values.peer_id import PeerId
from wires import connected, received

KEY_I = PrivateKey.from_seed(INITIATOR.seed)
KEY_R = PrivateKey.from_seed(RESPONDER.seed)
ID_I = PeerId.from_text(INITIATOR.id)
ID_R = PeerId.from_text(RESPONDER.id)
STATIC_I, STATIC_R = (KeyPair.of(secret) for secret in STATIC_SECRETS)
Payload = Callable[[bytes], bytes]
"""From the static key the handshake proves to the payload the peer sends."""
Meet = Callable[[Payload, PeerId | None, Sequence[str]], Any]
MUXER = "/yamux/1.0.0"
MPLEX = "/mplex/6.7.0"


def nonce(n: int) -> bytes:
    return bytes(4) + n.to_bytes(8, "little")


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def transport_i() -> NoiseTransport:
    """The initiator of handshakes A and B."""
    return NoiseTransport(KEY_I, static_secret=STATIC_SECRETS[0], entropy=lambda _: EPHEMERAL_SECRETS[0])


def transport_r() -> NoiseTransport:
    """The responder of handshakes A and B."""
    return NoiseTransport(KEY_R, static_secret=STATIC_SECRETS[1], entropy=lambda _: EPHEMERAL_SECRETS[1])


async def received_frame(theirs: socket.socket) -> bytes:
    return await received(theirs, int.from_bytes(await received(theirs, 2)))


def signed(key: PrivateKey, static: bytes, *muxers: str, **fields: Any) -> bytes:
    """A valid payload of `key`; `fields` replace its parts; None leaves a part out."""
    parts: dict[str, Any] = {
        "identity_key": key.public_key.to_protobuf(),
        "identity_sig": key.sign(noise.SIGNATURE_PREFIX + static),
    }
    if muxers:
        parts["extensions"] = NoiseExtensions(stream_muxers=[name.encode() for name in muxers])
    parts.update(fields)
    return NoiseHandshakePayload(**parts).SerializeToString()


def failure_inbound(payload: Payload) -> HandshakeError:
    return failure(meet_responder, payload)


async def meet_responder(payload: Payload, expected: PeerId | None, muxers: Sequence[str]) -> Secured:
    """secure_inbound of R against an initiator that proves STATIC_I and says `payload`."""
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(transport_r().secure_inbound(mailbox, expected, muxers))
        peer = Initiator(STATIC_I, EPHEMERAL_SECRETS[0])
        theirs.send(frame(peer.write_1()))
        peer.read_2(await received_frame(theirs))
        theirs.send(frame(peer.write_3(payload(STATIC_I.public))))
        return await task


async def meet_initiator(payload: Payload, expected: PeerId | None, muxers: Sequence[str]) -> Secured:
    """secure_outbound of R against a responder that proves STATIC_I and says `payload`."""
    async with connected() as (mailbox, theirs):
        task = asyncio.create_task(transport_r().secure_outbound(mailbox, expected, muxers))
        peer = Responder(STATIC_I, EPHEMERAL_SECRETS[0])
        peer.read_1(await received_frame(theirs))
        theirs.send(frame(peer.write_2(payload(STATIC_I.public))))
        return await task


def failure(meet: Meet, payload: Payload, expected: PeerId | None = None) -> HandshakeError:
    """The error a payload ends with, for R in either role."""
    with pytest.raises(HandshakeError) as caught:
        run(meet(payload, expected, (MUXER,)))
    return caught.value
