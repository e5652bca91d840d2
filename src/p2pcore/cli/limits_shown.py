"""What `p2pcore listen` shows about limits: how much of each is used, and what it has refused.

Comes in: SIGUSR1, or the end of a node with -v. Goes out: a table, or one JSON object for each limit.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from p2pcore import Host
from p2pcore.resources.report import table


def show_limits(host: Host, show: Callable[..., object]) -> None:
    """Shows a line for each limit of `host`, with `show(line, **fields)`, below the names of the columns."""
    uses = host.limits_report()
    head, *lines = table(uses)
    show(head, event="limits", count=len(uses))
    for line, use in zip(lines, uses, strict=True):
        show(
            line,
            event="limit",
            limit=use.limit,
            used=use.used,
            peak=use.peak,
            maximum=use.maximum,
            refused=use.refused,
        )


def show_at_signal(host: Host, show: Callable[..., object]) -> None:
    """Does so at each SIGUSR1 from now on. Call it from the event loop."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, show_limits, host, show)
