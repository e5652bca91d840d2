"""Addresses that failed a short while ago, and how long we wait before we dial each again.

Comes in: (peer, address) of a dial that failed or worked, and the time. Goes out: seconds to wait. A success
clears only its own address. So a peer that dials us, and that we cannot dial, is not dialled at full rate
(go-libp2p's fault W39). Never owns a timer: a new entry removes old ones.

After the n-th failure in a row, n from 0, we wait BACKOFF_BASE_S + BACKOFF_STEP_S * n * n seconds, at most
BACKOFF_MAX_S (go-libp2p). If nobody dials the address for as long again, the failures are forgotten.
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
        self._entries: dict[Key, tuple[int, float]] = {}  # failures, end of the wait; oldest failure first

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
        """`addr` of `peer` has been reached. Its other addresses do not change."""
        self._entries.pop((peer, addr), None)

    def wait(self, peer: PeerId, addr: Multiaddr, now: float) -> float:
        """Seconds until `addr` of `peer` may be dialled again; 0: now."""
        _, until = self._entries.get((peer, addr), (0, now))
        return max(0.0, until - now)

    def _sweep(self, now: float) -> None:
        """Makes room for one entry: removes entries that are over, oldest first, then the oldest entry."""
        while self._entries:
            key, (failures, until) = next(iter(self._entries.items()))
            is_over = now - until > pause(failures - 1)
            if not is_over and len(self._entries) < limits.MAX_BACKOFF_ADDRS:
                return
            del self._entries[key]


def pause(failures: int) -> float:
    """Seconds to wait after a failure that comes after `failures` other failures in a row."""
    return min(limits.BACKOFF_MAX_S, limits.BACKOFF_BASE_S + limits.BACKOFF_STEP_S * failures**2)
