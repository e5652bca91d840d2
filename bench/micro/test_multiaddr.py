"""Multiaddr and peer id codecs, beside the `multiaddr` package's.

Comes in: four texts, from the shortest to a relayed one. Goes out: time of REPEAT conversions, so that the
benchmark's own calls do not count; nanoseconds of one in extra_info. Compare within a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import multiaddr as package
import pytest

from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

REPEAT = 200
PEER = "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy"
RELAY = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
TEXTS = {
    "ip4-tcp": "/ip4/127.0.0.1/tcp/4001",
    "ip6-tcp-ws": "/ip6/2001:8a0:7ac5:4201:3ac9:86ff:fe31:7095/tcp/8000/ws",
    "peer": f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}",
    "relayed": f"/ip4/198.51.100.1/tcp/4001/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
}
KINDS = {"p2pcore": Multiaddr, "package": package.Multiaddr}

by_name = pytest.mark.parametrize("name", TEXTS)
by_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def measure(benchmark: Any, once: Callable[[], object], group: str | None = None) -> None:
    def many() -> None:
        for _ in range(REPEAT):
            once()

    benchmark.group = group
    benchmark(many)
    if benchmark.stats is not None:
        benchmark.extra_info["ns"] = round(benchmark.stats.stats.median * 1e9 / REPEAT)


@by_name
@by_kind
def test_text_to_bytes_to_text(benchmark: Any, kind: Any, name: str) -> None:
    text = TEXTS[name]
    assert str(kind(kind(text).to_bytes())) == text
    measure(benchmark, lambda: str(kind(kind(text).to_bytes())), f"text to bytes to text: {name}")


@by_name
@by_kind
def test_text_to_bytes(benchmark: Any, kind: Any, name: str) -> None:
    text = TEXTS[name]
    assert kind(text).to_bytes() == Multiaddr(text).to_bytes()
    measure(benchmark, lambda: kind(text).to_bytes(), f"text to bytes: {name}")


@by_name
@by_kind
def test_value_for_protocol(benchmark: Any, kind: Any, name: str) -> None:
    addr = kind(TEXTS[name])
    measure(benchmark, lambda: addr.value_for_protocol("ip6" if "ip6" in name else "ip4"), f"value: {name}")


@by_name
@by_kind
def test_encapsulate_and_decapsulate(benchmark: Any, kind: Any, name: str) -> None:
    addr, top = kind(TEXTS[name]), kind("/udp/1")
    assert addr.encapsulate(top).decapsulate(top) == addr
    measure(benchmark, lambda: addr.encapsulate(top).decapsulate(top), f"encapsulate, decapsulate: {name}")


def test_peer_of_an_address(benchmark: Any) -> None:
    addr = Multiaddr(TEXTS["relayed"])
    assert addr.peer_id == PeerId(PEER)
    measure(benchmark, lambda: addr.peer_id)


def test_classification(benchmark: Any) -> None:
    addr = Multiaddr(TEXTS["relayed"])
    measure(benchmark, lambda: addr.is_private or addr.is_loopback)


@pytest.mark.parametrize("text", [PEER, RELAY], ids=["identity", "sha2-256"])
def test_peer_id_text_there_and_back(benchmark: Any, text: str) -> None:
    assert str(PeerId(text)) == text
    measure(benchmark, lambda: str(PeerId(text)))


def test_hash_and_equality(benchmark: Any) -> None:
    one, two = Multiaddr(TEXTS["peer"]), Multiaddr(TEXTS["peer"])
    table = {one: 1}
    measure(benchmark, lambda: table[two])
