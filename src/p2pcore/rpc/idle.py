"""The streams of a service that have no call: closed after a while, and at once when the host drains.

Comes in: streams, when they begin and when they end to wait for a request. Goes out: the end of those that
wait too long. It never ends a call: a caller whose stream ends without an answer knows that nobody has seen
its request. There is one timer, and only while there are streams.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from p2pcore import limits
from p2pcore.aio.eager import Begun

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream


class Drains(Protocol):
    """A host, as far as its end goes."""

    @property
    def is_draining(self) -> bool:
        """See Host.is_draining."""
        ...


class Idle:
    """The idle streams of one service on one host.

    Args:
        host: says whether it drains. idle_s: seconds that a stream may wait.
    """

    __slots__ = ("_host", "_idle_s", "_since", "_timer")

    def __init__(self, host: Drains, idle_s: float) -> None:
        self._host = host
        self._idle_s = idle_s
        self._since: dict[Stream, float] = {}  # in this order
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_draining(self) -> bool:
        """Whether a stream must end after its call."""
        return self._host.is_draining

    def begin(self, stream: Stream) -> None:
        """`stream` waits for a request from now on."""
        loop = asyncio.get_running_loop()
        self._since[stream] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(limits.RPC_LOOK_S, self._look)

    def end(self, stream: Stream) -> None:
        """`stream` does not wait any more."""
        del self._since[stream]

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        late = loop.time() - self._idle_s
        is_draining = self.is_draining
        for stream, since in list(self._since.items()):
            if since > late and not is_draining:
                break
            end(stream)
        if self._since:
            self._timer = loop.call_later(limits.RPC_LOOK_S, self._look)


def end(stream: Stream) -> None:
    """Closes `stream`, or resets it if that would have to wait."""
    if not Begun(stream.close()).is_done:
        stream.reset()
