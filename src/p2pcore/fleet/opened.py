"""Both ends of a stream to a peer of another process, whatever carries it between the two.

Comes in: at one end a stream of a link that is being opened, at the other a request. Goes out: there a stream
of the peer's protocol, or NotDelivered with the reason; here a stream to the peer. The protocol is agreed
between the caller and the peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, LimitExceeded, NobodyListens, NotDelivered, P2PError
from p2pcore.upgrade.multistream import propose
from p2pcore.values.peer_id import PeerId
from p2pcore.workers.links import Far, LinkRefused, Request

if TYPE_CHECKING:
    from p2pcore._fast.mux.stream import Stream as LinkStream
    from p2pcore.interfaces import Network, Stream


async def negotiated(
    opening: Awaitable[LinkStream],
    peer: PeerId,
    protocol: str,
    timeout_s: float,
    is_up: Callable[[], bool],
) -> Stream:
    """The stream of a link that `opening` opens, with `protocol` proposed on it.

    Args: is_up: whether what connects the processes is there.

    Raises: NotDelivered: there is no stream, and `may_have_arrived` is False.
    """
    try:
        async with asyncio.timeout(timeout_s):
            stream = await opening
    except NotDelivered:
        raise
    except TimeoutError:
        raise NotDelivered(peer, Undelivered.TIMEOUT, detail=f"no stream in {timeout_s:g} s") from None
    except LinkRefused as refused:
        reason = Undelivered.__members__.get(refused.reason, Undelivered.REFUSED)
        raise NotDelivered(peer, reason, detail=str(refused)) from refused
    except (BusDown, NobodyListens, LimitExceeded, OSError) as error:
        raise NotDelivered(peer, _reason(error, is_up), detail=str(error)) from error
    try:
        propose(stream, protocol)
    except BaseException:
        stream.reset()
        raise
    return stream


def _reason(error: Exception, is_up: Callable[[], bool]) -> Undelivered:
    if isinstance(error, BusDown):
        return Undelivered.GONE if is_up() else Undelivered.BUS_DOWN
    return Undelivered.GONE if isinstance(error, NobodyListens) else Undelivered.BUSY


async def open_for(network: Network, request: Request) -> Far:
    """Opens a stream to a peer of ours for another process. Raises LinkRefused."""
    conn = network.best_conn(PeerId(request["peer"]))
    if conn is None:
        raise LinkRefused(Undelivered.NOT_CONNECTED.name)
    try:
        stream = await conn.open_stream()
    except (P2PError, OSError) as error:
        raise LinkRefused(Undelivered.REFUSED.name, str(error)) from error
    stream.protocol = request["protocol"]  # for logs
    return Far(stream)
