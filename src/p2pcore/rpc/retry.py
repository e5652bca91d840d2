"""When a failed call is made again: only where its caller says that it may run more than once.

Comes in: how many attempts, and after which errors. Goes out: pauses. Never repeats anything by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from p2pcore import limits, options
from p2pcore.codes import RpcCode
from p2pcore.errors import RpcError


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is made, and after which errors. Give it only to calls that may run more than once.

    Pauses are random: from 0 to `pause_s`, which doubles with each attempt up to `most_pause_s`. So callers
    that have failed together do not come back together. The deadline of the call is for all attempts.

    Attributes:
        attempts: in all, the first included; 2 to 10.
        codes: after these errors; others are final.
        pause_s, most_pause_s: seconds.
        draw: a random number from 0 to 1.

    Raises: TypeError, ValueError: a field is wrong.
    """

    attempts: int = 3
    codes: frozenset[RpcCode] = frozenset((RpcCode.UNAVAILABLE,))
    pause_s: float = limits.RPC_RETRY_PAUSE_S
    most_pause_s: float = limits.RPC_MAX_RETRY_PAUSE_S
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        options.whole("attempts", self.attempts, 2, limits.RPC_MAX_ATTEMPTS)
        options.seconds("pause_s", self.pause_s, or_zero=True)
        options.seconds("most_pause_s", self.most_pause_s, or_zero=True)
        options.function("draw", self.draw)
        for code in self.codes:
            options.instance("each item of codes", code, RpcCode)

    def pause(self, failed: int, error: RpcError) -> float | None:
        """Seconds until the next attempt, after `failed` of them; None: `error` is final."""
        if failed >= self.attempts or error.code not in self.codes:
            return None
        longest: float = min(self.most_pause_s, self.pause_s * 2 ** (failed - 1))
        return self.draw() * longest
