"""Which connections a host keeps, and how it ends.

duplicates.py closes superfluous connections. How many there may be in all is in resources/options.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pcore import limits, options
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


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How a host ends so that its peers notice. See Host.drain.

    Attributes:
        delay_s: seconds in which only `Host.is_draining` has changed, so that load balancers stop sending new
            peers; then the listeners close.
        refuse_after_s: so many seconds after that, new streams are reset with STREAM_SHUTDOWN. Until then
            they are served: a peer that has not heard of it may just be opening one. None: up to the end.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    delay_s: float = 0.0
    refuse_after_s: float | None = limits.DRAIN_REFUSE_AFTER_S

    def __post_init__(self) -> None:
        options.seconds("delay_s", self.delay_s, or_zero=True, most=limits.MAX_DRAIN_DELAY_S)
        if self.refuse_after_s is not None:
            options.seconds("refuse_after_s", self.refuse_after_s, or_zero=True)
