"""More that programs do with streams: asyncio's streams and transports on them, local ports, broadcasts.

Comes in: open streams, or a callable that opens one. Goes out: what asyncio's libraries work on, a local TCP
or UNIX port that leads to a peer, or one message to very many streams. It uses only the public interface of
a stream. Levels 0 to 4 never import it.
"""

from p2pcore.streams.broadcast import Broadcast, broadcast
from p2pcore.streams.forward import Forward, forward, to_local
from p2pcore.streams.transport import StreamTransport, open_pair

__all__ = ["Broadcast", "Forward", "StreamTransport", "broadcast", "forward", "open_pair", "to_local"]
