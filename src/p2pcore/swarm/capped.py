"""A stream handler with limits of its own: how many of its calls may run at once, in all and for one peer.

Comes in: a handler, streams. Goes out: the same calls, or LimitExceeded; then the swarm resets the stream. A
handler without such limits is called without this module, so it costs nothing there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from p2pcore.errors import LimitExceeded

if TYPE_CHECKING:
    from p2pcore.interfaces import ProtocolHandler, Stream
    from p2pcore.resources.refusals import Refusals
    from p2pcore.values.peer_id import PeerId


class CappedHandler:
    """Satisfies interfaces.ProtocolHandler.

    Args:
        protocol: its name, for texts.
        handler: what to call.
        max_streams, max_streams_per_peer: calls that may run at once; None: no limit.
        refusals: hears of each refusal.
    """

    __slots__ = ("_by_peer", "_handler", "_max", "_max_per_peer", "_num", "_protocol", "_refusals")

    def __init__(
        self,
        protocol: str,
        handler: ProtocolHandler,
        max_streams: int | None,
        max_streams_per_peer: int | None,
        refusals: Refusals,
    ) -> None:
        self._protocol = protocol
        self._handler = handler
        self._max = max_streams
        self._max_per_peer = max_streams_per_peer
        self._refusals = refusals
        self._num = 0
        self._by_peer: Counter[PeerId] = Counter()

    async def __call__(self, stream: Stream) -> Stream | None:
        """As the handler. Raises LimitExceeded: too many run."""
        peer = stream.conn.remote_peer
        if self._max is not None and self._num >= self._max:
            raise self._over("max_streams", self._num, self._max, None)
        if self._max_per_peer is not None and self._by_peer[peer] >= self._max_per_peer:
            raise self._over("max_streams_per_peer", self._by_peer[peer], self._max_per_peer, peer)
        self._num += 1
        self._by_peer[peer] += 1
        try:
            return await self._handler(stream)
        finally:
            self._num -= 1
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]

    def _over(self, setting: str, used: int, most: int, peer: PeerId | None) -> LimitExceeded:
        error = LimitExceeded(
            f"{setting} of {self._protocol}",
            used,
            most,
            who=None if peer is None else str(peer),
            what=f"streams of {self._protocol}" + ("" if peer is None else " with"),
            setting=f"set_stream_handler({setting}=...)",
        )
        self._refusals.add(error.limit, lambda: error)
        return error
