"""How far addresses reach, and what they are counted under."""

from __future__ import annotations

import pytest

from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.scope import subnet_of


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("/ip4/192.0.2.1/tcp/1", "192.0.2.1"),
        ("/ip6/2001:db8:1:2ff::1/tcp/1", "2001:db8:1:200::/56"),
        ("/ip6/2001:db8:1:2aa::9/tcp/1", "2001:db8:1:200::/56"),
        ("/ip6/::ffff:192.0.2.1/tcp/1", "192.0.2.1"),
        ("/unix/tmp%2Fx", None),
    ],
)
def test_an_address_counts_as_its_ipv4_address_or_its_ipv6_network(text: str, key: str | None) -> None:
    assert subnet_of(Multiaddr(text)) == key
    assert subnet_of(None) is None
