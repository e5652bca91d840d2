"""The bytes of requests and answers between two processes of a fleet.

Comes in: an Order, an answer, a NotDelivered; or bytes from the bus. Goes out: the other. Never sends
anything. Bytes that are no envelope raise RemoteProtocolError, and nothing else.

A time is what is left of it: the clocks of two machines differ.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from p2pcore.codes import Undelivered
from p2pcore.errors import NotDelivered, RemoteProtocolError
from p2pcore.limits import FLEET_MAX_REASON_CHARS
from p2pcore.values.peer_id import PeerId

ALIVE: Final = b""
"""Asks a process whether it is there; the answer says nothing more."""
PEERS: Final = b"?"
"""Asks a process for the marks of its peers; see hints.marks_of."""

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">BBIBBBB")  # version, flags, milliseconds left, then four lengths
_WANTS_ANSWER: Final = 1
_TAKEN: Final = 0


@dataclass(frozen=True, slots=True)
class Order:
    """A message that one process asks another, or itself, to hand to a peer.

    Attributes:
        process: who asks. peer: whom it is for. protocol: of the new stream. message: what is sent on it.
        wants_answer: True: one message is read back; False: the peer has to end the stream.
        left_s: seconds until the deadline.
        key: the id of a message that may be sent more than once; "": it is sent once.
    """

    process: str
    peer: PeerId
    protocol: str
    message: bytes
    wants_answer: bool
    left_s: float
    key: str = ""


def packed(order: Order, left_s: float) -> bytes:
    """`order` as bytes: FLEET_MAX_HEAD_BYTES more than its message, at most.

    Args: left_s: what is left of the seconds of the order.
    """
    parts = (
        order.process.encode(),
        order.peer.to_bytes(),
        order.protocol.encode(),
        order.key.encode(),
    )
    left_ms = max(0, int(left_s * 1000))
    head = _HEAD.pack(_VERSION, _WANTS_ANSWER * order.wants_answer, left_ms, *map(len, parts))
    return b"".join((head, *parts, order.message))


def unpacked(data: bytes) -> Order:
    """The order in `data`. Raises RemoteProtocolError: there is none."""
    try:
        version, flags, left_ms, process, peer, protocol, key = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise RemoteProtocolError(f"an order of version {version}, not {_VERSION}")
        peer += (process := process + _HEAD.size)  # where each part ends
        key += (protocol := protocol + peer)
        if key > len(data):
            raise RemoteProtocolError(f"an order of {key} bytes and more has only {len(data)}")
        return Order(
            data[_HEAD.size : process].decode(),
            PeerId(data[process:peer]),
            data[peer:protocol].decode(),
            data[key:],
            bool(flags & _WANTS_ANSWER),
            left_ms / 1000,
            data[protocol:key].decode(),
        )
    except (struct.error, ValueError) as error:  # an IdentityError is a ValueError
        raise RemoteProtocolError(f"an order is malformed: {error}") from None


def packed_answer(answer: bytes) -> bytes:
    """The answer of the peer as bytes."""
    return bytes((_TAKEN, 0)) + answer


def packed_failure(error: NotDelivered) -> bytes:
    """Why there is no answer, as bytes."""
    detail = (error.detail or "")[:FLEET_MAX_REASON_CHARS]
    return bytes((error.reason, error.may_have_arrived)) + detail.encode()


def answer_of(peer: PeerId, data: bytes) -> bytes:
    """The answer in `data`.

    Raises:
        NotDelivered: the process says that there is none.
        RemoteProtocolError: `data` is no answer.
    """
    if len(data) < 2:
        raise RemoteProtocolError(f"an answer has at least 2 bytes, not {len(data)}")
    if data[0] == _TAKEN:
        return data[2:]
    try:
        reason = Undelivered(data[0])
    except ValueError:
        raise RemoteProtocolError(f"an answer of the unknown kind {data[0]}") from None
    detail = data[2:].decode(errors="replace")
    raise NotDelivered(peer, reason, may_have_arrived=bool(data[1]), detail=detail)
