"""Circuit relay v2: its messages, its vouchers and its addresses, as values.

Comes in: message bodies, or a stream to read one from; multiaddrs. Goes out: Hop, Stop and Reservation
values; framed messages. Whatever a peer sends, reading it returns, wants more, or raises RemoteProtocolError
or LimitExceeded. Never reads a byte after a message: it belongs to the circuit. Never reads a clock.
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
"""The protocol between a client and a relay."""
STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
"""The protocol between a relay and the target."""
CIRCUIT: Final = Multiaddr("/p2p-circuit")
"""The component that means "through a relay"."""
VOUCHER_DOMAIN: Final = "libp2p-relay-rsvp"
"""The context in which a voucher is signed."""
VOUCHER_TYPE: Final = b"\x03\x02"
"""Multicodec libp2p-relay-rsvp, two bytes big-endian."""

_HIGH_BIT: Final = 0x80


class Status(enum.IntEnum):
    """The status in an answer."""

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
    """The limits of one circuit: seconds in all, bytes in each direction; 0: no limit."""

    duration_s: int = 0
    data_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation that a relay grants.

    Attributes:
        expire: unix seconds; addrs: those of the relay, each with its /p2p and without /p2p-circuit.
        voucher: a signed envelope, see `check_voucher`; None if the relay sends none (rust).
    """

    expire: int
    addrs: tuple[Multiaddr, ...] = ()
    voucher: bytes | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """A message of a hop stream; a missing field is None, and so is an unknown status."""

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
    """A message of a stop stream; its fields are as in Hop."""

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
    """The source of a message: a Stream."""

    def read_exactly(self, n: int, /) -> Awaitable[bytes]: ...


async def read_body(io: Readable) -> bytes:
    """The body of the next message; the bytes after it stay in `io`.

    Raises: LimitExceeded, RemoteProtocolError: a bad length; all that `io` raises.
    """
    prefix = await io.read_exactly(1)
    if prefix[0] >= _HIGH_BIT:
        prefix += await io.read_exactly(1)
    return await io.read_exactly(body_length(prefix))


def body_length(prefix: bytes) -> int:
    """The length that `prefix` encodes in one byte, or in two if the first has its high bit set.

    Raises:
        RemoteProtocolError: longer than two bytes, or not in its shortest form. LimitExceeded: too long.
    """
    length = prefix[0]
    if length >= _HIGH_BIT:
        length = length & 0x7F | prefix[1] << 7
        if length < _HIGH_BIT or prefix[1] >= _HIGH_BIT:
            raise RemoteProtocolError(f"{prefix.hex()} is not a valid length of a circuit message")
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
    if not message.HasField("type"):  # protobuf also drops an unknown number
        raise RemoteProtocolError("a circuit message without a known type")
    return message


def _peer(message: pb.HopMessage | pb.StopMessage) -> PeerId | None:
    if not message.HasField("peer"):
        return None
    try:
        return PeerId(message.peer.id)
    except IdentityError as error:
        raise RemoteProtocolError(f"a circuit message has no valid peer: {error}") from error


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
    """A voucher: the relay with this key certifies that it relays to `peer` until `expire` (unix seconds)."""
    from p2pcore.pb.circuit_pb2 import Voucher

    relay = key.peer_id()
    payload = Voucher(relay=relay.to_bytes(), peer=peer.to_bytes(), expiration=expire).SerializeToString()
    return Envelope.seal(key, VOUCHER_DOMAIN, VOUCHER_TYPE, payload).raw


def check_voucher(data: bytes, relay: PeerId, peer: PeerId, now: float) -> int:
    """Checks that the envelope `data` is a voucher of `relay` for `peer`, valid at `now` (unix seconds).

    Returns: when it expires, unix seconds.
    Raises: IdentityError: malformed, forged, of another domain or type, for other peers, or expired.
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
    """The parts of a relayed address: addresses of the relay (may be empty), its id, the target's id."""

    addrs: tuple[Multiaddr, ...]
    relay: PeerId
    target: PeerId | None


def route_of(addr: Multiaddr) -> Route:
    """Parses `[/…]/p2p/RELAY/p2p-circuit[/p2p/TARGET]`.

    Raises: AddressError: another form; it leads through two relays, or through a relay to itself.
    """
    parts = [str(part.protocols()[0]) for part in addr.split()]
    if parts.count("p2p-circuit") != 1:
        raise AddressError(f"{addr}: expected exactly one p2p-circuit")
    at = parts.index("p2p-circuit")
    before = Multiaddr.join(*addr.split()[:at])
    after = Multiaddr.join(*addr.split()[at + 1 :])
    relay, target = before.peer_id, after.peer_id
    if relay is None or (after and target is None) or len(parts) > at + 2:
        raise AddressError(f"{addr} is not …/p2p/RELAY/p2p-circuit or …/p2p/RELAY/p2p-circuit/p2p/TARGET")
    if relay == target:
        raise AddressError(f"{addr} leads through a relay to itself")
    direct = before.without_p2p()
    return Route((direct,) if direct else (), relay, target)


def through(addr: Multiaddr | None, relay: PeerId) -> Multiaddr:
    """The circuit address through `relay` at `addr`; without `addr` if that is None (UNIX)."""
    end = f"/p2p/{relay}/p2p-circuit"
    return Multiaddr(end) if addr is None else addr.without_p2p().encapsulate(end)
