"""Multiaddr as a value: composition, mapping, peers, classification, objects of the multiaddr package."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping

import multiaddr as package
import pytest
from hypothesis import given, strategies as st

from multiaddr_vectors import VECTORS
from p2pcore.errors import AddressError, IdentityError, ProtocolLookupError
from p2pcore.values.multiaddr import Multiaddr, Protocol, protocol_with_any, protocol_with_name
from p2pcore.values.peer_id import PeerId

PEER = "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy"
OTHER = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
RELAYED = f"/ip4/198.51.100.1/tcp/4001/p2p/{OTHER}/p2p-circuit/p2p/{PEER}"
EMPTY = Multiaddr.join()

_TEXTS = st.sampled_from([text for text, _ in VECTORS if not text.startswith(("/unix", "/garlic64"))])


# -- composition -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        ("/ip4/1.2.3.4/tcp/1234", "/ip4/1.2.3.4", ""),
        ("/ip4/1.2.3.4", "/ip4/1.2.3.4/tcp/1234", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.5/tcp/1234", "/ip4/5.3.2.1", "/ip4/1.2.3.5/tcp/1234"),
        ("/ip4/1.2.3.5/udp/1234/quic-v1", "/udp/1234", "/ip4/1.2.3.5"),
        ("/ip4/1.2.3.6/udp/1234/quic-v1", "/udp/1234/quic-v1", "/ip4/1.2.3.6"),
        ("/ip4/1.2.3.7/tcp/1234", "/ws", "/ip4/1.2.3.7/tcp/1234"),
        ("/dnsaddr/wss.com/tcp/4001/ws", "/wss", "/dnsaddr/wss.com/tcp/4001/ws"),
        ("/dnsaddr/wss.com/tcp/4001/wss", "/wss", "/dnsaddr/wss.com/tcp/4001"),
        ("/ip4/127.0.0.1/udp/1234/udp/5678", "/udp/5678", "/ip4/127.0.0.1/udp/1234"),
        ("/dnsaddr/wss.com/tcp/4001", "/ws", "/dnsaddr/wss.com/tcp/4001"),
        ("/udp/1/udp/1/udp/1", "/udp/1", "/udp/1/udp/1"),
        # the bytes of /tcp/1540 end with those of the code of /tcp, but not at a component
        ("/ip4/6.0.80.6/tcp/80", "/tcp/20486", "/ip4/6.0.80.6/tcp/80"),
    ],
)
def test_decapsulate_cuts_at_the_last_whole_match(left: str, right: str, result: str) -> None:
    assert str(Multiaddr(left).decapsulate(right)) == result
    assert str(Multiaddr(left).decapsulate(Multiaddr(right))) == result


def test_decapsulate_never_matches_inside_a_component() -> None:
    inside = Multiaddr("/ip4/1.6.0.80/udp/1")
    assert b"\x06\x00\x50" in inside.to_bytes()
    assert inside.decapsulate("/tcp/80") is inside
    assert inside.decapsulate(EMPTY) is inside


def test_decapsulate_code_cuts_at_the_last_component_of_the_protocol() -> None:
    addr = Multiaddr(RELAYED)
    assert str(addr.decapsulate_code(421)) == RELAYED.removesuffix(f"/p2p/{PEER}")
    assert str(addr.decapsulate_code("p2p-circuit")) == f"/ip4/198.51.100.1/tcp/4001/p2p/{OTHER}"
    assert addr.decapsulate_code(protocol_with_name("ip4")) == EMPTY
    assert addr.decapsulate_code("ws") is addr


def test_encapsulate_joins_components() -> None:
    base = Multiaddr("/ip4/1.2.3.4")
    for other in ("/tcp/80", Multiaddr("/tcp/80"), b"\x06\x00\x50", package.Multiaddr("/tcp/80")):
        assert str(base.encapsulate(other)) == "/ip4/1.2.3.4/tcp/80"
    assert base.encapsulate(EMPTY) == EMPTY.encapsulate(base) == base


def test_nothing_goes_on_top_of_a_path() -> None:
    with pytest.raises(AddressError, match="path"):
        Multiaddr("/unix/a").encapsulate("/tcp/80")
    assert str(Multiaddr("/tcp/80").encapsulate("/unix/a")) == "/tcp/80/unix/a"


def test_join_and_split_undo_each_other() -> None:
    addr = Multiaddr(RELAYED)
    assert Multiaddr.join(*addr.split()) == addr
    assert [str(part) for part in Multiaddr("/ip4/1.2.3.4/tcp/80/ws").split(1)] == [
        "/ip4/1.2.3.4",
        "/tcp/80/ws",
    ]
    assert [str(part) for part in addr.split(0)] == [RELAYED]
    assert len(addr.split(99)) == len(addr.split()) == len(addr) == 5
    assert EMPTY.split() == []


@given(_TEXTS, _TEXTS)
def test_decapsulate_undoes_encapsulate(left: str, right: str) -> None:
    joined = Multiaddr(left).encapsulate(right)
    assert joined.starts_with(left)
    assert joined.ends_with(right)
    assert joined.to_bytes() == Multiaddr(left).to_bytes() + Multiaddr(right).to_bytes()
    assert joined.starts_with(joined.decapsulate(right))


def test_starts_and_ends_with_whole_components() -> None:
    addr = Multiaddr("/ip4/1.2.3.4/tcp/1540/ws")
    assert addr.starts_with("/ip4/1.2.3.4")
    assert addr.starts_with(addr)
    assert not addr.starts_with("/tcp/1540")
    assert addr.ends_with("/tcp/1540/ws")
    assert addr.ends_with(addr)
    assert not addr.ends_with("/tcp/1540")
    assert not Multiaddr("/ip4/1.6.0.80").ends_with("/tcp/80")
    assert addr.starts_with(EMPTY)
    assert addr.ends_with(EMPTY)


# -- the value ---------------------------------------------------------------------------------


def test_is_a_value_of_its_bytes() -> None:
    addr, same, other = Multiaddr("/tcp/80"), Multiaddr(b"\x06\x00\x50"), Multiaddr("/ip4/1.2.3.4")
    assert addr == same
    assert hash(addr) == hash(same)
    assert addr != other
    assert addr != "/tcp/80"
    assert addr != addr.to_bytes()
    assert sorted([addr, other]) == [other, addr]
    assert other < addr
    assert addr >= same
    assert {addr: 1}[same] == 1
    assert Multiaddr("/dns4/h/tcp/443/wss") != Multiaddr("/dns4/h/tcp/443/tls/ws")
    with pytest.raises(TypeError):
        assert addr < "/tcp/80"  # type: ignore[operator]


def test_cannot_be_changed_nor_grow() -> None:
    addr = Multiaddr("/tcp/80")
    with pytest.raises(AttributeError):
        addr._bytes = b""  # type: ignore[misc]
    with pytest.raises(AttributeError):
        addr.port = 80  # type: ignore[attr-defined]
    assert addr.__sizeof__() <= 32


@pytest.mark.parametrize("addr", [Multiaddr(RELAYED), EMPTY])
def test_copies_and_pickles(addr: Multiaddr) -> None:
    assert addr.copy() is copy.copy(addr) is copy.deepcopy(addr) is addr
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(addr, protocol))
        assert again == addr
        assert type(again) is Multiaddr


def test_made_from_any_bytes_and_from_itself() -> None:
    data = Multiaddr(RELAYED).to_bytes()
    assert Multiaddr(bytearray(data)) == Multiaddr(memoryview(data)) == Multiaddr(Multiaddr(data))
    assert bytes(Multiaddr(data)) == data
    for wrong in (None, 1, ["/tcp/80"], object()):
        with pytest.raises(TypeError):
            Multiaddr(wrong)


def test_made_from_subclasses_of_text_and_bytes() -> None:
    class Text(str):
        __slots__ = ()

    class Data(bytes):
        pass

    addr = Multiaddr("/tcp/80")
    assert Multiaddr(Text("/tcp/80")) == Multiaddr(Data(addr.to_bytes())) == addr
    assert type(Multiaddr(Data(addr.to_bytes())).to_bytes()) is bytes
    assert PeerId(Text(PEER)) == PeerId(Data(PeerId(PEER).to_bytes())) == PeerId(PEER)
    with pytest.raises(AddressError):
        Multiaddr(Text("/"))


def test_the_empty_address_exists_only_in_memory() -> None:
    assert len(EMPTY) == 0
    assert not EMPTY
    assert (str(EMPTY), EMPTY.to_bytes(), EMPTY.components(), list(EMPTY)) == ("", b"", (), [])
    assert EMPTY.peer_id is EMPTY.get_peer_id() is None
    assert EMPTY.without_p2p() is EMPTY
    assert not any((EMPTY.is_loopback, EMPTY.is_private, EMPTY.is_public, EMPTY.is_unspecified))
    for nothing in ("", b"", "/"):
        with pytest.raises(AddressError):
            Multiaddr(nothing)


def test_subclasses_keep_their_type() -> None:
    class Mine(Multiaddr):
        __slots__ = ()

    addr = Mine("/ip4/1.2.3.4/tcp/80")
    for made in (addr.encapsulate("/ws"), addr.decapsulate("/tcp/80"), addr.split()[0], Mine.join()):
        assert type(made) is Mine


# -- looking in --------------------------------------------------------------------------------


def test_names_of_the_multiaddr_package() -> None:
    addr = Multiaddr(f"/ip4/1.2.3.4/tcp/80/ws/p2p/{PEER}")
    assert [proto.name for proto in addr.protocols()] == ["ip4", "tcp", "ws", "p2p"]
    assert list(addr) == list(addr.keys()) == list(addr.protocols())
    assert list(addr.values()) == ["1.2.3.4", "80", None, PEER]
    assert [(proto.code, value) for proto, value in addr.items()] == [
        (4, "1.2.3.4"),
        (6, "80"),
        (477, None),
        (421, PEER),
    ]
    assert addr.components() == (("ip4", "1.2.3.4"), ("tcp", "80"), ("ws", None), ("p2p", PEER))
    assert len(addr) == len(addr.protocols()) == 4
    assert addr.protocols()[-1].name == "p2p"
    assert addr.items()[1:3] == ((protocol_with_name("tcp"), "80"), (protocol_with_name("ws"), None))
    assert isinstance(addr, Mapping)
    assert repr(addr) == f"<Multiaddr {addr}>"


def test_members_may_be_named_by_name_code_or_object() -> None:
    addr = Multiaddr("/ip4/1.2.3.4/tcp/80")
    foreign = package.protocols.protocol_with_name("tcp")
    for tcp in ("tcp", 6, protocol_with_name("tcp"), foreign):
        assert tcp in addr
        assert tcp in addr.protocols()
        assert (tcp, "80") in addr.items()
        assert addr[tcp] == addr.value_for_protocol(tcp) == addr.get(tcp) == "80"
        assert protocol_with_any(tcp).name == "tcp"
    for absent in ("udp", 273, "nonsense", 5, None, 1.5):
        assert absent not in addr
        assert absent not in addr.protocols()
        assert addr.get(absent, "default") == "default"
    assert ("tcp", "81") not in addr.items()
    assert "tcp" not in addr.items()


def test_value_for_protocol_gives_the_first_value() -> None:
    addr = Multiaddr(RELAYED)
    assert addr.value_for_protocol("p2p") == addr.value_for_protocol("ipfs") == OTHER
    assert addr.value_for_protocol("p2p-circuit") is None
    assert Multiaddr("/tcp/1/unix/a/b").value_for_protocol("unix") == "/a/b"
    assert Multiaddr("/http-path/a%2fb")["http-path"] == "a%2Fb"


def test_a_missing_protocol_is_a_lookup_error() -> None:
    addr = Multiaddr("/ip4/1.2.3.4")
    for kind in (ProtocolLookupError, AddressError, KeyError, LookupError):
        with pytest.raises(kind):
            addr.value_for_protocol("tcp")
    with pytest.raises(ProtocolLookupError, match=r"^/ip4/1\.2\.3\.4: no component of protocol tcp$"):
        _ = addr["tcp"]
    with pytest.raises(AddressError, match="known protocol"):
        addr.value_for_protocol("nonsense")
    with pytest.raises(AddressError, match="known protocol"):
        addr.value_for_protocol(5)
    with pytest.raises(TypeError):
        addr.value_for_protocol(1.5)


def test_protocols_are_values() -> None:
    tcp = protocol_with_name("tcp")
    assert tcp == Protocol(6, "tcp", 16)
    assert (tcp.size, tcp.path, tcp.vcode, str(tcp)) == (16, False, b"\x06", "tcp")
    assert protocol_with_name("unix").path
    assert protocol_with_name("dns").size == -1
    assert protocol_with_name("ws").size == 0


# -- peers -------------------------------------------------------------------------------------


def test_the_peer_is_the_last_component_if_that_is_p2p() -> None:
    assert Multiaddr(RELAYED).peer_id == PeerId(PEER)
    assert Multiaddr(f"/p2p/{OTHER}").peer_id == PeerId(OTHER)
    assert Multiaddr(f"/p2p/{OTHER}/p2p-circuit").peer_id is None
    assert Multiaddr("/tcp/80").peer_id is None


def test_get_peer_id_looks_behind_the_last_relay() -> None:
    assert Multiaddr(RELAYED).get_peer_id() == PEER
    assert Multiaddr(f"/p2p/{OTHER}/p2p-circuit").get_peer_id() is None
    assert Multiaddr(f"/tcp/80/p2p/{PEER}/http").get_peer_id() == PEER


def test_with_p2p_appends_once_and_refuses_another() -> None:
    bare = Multiaddr("/ip4/1.2.3.4/tcp/80")
    named = bare.with_p2p(PeerId(PEER))
    assert str(named) == f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}"
    assert named.with_p2p(PEER) is named
    assert named.without_p2p() == bare
    assert bare.without_p2p() is bare
    with pytest.raises(AddressError, match="another peer"):
        named.with_p2p(OTHER)
    with pytest.raises(IdentityError):
        bare.with_p2p("nonsense")
    relay = named.encapsulate("/p2p-circuit")
    assert relay.with_p2p(OTHER).peer_id == PeerId(OTHER)
    assert relay.is_relayed
    assert not named.is_relayed


# -- classification ----------------------------------------------------------------------------

LOOPBACK, PRIVATE, PUBLIC, UNSPECIFIED = "loopback", "private", "public", "unspecified"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("/ip4/127.0.0.1/tcp/1", {LOOPBACK, PRIVATE}),
        ("/ip4/127.255.255.255", {LOOPBACK, PRIVATE}),
        ("/ip4/10.0.0.1", {PRIVATE}),
        ("/ip4/100.64.0.1", {PRIVATE}),
        ("/ip4/100.128.0.1", {PUBLIC}),
        ("/ip4/172.16.0.1", {PRIVATE}),
        ("/ip4/172.31.255.255", {PRIVATE}),
        ("/ip4/172.32.0.1", {PUBLIC}),
        ("/ip4/192.168.1.1", {PRIVATE}),
        ("/ip4/169.254.1.1", {PRIVATE}),
        ("/ip4/1.2.3.4/udp/1/quic-v1", {PUBLIC}),
        ("/ip4/0.0.0.0/tcp/0", {UNSPECIFIED}),
        ("/ip4/0.1.2.3", set()),
        ("/ip4/192.0.0.63", set()),
        ("/ip4/192.0.0.64", {PUBLIC}),
        ("/ip4/192.0.2.1", set()),
        ("/ip4/192.88.99.1", set()),
        ("/ip4/198.18.0.1", set()),
        ("/ip4/198.51.100.1", set()),
        ("/ip4/203.0.113.1", set()),
        ("/ip4/224.0.0.1", set()),
        ("/ip4/240.0.0.1", set()),
        ("/ip4/255.255.255.255", set()),
        ("/ip6/::1/tcp/1", {LOOPBACK, PRIVATE}),
        ("/ip6/::", {UNSPECIFIED}),
        ("/ip6/fc00::1", {PRIVATE}),
        ("/ip6/fdff::1", {PRIVATE}),
        ("/ip6/fe80::1", {PRIVATE}),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", {PRIVATE}),
        ("/ip6zone/eth0/ip6/::1", {LOOPBACK, PRIVATE}),
        ("/ip6zone/eth0", set()),
        ("/ip6/2601:9::1", {PUBLIC}),
        ("/ip6/2001:db8::1", set()),
        ("/ip6/ff02::1", set()),
        ("/ip6/4000::1", set()),
        ("/ip6/64:ff9b::102:304", {PUBLIC}),
        ("/ip6/::ffff:127.0.0.1", {LOOPBACK, PRIVATE}),
        ("/ip6/::ffff:10.0.0.1", {PRIVATE}),
        ("/ip6/::ffff:1.2.3.4", set()),
        ("/dns4/example.com/tcp/443", {PUBLIC}),
        ("/dns/localhost", {PRIVATE}),
        ("/dns/a.LOCALHOST", {PRIVATE}),
        ("/dns/notlocalhost", {PUBLIC}),
        ("/dnsaddr/printer.local", set()),
        ("/dns/host.home.arpa", set()),
        ("/dns/4.3.2.1.in-addr.arpa", set()),
        ("/dns/a.invalid", set()),
        ("/dns/a.test", set()),
        ("/unix/tmp/a", set()),
        ("/memory/1", set()),
        (f"/p2p/{OTHER}/p2p-circuit", set()),
        ("/tcp/80/ip4/127.0.0.1", set()),
        (RELAYED, set()),
    ],
)
def test_classification_goes_by_the_first_address(text: str, kinds: set[str]) -> None:
    addr = Multiaddr(text)
    found = {kind for kind in (LOOPBACK, PRIVATE, PUBLIC, UNSPECIFIED) if getattr(addr, f"is_{kind}")}
    assert found == kinds


# -- objects of the multiaddr package ----------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["/ip4/1.2.3.4/tcp/80/ws", "/ip6/::1/udp/443/quic", "/unix/tmp/p2p.sock", RELAYED]
)
def test_takes_and_gives_objects_of_the_package(text: str) -> None:
    theirs = package.Multiaddr(text)
    ours = Multiaddr(theirs)
    assert str(ours) == text
    assert ours == Multiaddr(text)
    back = ours.to_multiaddr()
    assert isinstance(back, package.Multiaddr)
    assert str(back) == text


def test_a_malformed_object_of_the_package_is_an_address_error() -> None:
    for broken in (b"\xff\xff", b"\x06\x01", b"\xa5\x03\x02zz"):
        with pytest.raises(AddressError):
            Multiaddr(package.Multiaddr(broken))


def test_what_the_package_does_not_know_is_an_address_error() -> None:
    with pytest.raises(AddressError, match="does not accept"):
        Multiaddr("/tcp/9090/plaintextv2").to_multiaddr()


def test_the_package_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys; from p2pcore.values.multiaddr import Multiaddr; a = Multiaddr('/tcp/80')\n"
        "try: Multiaddr(object())\nexcept TypeError: pass\n"
        "assert 'multiaddr' not in sys.modules; a.to_multiaddr(); assert 'multiaddr' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
