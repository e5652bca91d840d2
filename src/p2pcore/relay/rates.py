"""How often peers may ask a relay, and how many bytes a source may pass with one circuit after another.

Comes in: requests and ended circuits. Goes out: the reason to refuse a request, or None; then it is counted.
What a source does is counted for its id and for its subnet. A request that one of them refuses takes nothing
from the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.aio.pace import Pace

if TYPE_CHECKING:
    from p2pcore.relay.options import RelayOptions
    from p2pcore.values.peer_id import PeerId

_MINUTE_S = 60.0


class Rates:
    """The rates of one relay. Call it inside the event loop."""

    def __init__(self, options: RelayOptions) -> None:
        self._reserving_peers = Pace["PeerId"](options.reservations_per_min_per_peer, _MINUTE_S)
        self._reserving_ips = Pace[str](options.reservations_per_min_per_ip, _MINUTE_S)
        self._sources = Pace["PeerId"](options.circuits_per_min_per_peer, _MINUTE_S)
        self._ips = Pace[str](options.circuits_per_min_per_ip, _MINUTE_S)
        self._targets = Pace["PeerId"](limits.RELAY_CIRCUITS_PER_MIN_PER_TARGET, _MINUTE_S)
        self._circuit_bytes = 2 * options.circuit_bytes  # in both directions; 0: no limit
        period_s = options.circuit_s or limits.RELAY_CIRCUIT_S
        of_peer = max(1, options.max_circuits_per_peer * self._circuit_bytes)
        of_ip = max(1, options.max_circuits_per_ip * self._circuit_bytes)
        self._source_bytes = Pace["PeerId"](of_peer, period_s)
        self._ip_bytes = Pace[str](of_ip, period_s)

    def reserve(self, peer: PeerId, ip: str) -> str | None:
        """Counts a reservation or a renewal. Returns: why `peer` may not have it."""
        now = asyncio.get_running_loop().time()
        if not self._reserving_peers.has_room(peer, now):
            return f"{peer} reserves too often"
        if not self._reserving_ips.has_room(ip, now):
            return f"peers from {ip} reserve too often"
        self._reserving_peers.spend(peer, now)
        self._reserving_ips.spend(ip, now)
        return None

    def open(self, source: PeerId, ip: str, target: PeerId) -> str | None:
        """Counts a circuit, as if it used all its bytes until `ended`. Returns: why there may be none."""
        now = asyncio.get_running_loop().time()
        if not self._sources.has_room(source, now):
            return f"{source} opens too many circuits"
        if not self._ips.has_room(ip, now):
            return f"peers from {ip} open too many circuits"
        if not self._targets.has_room(target, now):
            return f"too many circuits to {target} are opened"
        if not self._source_bytes.has_room(source, now, self._circuit_bytes):
            return f"{source} has passed too many bytes"
        if not self._ip_bytes.has_room(ip, now, self._circuit_bytes):
            return f"peers from {ip} have passed too many bytes"
        self._sources.spend(source, now)
        self._ips.spend(ip, now)
        self._targets.spend(target, now)
        self._source_bytes.spend(source, now, self._circuit_bytes)
        self._ip_bytes.spend(ip, now, self._circuit_bytes)
        return None

    def ended(self, source: PeerId, ip: str, num_bytes: int) -> None:
        """A circuit that `open` has counted has ended, and has passed `num_bytes` in both directions."""
        unused = max(0, self._circuit_bytes - num_bytes)
        self._source_bytes.give_back(source, unused)
        self._ip_bytes.give_back(ip, unused)
