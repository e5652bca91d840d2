"""Attacks with single frames: one that is announced and never ends.

Comes in: an Arena. Goes out: frames; counts of connections that the node still holds.
"""

from __future__ import annotations

from attacks.arena import Arena
from attacks.rawpeer import DATA, HEADER, SYN, frame


async def never_ending(arena: Arena) -> None:
    """`conns` connections that each begin a data frame of a whole window and never send its body."""
    peers = await arena.peers(arena.count("conns", 64))
    for peer in peers:
        peer.write(frame(DATA, SYN, 1, 256 * 1024, HEADER))
    await arena.hold()
    arena.counts["held at the end"] = sum(peer.is_open for peer in peers)
