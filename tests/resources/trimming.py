"""A swarm of fake connections with a connection manager, for tests of what it closes.

Comes in: marks, connections with their blocks, ages and streams. Goes out: which are closed, and with which
code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from p2pcore import ConnManager, Direction
from p2pcore.swarm.swarm import Swarm
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from swarm_fakes import FakeConn, make_swarm


def id_of(number: int) -> PeerId:
    """A peer id of a key that nobody has; as many as wanted."""
    return PeerId(b"\x00\x24\x08\x01\x12\x20" + number.to_bytes(32, "big"))


def at(block: int) -> Multiaddr:
    """An address in a block of its own for each number."""
    return Multiaddr(f"/ip4/10.{block >> 16 & 255}.{block >> 8 & 255}.{block & 255}/tcp/4001")


class Room:
    """A swarm with marks. `add` opens connections; `gone` are those that were closed or aborted, by
    number."""

    def __init__(self, **options: Any) -> None:
        self.manager = ConnManager(**options)
        self.swarm: Swarm = make_swarm(conn_manager=self.manager)[0]
        self.conns: dict[int, FakeConn] = {}

    def add(
        self,
        numbers: Iterable[int],
        *,
        block: int | None = None,
        peer: int | None = None,
        streams: int = 0,
        direction: Direction = Direction.INBOUND,
    ) -> None:
        for number in numbers:
            fake = FakeConn(
                id_of(number if peer is None else peer),
                direction,
                streams,
                at=at(number if block is None else block),
            )
            self.conns[number] = fake
            self.swarm.add_conn(fake)

    def __getitem__(self, number: int) -> FakeConn:
        return self.conns[number]

    def code_of(self, number: int) -> int | None:
        """The code with which it was closed. None: it is open."""
        fake = self.conns[number]
        return fake.close_code if fake.close_code is not None else fake.abort_code

    @property
    def gone(self) -> set[int]:
        return {number for number in self.conns if self.code_of(number) is not None}

    @property
    def num_left(self) -> int:
        return self.swarm.num_conns


async def trimmed(room: Room) -> None:
    """Lets everything run until no trim is under way and all closings are over. Takes no time."""
    for _ in range(10_000):
        await asyncio.sleep(0)
        if not room.manager.is_trimming and not room.manager.num_closing:
            return
    raise AssertionError("trims do not end")
