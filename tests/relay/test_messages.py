"""circuit.py: the messages of circuit relay v2, word for word, their vouchers, and every bad input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from harness import feeding, run
from p2pcore._fast.codec import varint
from p2pcore.errors import AddressError, IdentityError, IncompleteRead, LimitExceeded, RemoteProtocolError
from p2pcore.pb.circuit_pb2 import HopMessage, Voucher
from p2pcore.relay.messages import (
    VOUCHER_DOMAIN,
    VOUCHER_TYPE,
    Hop,
    HopType,
    Limit,
    Reservation,
    Status,
    Stop,
    StopType,
    body_length,
    check_voucher,
    read_body,
    route_of,
    seal_voucher,
    through,
)
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.record import Envelope

RELAY = PeerId("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")
CLIENT = PeerId("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5")
RELAY_ADDR = Multiaddr(f"/ip4/198.51.100.1/tcp/4001/p2p/{RELAY}")
EXPIRE = 1700003600
NOW = EXPIRE - 3600.0

VOUCHER = bytes.fromhex(
    "0a24080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394120203021a560a260024080112208"
    "139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b39412260024080112208a88e3dd7409f195fd52db2d3c"
    "ba5d72ca6709bf1d94121bf3748801b40f6f5c1890fecfaa062a40fb3898df6678f413699841dd22d93e4fa0604fae945203f4426"
    "64875c5720f0804ac1eaef4e9af6bf5bd9303933601311dacd4842bb94ea503ab13441edc6b00"
)
GRANTED = (
    "8f0208021a80020890fecfaa06123104c6336401060fa1a503260024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b"
    "4ee37a25df60f5b8fc9b3941ac4010a24080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
    "120203021a560a260024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3941226002408011"
    "2208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1890fecfaa062a40fb3898df6678f413699841"
    "dd22d93e4fa0604fae945203f442664875c5720f0804ac1eaef4e9af6bf5bd9303933601311dacd4842bb94ea503ab13441edc6b0"
    "022060878108080082864"
)
LIMIT = Limit(120, 131072)
CODES = [100, 200, 201, 202, 203, 204, 400, 401]
HOP_CODES = ["64", "c801", "c901", "ca01", "cb01", "cc01", "9003", "9103"]

HOPS = {
    "020800": Hop(HopType.RESERVE),
    GRANTED: Hop(
        HopType.STATUS,
        reservation=Reservation(EXPIRE, (RELAY_ADDR,), VOUCHER),
        limit=LIMIT,
        status=Status.OK,
    ),
    "2c080112280a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c": Hop(
        HopType.CONNECT, peer=CLIENT
    ),
    "0c080222060878108080082864": Hop(HopType.STATUS, limit=LIMIT, status=Status.OK),
} | {
    f"{3 + len(code) // 2:02x}080228{code}": Hop(HopType.STATUS, status=Status(number))
    for number, code in zip(CODES, HOP_CODES, strict=True)
}
STOPS = {
    "34080012280a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1a06087810"
    "808008": Stop(StopType.CONNECT, peer=CLIENT, limit=LIMIT)
} | {
    f"{3 + len(code) // 2:02x}080120{code}": Stop(StopType.STATUS, status=Status(number))
    for number, code in zip(CODES, HOP_CODES, strict=True)
}


class Script:
    """Reads what is given, in pieces as they come, and no byte more than is asked for."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = list(chunks)
        self.left = b""

    async def read_exactly(self, n: int) -> bytes:
        while len(self.left) < n and self._chunks:
            self.left += self._chunks.pop(0)
        if len(self.left) < n:
            raise IncompleteRead(self.left, n)
        out, self.left = self.left[:n], self.left[n:]
        return out

    @property
    def rest(self) -> bytes:
        return self.left + b"".join(self._chunks)


# -- vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOPS)
def test_each_hop_message_is_the_specifications(text: str) -> None:
    assert HOPS[text].encode().hex() == text
    assert Hop.parse(bytes.fromhex(text)[2 if text is GRANTED else 1 :]) == HOPS[text]


@pytest.mark.parametrize("text", STOPS)
def test_each_stop_message_is_the_specifications(text: str) -> None:
    assert STOPS[text].encode().hex() == text
    assert Stop.parse(bytes.fromhex(text)[1:]) == STOPS[text]


def test_the_status_codes_of_the_vectors_are_all_there_are_but_unused() -> None:
    assert [int(status) for status in Status][1:] == CODES


@pytest.mark.parametrize("text", [*HOPS, *STOPS])
def test_a_message_is_read_however_it_is_cut_and_nothing_behind_it(text: str) -> None:
    data = bytes.fromhex(text)
    for chunks, tail in feeding(data):
        script = Script(chunks)
        body = run(read_body(script))
        assert varint.encode(len(body)) + body == data
        assert script.rest == tail


# -- bad input ---------------------------------------------------------------------------------


def test_a_message_over_4096_bytes_is_refused_before_it_is_read() -> None:
    assert body_length(varint.encode(4096)) == 4096
    with pytest.raises(LimitExceeded):
        body_length(varint.encode(4097))


@pytest.mark.parametrize("prefix", ["8000", "ff00", "8080", "ffff"])
def test_a_length_that_is_long_or_not_the_shortest_is_refused(prefix: str) -> None:
    with pytest.raises(RemoteProtocolError):
        body_length(bytes.fromhex(prefix))


@pytest.mark.parametrize(
    "body",
    ["", "2864", "0807", "0803", "08ffffffffffffffffff01", "ff", "08", "0801120a", "080112020a00", "0a00"],
)
def test_a_message_without_a_known_type_or_malformed_is_refused(body: str) -> None:
    for kind in (Hop, Stop):
        with pytest.raises(RemoteProtocolError):
            kind.parse(bytes.fromhex(body))


@pytest.mark.parametrize("peer", [b"", b"\x00", b"\x12\x20short", b"\x00\x24" + bytes(35), bytes(200)])
def test_a_peer_that_is_no_id_is_refused(peer: bytes) -> None:
    message = HopMessage(type=HopMessage.CONNECT)
    message.peer.id = peer
    with pytest.raises(RemoteProtocolError):
        Hop.parse(message.SerializeToString())


def test_a_status_nobody_knows_is_none_and_no_error() -> None:
    assert Hop.parse(bytes.fromhex("080228cd01")).status is None
    assert Stop.parse(bytes.fromhex("080120ffffffff0f")).status is None


def test_addresses_of_the_relay_that_cannot_be_parsed_are_skipped() -> None:
    message = HopMessage(type=HopMessage.STATUS)
    message.reservation.expire = 1
    message.reservation.addrs.extend([b"", b"\xff\xff\xff", RELAY_ADDR.to_bytes(), bytes(4000)])
    reservation = Hop.parse(message.SerializeToString()).reservation
    assert reservation == Reservation(1, (RELAY_ADDR,))


def test_only_so_many_addresses_of_a_relay_are_taken() -> None:
    message = HopMessage(type=HopMessage.STATUS)
    message.reservation.addrs.extend([RELAY_ADDR.to_bytes()] * 100)
    reservation = Hop.parse(message.SerializeToString()).reservation
    assert reservation is not None
    assert len(reservation.addrs) == 64


def test_what_would_be_longer_than_any_peer_reads_is_not_sent() -> None:
    with pytest.raises(LimitExceeded):
        Hop(HopType.STATUS, reservation=Reservation(1, (RELAY_ADDR,) * 200)).encode()


@given(st.binary(max_size=300))
def test_whatever_comes_reading_it_returns_or_raises_what_it_may(data: bytes) -> None:
    for kind in (Hop, Stop):
        try:
            message = kind.parse(data)
        except (RemoteProtocolError, LimitExceeded):
            continue
        message.encode()

    async def read() -> None:
        try:
            await read_body(Script([data]))
        except (RemoteProtocolError, LimitExceeded, IncompleteRead):
            pass

    run(read())


statuses = st.none() | st.sampled_from(Status)
limit_values = st.none() | st.builds(Limit, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))


@given(
    st.sampled_from(HopType), st.none() | st.just(CLIENT), limit_values, statuses, st.integers(0, 2**64 - 1)
)
def test_what_is_encoded_is_parsed_again(
    kind: HopType, peer: PeerId | None, limit: Limit | None, status: Status | None, expire: int
) -> None:
    hop = Hop(kind, peer, Reservation(expire, (RELAY_ADDR,), VOUCHER), limit, status)
    body = run(read_body(Script([hop.encode()])))
    assert Hop.parse(body) == hop


# -- vouchers ----------------------------------------------------------------------------------


def test_the_voucher_of_the_specification_is_right_and_good_until_it_expires() -> None:
    assert check_voucher(VOUCHER, RELAY, CLIENT, NOW) == EXPIRE
    assert check_voucher(VOUCHER, RELAY, CLIENT, EXPIRE - 1) == EXPIRE
    with pytest.raises(IdentityError, match="expired"):
        check_voucher(VOUCHER, RELAY, CLIENT, EXPIRE)


KEY = PrivateKey.from_seed(bytes(32))
OTHER = PrivateKey.from_seed(bytes([9]) * 32)


def voucher(**values: Any) -> bytes:
    """A voucher of KEY for CLIENT, but for `values`."""
    payload = {"relay": KEY.peer_id().to_bytes(), "peer": CLIENT.to_bytes(), "expiration": EXPIRE} | {
        name: value for name, value in values.items() if name in ("relay", "peer", "expiration")
    }
    key, domain = values.get("key", KEY), values.get("domain", VOUCHER_DOMAIN)
    kind = values.get("kind", VOUCHER_TYPE)
    return Envelope.seal(key, domain, kind, Voucher(**payload).SerializeToString()).raw


def test_our_own_voucher_is_what_the_specification_makes_of_it() -> None:
    assert seal_voucher(KEY, CLIENT, EXPIRE) == voucher()
    assert check_voucher(voucher(), KEY.peer_id(), CLIENT, NOW) == EXPIRE


@pytest.mark.parametrize(
    "values",
    [
        {"domain": "libp2p-peer-record"},
        {"kind": b"\x03\x01"},
        {"kind": b"\x82\x06"},
        {"key": OTHER},
        {"key": OTHER, "relay": OTHER.peer_id().to_bytes()},
        {"relay": OTHER.peer_id().to_bytes()},
        {"peer": OTHER.peer_id().to_bytes()},
        {"relay": b"nobody"},
        {"peer": b""},
        {"expiration": int(NOW)},
        {"expiration": 0},
    ],
    ids=str,
)
def test_a_voucher_of_another_domain_type_signer_peer_or_time_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(IdentityError):
        check_voucher(voucher(**values), KEY.peer_id(), CLIENT, NOW)


def test_no_bit_of_a_voucher_can_be_changed() -> None:
    good = voucher()
    for at in range(0, len(good) * 8, 7):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        with pytest.raises(IdentityError):
            check_voucher(bytes(bad), KEY.peer_id(), CLIENT, NOW)


@given(st.binary(max_size=200))
def test_a_voucher_of_any_bytes_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(IdentityError):
        check_voucher(data, RELAY, CLIENT, NOW)


# -- addresses ---------------------------------------------------------------------------------


def test_the_address_bytes_of_the_specification_lead_through_the_relay_to_the_client() -> None:
    data = bytes.fromhex(
        "04c6336401060fa1a503260024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394a202a5"
        "03260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    )
    assert route_of(Multiaddr(data)) == ((RELAY_ADDR.without_p2p(),), RELAY, CLIENT)


def test_a_relay_without_an_address_and_a_route_without_a_target_are_routes() -> None:
    assert route_of(Multiaddr(f"/p2p/{RELAY}/p2p-circuit/p2p/{CLIENT}")) == ((), RELAY, CLIENT)
    assert route_of(RELAY_ADDR.encapsulate("/p2p-circuit")) == ((RELAY_ADDR.without_p2p(),), RELAY, None)


@pytest.mark.parametrize(
    "text",
    [
        "/p2p-circuit",
        f"/p2p-circuit/p2p/{CLIENT}",
        f"/ip4/198.51.100.1/tcp/4001/p2p-circuit/p2p/{CLIENT}",
        f"{RELAY_ADDR}/p2p/{CLIENT}",
        f"{RELAY_ADDR}/p2p-circuit/p2p/{RELAY}",
        f"{RELAY_ADDR}/p2p-circuit/p2p/{CLIENT}/p2p-circuit/p2p/{KEY.peer_id()}",
        f"{RELAY_ADDR}/p2p-circuit/ip4/198.51.100.2/tcp/1/p2p/{CLIENT}",
        f"{RELAY_ADDR}/p2p-circuit/ip4/198.51.100.2/tcp/1",
    ],
)
def test_a_circuit_through_two_relays_or_to_the_relay_or_without_one_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        route_of(Multiaddr(text))


def test_whoever_is_behind_a_relay_is_known_by_the_way_to_it() -> None:
    assert through(RELAY_ADDR, RELAY) == RELAY_ADDR.encapsulate("/p2p-circuit")
    assert through(RELAY_ADDR.without_p2p(), RELAY) == RELAY_ADDR.encapsulate("/p2p-circuit")
    assert through(None, RELAY) == Multiaddr(f"/p2p/{RELAY}/p2p-circuit")
