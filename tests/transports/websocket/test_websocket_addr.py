"""WebSocket addresses: which there are, and what they say."""

from __future__ import annotations

import pytest

from p2pcore.errors import AddressError
from p2pcore.transports.websocket.addr import parse_websocket
from p2pcore.values.multiaddr import Multiaddr

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


@pytest.mark.parametrize(
    ("text", "hex"),
    [
        (
            "/dns4/example.com/tcp/443/tls/sni/example.com/ws",
            "360b6578616d706c652e636f6d0601bbc003c1030b6578616d706c652e636f6ddd03",
        ),
        ("/dns4/example.com/tcp/443/wss", "360b6578616d706c652e636f6d0601bbde03"),
        ("/ip4/127.0.0.1/tcp/127/tls/ws", "047f00000106007fc003dd03"),
        ("/ip4/127.0.0.1/tcp/127/ws", "047f00000106007fdd03"),
    ],
)
def test_vectors(text: str, hex: str) -> None:
    assert bytes(Multiaddr(text)).hex() == hex
    assert str(Multiaddr(bytes.fromhex(hex))) == text


@pytest.mark.parametrize(
    ("text", "is_secure", "suffix", "host", "authority", "target"),
    [
        ("/ip4/192.0.2.1/tcp/80/ws", False, "/ws", "192.0.2.1", "192.0.2.1", "/"),
        ("/ip4/192.0.2.1/tcp/443/ws", False, "/ws", "192.0.2.1", "192.0.2.1:443", "/"),
        ("/ip4/192.0.2.1/tcp/4001/wss", True, "/tls/ws", "192.0.2.1", "192.0.2.1:4001", "/"),
        ("/ip4/192.0.2.1/tcp/443/tls/ws", True, "/tls/ws", "192.0.2.1", "192.0.2.1", "/"),
        ("/ip6/2001:db8::1/tcp/443/wss", True, "/tls/ws", "2001:db8::1", "[2001:db8::1]", "/"),
        ("/ip6/2001:db8::1/tcp/81/ws", False, "/ws", "2001:db8::1", "[2001:db8::1]:81", "/"),
        ("/ip6zone/lo/ip6/fe80::1/tcp/80/ws", False, "/ws", "fe80::1", "[fe80::1]", "/"),
        (
            "/ip4/192.0.2.1/tcp/443/tls/sni/a.example/ws",
            True,
            "/tls/sni/a.example/ws",
            "a.example",
            "a.example",
            "/",
        ),
        (
            "/ip4/192.0.2.1/tcp/8443/tls/sni/a.example/ws",
            True,
            "/tls/sni/a.example/ws",
            "a.example",
            "a.example:8443",
            "/",
        ),
        ("/ip4/192.0.2.1/tcp/80/sni/a.example/ws", False, "/ws", "a.example", "a.example", "/"),
        ("/dns4/a.example/tcp/81/ws", False, "/ws", "a.example", "a.example:81", "/"),
        ("/dns/A.Example./tcp/443/tls/ws", True, "/tls/ws", "a.example", "a.example", "/"),
        (
            "/dns6/Bücher.example/tcp/443/wss",
            True,
            "/tls/ws",
            "xn--bcher-kva.example",
            "xn--bcher-kva.example",
            "/",
        ),
        (
            "/dns4/a.example/tcp/443/tls/sni/b.example/ws",
            True,
            "/tls/sni/b.example/ws",
            "b.example",
            "b.example",
            "/",
        ),
        (
            "/ip4/192.0.2.1/tcp/80/ws/http-path/a%2Fb%20c",
            False,
            "/ws/http-path/a%2Fb%20c",
            "192.0.2.1",
            "192.0.2.1",
            "/a/b%20c",
        ),
    ],
)
@pytest.mark.parametrize("peer", [None, PEER])
def test_what_an_address_says(
    text: str, is_secure: bool, suffix: str, host: str, authority: str, target: str, peer: str | None
) -> None:
    endpoint = parse_websocket(Multiaddr(text + (f"/p2p/{peer}" if peer else "")))
    assert endpoint.is_secure is is_secure
    assert str(endpoint.suffix) == suffix
    assert (endpoint.host, endpoint.authority, endpoint.target) == (host, authority, target)
    assert str(endpoint.tcp_addr) == text[: text.index(f"/tcp/{endpoint.port}")] + f"/tcp/{endpoint.port}"
    assert (str(endpoint.peer) if endpoint.peer else None) == peer


@pytest.mark.parametrize(
    "text",
    [
        "/ws",
        "/ip4/192.0.2.1/tcp/80",
        "/ip4/192.0.2.1/ws",
        "/ip4/192.0.2.1/udp/80/ws",
        "/dns4/example.com/udp/80/ws",
        "/dnsaddr/example.com/tcp/80/ws",
        "/dns4/a..b/tcp/80/ws",
        "/ip4/192.0.2.1/tcp/80/tls/sni/a..b/ws",
        "/ip4/192.0.2.1/tcp/80/tls",
        "/ip4/192.0.2.1/tcp/80/tls/wss",
        "/ip4/192.0.2.1/tcp/80/tls/sni/example.com",
        "/ip4/192.0.2.1/tcp/80/tls/sni/example.com/wss",
        "/ip4/192.0.2.1/tcp/80/sni/example.com/wss",
        "/ip4/192.0.2.1/tcp/80/ws/ws",
        "/ip4/192.0.2.1/tcp/80/http-path/a",
        "/ip4/192.0.2.1/tcp/80/ws/http-path/a/http-path/b",
        "/ip4/192.0.2.1/tcp/80/ws/tcp/81",
        f"/ip4/192.0.2.1/tcp/80/ws/p2p/{PEER}/p2p-circuit",
        f"/p2p/{PEER}",
    ],
)
def test_other_addresses_are_refused_by_name(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_websocket(Multiaddr(text))
    assert text.split("/")[1] in str(caught.value)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("x", "/x"),
        ("%2Fx", "/x"),
        ("a%3Fb%23c", "/a%3Fb%23c"),
        ("a%0D%0AHost%3A evil", "/a%0D%0AHost:%20evil"),
        ("%C3%A4", "/%C3%A4"),
    ],
)
def test_a_path_can_bring_nothing_else_into_the_request(path: str, target: str) -> None:
    addr = Multiaddr(f"/ip4/192.0.2.1/tcp/80/ws/http-path/{path.replace(' ', '%20')}")
    assert parse_websocket(addr).target == target
