"""Finds out whether UDP, or IPv6, works from here at all, and leaves it alone where it does not.

Comes in: addresses about to be dialled, and how dials of public ones ended. Goes out: which addresses to
leave out. Never looks at a clock. Source: go-libp2p's black-hole detector, with its numbers.

Until BLACK_HOLE_WINDOW dials have ended all are allowed. With fewer than BLACK_HOLE_MIN_SUCCESSES among
the last of those the kind is left out, except for one dial of a peer in every BLACK_HOLE_WINDOW; a success
then begins anew.
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
"""What is watched, and the multiaddr protocol of it."""


class BlackHoleCounter:
    """The results of one kind of dial."""

    __slots__ = ("_num_asked", "_results")

    def __init__(self) -> None:
        self._results: deque[bool] = deque(maxlen=limits.BLACK_HOLE_WINDOW)
        self._num_asked = 0

    @property
    def is_probing(self) -> bool:
        """True while too little is known."""
        return len(self._results) < limits.BLACK_HOLE_WINDOW

    @property
    def is_blocked(self) -> bool:
        """True where this kind seems not to work."""
        return not self.is_probing and sum(self._results) < limits.BLACK_HOLE_MIN_SUCCESSES

    def record(self, worked: bool) -> None:
        """A dial of this kind has ended."""
        if worked and self.is_blocked:
            self._results.clear()
            self._num_asked = 0
        self._results.append(worked)

    def allows(self) -> bool:
        """Whether a peer may be dialled in this way; counts the question."""
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
        """Which of the addresses of one peer to leave out, each with the kind that does not work.

        An address of two kinds is allowed while one of them is being probed: it may be why.
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
        """A dial of `addr` has ended, other than by being given up."""
        for kind in _kinds(addr):
            self._counters[kind].record(worked)

    def is_blocked(self, kind: str) -> bool:
        """Whether `kind` ("UDP", "IPv6") seems not to work."""
        return self._counters[kind].is_blocked


def _kinds(addr: Multiaddr) -> list[str]:
    if addr.is_relayed or scope_of(addr) is not Scope.PUBLIC:
        return []
    return [kind for kind, name in KINDS.items() if name in addr]
