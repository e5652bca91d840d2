"""Which connections a host keeps: a rule for a second connection to the same peer.

duplicates.py closes superfluous connections. How many there may be in all is in resources/options.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pcore import options
from p2pcore.swarm.duplicates import POLICIES


@dataclass(frozen=True, slots=True)
class ConnOptions:
    """Which connections a host keeps. How many it may have: see Limits.

    Attributes:
        raise_descriptors: raise the soft limit of RLIMIT_NOFILE to the hard one when the host is made. False:
            if the process calls select(2), which fails for descriptors from 1,024 on.
        duplicates: "keep" allows several connections to one peer; "dedup" closes all but one.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    duplicates: str = "keep"
    raise_descriptors: bool = True

    def __post_init__(self) -> None:
        options.flag("raise_descriptors", self.raise_descriptors)
        options.one_of("duplicates", self.duplicates, POLICIES)
