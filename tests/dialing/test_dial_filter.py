"""Which addresses are worth dialling: a reason for each that is not."""

from __future__ import annotations

import pytest

from p2pcore.dialing.filter import DialFilter
from p2pcore.errors import AddressError, NoTransport
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import FakeTransport, addr, peer

THEM = peer(1)
OWN = addr(7)


def make_filter() -> DialFilter:
    transports = FakeTransport("tcp", "ws", "wss"), FakeTransport("p2p-circuit", is_proxy=True)
    return DialFilter(
        lambda target: next((each for each in transports if each.can_dial(target)), None),  # type: ignore[arg-type, return-value]
        lambda: [OWN],
    )


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("/ip4/1.2.3.4/udp/1/quic-v1", NoTransport, "no transport"),
        ("/ip4/0.0.0.0/tcp/1", AddressError, "unspecified"),
        ("/ip6/::/tcp/1", AddressError, "unspecified"),
        ("/ip6/fe80::1/tcp/1", AddressError, "needs a zone"),
        (str(OWN), AddressError, "itself listens"),
        (f"{OWN}/p2p/{THEM}", AddressError, "itself listens"),
        (f"/ip4/1.2.3.4/tcp/1/p2p/{peer(2)}", AddressError, "names another peer"),
    ],
)
def test_an_address_of_no_use_is_left_out_with_the_reason(text: str, kind: type, why: str) -> None:
    good, causes = make_filter().choose(THEM, [Multiaddr(text), addr(1)])
    assert good == [addr(1)]
    assert list(causes) == [Multiaddr(text)]
    assert type(causes[Multiaddr(text)]) is kind
    assert why in str(causes[Multiaddr(text)])


@pytest.mark.parametrize(
    "text", ["/ip6zone/lo/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1", "/ip4/169.254.0.1/tcp/1"]
)
def test_other_private_addresses_are_dialled(text: str) -> None:
    assert make_filter().choose(THEM, [Multiaddr(text)]) == ([Multiaddr(text)], {})


def test_the_peers_id_is_taken_off_and_each_address_comes_once() -> None:
    good, causes = make_filter().choose(
        THEM, [addr(2), addr(1).with_p2p(THEM), addr(1), addr(2).with_p2p(THEM)]
    )
    assert (good, causes) == ([addr(2), addr(1)], {})


def test_without_a_known_peer_the_ids_stay() -> None:
    addrs = [addr(1).with_p2p(peer(2)), addr(2)]
    assert make_filter().choose(None, addrs) == (addrs, {})


def test_websocket_is_left_out_where_plain_tcp_has_the_same_address() -> None:
    texts = [
        "/ip4/1.2.3.4/tcp/1/ws",
        "/ip4/1.2.3.4/tcp/1",
        "/ip4/1.2.3.4/tcp/1/tls/ws",
        "/ip4/1.2.3.4/tcp/2/ws",
        "/ip4/1.2.3.5/tcp/1/wss",
        f"/ip4/1.2.3.4/tcp/1/ws/p2p/{peer(3)}/p2p-circuit",
    ]
    good, causes = make_filter().choose(THEM, map(Multiaddr, texts))
    assert list(map(str, good)) == [texts[1], texts[3], texts[4], texts[5]]
    assert list(map(str, causes)) == [texts[0], texts[2]]
    assert all(isinstance(cause, AddressError) for cause in causes.values())
