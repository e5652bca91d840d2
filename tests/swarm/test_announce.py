"""What peers are told about where we listen: replaced, added, hidden, and pushed when it changes."""

from __future__ import annotations

from typing import Any

import pytest

from harness import eventually, looped
from p2pcore import AnnounceOptions, Host, IdentifyOptions, Multiaddr, PrivateKey
from p2pcore.errors import AddressError, LimitExceeded
from p2pcore.swarm.announce import Announcement

US = PrivateKey.from_seed(b"\x01" * 32).peer_id()
THEM = PrivateKey.from_seed(b"\x02" * 32).peer_id()
OUTSIDE = Multiaddr("/ip4/203.0.113.5/tcp/4001")
NAME = Multiaddr("/dns4/node.example/tcp/443/tls/ws")
BRIDGE = Multiaddr("/ip4/172.17.0.2/tcp/4001")
LAN = Multiaddr("/ip4/192.168.1.7/tcp/4001")
MAPPED = Multiaddr("/ip6/::ffff:172.17.0.2/tcp/4001")
CIRCUIT = Multiaddr(f"/ip4/172.17.0.9/tcp/1/p2p/{THEM}/p2p-circuit")


def told(*addrs: Multiaddr, **given: Any) -> list[Multiaddr]:
    return Announcement(AnnounceOptions(**given), US).applied(addrs)


def test_addresses_are_replaced_added_and_hidden() -> None:
    assert told(BRIDGE, LAN) == [BRIDGE, LAN]
    assert told(BRIDGE, CIRCUIT, replace=[str(OUTSIDE), NAME]) == [OUTSIDE, NAME, CIRCUIT]
    assert told(BRIDGE, OUTSIDE, add=[OUTSIDE.with_p2p(US)]) == [BRIDGE, OUTSIDE]
    assert told(BRIDGE, MAPPED, LAN, CIRCUIT, hide=["172.17.0.0/16"]) == [LAN, CIRCUIT]
    assert told(BRIDGE, LAN, hide=["192.168.1.7"], add=[OUTSIDE]) == [BRIDGE, OUTSIDE]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"replace": ["/ip4/0.0.0.0/tcp/4001"]}, AddressError, "nobody can dial"),
        ({"add": ["/ip4/203.0.113.5/tcp/0"]}, AddressError, "nobody can dial"),
        ({"add": ["nonsense"]}, AddressError, "nonsense"),
        ({"add": "/ip4/203.0.113.5/tcp/1"}, TypeError, "add must be a list of addresses"),
        ({"hide": ["172.17.0.1/16"]}, ValueError, "hide must be an IP network"),
        ({"hide": [7]}, TypeError, "hide"),
        ({"replace": [f"/ip4/203.0.113.5/tcp/{port}" for port in range(1, 66)]}, LimitExceeded, "announced"),
    ],
)
def test_mistakes_are_found_at_once(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        AnnounceOptions(**given)


def test_a_host_takes_a_list_or_options_and_no_address_of_another_peer() -> None:
    with pytest.raises(AddressError, match="leads to another peer"):
        Host(announce=[OUTSIDE.with_p2p(THEM)])
    with pytest.raises(TypeError, match="announce must be a list of addresses, or an AnnounceOptions"):
        Host(announce="/ip4/203.0.113.5/tcp/4001")


@looped
async def test_identify_the_record_and_the_host_tell_what_is_announced() -> None:
    async with Host(announce=[OUTSIDE, NAME]) as host, Host(listen=()) as other:
        assert host.addrs == [OUTSIDE, NAME]
        assert host.addrs_with_peer == [each.with_p2p(host.peer_id) for each in (OUTSIDE, NAME)]
        (bound,) = host.swarm.listen_addresses()
        info = await other.identify(bound.with_p2p(host.peer_id))
        assert info.listen_addrs == info.record_addrs == (OUTSIDE, NAME)


@looped
async def test_a_change_is_pushed_to_connected_peers() -> None:
    options = IdentifyOptions(push_delay_s=0.01)
    async with Host(announce=[OUTSIDE], identify=options) as host, Host() as other:
        (bound,) = host.swarm.listen_addresses()
        conn = await other.connect(bound.with_p2p(host.peer_id))
        first = await other.identify(conn)
        await eventually(lambda: host.info_of(host.swarm.conns()[0]))
        host.set_announce(AnnounceOptions(add=[NAME]))
        assert host.addrs == [bound, NAME]
        await eventually(lambda: other.info_of(conn) is not first)
        info = other.info_of(conn)
        assert info is not None
        assert info.record_addrs == (bound, NAME)
        assert info.record_seq > first.record_seq
        with pytest.raises(AddressError):
            host.set_announce(["/ip4/0.0.0.0/tcp/1"])
        assert host.addrs == [bound, NAME]
