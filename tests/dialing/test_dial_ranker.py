"""Ranking: which address of a peer is dialled first, and how long the others wait."""

from __future__ import annotations

import random

import pytest

from p2pcore.dialing.ranker import rank
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import peer

V4, V4_LATE = "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"
V6, V6_LATE = "/ip6/2001:4860::1/tcp/1", "/ip6/2001:4860::1/tcp/2"
WS = "/ip4/1.2.3.4/tcp/1/ws"
HOME, HOME_LATE = "/ip4/192.168.1.2/tcp/1", "/ip4/192.168.1.2/tcp/2"
HOME6 = "/ip6/fd00::1/tcp/1"
RELAY = f"/ip4/5.6.7.8/tcp/1/p2p/{peer(3)}/p2p-circuit"
RELAY6 = f"/ip6/2001:4860::2/tcp/1/p2p/{peer(3)}/p2p-circuit"
QUIC = "/ip4/1.2.3.4/udp/1/quic-v1"
UNIX = "/unix/%2Ftmp%2Fx"
ONION = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234"


@pytest.mark.parametrize(
    "expected",
    [
        [],
        [(0, V4)],
        [(0, V6)],
        [(0, V6), (0.25, V4)],
        [(0, V6), (0.25, V4), (0.5, V6_LATE), (0.5, V4_LATE)],
        [(0, V4), (0.25, V4_LATE)],
        [(0, V6), (0.25, V6_LATE)],
        [(0, V4), (0.25, WS)],
        [(0, HOME6), (0.03, HOME), (0.06, HOME_LATE)],
        [(0, RELAY)],
        [(0, V4), (0.5, RELAY)],
        [(0, V4), (0.5, RELAY6), (0.75, RELAY)],
        [(0, HOME), (0, RELAY)],
        [(0, HOME), (0, V6), (0.03, HOME_LATE), (0.25, V4), (0.5, RELAY)],
        [(0, V4), (1.0, QUIC)],
        [(0, QUIC)],
        [(0, UNIX), (0, V4)],
        [(0, ONION)],
        [(0, HOME), (0.03, HOME_LATE), (1.03, ONION)],
        [(0, V4), (0.25, WS), (0.5, RELAY), (1.5, ONION)],
        [(0, "/dns4/a.example/tcp/1/ws"), (1.0, ONION)],
        [(0, "/ip6zone/eth0/ip6/fe80::1/tcp/1"), (1.0, ONION)],
    ],
    ids=str,
)
def test_addresses_are_spaced_by_group_family_and_transport(expected: list[tuple[float, str]]) -> None:
    wanted = [(delay, Multiaddr(text)) for delay, text in expected]
    addrs = [addr for _, addr in wanted]
    for seed in range(10):
        random.Random(seed).shuffle(addrs)
        ranked = rank(addrs)
        assert [delay for delay, _ in ranked] == pytest.approx([delay for delay, _ in wanted])
        assert sorted(ranked) == [(pytest.approx(delay), addr) for delay, addr in sorted(wanted)]


def test_low_ports_and_plain_tcp_come_first_of_one_family() -> None:
    texts = [
        "/ip4/1.2.3.4/tcp/90/ws",
        "/ip4/1.2.3.4/tcp/4001",
        "/ip4/1.2.3.4/tcp/443",
        "/ip4/1.2.3.4/tcp/80/ws",
    ]
    order = [str(addr) for _, addr in rank(map(Multiaddr, texts))]
    assert order == [texts[2], texts[1], texts[3], texts[0]]
