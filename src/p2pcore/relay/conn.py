"""A relayed connection before any upgrade: satisfies interfaces.RawConn on a stream to the relay.

Comes in: a negotiated stream on which a circuit has been agreed, or needs only our answer. Goes out: a chain
whose mailbox the upgrader negotiates over. It reads nothing before `start`, and owns no task and no buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from p2pcore import limits
from p2pcore._fast.mux.stream_wire import StreamWire
from p2pcore.relay.messages import through

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore.interfaces import Conn, Stream
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


class RelayedConn:
    """One end of a circuit.

    Args:
        stream: to the relay; owned from here on.
        relay: the connection it belongs to.
        is_limited: the relay has told limits.
        expected_peer: who the other end must prove to be, where the relay has said so; for the upgrader.
        answer: what `start` sends before anything else; b"" where nothing is due.
    """

    __slots__ = (
        "_answer",
        "_stream",
        "_wire",
        "expected_peer",
        "is_limited",
        "local_multiaddr",
        "remote_multiaddr",
    )

    transport = "p2p-circuit"  # the name go-libp2p gives it

    def __init__(
        self,
        stream: Stream,
        relay: Conn,
        is_limited: bool,
        expected_peer: PeerId | None = None,
        answer: bytes = b"",
    ) -> None:
        self._stream = stream
        self._wire = StreamWire(cast("Any", stream))
        self._answer = answer
        self.is_limited = is_limited
        self.expected_peer = expected_peer
        # Of either end no address is known to the other, only the way to it.
        self.local_multiaddr = through(relay.remote_multiaddr, relay.remote_peer)
        self.remote_multiaddr: Multiaddr | None = self.local_multiaddr

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated. Raises ConnectionClosed: replaced, or gone."""
        return self._wire.open_mailbox()

    async def start(self) -> None:
        """Sends the answer that is due, then begins to read. Raises OSError: the stream has failed."""
        if self._answer:
            self._stream.set_deadline(limits.RELAY_STREAM_TIMEOUT_S)
            await self._stream.write(self._answer)
        self._stream.set_deadline(None)
        self._wire.start()

    def abort(self) -> None:
        """Closes at once. Idempotent."""
        self._wire.abort()
