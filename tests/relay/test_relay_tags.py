"""Relays and their clients say how useful their peers are, so the connection manager keeps them."""

from __future__ import annotations

from harness import eventually, looped
from hosts import BARE
from p2pcore import Host
from relays import UNLIMITED, behind, relay_host, relayed


@looped
async def test_a_relay_where_a_reservation_is_kept_is_protected_until_that_ends() -> None:
    async with relay_host() as relay, Host(**BARE, listen=[behind(relay)]) as client:
        assert client.conn_manager.is_protected(relay.peer_id, "relay")
        await client.swarm.listen_close(behind(relay))
        await eventually(lambda: not client.conn_manager.is_protected(relay.peer_id))


@looped
async def test_a_peer_with_a_reservation_or_a_circuit_is_worth_something_to_the_relay() -> None:
    async with relayed(UNLIMITED) as r:
        tags = r.relay.conn_manager.tags
        await eventually(lambda: tags(r.target.peer_id) == {"relay-reservation": 10})
        first = await r.dialer.swarm.dial_addr(r.addr)
        second = await r.dialer.swarm.dial_addr(r.addr)
        assert tags(r.target.peer_id) == {"relay-reservation": 10, "relay-circuit": 5}
        assert tags(r.dialer.peer_id) == {"relay-circuit": 5}
        await first.close()
        await eventually(lambda: r.service.num_circuits == 1)
        assert tags(r.dialer.peer_id) == {"relay-circuit": 5}
        await second.close()
        await eventually(lambda: not r.service.num_circuits)
        assert tags(r.dialer.peer_id) == {}
        await r.target.close()
        await eventually(lambda: not r.service.num_reservations)
        assert tags(r.target.peer_id) == {}
