"""Attacks with what is begun and never ends: half a record, half a frame.

Comes in: an Arena. Goes out: bytes; counts of connections that the node still holds.
"""

from __future__ import annotations

from attacks.arena import Arena
from attacks.rawpeer import DATA, HEADER, SYN, frame

WINDOW_BYTES = 256 * 1024


async def half_of_it(arena: Arena) -> None:
    """`conns` connections; every other one begins a record, the others a data frame, and nothing more."""
    peers = await arena.peers(arena.count("conns", 64))
    for peer in peers[::2]:
        peer.transport.write(b"\xff\xff" + bytes(1000))
    for peer in peers[1::2]:
        peer.write(frame(DATA, SYN, 1, WINDOW_BYTES, HEADER))
    await arena.hold()
    arena.counts["held at the end"] = sum(peer.is_open for peer in peers)
