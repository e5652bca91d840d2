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
        duplicates: "keep" allows several connections to one peer; "dedup" closes all but one.

    Raises:
        ValueError: `duplicates` is something else.
    """

    duplicates: str = "keep"

    def __post_init__(self) -> None:
        options.one_of("duplicates", self.duplicates, POLICIES)
