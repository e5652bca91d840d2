"""Finds out whether UDP or IPv6 works from here at all. If one does not, its addresses are not dialled.

Comes in: addresses to dial, and the results of dials to public addresses. Goes out: the addresses to leave
out. Never looks at a clock. Source: go-libp2p's black-hole detector, with its numbers.

The first BLACK_HOLE_WINDOW dials are all allowed. After that, a kind is blocked while fewer than
BLACK_HOLE_MIN_SUCCESSES of its last BLACK_HOLE_WINDOW dials have worked. Of a blocked kind, one dial in every
BLACK_HOLE_WINDOW is allowed. If that one works, the count starts again from zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.values.scope import Scope, scope_of

if TYPE_CHECKING:
    from p2pcore.values.multiaddr import Multiaddr

KINDS = {"UDP": "udp", "IPv6": "ip6"}
"""The kinds of address that are watched, each with its multiaddr protocol."""


class BlackHoleCounter:
    """The results of one kind of dial."""

    __slots__ = ("_num_asked", "_results")

    def __init__(self) -> None:
        self._results: deque[bool] = deque(maxlen=limits.BLACK_HOLE_WINDOW)
        self._num_asked = 0

    @property
    def is_probing(self) -> bool:
        """True while there are too few results to decide."""
        return len(self._results) < limits.BLACK_HOLE_WINDOW

    @property
    def is_blocked(self) -> bool:
        """True if this kind seems not to work."""
        return not self.is_probing and sum(self._results) < limits.BLACK_HOLE_MIN_SUCCESSES

    @property
    def success_fraction(self) -> float:
        """Of the last dials, how many worked; 0 without any."""
        return sum(self._results) / len(self._results) if self._results else 0.0

    @property
    def num_until_allowed(self) -> int:
        """Dials that are refused before one is allowed; 0: the next one is."""
        if not self.is_blocked:
            return 0
        return limits.BLACK_HOLE_WINDOW - 1 - self._num_asked % limits.BLACK_HOLE_WINDOW

    def record(self, worked: bool) -> None:
        """A dial of this kind has ended."""
        if worked and self.is_blocked:
            self._results.clear()
            self._num_asked = 0
        self._results.append(worked)

    def allows(self) -> bool:
        """Whether an address of this kind may be dialled. Each call counts."""
        if not self.is_blocked:
            return True
        self._num_asked += 1
        return self._num_asked % limits.BLACK_HOLE_WINDOW == 0


class BlackHoleDetector:
    """The counters of a swarm."""

    __slots__ = ("_counters",)

    def __init__(self) -> None:
        self._counters = {kind: BlackHoleCounter() for kind in KINDS}

    def blocked(self, addrs: Iterable[Multiaddr]) -> dict[Multiaddr, str]:
        """The addresses of one peer to leave out, each with the kind that does not work.

        An address of two kinds is allowed while one of them is being probed: that one may be the reason for
        the failures.
        """
        found: dict[Multiaddr, str] = {}
        wanted = {addr: kinds for addr in addrs if (kinds := _kinds(addr))}
        used = {kind for kinds in wanted.values() for kind in kinds}
        allowed = {kind: self._counters[kind].allows() for kind in KINDS if kind in used}
        for addr, kinds in wanted.items():
            if any(self._counters[kind].is_probing for kind in kinds):
                continue
            bad = next((kind for kind in kinds if not allowed[kind]), None)
            if bad is not None:
                found[addr] = bad
        return found

    def record(self, addr: Multiaddr, worked: bool) -> None:
        """A dial of `addr` has worked or failed. A cancelled dial is not recorded."""
        for kind in _kinds(addr):
            self._counters[kind].record(worked)

    def counter(self, kind: str) -> BlackHoleCounter:
        """What is known of `kind` ("UDP", "IPv6")."""
        return self._counters[kind]

    def is_blocked(self, kind: str) -> bool:
        """Whether `kind` ("UDP", "IPv6") seems not to work."""
        return self._counters[kind].is_blocked


def _kinds(addr: Multiaddr) -> list[str]:
    if addr.is_relayed or scope_of(addr) is not Scope.PUBLIC:
        return []
    return [kind for kind, name in KINDS.items() if name in addr]
