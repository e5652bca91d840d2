"""TCP multiaddrs and socket addresses."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pcore.errors import AddressError
from p2pcore.manet.sockaddr import parse_endpoint, to_multiaddr
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
LOOPBACK_INTERFACE = socket.if_indextoname(1)


@pytest.mark.parametrize(
    ("sockaddr", "text"),
    [
        (("192.0.2.7", 4001), "/ip4/192.0.2.7/tcp/4001"),
        (("2001:db8::1", 4001, 0, 0), "/ip6/2001:db8::1/tcp/4001"),
        (("::ffff:192.0.2.7", 4001, 0, 0), "/ip4/192.0.2.7/tcp/4001"),
        (("fe80::1", 4001, 0, 1), f"/ip6zone/{LOOPBACK_INTERFACE}/ip6/fe80::1/tcp/4001"),
        (
            (f"fe80::1%{LOOPBACK_INTERFACE}", 4001, 0, 1),
            f"/ip6zone/{LOOPBACK_INTERFACE}/ip6/fe80::1/tcp/4001",
        ),
        (("fe80::1", 4001, 0, 99999), "/ip6zone/99999/ip6/fe80::1/tcp/4001"),
    ],
)
def test_socket_addresses_become_multiaddrs(sockaddr: tuple[Any, ...], text: str) -> None:
    assert to_multiaddr(sockaddr) == Multiaddr(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_there_and_back(host: Any, port: int) -> None:
    if host.version == 6 and host.ipv4_mapped is not None:
        return
    addr = Multiaddr(f"/ip{host.version}/{host}/tcp/{port}")
    endpoint = parse_endpoint(addr)
    assert (endpoint.port, endpoint.zone, endpoint.peer) == (port, "", None)
    assert to_multiaddr(endpoint.sockaddr()) == addr


def test_a_peer_id_behind_the_port_is_taken() -> None:
    endpoint = parse_endpoint(Multiaddr(f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"))
    assert endpoint.peer == PeerId.from_text(PEER)


def test_a_zone_is_the_name_or_the_number_of_an_interface() -> None:
    for zone in (LOOPBACK_INTERFACE, "1"):
        endpoint = parse_endpoint(Multiaddr(f"/ip6zone/{zone}/ip6/fe80::1/tcp/7"))
        assert endpoint.sockaddr() == ("fe80::1", 7, 0, 1)


@pytest.mark.parametrize("zone", ["nosuchif0", "²", "99999999999"])
def test_a_zone_of_no_interface_is_an_os_error(zone: str) -> None:
    with pytest.raises(OSError, match="no interface"):
        parse_endpoint(Multiaddr(f"/ip6zone/{zone}/ip6/fe80::1/tcp/7")).sockaddr()


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1",
        "/tcp/80",
        "/ip4/127.0.0.1/udp/80",
        "/dns4/example.com/tcp/80",
        "/dns/example.com/tcp/80",
        "/ip4/127.0.0.1/tcp/80/ws",
        "/ip4/127.0.0.1/tcp/80/tls/ws",
        f"/ip4/127.0.0.1/tcp/80/p2p/{PEER}/p2p-circuit",
        f"/ip4/127.0.0.1/tcp/80/ws/p2p/{PEER}",
        "/ip6zone/lo/ip4/127.0.0.1/tcp/80",
        "/unix/tmp",
        f"/p2p/{PEER}",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_endpoint(Multiaddr(text))
