"""Multiaddr text and bytes: published vectors, everything that must fail, limits, arbitrary input."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given, strategies as st

from multiaddr_vectors import VECTORS
from p2pcore import limits
from p2pcore._fast.codec import multiaddr, multibase as base, varint
from p2pcore.errors import AddressError, IdentityError
from p2pcore.values.multiaddr import PROTOCOLS, Multiaddr, protocol_with_code, protocol_with_name

PEER = "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy"
SHA256_PEER = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
CERTHASH = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g"
GARLIC32 = "566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuq"

ALIASES = [
    (f"/p2p/{SHA256_PEER}", "/p2p/k2k4r8oqamigqdo6o7hsbfwd45y70oyynp98usk7zmyfrzpqxh1pohl7"),
    (f"/p2p/{SHA256_PEER}", "/p2p/bafzbeigvf25ytwc3akrijfecaotc74udrhcxzh2cx3we5qqnw5vgrei4bm"),
    (
        "/p2p/12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV",
        "/p2p/k51qzi5uqu5dhb6l8spkdx7yxafegfkee5by8h7lmjh2ehc2sgg34z7c15vzqs",
    ),
    (
        "/p2p/12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV",
        "/p2p/bafzaajaiaejcalj543iwv2d7pkjt7ykvefrkfu7qjfi6sduakhso4lay6abn2d5u",
    ),
    (f"/p2p/{PEER}", f"/ipfs/{PEER}"),
    ("/ip4/127.0.0.1/tcp/1234", "/ip4/127.0.0.1/tcp/1234/"),
    ("/ip4/127.0.0.1/tcp/1234", "/ip4/127.0.0.1/tcp/1234////"),
    (f"/certhash/{CERTHASH}", "/certhash/zQmbWTwYGcmdyK9CYfNBcfs9nhZs17a6FQ4Y8oea278xx41"),
    ("/ip6/::ffff:192.0.2.1", "/ip6/::ffff:c000:201"),
    ("/ip6/1:0:0:2::3", "/ip6/1:0:0:2:0:0:0:3"),
    ("/ip6/1:0:2:3:4:5:6:7", "/ip6/1::2:3:4:5:6:7"),
    ("/ip6/1::2:0:0:3:4", "/ip6/1:0:0:2:0:0:3:4"),
    ("/ip6/2001:db8::abcd", "/ip6/2001:DB8:0:0::ABCD"),
    ("/ip6/64:ff9b::102:304", "/ip6/64:ff9b::1.2.3.4"),
    ("/tcp/80", "/tcp/00080"),
    ("/ipcidr/8", "/ipcidr/00008"),
    ("/onion/timaq4ygg2iegci7:80", "/onion/TIMAQ4YGG2IEGCI7:80"),
    ("/http-path/a%20b", "/http-path/a b"),
    ("/http-path/a%2Bb", "/http-path/a+b"),
    ("/http-path/%C3%A9", "/http-path/é"),
    ("/http-path/%C3%A9-_.~", "/http-path/%c3%a9%2d%5f%2e%7e"),
    (
        "/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuqzwassu",
        "/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuqzwassw",
    ),
]

MUST_PARSE = [
    "/ip6zone/x%y/ip6/fe80::1",
    "/onion/timaq4ygg2iegci7:80/http",
    "/unix/a/b/c/d/e",
    "/unix/stdio",
    "/ip4/1.2.3.4/tcp/80/unix/a/b/c/d/e/f",
    "/ip4/127.0.0.1/tcp/443/tls/sni/example.com/http/http-path/foo",
    "/ip4/0.0.0.0/ip4/0.0.0.0/ip4/0.0.0.0",
    "/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuqzwas",
    "/certhash/b2uaraocy6yrdblb4sfptaddgimjmmpy",
    "/ipcidr/255",
    "/memory/18446744073709551615",
    "/dns/Bücher.Example",
    f"/p2p/{PEER}/p2p-circuit/p2p/{SHA256_PEER}",
    "/unix//a",
]

# The suite of go-multiaddr.
MUST_FAIL = [
    "",
    "/",
    "/ip4",
    "/ip4/::1",
    "/ip4/fdpsofodsajfdoisa",
    "/ip4/::/ipcidr/256",
    "/ip6/::/ipcidr/1026",
    "/ip6",
    "/ip6zone",
    "/ip6zone/",
    "/ip6zone//ip6/fe80::1",
    "/udp",
    "/tcp",
    "/sctp",
    "/udp/65536",
    "/tcp/65536",
    "/quic/65536",
    "/quic-v1/65536",
    "/onion/9imaq4ygg2iegci7:80",
    "/onion/aaimaq4ygg2iegci7:80",
    "/onion/timaq4ygg2iegci7:0",
    "/onion/timaq4ygg2iegci7:-1",
    "/onion/timaq4ygg2iegci7",
    "/onion/timaq4ygg2iegci@:666",
    "/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzu",
    "/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzu77",
    f"/garlic32/{GARLIC32}:-1",
    "/udp/1234/sctp",
    "/udp/1234/udt/1234",
    "/udp/1234/utp/1234",
    "/ip4/127.0.0.1/udp/jfodsajfidosajfoidsa",
    "/ip4/127.0.0.1/quic/1234",
    "/ip4/1.2.3.4/udp/4001/quic-v1/webtransport/certhash",
    "/ip4/1.2.3.4/udp/4001/quic-v1/webtransport/certhash/b2uaraocy6yrdblb4sfptaddgimjmmp",
    "/ip4/127.0.0.1/p2p",
    "/ip4/127.0.0.1/p2p/tcp",
    "/unix",
    "/ip4/1.2.3.4/tcp/80/unix",
    "/ip4/1.2.3.4/tcp/-1",
    "/ip4/127.0.0.1/tcp/9090/http/p2p-webcrt-direct",
    "/memory/92233720368547758081",
    "/p2p/QmxoHT6iViN5xAjoz1VZ553cL31U9F94ht3QvWR1FrEbZY",
    "/p2p/?unknownmultibase",
    "/p2p/k2jmtxwoe2phm1hbqp0e7nufqf6umvuu2e9qd7ana7h411a0haqj6i2z",
    "/p2p/bafkreifoybygix7fh3r3g5rqle3wcnhqldgdg4shzf4k3ulyw3gn7mabt4",
]

# Beyond it: the strictness rules of the sheet, and what other implementations let through.
MUST_FAIL_TOO = [
    "//",
    "ip4/1.2.3.4",
    " /ip4/1.2.3.4",
    "/ip4/1.2.3.4//tcp/80",
    "//ip4/1.2.3.4",
    "/IP4/1.2.3.4",
    "/tcp4/80",
    "/ip4/127.0.0.01",
    "/ip4/1.2.3",
    "/ip4/1.2.3.4.5",
    "/ip4/1.2.3.256",
    "/ip4/1.2.3.4 ",
    "/ip4/1..3.4",
    "/ip4/.1.2.3",
    "/ip4/1.2.3.",
    "/ip4/::ffff:1.2.3.4",
    "/ip6/1.2.3.4",
    "/ip6/fe80::1%eth0",
    "/ip6/:",
    "/ip6/:1",
    "/ip6/1:",
    "/ip6/:::",
    "/ip6/1::2::3",
    "/ip6/12345::",
    "/ip6/00001::",
    "/ip6/1:2:3:4:5:6:7",
    "/ip6/1:2:3:4:5:6:7:8:9",
    "/ip6/1:2:3:4:5:6:7:8::",
    "/ip6/::1:2:3:4:5:6:7:8",
    "/ip6/1:2:3:4:5:6:7:1.2.3.4",
    "/ip6/1::3:4:5:6:7:8:1.2.3.4",
    "/ip6/1::3:4:5:6:7:8:9:1.2.3.4",
    "/ip6/::1.2.3",
    "/ip6/::1.2.3.4:5",
    "/ip6/g::",
    "/tcp/+80",
    "/tcp/ 80",
    "/tcp/80 ",
    "/tcp/0x50",
    "/tcp/000080",
    "/tcp/٨٠",
    "/tcp/８０",
    "/ipcidr/-1",
    "/memory/18446744073709551616",
    "/memory/-1",
    "/memory/",
    "/onion/timaq4ygg2iegci7:",
    "/onion/timaq4ygg2iegci7:65536",
    "/onion/timaq4ygg2iegci7:80:80",
    "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd",
    "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:0",
    "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyy:1",
    "/onion3/timaq4ygg2iegci7:80",
    f"/garlic32/{GARLIC32.upper()}",
    f"/garlic32/{GARLIC32}====",
    "/garlic32/" + "a" * 53,
    "/garlic32/" + "a" * 55,
    "/garlic64/" + "A" * 512,
    "/garlic64/" + "A" * 515,
    "/garlic64/" + "A" * 516 + "+A==",
    "/garlic64/" + "A" * 515 + "\n",
    "/dns/a\x00b",
    "/sni/\x00",
    "/ip6zone/a\x00b",
    "/unix/a\x00b",
    "/unix//",
    "/dns/",
    "/http-path/%",
    "/http-path/%4",
    "/http-path/%zz",
    "/http-path/%ff",
    "/http-path/%ed%a0%80",
    "/certhash/",
    "/certhash/u",
    "/certhash/EiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g",
    f"/certhash/{CERTHASH}\n",
    f"/p2p/{PEER[:-1]}",
    f"/p2p/{PEER}\n",
    "/p2p/" + "1" * 129,
    "/\ud800",
    "/dns/\udcff",
]

BYTES_MUST_FAIL = [
    "",
    "04",
    "047f0000",
    "0680",
    "810001",
    "8400047f000001",
    "3500",
    "350161ff",
    "0504",
    "047f00000106",
    "8906000000000000",
    "90030d2f746d702f7032702e736f636b060050",
    "3501ff",
    "a503221221c05877cbae039d70a5e600ea02c6f9f2942439285c9e344e26f8d280c850fad6",
    "a503280172002408011220098789a470adf9ea00f8dad3b98fc38ab14f9e58ba64c766d12178c0fbd79326",
]

BAD_INPUT = {
    "truncated code": "80",
    "padded code": "8600",
    "overlong code": "ffffffffffffffffff01",
    "code above 2**31-1": "ffffffff0f",
    "truncated length": "3580",
    "padded length": "35810061",
    "overlong length": "35ffffffffffffffffff01",
    "length beyond the end": "350261",
    "length above 2**31-1": "358080808008",
    "length of 2**63-1": "35ffffffffffffffff7f",
    "zero length host": "3500",
    "zero length path": "900300",
    "zero length peer": "a50300",
    "zero length certhash": "d20300",
    "zero length http-path": "e10300",
    "zero length garlic32": "bf0300",
    "unknown code": "01",
    "unknown large code": "e0d8c103",
    "bytes after a component": "0401020304ff",
    "peer with a digest too short": "a5032112205e" + "00" * 31,
    "peer with another hash": "a503221320" + "00" * 32,
    "peer with sha2-256 of 31 bytes": "a50321121f" + "00" * 31,
    "peer with identity over 42 bytes": "a5032d002b" + "00" * 43,
    "peer with bytes after the digest": "a503030000" + "00",
    "peer over 64 bytes": "a503420040" + "00" * 64,
    "onion port 0": "bc030010c0439831b4821848" + "0000",
    "onion3 port 0": "bd03" + "00" * 37,
    "onion too short": "bc030010c0439831b482184800",
    "host with a slash": "3503612f62",
    "host with NUL": "3503610062",
    "host of surrogates": "3503eda080",
    "host of overlong UTF-8": "3502c0af",
    "host beyond Unicode": "3504f4908080",
    "host with a cut character": "3502e282",
    "host of 254 bytes": "35fe01" + "61" * 254,
    "sni with a slash": "c103022f61",
    "zone with a slash": "2a022f61",
    "zone with NUL": "2a0100",
    "zone not UTF-8": "2a01ff",
    "path without slash": "90030161",
    "path too short": "9003012f",
    "path with a slash at the end": "9003032f612f",
    "path without slash before": "90030c746d702f7032702e736f636b",
    "path not UTF-8": "9003022fff",
    "path with NUL": "9003032f6100",
    "http-path not UTF-8": "e10301ff",
    "garlic32 of 31 bytes": "bf031f" + "00" * 31,
    "garlic32 of 33 bytes": "bf0321" + "00" * 33,
    "garlic64 of 385 bytes": "be038103" + "00" * 385,
    "certhash with a length too long": "d203031220c3",
    "certhash with a digest over 64 bytes": "d203431341" + "00" * 65,
    "memory as JS writes it": "89060431323334",
}


@pytest.mark.parametrize(("text", "encoded"), VECTORS)
def test_vectors_hold_both_ways(text: str, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert Multiaddr(text).to_bytes() == data
    assert str(Multiaddr(data)) == text
    assert Multiaddr(text) == Multiaddr(data)
    assert multiaddr.to_bytes(text) == data
    assert multiaddr.to_text(data) == text


@pytest.mark.parametrize(("text", "encoded"), VECTORS)
def test_no_proper_prefix_of_bytes_passes_unless_it_ends_a_component(text: str, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    whole = {len(Multiaddr.join(*Multiaddr(text).split()[:n]).to_bytes()) for n in range(1, len(data))}
    for end in range(len(data)):
        if end in whole:
            assert Multiaddr(data[:end]).to_bytes() == data[:end]
        else:
            with pytest.raises(AddressError):
                Multiaddr(data[:end])


@pytest.mark.parametrize(("canonical", "alias"), ALIASES)
def test_aliases_have_the_same_bytes_and_the_canonical_text(canonical: str, alias: str) -> None:
    assert Multiaddr(alias) == Multiaddr(canonical)
    assert str(Multiaddr(alias)) == canonical


@pytest.mark.parametrize("text", MUST_PARSE)
def test_parses_and_prints_back(text: str) -> None:
    addr = Multiaddr(text)
    assert str(addr) == text or text.startswith("/certhash/b")
    assert Multiaddr(addr.to_bytes()) == addr == Multiaddr(str(addr))


@pytest.mark.parametrize("text", MUST_FAIL + MUST_FAIL_TOO)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        Multiaddr(text)


@pytest.mark.parametrize("encoded", BYTES_MUST_FAIL)
def test_malformed_bytes_are_refused(encoded: str) -> None:
    with pytest.raises(AddressError):
        Multiaddr(bytes.fromhex(encoded))


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_alone_and_behind_a_good_component(case: str) -> None:
    data = bytes.fromhex(BAD_INPUT[case])
    for prefix in (b"", bytes.fromhex("047f000001")):
        with pytest.raises(AddressError):
            Multiaddr(prefix + data)
        with pytest.raises(AddressError):
            multiaddr.to_text(prefix + data)


@pytest.mark.parametrize("case", ["code above 2**31-1", "length above 2**31-1", "length of 2**63-1"])
def test_large_numbers_are_refused_as_such_before_anything_is_made_of_them(case: str) -> None:
    with pytest.raises(AddressError, match=r"below 2\*\*31"):
        Multiaddr(bytes.fromhex(BAD_INPUT[case]))


def test_an_error_names_the_value_and_what_was_expected() -> None:
    with pytest.raises(AddressError, match=r"/ip4/1.2.3/tcp/80.*ip4 '1.2.3': four decimal octets"):
        Multiaddr("/ip4/1.2.3/tcp/80")
    with pytest.raises(AddressError, match=r"350161ff.*ff.*varint"):
        Multiaddr(bytes.fromhex("350161ff"))
    with pytest.raises(AddressError) as caught:
        Multiaddr("/x" + "y" * 2000)
    assert len(str(caught.value)) < 400


def test_js_bytes_of_http_path_are_taken_as_they_are() -> None:
    assert str(Multiaddr(bytes.fromhex("e1030d2f6170692f76302f6c6f67696e"))) == (
        "/http-path/%2Fapi%2Fv0%2Flogin"
    )


def test_a_host_keeps_its_case_and_may_be_253_bytes() -> None:
    assert Multiaddr("/dns/Example.COM") != Multiaddr("/dns/example.com")
    assert str(Multiaddr("/dns/" + "a" * 253))
    with pytest.raises(AddressError, match="host name"):
        Multiaddr("/dns/" + "é" * 127)


# -- limits ------------------------------------------------------------------------------------


def test_a_text_of_the_largest_size_passes_and_one_more_does_not() -> None:
    longest = "/unix/" + "a" * (limits.MAX_MULTIADDR_BYTES - 6)
    assert str(Multiaddr(longest)) == longest
    for text in (longest + "a", longest + "/", "/unix/" + "é" * 1022, "/" * 100_000):
        with pytest.raises(AddressError):
            Multiaddr(text)


def test_a_text_within_the_size_may_still_have_too_many_bytes() -> None:
    text = "/ip6/::" * 31 + "/unix/" + "a" * 1700
    assert len(text) < limits.MAX_MULTIADDR_BYTES
    with pytest.raises(AddressError, match="size limit"):
        Multiaddr(text)


def test_text_is_measured_in_bytes_before_it_is_parsed() -> None:
    text = "/unix/" + "\U0001f480" * 2000
    assert len(text) < limits.MAX_MULTIADDR_BYTES
    with pytest.raises(AddressError, match="over 2048 bytes"):
        Multiaddr(text)


def test_bytes_over_the_size_are_refused() -> None:
    for size in (limits.MAX_MULTIADDR_BYTES - 3, limits.MAX_MULTIADDR_BYTES, 100_000):
        with pytest.raises(AddressError, match="1 to 2048 bytes"):
            Multiaddr(b"\x90\x03" + varint.encode(size) + b"/" * (size - 1) + b"a")


@pytest.mark.parametrize("prefix", ["", "/ip4/127.0.0.1/tcp/80/http"])
def test_what_would_print_over_the_size_is_refused_either_way(prefix: str) -> None:
    room = limits.MAX_MULTIADDR_BYTES - len(prefix) - len("/http-path/")
    start = Multiaddr(prefix).to_bytes() if prefix else b""
    fits, over = b" " * (room // 3), b" " * (room // 3 + 1)
    for value, does_fit in ((fits, True), (over, False)):
        text = f"{prefix}/http-path/{value.decode()}"
        data = start + b"\xe1\x03" + varint.encode(len(value)) + value
        if does_fit:
            assert str(Multiaddr(text)) == str(Multiaddr(data)) == prefix + "/http-path/" + "%20" * len(value)
        else:
            for either in (text, data):
                with pytest.raises(AddressError, match="size limit"):
                    Multiaddr(either)


@pytest.mark.parametrize("component", ["/ws", "/ip6/::", "/memory/1", "/onion/timaq4ygg2iegci7:80"])
def test_components_are_bounded(component: str) -> None:
    most = Multiaddr(component * limits.MAX_MULTIADDR_COMPONENTS)
    assert len(most) == limits.MAX_MULTIADDR_COMPONENTS
    for one_more in (component * (len(most) + 1), most.to_bytes() + Multiaddr(component).to_bytes()):
        with pytest.raises(AddressError, match="fewer components"):
            Multiaddr(one_more)
    with pytest.raises(AddressError, match="fewer components"):
        most.encapsulate(component)


def test_a_certhash_is_bounded() -> None:
    for length in (0, 1, limits.MAX_CERTHASH_DIGEST_BYTES):
        digest = b"\x13" + bytes([length]) + b"d" * length
        assert Multiaddr("/certhash/" + base.encode("z", digest))._raw_value(466) == digest
    too_long = b"\x13\x41" + b"d" * 65
    for prefix in "zuf":
        with pytest.raises(AddressError):
            Multiaddr("/certhash/" + base.encode(prefix, too_long))


# -- arbitrary input ---------------------------------------------------------------------------

_NAMES = [proto.name for proto in PROTOCOLS] + ["ipfs"]
_TOKENS = st.sampled_from([*_NAMES, "", "1.2.3.4", "::1", "80", "a.b", PEER, CERTHASH, "%41", GARLIC32])


@given(
    st.text(max_size=80)
    | st.lists(_TOKENS | st.text(max_size=6), max_size=12).map(lambda parts: "/" + "/".join(parts))
)
@example("/" + "\U0001f480" * 600)
def test_arbitrary_text_gives_an_address_or_one_error(text: str) -> None:
    try:
        addr = Multiaddr(text)
    except AddressError:
        return
    assert Multiaddr(str(addr)) == addr == Multiaddr(addr.to_bytes())


@given(
    st.binary(max_size=120)
    | st.lists(st.sampled_from([p.vcode for p in PROTOCOLS]) | st.binary(max_size=6), max_size=8).map(
        b"".join
    )
)
def test_arbitrary_bytes_give_an_address_or_one_error(data: bytes) -> None:
    try:
        addr = Multiaddr(data)
    except AddressError:
        return
    assert addr.to_bytes() == data
    assert Multiaddr(str(addr)) == addr


_HOSTS = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=60
)
_PATHS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=60)
_IDENTITY = st.binary(max_size=42).map(lambda digest: bytes((0, len(digest))) + digest)
_VALUES: dict[str, Callable[[], st.SearchStrategy[bytes]]] = {
    "ip6zone": lambda: _HOSTS.map(str.encode),
    "dns": lambda: _HOSTS.map(str.encode),
    "dns4": lambda: _HOSTS.map(str.encode),
    "dns6": lambda: _HOSTS.map(str.encode),
    "dnsaddr": lambda: _HOSTS.map(str.encode),
    "sni": lambda: _HOSTS.map(str.encode),
    "unix": lambda: _PATHS.map(lambda text: b"/" + text.encode()).filter(lambda data: data[-1:] != b"/"),
    "http-path": lambda: _PATHS.map(str.encode),
    "p2p": lambda: _IDENTITY | st.binary(min_size=32, max_size=32).map(lambda d: b"\x12\x20" + d),
    "certhash": lambda: st.binary(max_size=64).map(lambda d: b"\x13" + bytes([len(d)]) + d),
    "garlic32": lambda: st.binary(min_size=32, max_size=32) | st.binary(min_size=35, max_size=60),
    "garlic64": lambda: st.binary(min_size=386, max_size=420),
}


@st.composite
def components(draw: st.DrawFn) -> bytes:
    """One component of any protocol, valid by construction."""
    proto = draw(st.sampled_from([proto for proto in PROTOCOLS if not proto.path]))
    if proto.size >= 0:
        size = proto.size // 8
        value = draw(st.binary(min_size=size, max_size=size))
        return proto.vcode + (value[:-1] + b"\x01" if "onion" in proto.name else value)
    value = draw(_VALUES[proto.name]())
    return proto.vcode + varint.encode(len(value)) + value


@st.composite
def addresses(draw: st.DrawFn) -> bytes:
    """Any address, valid by construction; a path may come last."""
    data = b"".join(draw(st.lists(components(), min_size=1, max_size=4)))
    if draw(st.booleans()):
        path = draw(_VALUES["unix"]())
        data += protocol_with_name("unix").vcode + varint.encode(len(path)) + path
    assume(len(data) <= 600)  # the text is at most about three times as long, and so within its limit
    return data


@given(addresses())
def test_round_trip_of_every_protocol(data: bytes) -> None:
    addr = Multiaddr(data)
    assert addr.to_bytes() == data
    assert Multiaddr(str(addr)).to_bytes() == data
    assert Multiaddr.join(*addr.split()) == addr
    assert [part.components()[0] for part in addr.split()] == list(addr.components())


@given(addresses(), st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_gives_an_address_or_one_error(data: bytes, at: int, byte: int) -> None:
    changed = bytearray(data)
    changed[at % len(changed)] = byte
    try:
        addr = Multiaddr(bytes(changed))
    except AddressError:
        return
    assert Multiaddr(str(addr)).to_bytes() == bytes(changed)


@given(st.ip_addresses(v=4))
def test_ip4_agrees_with_the_standard_library(address: ipaddress.IPv4Address) -> None:
    assert str(Multiaddr(b"\x04" + address.packed)) == f"/ip4/{address}"


@given(st.ip_addresses(v=6) | st.lists(st.sampled_from([0, 1, 0xABCD]), min_size=8, max_size=8))
def test_ip6_agrees_with_the_standard_library(value: ipaddress.IPv6Address | list[int]) -> None:
    packed = value.packed if not isinstance(value, list) else b"".join(n.to_bytes(2) for n in value)
    address = ipaddress.IPv6Address(packed)
    addr = Multiaddr(f"/ip6/{address.exploded}")
    assert addr.to_bytes() == b"\x29" + packed
    if address.ipv4_mapped is None:
        assert str(addr) == f"/ip6/{address.compressed}"
    else:
        assert str(addr) == f"/ip6/::ffff:{address.ipv4_mapped}"


@given(st.text("0123456789abcdefABCDEF:.", min_size=1, max_size=45))
def test_ip_text_is_taken_when_the_standard_library_takes_it(text: str) -> None:
    for version, parse in (("ip4", ipaddress.IPv4Address), ("ip6", ipaddress.IPv6Address)):
        try:
            expected = parse(text).packed
        except ValueError:
            with pytest.raises(AddressError):
                Multiaddr(f"/{version}/{text}")
        else:
            assert Multiaddr(f"/{version}/{text}").to_bytes()[1:] == expected


# -- the table ---------------------------------------------------------------------------------


def test_the_table_is_complete_and_consistent() -> None:
    assert len(PROTOCOLS) == 41
    assert len({proto.name for proto in PROTOCOLS}) == len(PROTOCOLS)
    for proto in PROTOCOLS:
        assert protocol_with_name(proto.name) is protocol_with_code(proto.code) is proto
        assert varint.decode(proto.vcode) == (proto.code, len(proto.vcode))
    assert protocol_with_name("ipfs").name == "p2p"
    assert protocol_with_code(7367777).vcode.hex() == "e1d8c103"
    assert [proto.name for proto in PROTOCOLS if proto.path] == ["unix"]


@pytest.mark.parametrize("name", _NAMES)
def test_every_name_is_found_and_no_neighbour_of_it(name: str) -> None:
    for wrong in (name.upper(), name + "x", name[:-1] + "~", "x" + name, name + "\x00"):
        with pytest.raises(AddressError, match="known protocol"):
            Multiaddr(f"/{wrong}/1.2.3.4")


def test_errors_of_values_are_address_errors_too() -> None:
    assert not issubclass(AddressError, IdentityError)
    with pytest.raises(AddressError, match="p2p 'x'"):
        Multiaddr("/p2p/x")
