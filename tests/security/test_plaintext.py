"""security/plaintext.py: the vector, and every exchange that must not pass."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given, strategies as st

from harness import cuts, looped, run, seconds
from key_vectors import INITIATOR
from p2pcore import Host, ListenerOptions
from p2pcore._fast.codec import varint
from p2pcore.errors import HandshakeError, PeerIdMismatch
from p2pcore.interfaces import Secured
from p2pcore.limits import MAX_PLAINTEXT_EXCHANGE_BYTES
from p2pcore.pb.plaintext_pb2 import Exchange
from p2pcore.security.plaintext import PlaintextTransport
from p2pcore.values.keys import KeyType, PrivateKey
from p2pcore.values.peer_id import PeerId
from wires import connected, received

EXCHANGE_OF_I = bytes.fromhex(
    "4e0a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    "1224080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
)
KEY_I = PrivateKey.from_seed(INITIATOR.seed)
ID_I = KEY_I.peer_id()
US, OTHER = PrivateKey.generate(), PrivateKey.generate()


def exchange(peer: PeerId | None = ID_I, key: bytes | None = KEY_I.public_key.to_protobuf()) -> bytes:
    """What a peer sends: the claimed id, and the key beside it."""
    message = Exchange(id=None if peer is None else bytes(peer), pubkey=key).SerializeToString()
    return varint.encode(len(message)) + message


async def met(*chunks: bytes, expected: PeerId | None = None, ends: bool = True) -> Secured:
    """secure_inbound of ours with what the peer sends, and then its end."""
    async with connected() as (mailbox, theirs):
        inbound = asyncio.create_task(
            PlaintextTransport(US).secure_inbound(mailbox, expected, ("/yamux/1.0.0",))
        )
        for chunk in chunks:
            theirs.send(chunk)
            await asyncio.sleep(0)
        if ends:
            theirs.shutdown(socket.SHUT_WR)
        return await inbound


@looped
async def test_exchange_vector() -> None:
    assert exchange() == EXCHANGE_OF_I

    async with connected() as (mailbox, theirs):
        theirs.send(exchange(US.peer_id(), US.public_key.to_protobuf()))
        await PlaintextTransport(KEY_I).secure_outbound(mailbox, None, ())
        assert await received(theirs, len(EXCHANGE_OF_I)) == EXCHANGE_OF_I


@looped
async def test_the_exchange_may_be_cut_anywhere() -> None:
    for chunks in cuts(EXCHANGE_OF_I):
        assert await met(*chunks) == Secured(ID_I, KEY_I.public_key, None)


@pytest.mark.parametrize("kind", list(KeyType), ids=lambda kind: kind.name.lower())
def test_keys_of_every_type(kind: KeyType) -> None:
    key = PrivateKey.generate(kind)
    secured = run(met(exchange(key.peer_id(), key.public_key.to_protobuf())))
    assert secured == Secured(key.peer_id(), key.public_key, None)


def test_another_peer_than_expected_is_named() -> None:
    with pytest.raises(PeerIdMismatch) as caught:
        run(met(EXCHANGE_OF_I, expected=OTHER.peer_id()))
    assert (caught.value.expected, caught.value.actual) == (OTHER.peer_id(), ID_I)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (exchange(peer=None), "lacks"),
        (exchange(key=None), "lacks"),
        (exchange(OTHER.peer_id()), "says it is"),
        (exchange(key=KEY_I.public_key.to_protobuf() + b"\0"), "not acceptable"),
        (exchange(key=b"\x08\x07\x12\x01\x01"), "not acceptable"),
        (b"\x04\x0a\x02\x12\x20", "lacks"),
        (exchange(US.peer_id(), US.public_key.to_protobuf()), "this host itself"),
        (b"\x02\xff\xff", "not a protobuf"),
        (b"\x00", "lacks"),
        (varint.encode(MAX_PLAINTEXT_EXCHANGE_BYTES + 1), str(MAX_PLAINTEXT_EXCHANGE_BYTES)),
        (b"\xff" * 10, "varint"),
        (b"\x80\x00", "padded"),
        (b"\x13/multistream/1.0.0\n", "not a protobuf"),
    ],
    ids=[
        "no id",
        "no key",
        "another key",
        "trailing",
        "unknown type",
        "bad id",
        "ourselves",
        "garbage",
        "empty",
        "too long",
        "overflow",
        "padded",
        "multistream",
    ],
)
def test_bad_exchanges_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(HandshakeError, match=words):
        run(met(data))


@looped
async def test_the_end_of_input_anywhere_fails_the_exchange() -> None:
    for at in range(len(EXCHANGE_OF_I)):
        with pytest.raises(HandshakeError, match="ended the connection"):
            await met(EXCHANGE_OF_I[:at])


def test_a_length_over_the_limit_is_not_waited_for() -> None:
    with pytest.raises(HandshakeError):
        run(met(varint.encode(1 << 40), ends=False))


@looped
async def test_a_mute_peer_ends_by_the_deadline_and_does_not_hold_up_the_close() -> None:
    """go's exchange ignores the deadline, and its listener's close waits for it (W9)."""

    async def mute(server: Host) -> asyncio.StreamReader:
        port = server.addrs[0].value_for_protocol("tcp")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x13/multistream/1.0.0\n\x11/plaintext/2.0.0\n")
        assert await reader.readexactly(20 + 18) == b"\x13/multistream/1.0.0\n\x11/plaintext/2.0.0\n"
        return reader

    async with Host(security=["plaintext"], listener=ListenerOptions(accept_timeout=seconds(0.5))) as server:
        reader = await mute(server)
        await reader.read()  # our exchange, then the end
    async with Host(security=["plaintext"], listener=ListenerOptions(accept_timeout=1000)) as server:
        await mute(server)


@given(st.binary(max_size=120))
def test_any_message_is_an_identity_or_a_handshake_error(message: bytes) -> None:
    data = varint.encode(len(message)) + message
    try:
        secured = run(met(data))
    except HandshakeError:
        return
    assert secured.remote_key.peer_id() == secured.remote_peer
