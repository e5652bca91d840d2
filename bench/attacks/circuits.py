"""Attacks through a relay: circuits opened and reset, reservations renewed without a pause.

Comes in: an Arena whose setting `target` is the id of a peer behind the relay. Goes out: hop streams; counts
of the relay's answers, and of bytes that came through.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

from attacks.arena import Arena
from attacks.rawpeer import ACK, DATA, HEADER, RST, WINDOW, RawPeer, frame, message, opening
from p2pcore import PeerId
from p2pcore.relay.messages import HOP, STOP, Hop, HopType, Status, Stop, StopType

ANSWER_S = 5.0
BODY_BYTES = 16 * 1024
FILLING = bytes(120 * 1024)
"""What fits a circuit of 128 KiB."""


async def opened_and_reset(arena: Arena) -> None:
    """Circuits to `target`, reset as soon as they are open, `at once` at a time on each connection."""
    await _ask(arena, Hop(HopType.CONNECT, peer=PeerId(arena.settings["target"])).encode())


async def renewals(arena: Arena) -> None:
    """RESERVE without a pause."""
    await _ask(arena, Hop(HopType.RESERVE).encode())


async def much_data(arena: Arena) -> None:
    """Circuits to an accomplice, each filled to its limit of bytes and then opened again."""
    accomplice = await arena.peer(1)
    if accomplice is None:
        return
    _Accomplice(arena, accomplice)
    await _ask(arena, Hop(HopType.CONNECT, peer=arena.identity(1).key.peer_id()).encode(), FILLING)


async def _ask(arena: Arena, request: bytes, data: bytes = b"") -> None:
    async def one(number: int) -> None:
        while arena.left_s:
            peer = await arena.peer(number)
            if peer is None:
                await asyncio.sleep(0.05)
                continue
            await Asker(arena, peer, request, data).run()
            arena.counts["ended by the relay"] += not peer.is_open
            peer.abort()

    await asyncio.gather(*(one(number) for number in range(arena.count("conns", 1))))


class Asker:
    """One connection to the relay, and its hop streams."""

    def __init__(self, arena: Arena, peer: RawPeer, request: bytes, data: bytes = b"") -> None:
        self._arena, self._peer, self._request, self._data = arena, peer, request, data
        self.counts = arena.counts
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

    async def run(self, count: int = sys.maxsize) -> None:
        """Asks until the attack or the connection is over, at most `count` times."""
        left = iter(range(count))
        await asyncio.gather(*(self._work(left) for _ in range(self._arena.count("at once", 8))))

    async def _work(self, left: Iterator[int]) -> None:
        for _ in left:
            if not self._arena.left_s or not self._peer.is_open:
                return
            stream, self._next = self._next, self._next + 2
            answer = self._answers[stream] = asyncio.get_running_loop().create_future()
            self._got[stream] = bytearray()
            self._peer.write(opening(stream, HOP, self._request))
            self._arena.counts["asked"] += 1
            await asyncio.wait([answer, self._peer.lost], timeout=ANSWER_S, return_when="FIRST_COMPLETED")
            for at in range(0, len(self._data), BODY_BYTES):
                body = self._data[at : at + BODY_BYTES]
                self._peer.write(frame(DATA, 0, stream, len(body), body))
                await self._peer.drain()
            if self._data:
                await self._peer.ping()
            self._peer.write(frame(WINDOW, RST, stream, 0))
            del self._answers[stream], self._got[stream]


class _Accomplice:
    """A peer with a reservation that takes every circuit, and counts the bytes that come."""

    def __init__(self, arena: Arena, peer: RawPeer) -> None:
        self._arena, self._peer = arena, peer
        self._answered: set[int] = set()
        peer.on_frame = self._look
        peer.write(opening(1, HOP, Hop(HopType.RESERVE).encode()))
        self._answer = HEADER + message(STOP) + Stop(StopType.STATUS, status=Status.OK).encode()

    def _look(self, kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        if stream % 2 or kind != DATA:
            return
        if stream not in self._answered:
            self._answered.add(stream)
            self._peer.write(frame(DATA, ACK, stream, len(self._answer), self._answer))
        self._arena.counts["relayed bytes"] += length
