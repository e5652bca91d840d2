"""Values from bytes and text: addresses, ids, keys, records, key files; messages of identify and of relays.

A value that was read is written again as it was read, or reads as the same value.
"""

from __future__ import annotations

import functools

from promise import check, cut, run, same, tried

from key_vectors import INITIATOR
from p2pcore import limits
from p2pcore._fast.codec import multibase, varint
from p2pcore.errors import AddressError, IdentityError, IncompleteRead, LimitExceeded, RemoteProtocolError
from p2pcore.protocols import identify_message
from p2pcore.protocols.identify_message import IdentifyInfo, MessageReader
from p2pcore.relay import messages
from p2pcore.security.pnet import PSK
from p2pcore.values import record
from p2pcore.values.keys import PrivateKey, PublicKey, parse_key
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

KEY = PrivateKey.from_seed(INITIATOR.seed)
OTHER = PrivateKey.from_seed(bytes(32)).peer_id()


def text_of(data: bytes) -> str:
    """Any text: bytes that are no UTF-8 become lone surrogates, as in a text from the system."""
    return data.decode("utf-8", "surrogateescape")


# -- addresses -----------------------------------------------------------------------------------


def multiaddr(data: bytes) -> None:
    """The binary form."""
    addr = tried(lambda: Multiaddr(data), AddressError, LimitExceeded)
    if addr is not None:
        same(addr.to_bytes(), data, "an address is written otherwise than it was read")
        _asked(addr)


def multiaddr_text(data: bytes) -> None:
    """The text form."""
    addr = tried(lambda: Multiaddr(text_of(data)), AddressError, LimitExceeded)
    if addr is not None:
        _asked(addr)


def _asked(addr: Multiaddr) -> None:
    """Everything an address can be asked."""
    same(Multiaddr(str(addr)), addr, "text of an address reads as another one")
    same(Multiaddr(addr.to_bytes()), addr, "bytes of an address read as another one")
    parts = addr.split()
    same(Multiaddr.join(*parts), addr, "parts of an address join to another one")
    same(len(parts), len(addr.items()), "as many parts as items")
    tried(lambda: addr.peer_id, IdentityError)
    tried(addr.without_p2p, IdentityError)
    tried(addr.without_zone, AddressError)
    tried(lambda: addr.encapsulate("/p2p-circuit"), AddressError, LimitExceeded)
    check(not (addr.is_public and addr.is_private), "both public and private", addr)
    _ = addr.is_loopback, addr.is_unspecified, addr.is_relayed, addr.protocols(), hash(addr), repr(addr)
    tried(lambda: messages.route_of(addr), AddressError, IdentityError)


# -- ids, keys, records --------------------------------------------------------------------------


def peer_id(data: bytes) -> None:
    """Binary and text forms of ids; multibase and varints."""
    for source in (data, text_of(data)):
        made = tried(functools.partial(PeerId, source), IdentityError)
        if made is not None:
            for form in (str(made), made.to_bytes(), made.to_base32(), made.to_base36()):
                same(PeerId(form), made, "a form of an id reads as another id")
            if isinstance(source, bytes):
                same(made.to_bytes(), data, "an id is written otherwise than it was read")
            made.public_key_bytes()
    read = tried(lambda: varint.decode(data), RemoteProtocolError)
    if read is not None:
        same(varint.encode(read[0]), data[: read[1]], "a varint that is not the shortest was read")
    text = text_of(data)
    decoded = tried(lambda: multibase.decode(text), IdentityError)
    if decoded is not None:  # bases that are no power of two take less than the others
        same(multibase.decode(multibase.encode(text[0], decoded)), decoded, "a base reads as other bytes")


def keys(data: bytes) -> None:
    """Protobufs of public and private keys."""
    public = tried(lambda: PublicKey.from_protobuf(data), IdentityError)
    if public is not None:
        same(public.to_protobuf(), data, "a public key is written otherwise than it was read")
        check(public.verify(b"message", data[-64:]) is False, "a signature from nowhere", data)
        check(public.peer_id().matches(data), "the id of a key does not match it")
    private = tried(lambda: PrivateKey.from_protobuf(data), IdentityError)
    if private is not None:
        same(PrivateKey.from_protobuf(private.to_protobuf()), private, "a private key reads as another one")


def key_file(data: bytes) -> None:
    """Key files in all forms, and files of network keys."""
    form = (None, "seed", "public", "pem", "der", "protobuf")[data[0] % 6] if data else None
    tried(lambda: parse_key(data[1:], form), IdentityError)
    tried(lambda: PSK.parse(data), IdentityError)
    if len(data) != 32 and b"\0" not in data:  # else a path
        psk = tried(lambda: PSK.from_text(text_of(data)), IdentityError)
        if psk is not None:
            same(PSK.parse(psk.encode()), psk, "a network key reads as another one")


def envelope(data: bytes) -> None:
    """Envelopes as they come; payloads of peer records and vouchers, signed so that they are looked into."""
    opened = tried(
        lambda: record.Envelope.open(data, record.PEER_RECORD_DOMAIN, record.PEER_RECORD_TYPE), IdentityError
    )
    if opened is not None:
        sealed = record.Envelope(opened.public_key, *_parts(opened), raw=data)
        same(len(_again(sealed)), len(data), "unsigned bytes ride in an envelope that verifies")
        tried(lambda: record.open_peer_record(data), IdentityError)
    raw = _sealed(record.PEER_RECORD_DOMAIN, record.PEER_RECORD_TYPE, data)
    found = tried(lambda: record.open_peer_record(raw), IdentityError)
    if found is not None:
        same(found.peer_id, KEY.peer_id(), "a record about another peer than its signer")
        check(len(found.addrs) <= limits.MAX_RECORD_ADDRS, "too many addresses", len(found.addrs))
    voucher = _sealed(messages.VOUCHER_DOMAIN, messages.VOUCHER_TYPE, data)
    tried(lambda: messages.check_voucher(voucher, KEY.peer_id(), OTHER, 0.0), IdentityError)


def _sealed(domain: str, kind: bytes, payload: bytes) -> bytes:
    return record.Envelope.seal(KEY, domain, kind, payload).raw if payload else b""


def _parts(opened: record.Envelope) -> tuple[bytes, bytes, bytes]:
    return opened.payload_type, opened.payload, opened.signature


def _again(opened: record.Envelope) -> bytes:
    from p2pcore.pb.envelope_pb2 import Envelope as Message

    return Message(
        public_key=opened.public_key.to_protobuf(),
        payload_type=opened.payload_type,
        payload=opened.payload,
        signature=opened.signature,
    ).SerializeToString()


# -- messages ------------------------------------------------------------------------------------


def identify(data: bytes) -> None:
    """The messages of one identify stream."""
    whole, pieces = _merged([data]), _merged(cut(data))
    same(whole, pieces, "identify depends on how it is cut")


def _merged(pieces: list[bytes]) -> IdentifyInfo | None:
    reader = MessageReader()
    for piece in pieces:
        if tried(lambda piece=piece: (reader.feed(piece),), RemoteProtocolError, LimitExceeded) is None:
            return None
        held = len(reader._buffer)
        check(held <= limits.MAX_IDENTIFY_MESSAGE_BYTES + 10, "identify holds more than a message", held)
    message = tried(reader.result, RemoteProtocolError)
    if message is None:
        return None
    info = identify_message.update(IdentifyInfo(KEY.peer_id()), message)
    if info is None:
        return None
    check(len(info.protocols) <= limits.MAX_IDENTIFY_PROTOCOLS, "too many protocols")
    check(len(info.addrs) <= max(limits.MAX_IDENTIFY_ADDRS, limits.MAX_RECORD_ADDRS), "too many addresses")
    check(len(info.agent_version) <= limits.MAX_AGENT_CHARS, "a long agent version")
    return info


def relay(data: bytes) -> None:
    """Messages of hop and stop streams, with and without their length."""
    for kind in (messages.Hop, messages.Stop):
        message = tried(functools.partial(kind.parse, data), RemoteProtocolError, LimitExceeded)
        if message is not None:
            again = tried(message.encode, LimitExceeded)
            if again is not None:
                same(_body(again), message.encode()[-len(_body(again) or b"") :], "a framed message")
                same(kind.parse(_body(again) or b""), message, "a message reads as another one")
    _body(data)


class _Io:
    """Bytes to read from, and no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read_exactly(self, n: int, /) -> bytes:
        out, self._data = self._data[:n], self._data[n:]
        if len(out) < n:
            raise IncompleteRead(out, n)
        return out


def _body(data: bytes) -> bytes | None:
    async def body() -> bytes:
        return await messages.read_body(_Io(data))

    return tried(lambda: run(body()), RemoteProtocolError, LimitExceeded, IncompleteRead)


TARGETS = {
    "multiaddr": multiaddr,
    "multiaddr_text": multiaddr_text,
    "peer_id": peer_id,
    "keys": keys,
    "key_file": key_file,
    "envelope": envelope,
    "identify": identify,
    "relay": relay,
}
