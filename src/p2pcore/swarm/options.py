"""Which connections a host may have: caps, and a rule for a second connection to the same peer.

admission.py enforces the caps; duplicates.py closes superfluous connections.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pcore import options
from p2pcore.swarm.duplicates import POLICIES


@dataclass(frozen=True, slots=True)
class ConnOptions:
    """Which connections a host may have. None: only the operating system sets a limit.

    Attributes:
        max_conns: connections, inbound and outbound together.
        max_conns_per_peer: the same for one peer.
        max_conns_per_ip: inbound connections from one public IPv4 address or IPv6 /56.
        raise_descriptors: raise the soft limit of RLIMIT_NOFILE to the hard one when the host starts. False: if
            the process calls select(2), which fails for descriptors from 1,024 on.
        duplicates: "keep" allows several connections to one peer; "dedup" closes all but one.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    max_conns: int | None = None
    max_conns_per_peer: int | None = None
    max_conns_per_ip: int | None = None
    duplicates: str = "keep"
    raise_descriptors: bool = True

    def __post_init__(self) -> None:
        for name in ("max_conns", "max_conns_per_peer", "max_conns_per_ip"):
            cap = getattr(self, name)
            if cap is not None:
                options.whole(name, cap, 1)
        options.flag("raise_descriptors", self.raise_descriptors)
        options.one_of("duplicates", self.duplicates, POLICIES)
