"""What an attack gets: the node's address, its own sources and identities, a deadline, and counters.

Comes in: the command line of attacker.py. Goes out: raw peers. Entropy and identities come from the number of
the attacker, so two runs are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter

from attacks import place
from attacks.rawpeer import Identity, RawPeer

STEP_S = 0.005
"""How often a paced attack looks whether more is due."""


class Arena:
    """One attacker's view.

    Attributes:
        addr: the node. seconds: how long the attack takes. settings: numbers and texts of the row.
        counts: what the attacker saw.
    """

    def __init__(self, addr: str, seconds: float, settings: dict[str, str]) -> None:
        self.addr = addr
        self.settings = settings
        self.counts: Counter[str] = Counter()  # values may be floats
        self.seconds = seconds
        self._end = 0.0
        self._ephemerals = 0
        self._identities: dict[int, Identity] = {}

    def start(self) -> None:
        """The time of the attack begins."""
        self._end = time.monotonic() + self.seconds

    @property
    def left_s(self) -> float:
        """Seconds until the attack is over; 0 when it is."""
        return max(0.0, self._end - time.monotonic())

    def number(self, name: str, default: float) -> float:
        """A setting of the row."""
        return float(self.settings.get(name, default))

    def count(self, name: str, default: int) -> int:
        """A setting of the row that is a whole number."""
        return int(self.settings.get(name, default))

    def source(self, number: int) -> str:
        """The source address of connection `number`: they take turns over `sources` addresses."""
        return place.attacker(number % self.count("sources", 1) + self.count("first", 0))

    def identity(self, number: int) -> Identity:
        """The identity of connection `number`: they take turns over `identities` keys."""
        number %= self.count("identities", 1)
        if number not in self._identities:
            text = f"attacker {self.count('first', 0)} {number}"
            self._identities[number] = Identity(hashlib.sha256(text.encode()).digest())
        return self._identities[number]

    def entropy(self) -> bytes:
        """32 bytes, other ones each time."""
        self._ephemerals += 1
        return hashlib.sha256(f"ephemeral {self.count('first', 0)} {self._ephemerals}".encode()).digest()

    async def peer(self, number: int) -> RawPeer | None:
        """Connection `number` with a finished handshake; None: the node did not let it in."""
        try:
            peer = await RawPeer.connect(
                self.addr, self.source(number), self.identity(number), self.entropy()
            )
        except (OSError, TimeoutError):
            self.counts["refused conns"] += 1
            return None
        self.counts["conns"] += 1
        return peer

    async def peers(self, count: int, at_once: int = 16) -> list[RawPeer]:
        """As many of `count` connections as the node lets in."""
        left = iter(range(count))
        found: list[RawPeer] = []

        async def work() -> None:
            for number in left:
                if not self.left_s:
                    return
                if (peer := await self.peer(number)) is not None:
                    found.append(peer)

        await asyncio.gather(*(work() for _ in range(min(at_once, count))))
        return found

    async def hold(self) -> None:
        """Waits until the attack is over."""
        await asyncio.sleep(self.left_s)


class Pace:
    """How many more of something are due at a rate; a late caller catches up at most a tenth of a second."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._at = time.monotonic()

    def due(self) -> int:
        """How many are due since the last call."""
        now = time.monotonic()
        self._at = max(self._at, now - 0.1)
        number = int((now - self._at) * self._per_s)
        self._at += number / self._per_s
        return number
