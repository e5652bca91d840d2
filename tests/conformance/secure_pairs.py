"""Two ends of one security protocol and a pipe between them, for the suite of security protocols.

Comes in: the names in compose.SECURITY, and of a pipe. Goes out: a dialler's and a listener's mailbox and
transport. The pipe "bytes" delivers every byte separately; "pieces" cuts anywhere. A test can damage both.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from _fast.chains import wire_pair
from conformance.muxed_pairs import CutCable, joined
from p2pcore import compose
from p2pcore._fast.chain.wire import Wire
from p2pcore.interfaces import Secured, SecureTransport
from p2pcore.values.keys import PrivateKey
from p2pcore.values.peer_id import PeerId

PIPES = ("socket", "bytes", "pieces")
MUXERS = ("/yamux/1.0.0",)


class PiecesCable(CutCable):
    """Cuts at random places, always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(1)

    def pieces(self, data: bytes) -> list[bytes]:
        cuts = sorted(self.random.sample(range(len(data) + 1), min(3, len(data))))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


class BrokenCable(CutCable):
    """Damages the bytes it passes on: it changes the byte at `flip`, and sends nothing from `end` on.

    Attributes:
        at: bytes sent so far.
    """

    flip = end = sys.maxsize
    at = 0

    def pieces(self, data: bytes) -> list[bytes]:
        begins, self.at = self.at, self.at + len(data)
        if begins <= self.flip < self.at:
            piece = bytearray(data)
            piece[self.flip - begins] ^= 0x21
            data = bytes(piece)
        if self.at > self.end:
            data = data[: max(0, self.end - begins)]
            self.loop.call_soon(self.partner.deliver_eof)
        return [data] if data else []


@dataclass(frozen=True)
class Kind:
    """The parts under a test.

    Attributes:
        proves: a peer cannot claim another id, and nobody can change its bytes.
        has_early_muxer: the multiplexer is agreed inside the handshake.
    """

    security: str
    pipe: str = "socket"

    def __str__(self) -> str:
        return f"{self.security}-{self.pipe}"

    @property
    def proves(self) -> bool:
        return self.security != "plaintext"

    @property
    def has_early_muxer(self) -> bool:
        return self.security != "plaintext"

    def transport(self, key: PrivateKey) -> SecureTransport:
        return compose.security([self.security], key)[0]

    def scaled(self, most: int, least: int) -> int:
        """`most`, or `least` if every byte takes its own turn."""
        return most if self.pipe == "socket" else least

    async def pair(self) -> tuple[Wire, Wire] | tuple[CutCable, CutCable]:
        if self.pipe == "socket":
            return await wire_pair()
        return joined(CutCable if self.pipe == "bytes" else PiecesCable)


SECURITY = [Kind(name) for name in compose.SECURITY]
KINDS = [Kind(name, pipe) for name in compose.SECURITY for pipe in PIPES]


@dataclass
class Ends:
    """A dialler (0) and a listener (1)."""

    keys: tuple[PrivateKey, PrivateKey]
    transports: tuple[SecureTransport, SecureTransport]
    boxes: tuple[Any, Any]
    wires: tuple[Wire, Wire]

    @property
    def ids(self) -> tuple[PeerId, PeerId]:
        return self.keys[0].peer_id(), self.keys[1].peer_id()

    async def handshake(
        self,
        expected: Sequence[PeerId | None] = (None, None),
        muxers: Sequence[Sequence[str]] = (MUXERS, MUXERS),
    ) -> list[Any]:
        """The result of both sides: Secured, or the error with which a side closes."""

        async def one(i: int) -> Secured:
            step = (self.transports[i].secure_outbound, self.transports[i].secure_inbound)[i]
            try:
                return await step(self.boxes[i], expected[i], muxers[i])
            except BaseException:
                self.boxes[i].abort()
                raise

        return await asyncio.gather(one(0), one(1), return_exceptions=True)


@asynccontextmanager
async def ends(
    kind: Kind,
    cables: tuple[CutCable, CutCable] | None = None,
    keys: tuple[PrivateKey, PrivateKey] | None = None,
) -> AsyncIterator[Ends]:
    """Both ends before the handshake; their connection is gone at the end."""
    keys = keys or (PrivateKey.generate(), PrivateKey.generate())
    pair = cables or await kind.pair()
    one, other = (end.wire if isinstance(end, CutCable) else end for end in pair)
    wires = one, other
    boxes = wires[0].mailbox, wires[1].mailbox
    try:
        yield Ends(keys, (kind.transport(keys[0]), kind.transport(keys[1])), boxes, wires)
    finally:
        for wire in wires:
            wire.abort()
            await wire.wait_closed()
        for end in pair:
            if isinstance(end, CutCable):
                end.loop.remove_reader(end.far)
                end.far.close()


@asynccontextmanager
async def secured(kind: Kind) -> AsyncIterator[Ends]:
    """Both ends after the handshake."""
    async with ends(kind) as made:
        results = await made.handshake()
        assert all(isinstance(each, Secured) for each in results), results
        yield made


_PATTERN = bytes(i * i % 251 for i in range(1009))


def pattern(n: int, start: int = 0) -> bytes:
    """Bytes that seldom repeat, so a piece in the wrong place is visible."""
    return (_PATTERN * ((n + start) // len(_PATTERN) + 1))[start : start + n]
