"""Hands one message to a peer that is connected to this process, on a new stream.

Comes in: an order, and the swarm that has the connection. Goes out: the peer's answer, or NotDelivered with
the reason and whether the peer may have seen the message. Never waits beyond the order's time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from p2pcore.aio.eager import Begun
from p2pcore.codes import Undelivered
from p2pcore.errors import (
    ConnectionClosed,
    DeadlineExceeded,
    IncompleteRead,
    LimitExceeded,
    NegotiationTimeout,
    NotDelivered,
    P2PError,
    ProtocolNotSupported,
    RemoteProtocolError,
    is_unserved,
)
from p2pcore.limits import FLEET_MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from p2pcore.aio.deadlines import Deadlines
    from p2pcore.fleet.envelope import Order
    from p2pcore.interfaces import Network, Stream

_READ_BYTES: Final = 65536
_TOO_LATE: Final = (TimeoutError, NegotiationTimeout, DeadlineExceeded)


async def hand_over(network: Network, order: Order, deadlines: Deadlines[Stream]) -> bytes:
    """Sends the message of `order`. Returns: the answer; b"" if none is wanted.

    Args: deadlines: of streams; see aio.deadlines.end_stream.

    Without an answer it returns when the peer has ended the stream in good order, as a handler that returns
    does. If cancelled, the stream is reset.

    Raises: NotDelivered.
    """
    if not network.conns_to_peer(order.peer):
        raise NotDelivered(order.peer, Undelivered.NOT_CONNECTED)
    at = asyncio.get_running_loop().time() + order.left_s
    stream: Stream | None = None
    try:
        async with await _stream(network, order) as stream:
            deadlines.watch(stream, at)
            await stream.write_msg(order.message)
            return await _answer(stream, order)
    except (P2PError, OSError, EOFError) as error:
        is_written = stream is not None
        reason, is_certain = _reason(error, is_written, stream is None or stream.is_acknowledged)
        raise NotDelivered(
            order.peer, reason, may_have_arrived=is_written and not is_certain, detail=_words(error)
        ) from error
    finally:
        if stream is not None:
            deadlines.forget(stream)


async def _stream(network: Network, order: Order) -> Stream:
    """A stream to the peer, nearly always at once: a timer would cost as much. Raises TimeoutError."""
    opening = Begun(network.new_stream(order.peer, order.protocol, allow_limited=True))
    if opening.is_done:
        return await opening
    async with asyncio.timeout(order.left_s):
        return await opening


async def _answer(stream: Stream, order: Order) -> bytes:
    if order.wants_answer:
        return await stream.read_msg(FLEET_MAX_MESSAGE_BYTES)
    await stream.close_write()
    while await stream.read(_READ_BYTES):  # a greeting, perhaps: nobody wants it
        pass
    return b""


def _reason(error: BaseException, is_written: bool, is_acknowledged: bool) -> tuple[Undelivered, bool]:
    """Why there is no answer, and whether it is certain that the peer has not seen the message."""
    if isinstance(error, _TOO_LATE):
        return Undelivered.TIMEOUT, False
    if isinstance(error, ProtocolNotSupported):
        return Undelivered.NOT_SUPPORTED, True
    if is_unserved(error, is_acknowledged):  # a peer that drains has not served it
        return Undelivered.GONE, True
    if isinstance(error, LimitExceeded):
        return (Undelivered.BAD_ANSWER if is_written else Undelivered.BUSY), False
    if isinstance(error, RemoteProtocolError):
        return Undelivered.BAD_ANSWER, False
    if isinstance(error, ConnectionClosed):
        return Undelivered.GONE, False
    if isinstance(error, IncompleteRead):
        return (Undelivered.BAD_ANSWER if error.partial else Undelivered.REFUSED), False
    return Undelivered.REFUSED, False


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
