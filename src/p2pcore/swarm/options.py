"""Which connections a host may have: the caps on them, and what becomes of a second one to the same peer.

Comes in: numbers. Goes out: the same, checked. admission.py counts the caps; duplicates.py closes what is
superfluous.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pcore import options
from p2pcore.swarm.duplicates import POLICIES


@dataclass(frozen=True, slots=True)
class ConnOptions:
    """Which connections there may be.

    Attributes:
        max_conns: connections, inbound and outbound together. None: only the operating system has a limit.
        max_conns_per_peer: the same of one peer.
        max_conns_per_ip: inbound connections of one public IPv4 address or IPv6 /56.
        duplicates: "keep" several connections to one peer, or "dedup": close what is superfluous.

    Raises:
        TypeError, ValueError: a field is not what is said above.
    """

    max_conns: int | None = None
    max_conns_per_peer: int | None = None
    max_conns_per_ip: int | None = None
    duplicates: str = "keep"

    def __post_init__(self) -> None:
        for name in ("max_conns", "max_conns_per_peer", "max_conns_per_ip"):
            cap = getattr(self, name)
            if cap is not None:
                options.whole(name, cap, 1)
        options.one_of("duplicates", self.duplicates, POLICIES)
