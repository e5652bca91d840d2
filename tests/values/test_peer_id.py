"""Peer ids: every text form of the published vectors, the checks of bytes and text, value semantics."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, strategies as st

from p2pcore import limits
from p2pcore._fast.codec import multibase as base
from p2pcore.errors import IdentityError
from p2pcore.values.peer_id import PeerId

# base58, base32, base36, multihash, serialized public key ("" where only its hash matters here)
VECTORS = [
    (
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
        "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6",
        "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe",
        "0024080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
        "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
    ),
    (
        "16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY",
        "bafzaajiiaijcca3xo7uzjzcsyilaj6i54cj44qk7kqzpoao5rti2pjx6udtdbp6kte",
        "kzwfwjn5ji4put13uvtwtc7azzwk42cq2o8ctfnxa6q8n90e72o3pjqbrp3lpcp",
        "002508021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99",
        "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99",
    ),
    (
        "QmVMT29id3TUASyfZZ6k9hmNyc2nYabCo4uMSpDw4zrgDk",
        "bafzbeidigywdclqvl5hxfefwp5onbffcfife7pza57mmfb4tiqmtkdjw64",
        "k2k4r8m0iploq6r25jp915xawtnx0qdr0je62jws2kki6votbj5191x3",
        "122068362c312e155f4f7290b67f5cd094a22a0a4fbf20efd8c287934419350d36f7",
        "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83abab44abf3161f"
        "162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62",
    ),
    (
        "QmaeANgBs1DTSxWSrPPtobgQuxW8XTfsS4ydbK4rCHzqxG",
        "bafzbeifwzcumbiyql7bhv7fe7mixg6i7aohegq75k234m63bnw6dbicmzu",
        "k2k4r8nz0pc9sm08wgacijx1ic8vxy9e2770otjszhz1nodfs0brtvpp",
        "1220b6c8a8c0a3105fc27afca4fb1173791f038e4343fd56b7c67b616dbc30a04ccd",
        "",
    ),
    (
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
        "k2k4r8ncs1yoluq95unsd7x2vfhgve0ncjoggwqx9vyh3vl8warrcp15",
        "12209dff3b17d74cf4d38a50d8b6383e92d181a10395a5e73a726dcccbd21bf6f0b9",
        "",
    ),
    (
        "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy",
        "bafzaajaiaejcacmhrgshblpz5iaprwwtxgh4hcvrj6pfrotey5tncilyyd55pezg",
        "k51qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65tds3s6",
        "002408011220098789a470adf9ea00f8dad3b98fc38ab14f9e58ba64c766d12178c0fbd79326",
        "08011220098789a470adf9ea00f8dad3b98fc38ab14f9e58ba64c766d12178c0fbd79326",
    ),
    (
        "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
        "bafzbeigvf25ytwc3akrijfecaotc74udrhcxzh2cx3we5qqnw5vgrei4bm",
        "k2k4r8oqamigqdo6o7hsbfwd45y70oyynp98usk7zmyfrzpqxh1pohl7",
        "1220d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20db76a68911c0b",
        "",
    ),
    (
        "12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV",
        "bafzaajaiaejcalj543iwv2d7pkjt7ykvefrkfu7qjfi6sduakhso4lay6abn2d5u",
        "k51qzi5uqu5dhb6l8spkdx7yxafegfkee5by8h7lmjh2ehc2sgg34z7c15vzqs",
        "0024080112202d3de6d16ae87f7a933fe1552162a2d3f04951e90e8051e4ee2c18f002dd0fb4",
        "080112202d3de6d16ae87f7a933fe1552162a2d3f04951e90e8051e4ee2c18f002dd0fb4",
    ),
]

# base58 and multihash or public key alone
IDENTITIES = [
    (
        "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
        "0024080112202ffa35a99d3a3cfbb17bb7c1dc5561b18a8dcca4df38dc613ea859c37eb1336b",
    ),
    (
        "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
        "0024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
    ),
    (
        "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq",
        "0024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
    ),
]
PUBLIC_KEYS = [
    (
        "QmcW3oMdSqoEcjbyd51auqC23vhKX6BqfcZcY2HJ3sKAZR",
        "080012a60230820122300d06092a864886f70d01010105000382010f003082010a0282010100f2b75b418c28ed7aabfe17e90dfb"
        "93c13f2ec6381d072f862fb75808b96d227eef2083d31f4a78069f85ad6a8c73896ea385a386430d1cc09a90a230f00911515c55"
        "38c4b62d897fc665df1150456aec75cdb2310c88f2079c82f56a79375c79e4f840f0eb15213f1972d6a248d684453ce5d3e3ec09"
        "1f38c2f95c3ab5a1dfb603a9f955ebd9a75814ec5b725bb8882b047dbbae000ad88a5236596ad800c4ccfae3c74d69f8c665741d"
        "47972213dd4fdc83d39bab7ccce49f65e2dee7c76cd79c3500aafe7207ad41d843d89ac11e6653b872dfb2c5d790ec4eb6d954aa"
        "6e14a55463659edf0a2513c0aad9b8349f259a9b605b3d71dec43b69ee6be851a7530203010001",
    ),
    (
        "16Uiu2HAky1YnjeGryCtGu69pvjeHXSwTHUgDNFF4zxtD5WrCPury",
        "08021221023540ad842af8a43551a94d8383a555a99226506b88f953d2e70316a3a1b3d6a2",
    ),
    (
        "QmYod9tQDX9rLCrs7au5um1aDrBXTnaHGbh1W6bxNGeEut",
        "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004e29a8674f3614e0ccb72406bfe2137e9f8c5f7d62d"
        "137f0a2edd233e35374777fd1f9aed4d2cfa7371caafc6ef02db83b81f77cfe1bcd8c715acf0b9a2778ea9",
    ),
]

ED25519, SHA256 = VECTORS[0], VECTORS[2]
CID_PREFIX = b"\x01\x72"


@pytest.mark.parametrize(("base58", "base32", "base36", "multihash", "_"), VECTORS)
def test_every_text_form_means_the_same_bytes(
    base58: str, base32: str, base36: str, multihash: str, _: str
) -> None:
    peer = PeerId.from_bytes(bytes.fromhex(multihash))
    assert (str(peer), peer.to_base32(), peer.to_base36()) == (base58, base32, base36)
    cid = CID_PREFIX + peer.to_bytes()
    others = [base.encode(prefix, cid) for prefix in "zZfFmMuUbBcCvVtThkK"]
    for text in (base58, base32, base36, base32.upper(), base36.upper(), *others):
        if len(text) <= limits.MAX_PEER_ID_TEXT_CHARS:
            assert PeerId.from_text(text) == peer, text


@pytest.mark.parametrize(("base58", "multihash"), IDENTITIES)
def test_identity_hashes_of_the_published_ids(base58: str, multihash: str) -> None:
    assert PeerId(base58).to_bytes().hex() == multihash
    assert str(PeerId(bytes.fromhex(multihash))) == base58


@pytest.mark.parametrize(
    ("base58", "serialized"), [(row[0], row[4]) for row in VECTORS if row[4]] + PUBLIC_KEYS
)
def test_id_of_a_public_key(base58: str, serialized: str) -> None:
    key = bytes.fromhex(serialized)
    peer = PeerId.from_public_key_bytes(key)
    assert str(peer) == base58
    assert peer.matches(key)
    assert not peer.matches(key + b"\x00")
    assert peer.public_key_bytes() == (key if len(key) <= limits.MAX_IDENTITY_DIGEST_BYTES else None)


@pytest.mark.parametrize("length", [limits.MAX_IDENTITY_DIGEST_BYTES, limits.MAX_IDENTITY_DIGEST_BYTES + 1])
def test_keys_up_to_42_bytes_are_their_own_digest(length: int) -> None:
    peer = PeerId.from_public_key_bytes(b"k" * length)
    is_whole = length <= limits.MAX_IDENTITY_DIGEST_BYTES
    assert peer.to_bytes()[0] == (0x00 if is_whole else 0x12)
    assert (peer.public_key_bytes() is not None) is is_whole


def test_an_empty_key_has_no_id() -> None:
    with pytest.raises(IdentityError):
        PeerId.from_public_key_bytes(b"")
    assert not PeerId(ED25519[0]).matches(b"")


@pytest.mark.parametrize(
    "multihash",
    [
        "",
        "12",
        "1220",
        SHA256[3][:-2],  # short
        SHA256[3] + "00",  # long
        "1221" + SHA256[3][4:],  # says 33, has 32
        "1221" + "00" * 33,  # sha2-256 of another length
        "121f" + "00" * 31,
        "1320" + "00" * 32,  # sha2-512, cut
        "1340" + "00" * 64,
        "1120" + "00" * 32,
        "002b" + "00" * 43,  # identity over 42 bytes
        "0025" + ED25519[3][4:],
        "8000" + ED25519[3][2:],  # padded code
        "00a400" + ED25519[3][4:],  # padded length
        "00ffffffffffffffff7f" + ED25519[3][4:],
        "0172" + ED25519[3],  # a CID
    ],
)
def test_malformed_bytes_are_refused(multihash: str) -> None:
    with pytest.raises(IdentityError):
        PeerId.from_bytes(bytes.fromhex(multihash))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "Q",
        "Qm",
        "z",
        "b",
        "bafkreifoybygix7fh3r3g5rqle3wcnhqldgdg4shzf4k3ulyw3gn7mabt4",  # codec raw
        "k2jmtxwoe2phm1hbqp0e7nufqf6umvuu2e9qd7ana7h411a0haqj6i2z",  # codec dag-pb
        "QmxoHT6iViN5xAjoz1VZ553cL31U9F94ht3QvWR1FrEbZY",  # digest longer than declared
        base.encode("b", b"\x00\x72" + bytes.fromhex(SHA256[3])),  # version 0
        base.encode("b", b"\x02\x72" + bytes.fromhex(SHA256[3])),
        base.encode("b", bytes.fromhex(SHA256[3])),  # a multihash without CID
        base.encode("z", b"\x01\x72" + bytes.fromhex(SHA256[3])[:-1]),
        base.encode("z", b"\x01\x72\x00\x2b" + b"\x00" * 43),
        ED25519[0][:-1],
        ED25519[0] + "1",
        ED25519[0][:-1] + "0",  # not in the alphabet
        ED25519[0] + " ",
        " " + ED25519[0],
        ED25519[0] + "\n",
        "?unknownmultibase",
        "qmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
        "é" + ED25519[0],
        "\ud800",
        "1" * (limits.MAX_PEER_ID_TEXT_CHARS + 1),
        "z" * 100_000,
    ],
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        PeerId.from_text(text)


def test_text_is_bounded_before_it_is_decoded() -> None:
    digest = bytes.fromhex(SHA256[3])
    assert len(base.encode("0", CID_PREFIX + digest)) > limits.MAX_PEER_ID_TEXT_CHARS
    with pytest.raises(IdentityError, match="size limit"):
        PeerId(base.encode("0", CID_PREFIX + digest))


def test_constructors_take_only_what_they_say() -> None:
    for wrong in (None, 1, [1, 2]):
        with pytest.raises(TypeError):
            PeerId(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PeerId.from_bytes(ED25519[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PeerId.from_text(bytes.fromhex(ED25519[3]))  # type: ignore[arg-type]


def test_made_from_any_bytes_and_from_itself() -> None:
    data = bytes.fromhex(ED25519[3])
    peer = PeerId(data)
    assert peer == PeerId(bytearray(data)) == PeerId(memoryview(data)) == PeerId(peer)
    assert bytes(peer) == data


def test_is_a_value() -> None:
    peer, same, other = PeerId(ED25519[0]), PeerId(ED25519[2]), PeerId(SHA256[0])
    assert peer == same
    assert hash(peer) == hash(same)
    assert peer != other
    assert peer != str(peer)
    assert peer != peer.to_bytes()
    assert sorted([other, peer]) == [peer, other]
    assert {peer: 1}[same] == 1
    assert pickle.loads(pickle.dumps(peer)) == peer
    assert copy.deepcopy(peer) is copy.copy(peer) is peer
    assert repr(peer) == f"PeerId('{peer}')"


def test_cannot_be_changed_nor_grow() -> None:
    peer = PeerId(ED25519[0])
    with pytest.raises(AttributeError):
        peer._bytes = b""  # type: ignore[misc]
    with pytest.raises(AttributeError):
        peer.name = "x"  # type: ignore[attr-defined]


def _multihashes() -> st.SearchStrategy[bytes]:
    identity = st.binary(max_size=limits.MAX_IDENTITY_DIGEST_BYTES)
    return identity.map(lambda d: bytes((0, len(d))) + d) | st.binary(min_size=32, max_size=32).map(
        lambda d: b"\x12\x20" + d
    )


@given(_multihashes())
def test_round_trip_of_every_form(multihash: bytes) -> None:
    peer = PeerId(multihash)
    assert PeerId(str(peer)) == PeerId(peer.to_base32()) == PeerId(peer.to_base36()) == peer
    assert peer.to_bytes() == multihash


@given(st.binary(max_size=80))
def test_arbitrary_bytes_give_an_id_or_one_error(data: bytes) -> None:
    try:
        peer = PeerId.from_bytes(data)
    except IdentityError:
        return
    assert peer.to_bytes() == data


@given(st.text(max_size=140) | st.text("1Qmzbkfu27ax", max_size=140))
def test_arbitrary_text_gives_an_id_or_one_error(text: str) -> None:
    try:
        peer = PeerId.from_text(text)
    except IdentityError:
        return
    assert PeerId(str(peer)) == peer
