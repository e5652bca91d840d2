"""A relayed connection before any upgrade: satisfies interfaces.RawConn on a stream to the relay.

Comes in: a negotiated stream with a circuit that is agreed, or that needs only our answer. Goes out: a chain
with a mailbox for the upgrader. It reads nothing before `start`, and owns no task and no buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from p2pcore import limits
from p2pcore._fast.mux.stream_wire import StreamWire
from p2pcore.late import Late

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore.interfaces import Conn, Stream
    from p2pcore.relay import messages
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId
else:
    messages = Late("p2pcore.relay.messages")


class RelayedConn:
    """One end of a circuit.

    Args:
        stream: to the relay; owned from here on.
        relay: the connection of that stream.
        is_limited: the relay has announced limits.
        expected_peer: the id that the other end must prove, if the relay has named it; for the upgrader.
        answer: bytes that `start` sends before anything else; b"": none.
    """

    __slots__ = (
        "_answer",
        "_stream",
        "_wire",
        "block",
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
        self.block = str(relay.remote_peer)  # the ids behind a relay cost nothing, so they share its share
        self.is_limited = is_limited
        self.expected_peer = expected_peer
        # Neither end knows an address of the other, only the way through the relay.
        self.local_multiaddr = messages.through(relay.remote_multiaddr, relay.remote_peer)
        self.remote_multiaddr: Multiaddr | None = self.local_multiaddr

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated. Raises ConnectionClosed: replaced, or gone."""
        return self._wire.open_mailbox()

    async def start(self) -> None:
        """Sends the answer, if there is one, then begins to read. Raises OSError: the stream has failed."""
        if self._answer:
            self._stream.set_deadline(limits.RELAY_STREAM_TIMEOUT_S)
            await self._stream.write(self._answer)
        self._stream.set_deadline(None)
        self._wire.start()

    def abort(self) -> None:
        """Closes at once. Idempotent."""
        self._wire.abort()


def came_relayed(conn: Conn) -> bool:
    """Whether `conn` runs over a circuit. No circuit runs within another one."""
    addr = conn.remote_multiaddr
    return conn.is_limited or (addr is not None and addr.is_relayed)
