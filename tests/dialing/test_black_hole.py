"""Black holes: what never works from here is left alone, tried now and then, and used again when it works."""

from __future__ import annotations

import pytest

from p2pcore import limits
from p2pcore.dialing.black_hole import BlackHoleCounter, BlackHoleDetector
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import peer

V4 = Multiaddr("/ip4/1.2.3.4/tcp/1")
V6 = Multiaddr("/ip6/2001:4860::1/tcp/1")
UDP = Multiaddr("/ip4/1.2.3.4/udp/1/quic-v1")
BOTH = Multiaddr("/ip6/2001:4860::1/udp/1/quic-v1")
PRIVATE = [
    Multiaddr("/ip6/fd00::1/tcp/1"),
    Multiaddr("/ip6/::1/udp/1/quic-v1"),
    Multiaddr(f"/ip6/2001:4860::1/tcp/1/p2p/{peer(3)}/p2p-circuit"),
]
N = limits.BLACK_HOLE_WINDOW


def tried(
    detector: BlackHoleDetector, addr: Multiaddr, failures: int, successes: int = 0
) -> BlackHoleDetector:
    for _ in range(successes):
        detector.record(addr, True)
    for _ in range(failures):
        detector.record(addr, False)
    return detector


@pytest.mark.parametrize(("successes", "blocked"), [(0, True), (4, True), (5, False), (100, False)])
def test_fewer_than_five_successes_in_a_hundred_dials_block(successes: int, blocked: bool) -> None:
    counter = BlackHoleCounter()
    for number in range(N):
        assert counter.is_probing
        assert not counter.is_blocked
        counter.record(number < successes)
    assert counter.is_blocked is blocked


def test_only_the_last_hundred_dials_count() -> None:
    counter = BlackHoleCounter()
    for _ in range(N):
        counter.record(True)
    for _ in range(N - limits.BLACK_HOLE_MIN_SUCCESSES):
        counter.record(False)
    assert not counter.is_blocked
    counter.record(False)
    assert counter.is_blocked


def test_one_dial_in_a_hundred_is_allowed_while_blocked() -> None:
    detector = tried(BlackHoleDetector(), V6, N)
    allowed = [not detector.blocked([V6, V4]) for _ in range(3 * N)]
    assert [at for at, each in enumerate(allowed, 1) if each] == [N, 2 * N, 3 * N]


def test_a_success_while_blocked_begins_anew() -> None:
    detector = tried(BlackHoleDetector(), V6, N)
    assert detector.is_blocked("IPv6")
    detector.record(V6, True)
    assert not detector.is_blocked("IPv6")
    assert detector.blocked([V6]) == {}
    tried(detector, V6, N - 2)
    assert not detector.is_blocked("IPv6"), "a hundred more are waited for"


def test_the_kinds_are_apart_and_an_address_may_be_of_both() -> None:
    detector = tried(BlackHoleDetector(), V6, N)
    assert detector.blocked([V4, V6, UDP]) == {V6: "IPv6"}
    assert detector.blocked([BOTH]) == {}, "UDP is still being probed"
    tried(detector, UDP, N)
    assert detector.blocked([V4, V6, UDP, BOTH]) == {V6: "IPv6", UDP: "UDP", BOTH: "UDP"}


@pytest.mark.parametrize("addr", [*PRIVATE, V4], ids=str)
def test_private_and_relayed_addresses_neither_count_nor_are_blocked(addr: Multiaddr) -> None:
    detector = tried(BlackHoleDetector(), addr, 2 * N)
    assert not detector.is_blocked("UDP")
    assert not detector.is_blocked("IPv6")
    tried(tried(detector, V6, N), UDP, N)
    assert detector.blocked([addr]) == {}
