"""What carries the bytes of a memory connection: late, slowly, not at all, or until the connection breaks.

Comes in: bytes that one end sends, the conditions of its route. Goes out: the same bytes to the other end,
when the conditions let them arrive. Chance comes from a seeded generator. Never changes or reorders bytes.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pcore import options
from p2pcore._fast.chain.memory import MemoryWire
from p2pcore.limits import TEST_PACKET_BYTES, TEST_RETRANSMIT_S, TEST_TICK_S


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a network treats what is sent between two hosts, in each direction.

    Attributes:
        delay_s: seconds that everything takes.
        jitter_s: up to so many seconds more, by chance.
        bandwidth: bytes per second of each connection; None: without bound.
        loss: how likely a packet of 1,400 bytes is lost, 0 to less than 1. A lost packet comes 0.2 s later,
            and what was sent after it waits for it, as with TCP.
        cut_after: the connection breaks once it has carried so many bytes in one direction; None: never.

    Raises: TypeError, ValueError: a value is wrong. The message names it.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth: float | None = None
    loss: float = 0.0
    cut_after: int | None = None

    def __post_init__(self) -> None:
        options.seconds("delay_s", self.delay_s, or_zero=True)
        options.seconds("jitter_s", self.jitter_s, or_zero=True)
        options.number("loss", self.loss)
        if not 0 <= self.loss < 1:
            raise ValueError(f"loss must be from 0 to less than 1, not {self.loss!r}")
        if self.bandwidth is not None:
            options.number("bandwidth", self.bandwidth)
            if self.bandwidth <= 0:
                raise ValueError(f"bandwidth must be more than 0 bytes per second, not {self.bandwidth!r}")
        if self.cut_after is not None:
            options.whole("cut_after", self.cut_after)


@dataclass(slots=True)
class Route:
    """What is between two hosts now. Links look at it for everything they are given."""

    conditions: Conditions
    is_silent: bool = False
    conns: list[tuple[MemoryWire, tuple[Link, Link]]] = field(default_factory=list)

    def add(self, wire: MemoryWire, links: tuple[Link, Link]) -> None:
        """A new connection. Those that have ended are forgotten."""
        self.conns = [each for each in self.conns if not each[0].is_closed]
        self.conns.append((wire, links))


class Link:
    """One direction of one connection, as `memory_pair` takes it.

    Args:
        route: the conditions, also later ones.
        rng: decides about chance.
        cut: breaks the connection.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, route: Route, rng: random.Random, cut: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._route = route
        self._rng = rng
        self._cut = cut
        self._under_way: deque[tuple[float, bytes, Callable[[bytes], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._num_carried = 0
        self._sent_at = self._due_at = 0.0
        self._is_cut = False

    def carry(self, data: bytes, arrive: Callable[[bytes], None]) -> None:
        """Calls `arrive(data)` when it is due, behind everything that was given before."""
        if self._is_cut:
            return
        most = self._route.conditions.cut_after
        if most is not None and self._num_carried + len(data) > most:
            data = data[: max(0, most - self._num_carried)]
            self._is_cut = True
        self._num_carried += len(data)
        self._under_way.append((self._due(len(data)), data, arrive))
        if self._is_cut:
            self._under_way.append((self._due_at, b"", lambda _: self._cut()))
        self._arm()

    def go_on(self) -> None:
        """The route is not silent any more."""
        self._arm()

    def _due(self, num_bytes: int) -> float:
        """The second at which so many bytes arrive that are sent now."""
        now, conditions = self._loop.time(), self._route.conditions
        self._sent_at = max(now, self._sent_at)
        if conditions.bandwidth is not None:
            self._sent_at += num_bytes / conditions.bandwidth
        late = conditions.delay_s + conditions.jitter_s * self._rng.random() + self._lost_s(num_bytes)
        self._due_at = max(self._due_at, self._sent_at + late)
        return self._due_at

    def _lost_s(self, num_bytes: int) -> float:
        """Seconds that go by until every packet has come through."""
        loss = self._route.conditions.loss
        num_packets = max(1, -(-num_bytes // TEST_PACKET_BYTES))
        any_lost, late = 1 - (1 - loss) ** num_packets, 0.0
        while self._rng.random() < any_lost:
            any_lost = loss  # of those that are sent again, one
            late += TEST_RETRANSMIT_S
        return late

    def _arm(self) -> None:
        if self._timer is None and self._under_way and not self._route.is_silent:
            self._timer = self._loop.call_at(self._under_way[0][0], self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        if self._route.is_silent:
            return
        now = self._loop.time() + TEST_TICK_S
        while self._under_way and self._under_way[0][0] <= now:
            _, data, arrive = self._under_way.popleft()
            arrive(data)
        self._arm()
