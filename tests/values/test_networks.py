"""A set of networks against the standard library's own answers, and how much one question costs."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address, ip_network
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pcore import BasicGater
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.networks import Network, Networks
from p2pcore.values.scope import ip_of, subnet_of

ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.integers(0, 2**32 - 1).map(lambda number: IPv6Address(0xFFFF << 32 | number)),
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(ADDRESSES)
    return ip_network((address, draw(st.integers(0, address.max_prefixlen))), strict=False)


@given(st.lists(networks(), max_size=20), st.lists(networks(), max_size=5), st.lists(ADDRESSES, max_size=20))
def test_it_answers_as_the_standard_library(
    added: list[Network], removed: list[Network], asked: list[IPv4Address | IPv6Address]
) -> None:
    found = Networks(added)
    for network in [*removed, *added[::3]]:
        found.discard(network)
    left = set(added) - set(removed) - set(added[::3])
    assert (set(found), len(found)) == (left, len(left))
    for address in [*asked, *(network.network_address for network in added)]:
        assert (address.packed in found) == any(address in network for network in left)
    assert b"" not in found


@given(st.lists(networks(), max_size=10), ADDRESSES)
def test_a_gater_refuses_mapped_addresses_in_both_forms(
    blocked: list[Network], address: IPv4Address | IPv6Address
) -> None:
    gater = BasicGater(subnets=map(str, blocked))
    addr = Multiaddr(f"/ip{address.version}/{address}/tcp/1")
    mapped = getattr(address, "ipv4_mapped", None)
    is_blocked = any(address in each or (mapped is not None and mapped in each) for each in blocked)
    assert gater.intercept_accept(addr, addr) is not is_blocked
    assert ip_of(addr) == (mapped or address)
    subnet = address if mapped is None else mapped
    bits = subnet.max_prefixlen if subnet.version == 4 else 56
    expected = str(ip_network((subnet, bits), strict=False))
    assert subnet_of(addr) == expected.removesuffix("/32")


@pytest.mark.parametrize("count", [1, 5000])
def test_a_question_costs_the_same_however_many_networks_there_are(count: int) -> None:
    gater = BasicGater(subnets=[f"10.{i // 256}.{i % 256}.0/24" for i in range(count)])
    addr = Multiaddr("/ip4/8.8.8.8/tcp/1")
    lines = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        assert gater.intercept_accept(addr, addr)
    finally:
        sys.settrace(None)
    assert lines < 40
