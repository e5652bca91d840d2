"""The identify message: vectors both ways, every cut, and every malformed entry."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from harness import feeding
from p2pcore import limits
from p2pcore._fast.codec import varint
from p2pcore.errors import LimitExceeded, RemoteProtocolError
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.protocols import identify_message
from p2pcore.protocols.identify_message import IdentifyInfo, MessageReader, Prepared, build, encode, update
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.record import PeerRecord
from record_vectors import GO, LEGACY, OWN

KEY = PrivateKey.from_seed(b"\x01" * 32)
PEER = KEY.peer_id()
OTHER = PrivateKey.from_seed(b"\x02" * 32)
NOBODY = IdentifyInfo(PEER)

LISTEN = Multiaddr("/ip4/127.0.0.1/tcp/4001")
OBSERVED = Multiaddr("/ip4/198.51.100.9/tcp/50000")
PROTOCOLS = ("/ipfs/id/1.0.0", "/ipfs/ping/1.0.0")

PLAIN = bytes.fromhex(
    "770a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1208047f000001060fa11a0e2f69"
    "7066732f69642f312e302e301a102f697066732f70696e672f312e302e30220804c633640906c3502a0a697066732f302e312e3032"
    "0d703270636f72652f302e312e30"
)
SIGNED = bytes.fromhex(
    "b5020a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1208047f000001060fa11a0e2f"
    "697066732f69642f312e302e301a102f697066732f70696e672f312e302e30220804c633640906c3502a0a697066732f302e312e30"
    "320d703270636f72652f302e312e3042bb010a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b4"
    "0f6f5c120203011a4d0a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c108080a8"
    "b1e39fe7cb171a0a0a08047f000001060fa11a0d0a0b047f00000191020fa1cd032a407060872b4c8c31b98a8b8cc9d437f7d65006"
    "9bca1318b929566e2e4bccec2414c1dffbda11ef6e924100ef4644adf18cd50b00dae29951c76977a8ab7ef5670e"
)
PARTIAL_PUSH = bytes.fromhex("0a1208047f000001060fa2")

INFO = IdentifyInfo(PEER, "ipfs/0.1.0", "p2pcore/0.1.0", PROTOCOLS, (LISTEN,), OBSERVED)


def framed(message: Identify) -> bytes:
    data = message.SerializeToString()
    return varint.encode(len(data)) + data


def read(data: bytes, before: IdentifyInfo = NOBODY) -> IdentifyInfo | None:
    reader = MessageReader()
    reader.feed(data)
    return update(before, reader.result())


# -- vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("vector", "envelope"), [(PLAIN, None), (SIGNED, bytes.fromhex(OWN.envelope))])
def test_vectors_are_what_we_send(vector: bytes, envelope: bytes | None) -> None:
    message = build(KEY, PROTOCOLS, [LISTEN], "p2pcore/0.1.0", "ipfs/0.1.0", envelope)
    assert encode(Prepared.of(message), OBSERVED) == vector
    assert encode(Prepared.of(message), OBSERVED) == vector, "the message itself is not changed"


def test_vectors_are_understood() -> None:
    assert read(PLAIN) == INFO
    told = read(SIGNED)
    assert told is not None
    assert told.signed_record == bytes.fromhex(OWN.envelope)
    assert told.record_seq == 1700000000000000000
    assert told.record_addrs == (LISTEN, Multiaddr("/ip4/127.0.0.1/udp/4001/quic-v1"))
    assert told.addrs == told.record_addrs, "certified addresses come first"
    assert replace(told, signed_record=None, record_addrs=None, record_seq=-1) == INFO
    assert INFO.addrs == (LISTEN,)


def test_a_partial_push_leaves_the_rest_as_it_was() -> None:
    told = read(PARTIAL_PUSH, INFO)
    assert told == replace(INFO, listen_addrs=(Multiaddr("/ip4/127.0.0.1/tcp/4002"),))


# -- framing -----------------------------------------------------------------------------------


def test_messages_may_be_cut_anywhere() -> None:
    for chunks, tail in feeding(SIGNED):
        reader = MessageReader()
        if tail:  # read as a length it is 14885
            with pytest.raises(LimitExceeded):
                _feed_all(reader, chunks)
        else:
            _feed_all(reader, chunks)


def _feed_all(reader: MessageReader, chunks: list[bytes]) -> None:
    for chunk in chunks:
        reader.feed(chunk)
    assert update(NOBODY, reader.result()) == read(SIGNED)


def test_several_messages_are_merged() -> None:
    first = Identify(protocols=[b"/a"], agentVersion=b"one", listenAddrs=[LISTEN.to_bytes()])
    second = Identify(protocols=[b"/b"], agentVersion=b"two", signedPeerRecord=bytes.fromhex(OWN.envelope))
    told = read(framed(first) + framed(second))
    assert told is not None
    assert (told.protocols, told.agent_version) == (("/a", "/b"), "two")
    assert told.record_addrs


def test_ten_messages_are_enough() -> None:
    message = framed(Identify(protocols=[b"/a"]))
    assert read(message * limits.MAX_IDENTIFY_MESSAGES)
    with pytest.raises(LimitExceeded):
        read(message * (limits.MAX_IDENTIFY_MESSAGES + 1))


def test_a_message_over_8_KiB_is_refused_at_its_length() -> None:
    fits = Identify(agentVersion=b"x" * (limits.MAX_IDENTIFY_MESSAGE_BYTES - 3))
    assert len(fits.SerializeToString()) == limits.MAX_IDENTIFY_MESSAGE_BYTES
    assert read(framed(fits))
    with pytest.raises(LimitExceeded):
        MessageReader().feed(varint.encode(limits.MAX_IDENTIFY_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"\x01",
        b"\x02\x0a\xff",
        b"\x01\x07",
        b"\x80\x00",
        b"\xff" * 10,
        PLAIN + b"\x02\x0a\x05",
    ],
    ids=[
        "nothing",
        "cut",
        "second cut",
        "bad field",
        "bad tag",
        "padded length",
        "long length",
        "second bad",
    ],
)
def test_malformed_input_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(data)


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda data: varint.encode(len(data)) + data))
def test_whatever_comes_is_understood_or_refused(data: bytes) -> None:
    try:
        read(data)
    except (RemoteProtocolError, LimitExceeded):
        pass


@given(
    st.builds(
        Identify,
        publicKey=st.none() | st.binary(max_size=50),
        listenAddrs=st.lists(st.binary(max_size=20), max_size=5),
        protocols=st.lists(st.binary(max_size=20), max_size=5),
        observedAddr=st.none() | st.binary(max_size=20),
        agentVersion=st.none() | st.binary(max_size=300),
        signedPeerRecord=st.none() | st.binary(max_size=100),
    )
)
def test_any_well_formed_message_is_understood(message: Identify) -> None:
    told = read(framed(message))
    if message.HasField("publicKey"):
        assert told is None, "only one key in the world is right"
    else:
        assert told is not None
        assert len(told.agent_version) <= limits.MAX_AGENT_CHARS


# -- entries -----------------------------------------------------------------------------------


def test_another_peers_key_discards_the_message_and_a_missing_one_is_tolerated() -> None:
    message = Identify(publicKey=OTHER.public_key.to_protobuf(), protocols=[b"/a"])
    assert read(framed(message)) is None
    assert read(framed(Identify(publicKey=b"", protocols=[b"/a"]))) is None
    told = read(framed(Identify(protocols=[b"/a"])))
    assert told is not None
    assert told.protocols == ("/a",)


def test_bad_addresses_are_skipped_one_by_one() -> None:
    ours, theirs = LISTEN.with_p2p(PEER), LISTEN.with_p2p(OTHER.peer_id())
    entries = [b"\xff\xff", b"", b"\x04\x7f", theirs.to_bytes(), ours.to_bytes(), LISTEN.to_bytes()]
    told = read(framed(Identify(listenAddrs=entries)))
    assert told is not None
    assert told.listen_addrs == (LISTEN,)


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"\x04"])
def test_a_bad_observed_address_is_ignored(data: bytes) -> None:
    told = read(framed(Identify(observedAddr=data, protocols=[b"/a"])), INFO)
    assert told is not None
    assert (told.observed_addr, told.protocols) == (OBSERVED, ("/a",))


def test_bad_and_superfluous_protocols_are_skipped() -> None:
    entries = [b"/a", b"\xff", b"", b"/" + b"x" * 255, b"/a", b"/" + b"x" * 254]
    told = read(framed(Identify(protocols=entries)))
    assert told is not None
    assert told.protocols == ("/a", "/" + "x" * 254)
    many = [
        Identify(protocols=[b"/%d" % number for number in range(start, start + 400)])
        for start in (0, 400, 800)
    ]
    told = read(b"".join(map(framed, many)))
    assert told is not None
    assert told.protocols == tuple(f"/{number}" for number in range(len(told.protocols)))
    assert 80 < len(told.protocols) < 200


def test_no_more_addresses_are_kept_than_their_memory_allows() -> None:
    entries = [Multiaddr(f"/ip4/10.0.0.1/tcp/{port}").to_bytes() for port in range(1, 701)]
    told = read(framed(Identify(listenAddrs=entries)))
    assert told is not None
    assert told.listen_addrs == tuple(map(Multiaddr, entries[: len(told.listen_addrs)]))
    assert 60 < len(told.listen_addrs) < 100


def test_entries_beyond_a_number_are_not_looked_at() -> None:
    """Entries that are skipped cost as much as those that are kept."""
    bad_addrs = [b"\x00"] * limits.MAX_IDENTIFY_ADDRS
    bad_protocols = [b"\xff"] * limits.MAX_IDENTIFY_PROTOCOLS
    told = read(
        framed(Identify(listenAddrs=[*bad_addrs[1:], LISTEN.to_bytes()]))
        + framed(Identify(protocols=[*bad_protocols[1:], b"/last"]))
    )
    assert told is not None
    assert (told.listen_addrs, told.protocols) == ((LISTEN,), ("/last",))
    told = read(
        framed(Identify(listenAddrs=[*bad_addrs, LISTEN.to_bytes()]))
        + framed(Identify(protocols=[*bad_protocols, b"/beyond"]))
    )
    assert told is not None
    assert (told.listen_addrs, told.protocols) == ((), ())


def _memory_of(told: IdentifyInfo) -> int:
    """What `told` alone keeps: its lists, their entries, its texts and its record."""
    lists = [told.protocols, told.listen_addrs, told.record_addrs or ()]
    size = sum(
        map(sys.getsizeof, [told, told.protocol_version, told.agent_version, told.signed_record, *lists])
    )
    size += sum(map(sys.getsizeof, told.protocols))
    return size + sum(
        sys.getsizeof(addr) + sys.getsizeof(addr.to_bytes()) for part in lists[1:] for addr in part
    )


def test_a_peer_is_kept_in_16_kib_whatever_it_tells() -> None:
    """With a record of its own, names of the longest kind, and short ones."""
    addrs = [Multiaddr(f"/dns4/{'a' * 60}.{number:06}.{'b' * 60}/tcp/1") for number in range(40)]
    record = PeerRecord.make(KEY.peer_id(), addrs[:30], 0, 1).seal(KEY).raw
    for width in (4, 20, 250):
        parts = [
            Identify(protocols=[b"/%0*d" % (width, start + at) for at in range(7000 // (width + 4))])
            for start in (0, 7000)
        ]
        texts = Identify(agentVersion="\U0001f600".encode() * 256, protocolVersion=b"x" * 256)
        longs = Identify(listenAddrs=[addr.to_bytes() for addr in addrs[:40]])
        signed = Identify(signedPeerRecord=record)
        told = read(b"".join(map(framed, [*parts, texts, longs, signed])))
        assert told is not None
        assert told.record_addrs
        assert _memory_of(told) <= 16 * 1024


def test_free_text_is_cut_and_made_valid() -> None:
    told = read(framed(Identify(agentVersion="ü".encode() * 1000, protocolVersion=b"\xffx")))
    assert told is not None
    assert told.agent_version == "ü" * limits.MAX_AGENT_CHARS
    assert told.protocol_version == "\ufffdx"


@pytest.mark.parametrize(
    "envelope",
    [
        b"\x00",
        bytes.fromhex(GO.envelope),
        bytes.fromhex(LEGACY.envelope),
        bytes.fromhex(OWN.envelope)[:-1] + b"\x00",
        bytes.fromhex(OWN.envelope)[:-1],
        b"x" * 8000,
    ],
    ids=["malformed", "another signer", "another domain", "bad signature", "cut", "huge"],
)
def test_a_bad_signed_record_is_ignored_and_the_rest_kept(envelope: bytes) -> None:
    told = read(framed(Identify(signedPeerRecord=envelope, listenAddrs=[LISTEN.to_bytes()])))
    assert told is not None
    assert (told.record_addrs, told.signed_record, told.addrs) == (None, None, (LISTEN,))


def test_only_a_newer_record_replaces_one() -> None:
    def with_seq(seq: int, port: int) -> bytes:
        record = PeerRecord(PEER, seq, (Multiaddr(f"/ip4/127.0.0.1/tcp/{port}"),))
        return framed(Identify(signedPeerRecord=record.seal(KEY).raw))

    told = read(with_seq(5, 5))
    for seq, port, expected in [(4, 4, 5), (5, 6, 5), (6, 7, 7)]:
        assert told is not None
        told = read(with_seq(seq, port), told)
        assert told is not None
        assert told.addrs == (Multiaddr(f"/ip4/127.0.0.1/tcp/{expected}"),)


# -- what we send ------------------------------------------------------------------------------


def test_what_we_send_is_one_message_of_4096_bytes_and_the_record_apart_if_it_does_not_fit() -> None:
    envelope = bytes.fromhex(OWN.envelope)
    protocols = [f"/protocol/{number:04}/{'x' * 80}" for number in range(38)]
    message = build(KEY, protocols, [LISTEN], "agent", "version", envelope)
    assert message.ByteSize() < limits.MAX_IDENTIFY_SEND_BYTES
    data = encode(Prepared.of(message), OBSERVED)
    size, start = varint.decode(data)  # type: ignore[misc]
    assert len(data) == start + size, "all in one"
    message = build(KEY, [*protocols, *protocols[:3]], [LISTEN], "agent", "version", envelope)
    data = encode(Prepared.of(message), OBSERVED)
    size, start = varint.decode(data)  # type: ignore[misc]
    assert size <= limits.MAX_IDENTIFY_SEND_BYTES
    assert data[start + size :] == framed(Identify(signedPeerRecord=envelope))
    told = read(data)
    assert told is not None
    assert told.record_addrs
    assert len(told.protocols) == 38


def messages_of(data: bytes) -> list[Identify]:
    found = []
    while data:
        size, start = varint.decode(data)  # type: ignore[misc]
        found.append(Identify.FromString(data[start : start + size]))
        data = data[start + size :]
    return found


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(identify_message, "_warned", (0, 0))
    return caplog


@pytest.mark.parametrize("num_protocols", [100, 900, 1024])
@pytest.mark.parametrize("key_bytes", [36, 1100])
def test_many_protocols_and_a_large_key_leave_nothing_out(
    num_protocols: int, key_bytes: int, warnings: pytest.LogCaptureFixture
) -> None:
    addrs = [Multiaddr(f"/ip4/10.0.0.{number}/tcp/4001") for number in range(40)]
    protocols = tuple(f"/service/{number:04}/1.0.0" for number in range(num_protocols))
    message = build(KEY, protocols, addrs, "agent", "version", bytes.fromhex(OWN.envelope))
    message.publicKey = bytes(key_bytes)
    found = messages_of(encode(Prepared.of(message), OBSERVED))
    assert len(found) <= limits.MAX_IDENTIFY_MESSAGES
    assert all(each.ByteSize() <= limits.MAX_IDENTIFY_SEND_BYTES for each in found)
    assert len(found[0].listenAddrs) == 40
    assert found[0].protocols
    assert found[0].observedAddr
    merged = Identify()
    for each in found:
        merged.MergeFrom(each)
    message.observedAddr = OBSERVED.to_bytes()
    assert merged == message
    assert not warnings.records


def test_neither_addresses_nor_protocols_crowd_the_others_out_of_the_first_message() -> None:
    addrs = [Multiaddr(f"/ip4/10.0.{number // 250}.1/tcp/{number + 1}") for number in range(500)]
    many = tuple(f"/{number:0100}" for number in range(100))
    data = encode(Prepared.of(build(KEY, many, addrs, "agent", "version")), None)
    first, *_ = messages_of(data)
    assert len(first.listenAddrs) > 100
    assert len(first.protocols) > 10
    told = read(data)
    assert told is not None
    assert told.listen_addrs == tuple(addrs[: len(told.listen_addrs)])
    assert told.protocols == many[: len(told.protocols)]
    assert len(told.listen_addrs) > 60
    assert len(told.protocols) > 40


def test_what_does_not_fit_ten_messages_is_left_out_from_the_end_with_one_warning(
    warnings: pytest.LogCaptureFixture,
) -> None:
    protocols = [f"/{number:0200}" for number in range(1000)]
    message = build(KEY, protocols, [LISTEN], "agent", "version")
    for _ in range(3):
        found = messages_of(encode(Prepared.of(message), OBSERVED))
        assert len(found) == limits.MAX_IDENTIFY_MESSAGES
        told = [each.decode() for one in found for each in one.protocols]
        assert found[0].listenAddrs == [LISTEN.to_bytes()]
        assert 150 < len(told) < 1000
        assert told == protocols[: len(told)]
    (record,) = warnings.records
    assert f"0 addresses and {1000 - len(told)} protocols" in record.getMessage()


def test_free_text_of_ours_is_cut_as_readers_do() -> None:
    message = build(KEY, PROTOCOLS, [LISTEN], "ü" * 5000, "v" * 5000)
    assert message.agentVersion.decode() == "ü" * limits.MAX_AGENT_CHARS
    assert len(message.protocolVersion) == limits.MAX_AGENT_CHARS


def test_a_record_no_reader_takes_is_not_sent() -> None:
    message = build(KEY, PROTOCOLS, [LISTEN], "agent", "version", bytes(limits.MAX_IDENTIFY_MESSAGE_BYTES))
    (told,) = messages_of(encode(Prepared.of(message), None))
    assert told.listenAddrs
    assert told.protocols
    assert not told.signedPeerRecord


def test_peers_that_say_the_same_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify_message, "_SHARED", {})  # else it may be full, and emptied between the two
    first, second = read(PLAIN), read(PLAIN)
    assert first is not None
    assert second is not None
    assert first.protocols is second.protocols
    assert first.agent_version is second.agent_version


def test_what_is_kept_for_sharing_is_bounded() -> None:
    for number in range(3 * identify_message.MAX_SHARED):
        read(framed(Identify(agentVersion=b"%d" % number, protocols=[b"/%d" % number])))
        assert len(identify_message._SHARED) <= identify_message.MAX_SHARED
    many = [b"/%d" % number for number in range(identify_message.MAX_SHARED_PROTOCOLS + 1)]
    told = read(framed(Identify(protocols=many)))
    assert told is not None
    assert told.protocols not in identify_message._SHARED
