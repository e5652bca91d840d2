"""Attacks through a relay: circuits opened and reset, reservations renewed without a pause.

Comes in: an Arena whose setting `target` is the id of a peer behind the relay. Goes out: hop streams; counts
of the relay's answers.
"""

from __future__ import annotations

import asyncio

from attacks.arena import Arena
from attacks.rawpeer import DATA, RST, WINDOW, RawPeer, frame, opening
from p2pcore import PeerId
from p2pcore.relay.messages import HOP, Hop, HopType

ANSWER_S = 5.0


async def opened_and_reset(arena: Arena) -> None:
    """Circuits to `target`, reset as soon as they are open, `at once` at a time on each connection."""
    await _ask(arena, Hop(HopType.CONNECT, peer=PeerId(arena.settings["target"])).encode())


async def renewals(arena: Arena) -> None:
    """RESERVE without a pause."""
    await _ask(arena, Hop(HopType.RESERVE).encode())


async def _ask(arena: Arena, request: bytes) -> None:
    async def one(number: int) -> None:
        while arena.left_s:
            peer = await arena.peer(number)
            if peer is None:
                await asyncio.sleep(0.05)
                continue
            await _Asker(arena, peer, request).run()
            arena.counts["ended by the relay"] += not peer.is_open
            peer.abort()

    await asyncio.gather(*(one(number) for number in range(arena.count("conns", 1))))


class _Asker:
    """One connection to the relay, and its hop streams."""

    def __init__(self, arena: Arena, peer: RawPeer, request: bytes) -> None:
        self._arena, self._peer, self._request = arena, peer, request
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._got: dict[int, bytearray] = {}
        self._next = 1
        peer.on_frame = self._look

    def _look(self, kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        answer = self._answers.get(stream)
        if answer is None or answer.done():
            return
        got = self._got[stream]
        got += body if kind == DATA else b""
        hello = len(opening(1, HOP)) - 12
        if flags & RST:
            self._arena.counts["reset by the relay"] += 1
            answer.set_result(None)
        elif len(got) > hello:
            self._arena.counts["granted" if self._is_ok(bytes(got[hello:])) else "refused"] += 1
            answer.set_result(None)

    @staticmethod
    def _is_ok(framed: bytes) -> bool:
        return b"\x28\x64" in framed  # status (field 5): OK (100)

    async def run(self) -> None:
        """Asks until the attack or the connection is over."""
        await asyncio.gather(*(self._work() for _ in range(self._arena.count("at once", 8))))

    async def _work(self) -> None:
        while self._arena.left_s and self._peer.is_open:
            stream, self._next = self._next, self._next + 2
            answer = self._answers[stream] = asyncio.get_running_loop().create_future()
            self._got[stream] = bytearray()
            self._peer.write(opening(stream, HOP, self._request))
            self._arena.counts["asked"] += 1
            await asyncio.wait([answer, self._peer.lost], timeout=ANSWER_S, return_when="FIRST_COMPLETED")
            self._peer.write(frame(WINDOW, RST, stream, 0))
            del self._answers[stream], self._got[stream]
