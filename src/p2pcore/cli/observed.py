"""Serves the metrics and the health of a node while a command runs.

Comes in: the coroutine of the command, a host or a supervisor, an address. Goes out: nothing. The port opens
before the node listens and closes after its end, so that a probe sees both.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pcore import Host, Supervisor


async def observed(main: Coroutine[Any, Any, None], node: Host | Supervisor, address: str | None) -> None:
    """Runs `main`, with metrics of `node` on `address`, or without. Raises ListenError: it cannot be used."""
    if address is None:
        await main
        return
    from p2pcore import MetricsServer  # here, because few commands serve metrics

    try:
        server = MetricsServer(node, address)
        await server.start()
    except BaseException:
        main.close()  # else Python warns that nobody has awaited it
        raise
    try:
        await main
    finally:
        await server.close()
