"""Blocks of addresses (the cases of go-libp2p's resource manager and of x/rate): counts, rates, networks."""

from __future__ import annotations

import random
from typing import Any

import pytest

from p2pcore import Limits, Multiaddr
from p2pcore._fast.loop.blocks import Blocks, Networks
from p2pcore.limits import MAX_RATED_SUBNETS
from p2pcore.resources.options import UNLIMITED
from swarm_fakes import peer

NOTHING: dict[str, Any] = {"exempt": (), "conn_rate_per_subnet": None}


def blocks(**fields: Any) -> Blocks:
    return Blocks(Limits(**({"max_conns": None} | fields)).resolved())


def said(found: tuple[str, int, int, object] | None) -> tuple[str, int, int, str] | None:
    """The limit that was found, with its block as people read it."""
    return None if found is None else (*found[:3], str(found[3]))


def joins(these: Blocks, ip: str) -> bool:
    """Whether a connection from `ip` is taken; it counts from then on."""
    if these.full(ip) is not None:
        return False
    these.add(ip)
    return True


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ip", "addr"),
    [
        ("1.2.3.4", "/ip4/1.2.3.4/tcp/1"),
        ("1.2.3.4", "/ip4/1.2.3.4/udp/1/quic-v1"),
        ("2a00:1::5", "/ip6/2a00:1::5/tcp/2/ws"),
        ("fe80::1%eth0", "/ip6zone/eth0/ip6/fe80::1/tcp/2"),
        ("::ffff:1.2.3.4", "/ip4/1.2.3.4/tcp/1"),
        ("1.2.3.4", "/ip6/::ffff:1.2.3.4/tcp/1"),
        ("::", "/ip6/::/tcp/1"),
        ("0.0.0.0", "/ip4/0.0.0.0/tcp/1"),
    ],
)
def test_a_socket_address_and_a_multiaddr_are_the_same_block(ip: str, addr: str) -> None:
    these = blocks(**NOTHING)
    these.add(ip)
    assert list(these.counts.values()) in ([1], [1, 1])
    these.remove(Multiaddr(addr))
    assert these.counts == {}


@pytest.mark.parametrize(
    "addr",
    ["/unix/%2Ftmp%2Fx", "/memory/1", "/dns4/a.org/tcp/1", f"/ip4/1.2.3.4/tcp/1/p2p/{peer(3)}/p2p-circuit"],
)
def test_what_has_no_address_of_its_own_is_not_counted(addr: str) -> None:
    these = blocks(**NOTHING)
    for where in (Multiaddr(addr), None):
        these.add(where)
        assert these.counts == {}
        assert Networks([("0.0.0.0/0", True)]).get(where) is None


@pytest.mark.parametrize("wrong", ["", "1.2.3", "::1::", "a.org", "1.2.3.4.5"])
def test_what_is_no_ip_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no numeric IP address"):
        Networks([]).get(wrong)


# -- counts ------------------------------------------------------------------------------------


def test_an_ipv4_address_over_its_limit_is_refused_until_one_leaves() -> None:  # RM-T01
    these = blocks(max_conns_per_subnet=1, max_conns_per_site=1, **NOTHING)
    assert joins(these, "1.2.3.4")
    assert not joins(these, "1.2.3.4")
    assert joins(these, "1.2.3.5")
    these.remove("1.2.3.4")
    assert joins(these, "1.2.3.4")


def test_a_56_is_one_block() -> None:  # RM-T02
    these = blocks(max_conns_per_subnet=1, max_conns_per_site=9, **NOTHING)
    assert joins(these, "1:2:3:4::1")
    assert not joins(these, "1:2:3:4::2")
    assert joins(these, "2:2:3:4::2")


def test_a_48_is_a_wider_block() -> None:  # RM-T03
    these = blocks(max_conns_per_subnet=8, max_conns_per_site=64, **NOTHING)
    assert [joins(these, f"ff:2:3:4::{n:x}") for n in range(1, 10)] == [True] * 8 + [False]
    assert joins(these, "ff:3:3:4::1")
    inside = [joins(these, f"ff:2:3:{n << 8:x}::1") for n in range(1, 58)]
    assert inside == [True] * 56 + [False]
    assert said(these.full("ff:2:3:ff00::1")) == ("max_conns_per_site", 64, 64, "ff:2:3::/48")


def test_loopback_and_private_networks_are_exempt_unless_told_otherwise() -> None:  # RM-T04
    limits = Limits(max_conns_per_subnet=1, conn_burst_per_subnet=1, conn_rate_per_subnet=0.001).resolved()
    these = Blocks(limits)
    ips = ["127.0.0.1", "127.9.9.9", "10.1.2.3", "192.168.1.1", "172.31.0.1", "100.64.0.1", "::1", "fd00::1"]
    for ip in ips * 3:
        assert joins(these, ip)
        assert these.take(ip, 1.0) is None
    assert these.counts == {}
    assert these.num_rated == 0
    strict = blocks(max_conns_per_subnet=1, **NOTHING)
    assert joins(strict, "127.0.0.1")
    assert not joins(strict, "127.0.0.1")


@pytest.mark.parametrize("turn", [1, -1])
def test_the_narrowest_network_counts_in_whatever_order_they_are_given(turn: int) -> None:  # RM-T05
    entries = [("203.0.0.0/16", 5), ("203.0.113.0/24", 2), ("2a00::/16", 3)][::turn]
    these = blocks(subnets=dict(entries), max_conns_per_subnet=1, **NOTHING)
    assert [joins(these, f"203.0.113.{n}") for n in range(3)] == [True, True, False]
    assert [joins(these, f"203.0.7.{n}") for n in range(6)] == [True] * 5 + [False]
    assert [joins(these, f"2a00:{n}::1") for n in range(4)] == [True] * 3 + [False]
    assert said(these.full("203.0.113.9")) == ("subnets", 2, 2, "203.0.113.0/24")


def test_a_network_of_its_own_may_lie_inside_an_exempt_one() -> None:
    these = blocks(subnets={"10.1.0.0/16": 1}, max_conns_per_subnet=1, conn_rate_per_subnet=None)
    assert joins(these, "10.2.0.1")
    assert joins(these, "10.2.0.1")
    assert joins(these, "10.1.0.1")
    assert not joins(these, "10.1.0.2")


def test_after_any_coming_and_going_nothing_is_left() -> None:  # RM-T10
    source = random.Random(11)
    these = blocks(max_conns_per_subnet=3, max_conns_per_site=5, subnets={"9.0.0.0/30": 4}, **NOTHING)
    ips = [f"9.0.0.{n}" for n in range(8)] + [f"2a00:0:0:{n << 6:x}::1" for n in range(12)]
    held: list[str] = []
    for _ in range(3000):
        if held and source.random() < 0.5:
            these.remove(held.pop(source.randrange(len(held))))
        elif joins(these, ip := source.choice(ips)):
            held.append(ip)
        assert max(these.counts.values(), default=0) <= 5
    for ip in held:
        these.remove(ip)
    assert these.counts == {}


# -- rates -------------------------------------------------------------------------------------


def rated(**fields: Any) -> Blocks:
    return Blocks(Limits(**({"max_conns_per_subnet": None, "exempt": ()} | fields)).resolved())


def test_connections_that_have_ended_count_for_the_rate() -> None:  # RM-T07
    these = rated(conn_rate_per_subnet=0.00001, conn_burst_per_subnet=2)
    assert these.take("1.2.3.4", 0.0) is None
    assert these.take("1.2.3.4", 0.0) is None
    assert said(these.take("1.2.3.4", 1.0)) == ("conn_rate_per_subnet", 2, 2, "1.2.3.4")
    assert these.take("1.2.3.5", 1.0) is None


def test_a_burst_then_the_rate_for_ever() -> None:
    these = rated(conn_rate_per_subnet=10, conn_burst_per_subnet=5)
    taken = [these.take("1.2.3.4", step / 100) is None for step in range(1000)]
    assert taken[:5] == [True] * 5
    assert 5 + 10 * 10 - 1 <= sum(taken) <= 5 + 10 * 10


def test_a_full_bucket_is_forgotten() -> None:  # RM-T08
    these = rated(conn_rate_per_subnet=10, conn_burst_per_subnet=5)
    for host in range(100):
        these.take(f"1.2.3.{host}", 0.0)
    assert these.num_rated == 100
    for host in range(100):
        these.take(f"1.2.4.{host}", 60.0)
    assert these.num_rated <= 100
    assert these.take("1.2.3.4", 60.0) is None


def test_the_number_of_buckets_is_bounded() -> None:
    these = rated(conn_rate_per_subnet=0.001, conn_burst_per_subnet=1)
    ips = [f"9.9.{n >> 8}.{n & 255}" for n in range(3 * MAX_RATED_SUBNETS)]
    for n, ip in enumerate(ips):
        assert these.take(ip, n / 1e6) is None
        assert these.num_rated <= MAX_RATED_SUBNETS + 1
    assert these.take(ips[-1], 1.0) is not None  # the latest are remembered


def test_what_a_wider_block_refuses_takes_nothing_from_the_narrower_one() -> None:  # RM-T06
    these = rated(conn_rate_per_subnet=0.001, conn_burst_per_subnet=2)
    for n in range(1, 5):  # a /48 has four times as much: 8
        assert these.take(f"2a00:0:0:{n << 8:x}::1", 0.0) is None
        assert these.take(f"2a00:0:0:{n << 8:x}::1", 0.0) is None
    fresh = "2a00:0:0:900::1"
    before = these.num_rated
    assert said(these.take(fresh, 0.0)) == ("conn_rate_per_subnet", 8, 8, "2a00::/48")
    assert these.num_rated == before
    for _ in range(2):  # the narrower block has lost nothing, once the wider one has room
        assert these.take(fresh, 600.0) is None


def test_an_office_that_comes_back_at_once_is_not_refused() -> None:
    """The busiest honest block: 300 connections from one address, all in one moment, with the defaults."""
    these = Blocks(Limits(max_conns=10_000).resolved())
    for _ in range(300):
        assert these.take("1.2.3.4", 5.0) is None
        assert joins(these, "1.2.3.4")


def test_without_limits_nothing_is_counted() -> None:
    these = Blocks(UNLIMITED)
    assert not these.are_counted
    assert these.take("1.2.3.4", 0.0) is None
    assert these.num_rated == 0


# -- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
        ("0.0.0.0/0", "9.9.9.9", "::1"),
        ("::/0", "2a00::1", "9.9.9.9"),
        ("fc00::/7", "fdff::1", "fe00::1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("2001:db8::/96", "2001:db8::ffff:ffff", "2001:db8::1:0:0"),
        ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ("10.1.2.3/8", "10.9.9.9", "11.0.0.1"),
    ],
)
def test_a_network_has_its_addresses_and_no_others(network: str, inside: str, outside: str) -> None:
    networks = Networks([(network, "value")])
    assert networks.get(inside) == "value"
    assert networks.get(outside) is None
