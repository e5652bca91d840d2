"""Plaintext v2: both sides say who they are, and nobody proves anything. For tests and closed networks only.

Comes in: the mailbox of a raw chain, a host key. Goes out: a PlainChannel below that mailbox, and the id that
the peer claims. Never waits beyond its caller's deadline (go's does: its fault W9), never accepts an id that
does not match the key sent with it. Specification: libp2p plaintext, version 2.0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from p2pcore._fast.codec import varint
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore.errors import (
    HandshakeError,
    IdentityError,
    IncompleteRead,
    LimitExceeded,
    PeerIdMismatch,
    PeerIsSelf,
    RemoteProtocolError,
)
from p2pcore.interfaces import Secured
from p2pcore.limits import MAX_PLAINTEXT_EXCHANGE_BYTES
from p2pcore.pb.plaintext_pb2 import Exchange
from p2pcore.values.keys import PublicKey
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore.values.keys import PrivateKey

PROTOCOL: Final = "/plaintext/2.0.0"
"""The multistream-select id."""


class PlaintextTransport:
    """`/plaintext/2.0.0` for one host; satisfies interfaces.SecureTransport.

    Every peer may claim any id, and everybody on the path can read and change the data.

    Args:
        private_key: the host's key; only its public half is used.
    """

    __slots__ = ("_message", "_peer_id")

    protocol: Final = PROTOCOL

    def __init__(self, private_key: PrivateKey) -> None:
        self._peer_id = private_key.peer_id()
        exchange = Exchange(id=bytes(self._peer_id), pubkey=private_key.public_key.to_protobuf())
        message = exchange.SerializeToString()
        self._message = varint.encode(len(message)) + message

    async def secure_inbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection."""
        try:
            mailbox.write(self._message)
            peer, key = self._check(await _read_message(mailbox), expected)
            mailbox.insert(PlainChannel())
        except IncompleteRead as error:
            raise HandshakeError("the peer ended the connection during the plaintext exchange") from error
        except (RemoteProtocolError, LimitExceeded) as error:
            raise HandshakeError(f"the peer's plaintext exchange is invalid: {error}") from error
        return Secured(peer, key)

    async def secure_outbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. Both sides do the same at the same time."""
        return await self.secure_inbound(mailbox, expected, muxers)

    def _check(self, message: bytes, expected: PeerId | None) -> tuple[PeerId, PublicKey]:
        """The id and the key that the peer claims."""
        try:
            exchange = Exchange.FromString(message)
            if not exchange.HasField("id") or not exchange.HasField("pubkey"):
                raise HandshakeError("the plaintext exchange lacks the peer's id or its key")
            key = PublicKey.from_protobuf(exchange.pubkey)
            claimed = PeerId.from_bytes(exchange.id)
        except DecodeError as error:
            raise HandshakeError("the plaintext exchange is not a protobuf message") from error
        except IdentityError as error:
            raise HandshakeError(f"the peer's identity is not acceptable: {error}") from error
        if key.peer_id() != claimed:
            raise HandshakeError(f"the peer says it is {claimed}, with the key of {key.peer_id()}")
        if expected is not None and claimed != expected:
            raise PeerIdMismatch(expected, claimed)
        if claimed == self._peer_id:
            raise PeerIsSelf(claimed)
        return claimed, key


async def _read_message(mailbox: Mailbox) -> bytes:
    """The peer's message; the bytes after it are not read."""
    prefix = await mailbox.read_exactly(1)
    while (decoded := varint.decode(prefix)) is None:
        prefix += await mailbox.read_exactly(1)
    if decoded[0] > MAX_PLAINTEXT_EXCHANGE_BYTES:
        raise LimitExceeded("MAX_PLAINTEXT_EXCHANGE_BYTES", decoded[0], MAX_PLAINTEXT_EXCHANGE_BYTES)
    return await mailbox.read_exactly(decoded[0])
