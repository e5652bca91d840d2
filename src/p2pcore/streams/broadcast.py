"""One message to very many streams, without a task for each.

Comes in: streams and bytes. Goes out: what each connection has to send, in shares of a turn of the loop, and
which streams did not take it. It never waits for a slow peer, and never queues more than one message for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pcore._fast.mux.broadcast import write_to_each
from p2pcore._fast.mux.stream import framed
from p2pcore.interfaces import Prefix, Stream
from p2pcore.limits import BROADCAST_PER_TURN


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What became of a broadcast.

    Attributes:
        num_sent: streams that took the message. It is on its way to them, or waits as the only one.
        slow: streams that did not take it, because an earlier message still waits for their peer.
        gone: streams that have ended, or whose write half was closed here.
    """

    num_sent: int
    slow: list[Stream] = field(default_factory=list)
    gone: list[Stream] = field(default_factory=list)


async def broadcast(streams: Iterable[Stream], data: bytes, *, prefix: Prefix | None = None) -> Broadcast:
    """Writes `data` to each of `streams`, as `Stream.try_write` does: whole, or not at all.

    Each time it begins with another stream, so that none is always the last. Every BROADCAST_PER_TURN streams
    it lets others run. A stream that a broadcast finds slow is left as it is: skip it, or reset it if that
    happens too often. If cancelled, some streams have the message. Two broadcasts at once may reach two
    streams in different orders: where that matters, hold a lock.

    Args:
        streams: streams of one event loop; changes of the collection meanwhile do not count.
        data: what each of them gets.
        prefix: the length that goes before it, as in `Stream.write_msg`; None: none.

    Raises:
        TypeError: `data` is not bytes, or an element is no stream of p2pcore. LimitExceeded, ValueError: as
            `Stream.write_msg`.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"data must be bytes, not {type(data).__name__}")
    if prefix is not None:
        data = framed(data, prefix)
    each = list(streams)
    start = random.randrange(len(each)) if each else 0
    each = each[start:] + each[:start]
    slow: list[Stream] = []
    gone: list[Stream] = []
    for begin in range(0, len(each), BROADCAST_PER_TURN):
        if begin:
            await asyncio.sleep(0)
        write_to_each(each, begin, begin + BROADCAST_PER_TURN, data, slow, gone)
    return Broadcast(len(each) - len(slow) - len(gone), slow, gone)
