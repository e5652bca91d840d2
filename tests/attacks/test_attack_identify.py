"""Attacks with identify: what one peer tells is bounded in work and in memory."""

from __future__ import annotations

import sys

import pytest
from attacked import arena, node

from attacks import messages
from harness import eventually, looped
from p2pcore import Multiaddr
from p2pcore.protocols import identify_message

MOST_LOOKED_AT = 1000
MOST_KEPT_BYTES = 16 * 1024


@pytest.mark.xfail(strict=True, reason="only what is kept of an identify is bounded")
@looped
async def test_addresses_of_one_byte_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counted(data: bytes) -> Multiaddr:
        nonlocal looked_at
        looked_at += 1
        return Multiaddr(data)

    monkeypatch.setattr(identify_message, "Multiaddr", counted)
    async with node(identify=True) as host:
        (peer,) = await arena(host).peers(1)
        told = messages.told(1, is_valid=False)
        agent = b"\x0b\x32\x09attacker/"
        messages.push(peer, 1, told[: -len(agent)])
        await peer.ping()
        await eventually(lambda: not host.swarm.ledger.num_streams)
        assert looked_at <= MOST_LOOKED_AT
        peer.abort()


@pytest.mark.xfail(strict=True, reason="500 addresses are kept of a peer, however long they are")
@looped
async def test_little_is_kept_of_very_many_addresses() -> None:
    async with node(identify=True) as host:
        (peer,) = await arena(host).peers(1)
        (conn,) = host.swarm.conns()
        messages.push(peer, 1, messages.told(1, is_valid=True))
        await eventually(lambda: host.info_of(conn))
        info = host.info_of(conn)
        assert info is not None
        assert info.listen_addrs
        kept = sum(sys.getsizeof(addr) + len(addr.to_bytes()) for addr in info.listen_addrs)
        assert kept <= MOST_KEPT_BYTES
        peer.abort()
