"""Circuit relay v2: its messages, its vouchers and its addresses, as values.

Comes in: message bodies, or a stream to read one from; multiaddrs. Goes out: Hop, Stop and Reservation
values; framed messages. Whatever a peer sends, reading it returns, wants more, or raises RemoteProtocolError
or LimitExceeded. Never reads a byte behind a message: those belong to the circuit. Never reads a clock.
Specification: libp2p relay/circuit-v2.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from p2pcore import limits
from p2pcore._fast.codec import varint
from p2pcore.errors import AddressError, IdentityError, LimitExceeded, RemoteProtocolError
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.record import Envelope, parse_signed

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from p2pcore.pb import circuit_pb2 as pb
    from p2pcore.values.keys import PrivateKey

    M = TypeVar("M", pb.HopMessage, pb.StopMessage)

HOP: Final = "/libp2p/circuit/relay/0.2.0/hop"
"""Spoken to a relay."""
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
"""Spoken by a relay to the target."""
CIRCUIT: Final = Multiaddr("/p2p-circuit")
"""The component that says "through a relay"."""
VOUCHER_DOMAIN: Final = "libp2p-relay-rsvp"
"""The context a voucher is signed in."""
VOUCHER_TYPE: Final = b"\x03\x02"
"""Multicodec libp2p-relay-rsvp, two bytes big-endian."""

_HIGH_BIT: Final = 0x80


class Status(enum.IntEnum):
    """What is answered to a request."""

    UNUSED = 0
    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


class HopType(enum.IntEnum):
    """The kinds of message on a hop stream."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopType(enum.IntEnum):
    """The kinds of message on a stop stream."""

    CONNECT = 0
    STATUS = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay allows one circuit: seconds in all, bytes each way; 0 is as much as one likes."""

    duration_s: int = 0
    data_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a relay grants.

    Attributes:
        expire: unix seconds; addrs: of the relay, each with its /p2p and without /p2p-circuit.
        voucher: a signed envelope, see `check_voucher`; None from relays that give none (rust).
    """

    expire: int
    addrs: tuple[Multiaddr, ...] = ()
    voucher: bytes | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """A message of a hop stream; what it does not have is None, and so is a status nobody knows."""

    type: HopType
    peer: PeerId | None = None
    reservation: Reservation | None = None
    limit: Limit | None = None
    status: Status | None = None

    def encode(self) -> bytes:
        """As sent, length prefix included."""
        from p2pcore.pb import circuit_pb2 as pb

        message = pb.HopMessage(type=int(self.type))  # type: ignore[arg-type]
        _fill(message, self.peer, self.limit, self.status)
        if self.reservation is not None:
            message.reservation.expire = self.reservation.expire
            message.reservation.addrs.extend(addr.to_bytes() for addr in self.reservation.addrs)
            if self.reservation.voucher is not None:
                message.reservation.voucher = self.reservation.voucher
        return _framed(message)

    @classmethod
    def parse(cls, body: bytes) -> Hop:
        """The message in `body`. Raises RemoteProtocolError: malformed, or without a known type."""
        from p2pcore.pb import circuit_pb2 as pb

        message = _parsed(pb.HopMessage, body)
        reservation = _reservation(message.reservation) if message.HasField("reservation") else None
        return cls(HopType(message.type), _peer(message), reservation, _limit(message), _status(message))


@dataclass(frozen=True, slots=True)
class Stop:
    """A message of a stop stream, as Hop."""

    type: StopType
    peer: PeerId | None = None
    limit: Limit | None = None
    status: Status | None = None

    def encode(self) -> bytes:
        """As sent, length prefix included."""
        from p2pcore.pb import circuit_pb2 as pb

        message = pb.StopMessage(type=int(self.type))  # type: ignore[arg-type]
        _fill(message, self.peer, self.limit, self.status)
        return _framed(message)

    @classmethod
    def parse(cls, body: bytes) -> Stop:
        """The message in `body`. Raises RemoteProtocolError: malformed, or without a known type."""
        from p2pcore.pb import circuit_pb2 as pb

        message = _parsed(pb.StopMessage, body)
        return cls(StopType(message.type), _peer(message), _limit(message), _status(message))


# -- on the wire -------------------------------------------------------------------------------


class Readable(Protocol):
    """What a message is read from: a Stream."""

    def read_exactly(self, n: int, /) -> Awaitable[bytes]: ...


async def read_body(io: Readable) -> bytes:
    """The body of the next message; the byte behind it is still in `io`.

    Raises: LimitExceeded, RemoteProtocolError: the length; whatever `io` raises.
    """
    prefix = await io.read_exactly(1)
    if prefix[0] >= _HIGH_BIT:
        prefix += await io.read_exactly(1)
    return await io.read_exactly(body_length(prefix))


def body_length(prefix: bytes) -> int:
    """Bytes that follow `prefix`, a length of one byte, or of two where the first has its high bit set.

    Raises:
        RemoteProtocolError: longer than two bytes, or not in its shortest form. LimitExceeded: too long.
    """
    length = prefix[0]
    if length >= _HIGH_BIT:
        length = length & 0x7F | prefix[1] << 7
        if length < _HIGH_BIT or prefix[1] >= _HIGH_BIT:
            raise RemoteProtocolError(f"{prefix.hex()} begins no length of a circuit message")
    if length > limits.MAX_CIRCUIT_MESSAGE_BYTES:
        raise LimitExceeded("MAX_CIRCUIT_MESSAGE_BYTES", length, limits.MAX_CIRCUIT_MESSAGE_BYTES)
    return length


def _framed(message: Message) -> bytes:
    body = message.SerializeToString()
    if len(body) > limits.MAX_CIRCUIT_MESSAGE_BYTES:
        raise LimitExceeded("MAX_CIRCUIT_MESSAGE_BYTES", len(body), limits.MAX_CIRCUIT_MESSAGE_BYTES)
    return varint.encode(len(body)) + body


def _fill(
    message: pb.HopMessage | pb.StopMessage, peer: PeerId | None, limit: Limit | None, status: Status | None
) -> None:
    if peer is not None:
        message.peer.id = peer.to_bytes()
    if limit is not None:
        message.limit.duration = limit.duration_s
        message.limit.data = limit.data_bytes
    if status is not None:
        message.status = int(status)  # type: ignore[assignment]


def _parsed(kind: type[M], body: bytes) -> M:
    from google.protobuf.message import DecodeError

    try:
        message = kind.FromString(body)
    except DecodeError as error:
        raise RemoteProtocolError("a circuit message is malformed") from error
    if not message.HasField("type"):  # so too where its number is none of ours
        raise RemoteProtocolError("a circuit message without a known type")
    return message


def _peer(message: pb.HopMessage | pb.StopMessage) -> PeerId | None:
    if not message.HasField("peer"):
        return None
    try:
        return PeerId(message.peer.id)
    except IdentityError as error:
        raise RemoteProtocolError(f"a circuit message names no peer: {error}") from error


def _limit(message: pb.HopMessage | pb.StopMessage) -> Limit | None:
    return Limit(message.limit.duration, message.limit.data) if message.HasField("limit") else None


def _status(message: pb.HopMessage | pb.StopMessage) -> Status | None:
    return Status(message.status) if message.HasField("status") else None


def _reservation(message: pb.Reservation) -> Reservation:
    addrs = tuple(_readable(message.addrs[: limits.MAX_RESERVATION_ADDRS]))
    return Reservation(message.expire, addrs, message.voucher if message.HasField("voucher") else None)


def _readable(addrs: Iterable[bytes]) -> Iterator[Multiaddr]:
    for data in addrs:
        try:
            yield Multiaddr(data)
        except (AddressError, LimitExceeded):
            continue


# -- vouchers ----------------------------------------------------------------------------------


def seal_voucher(key: PrivateKey, peer: PeerId, expire: int) -> bytes:
    """The relay of `key` certifies that `peer` is reached through it until `expire` (unix seconds)."""
    from p2pcore.pb.circuit_pb2 import Voucher

    relay = key.peer_id()
    payload = Voucher(relay=relay.to_bytes(), peer=peer.to_bytes(), expiration=expire).SerializeToString()
    return Envelope.seal(key, VOUCHER_DOMAIN, VOUCHER_TYPE, payload).raw


def check_voucher(data: bytes, relay: PeerId, peer: PeerId, now: float) -> int:
    """Checks that the envelope `data` is `relay`'s voucher for `peer`, good at `now` (unix seconds).

    Returns: until when it is good, unix seconds.
    Raises: IdentityError: forged, of another domain or type, malformed, about others, or expired.
    """
    from p2pcore.pb.circuit_pb2 import Voucher

    envelope = Envelope.open(data, VOUCHER_DOMAIN, VOUCHER_TYPE)
    voucher = parse_signed(Voucher, envelope.payload)
    signer = envelope.public_key.peer_id()
    if signer != relay or PeerId(voucher.relay) != relay:
        raise IdentityError(f"a voucher of {signer} for the relay {PeerId(voucher.relay)}, expected {relay}")
    if PeerId(voucher.peer) != peer:
        raise IdentityError(f"a voucher for {PeerId(voucher.peer)}, expected {peer}")
    if voucher.expiration <= now:
        raise IdentityError(f"a voucher that expired {now - voucher.expiration:.0f} s ago")
    return voucher.expiration


# -- addresses ---------------------------------------------------------------------------------


class Route(NamedTuple):
    """A relayed address in its parts: where the relay is (nothing: that is known), its id, the target."""

    addrs: tuple[Multiaddr, ...]
    relay: PeerId
    target: PeerId | None


def route_of(addr: Multiaddr) -> Route:
    """Splits `[/…]/p2p/RELAY/p2p-circuit[/p2p/TARGET]`.

    Raises: AddressError: not such an address; it leads through two relays, or a relay to itself.
    """
    parts = [str(part.protocols()[0]) for part in addr.split()]
    if parts.count("p2p-circuit") != 1:
        raise AddressError(f"{addr}: one p2p-circuit expected")
    at = parts.index("p2p-circuit")
    before = Multiaddr.join(*addr.split()[:at])
    after = Multiaddr.join(*addr.split()[at + 1 :])
    relay, target = before.peer_id, after.peer_id
    if relay is None or (after and target is None) or len(parts) > at + 2:
        raise AddressError(f"{addr}: …/p2p/RELAY/p2p-circuit or …/p2p/RELAY/p2p-circuit/p2p/TARGET expected")
    if relay == target:
        raise AddressError(f"{addr} leads through a relay to itself")
    direct = before.without_p2p()
    return Route((direct,) if direct else (), relay, target)


def through(addr: Multiaddr | None, relay: PeerId) -> Multiaddr:
    """The address of whoever is reached through `relay` at `addr`; None where it has none (UNIX)."""
    end = f"/p2p/{relay}/p2p-circuit"
    return Multiaddr(end) if addr is None else addr.without_p2p().encapsulate(end)
