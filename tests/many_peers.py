"""A network with very many peers, as the presence of a fleet sees one."""

from __future__ import annotations

import random

from p2pcore import PeerId


class ManyPeers:
    """`count` peers, each connected once."""

    def __init__(self, count: int) -> None:
        drawn = random.Random(count)
        self._ids = dict.fromkeys(PeerId(bytes((0x12, 0x20)) + drawn.randbytes(32)) for _ in range(count))

    def peers(self) -> list[PeerId]:
        return list(self._ids)

    def conns_to_peer(self, peer: PeerId) -> list[int]:
        return [1] if peer in self._ids else []
