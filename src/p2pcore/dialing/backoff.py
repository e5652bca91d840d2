"""Addresses that failed a short while ago, and how long each is left alone.

Comes in: (peer, address) of a dial that failed or worked, and the time. Goes out: seconds to wait. Only the
address that worked is cleared, so that a peer that dials us while it cannot be dialled is not dialled at full
rate (go-libp2p's fault W39). Never owns a timer: entries are looked at when another is added.

The n-th failure in a row, n from 0, costs BACKOFF_BASE_S + BACKOFF_STEP_S * n * n seconds, at most
BACKOFF_MAX_S (go-libp2p). A streak is forgotten once an address has been left alone that long again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pcore import limits

if TYPE_CHECKING:
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

Key = tuple["PeerId", "Multiaddr"]


class DialBackoff:
    """The table of a swarm, bounded by MAX_BACKOFF_ADDRS."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Key, tuple[int, float]] = {}  # failures and end; last failed last

    def __len__(self) -> int:
        return len(self._entries)

    def failed(self, peer: PeerId, addr: Multiaddr, now: float) -> None:
        """`addr` of `peer` could not be dialled at `now`."""
        failures, until = self._entries.pop((peer, addr), (0, 0.0))
        if failures and now - until > pause(failures - 1):
            failures = 0
        self._sweep(now)
        self._entries[peer, addr] = (failures + 1, now + pause(failures))

    def worked(self, peer: PeerId, addr: Multiaddr) -> None:
        """`addr` of `peer` has been reached; others of it are left as they are."""
        self._entries.pop((peer, addr), None)

    def wait(self, peer: PeerId, addr: Multiaddr, now: float) -> float:
        """Seconds until `addr` of `peer` may be dialled again; 0 if at once."""
        _, until = self._entries.get((peer, addr), (0, now))
        return max(0.0, until - now)

    def _sweep(self, now: float) -> None:
        """Makes room for one: forgets streaks that are over, from the oldest; then the oldest."""
        while self._entries:
            key, (failures, until) = next(iter(self._entries.items()))
            is_over = now - until > pause(failures - 1)
            if not is_over and len(self._entries) < limits.MAX_BACKOFF_ADDRS:
                return
            del self._entries[key]


def pause(failures: int) -> float:
    """Seconds after a failure that `failures` others in a row came before."""
    return min(limits.BACKOFF_MAX_S, limits.BACKOFF_BASE_S + limits.BACKOFF_STEP_S * failures**2)
