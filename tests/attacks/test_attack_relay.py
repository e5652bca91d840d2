"""Attacks through a relay: the source pays, and the target keeps its place."""

from __future__ import annotations

import asyncio
import math

from attacked import ECHO, arena, honest, node

from attacks import circuits, place
from harness import eventually, looped
from p2pcore import Host, RelayOptions, TcpOptions, YamuxOptions
from p2pcore.relay.messages import Hop, HopType

BEHIND = TcpOptions(dial_from=place.honest(9))
FEW = YamuxOptions(resets_per_s=1, reset_burst=100)
"""A target that ends its relay's connection after 100 streams that are reset at once."""


async def _ask(host: Host, request: Hop, count: int) -> circuits.Asker:
    attackers = arena(host)
    peer = await attackers.peer(0)
    assert peer is not None
    asker = circuits.Asker(attackers, peer, request.encode())
    await asker.run(count)
    peer.abort()
    return asker


def _now() -> float:
    return asyncio.get_running_loop().time()


def _allowed(per_min: int, since: float) -> int:
    """How many a relay may grant from `since` until now: it begins with those of a minute."""
    return per_min + math.ceil((_now() - since) * per_min / 60)


@looped
async def test_circuits_opened_and_reset_do_not_cut_the_target_off() -> None:
    options = RelayOptions(circuits_per_min_per_peer=50)
    async with node(relay_service=options) as relay, honest() as one:
        addr = relay.addrs_with_peer[0].encapsulate("/p2p-circuit")
        async with Host(listen=[addr], echo=True, identify=False, tcp=BEHIND, yamux=FEW) as target:
            (conn,) = target.swarm.conns()
            begun = _now()
            asker = await _ask(relay, Hop(HopType.CONNECT, peer=target.peer_id), 300)
            assert asker.counts["granted"] <= _allowed(50, begun)
            assert not conn.is_closed
            stream = await one.new_stream(target.addrs_with_peer[0], ECHO, allow_limited=True)
            await stream.write(b"x")
            assert await stream.read_exactly(1) == b"x"


@looped
async def test_renewals_without_a_pause_are_refused() -> None:
    async with node(relay_service=RelayOptions(reservations_per_min_per_peer=20)) as relay:
        begun = _now()
        asker = await _ask(relay, Hop(HopType.RESERVE), 100)
        assert asker.counts["granted"] <= _allowed(20, begun)
        assert asker.counts["granted"] + asker.counts["refused"] == 100


@looped
async def test_the_relay_forgets_an_attacker_that_has_gone() -> None:
    async with node(relay_service=RelayOptions()) as relay:
        await _ask(relay, Hop(HopType.RESERVE), 20)
        await eventually(lambda: relay.swarm.num_conns == 0)
        await eventually(lambda: not relay.swarm.ledger.num_streams)
        await asyncio.sleep(0)
