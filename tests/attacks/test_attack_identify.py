"""Attacks with identify: what one peer tells is bounded in work and in memory."""

from __future__ import annotations

import sys

import pytest
from attacked import arena, node

from attacks import messages
from attacks.rawpeer import RST, WINDOW, RawPeer, frame
from harness import eventually, looped
from p2pcore import Host, Multiaddr
from p2pcore.protocols import identify_message

MOST_LOOKED_AT = 1000
MOST_KEPT_BYTES = 16 * 1024


async def _refuse(peer: RawPeer, host: Host) -> None:
    """Refuses the node's own identify, so that no stream is left."""

    def look(kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        if stream and not stream % 2:
            peer.write(frame(WINDOW, RST, stream, 0))

    peer.on_frame = look
    await peer.ping()
    await eventually(lambda: not host.swarm.ledger.num_streams)


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
        await _refuse(peer, host)
        messages.push(peer, 1, messages.told(1, is_valid=False))
        await peer.ping()
        await eventually(lambda: not host.swarm.ledger.num_streams)
        assert looked_at
        assert looked_at <= MOST_LOOKED_AT
        peer.abort()


@looped
async def test_little_is_kept_of_very_many_addresses() -> None:
    async with node(identify=True) as host:
        (peer,) = await arena(host).peers(1)
        await eventually(lambda: host.swarm.num_conns)
        (conn,) = host.swarm.conns()
        messages.push(peer, 1, messages.told(1, is_valid=True))
        await eventually(lambda: host.info_of(conn))
        info = host.info_of(conn)
        assert info is not None
        assert info.listen_addrs
        kept = sum(sys.getsizeof(addr) + len(addr.to_bytes()) for addr in info.listen_addrs)
        assert kept <= MOST_KEPT_BYTES
        peer.abort()
