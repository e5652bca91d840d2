"""Streams for programs that were written for sockets: asyncio's streams and transports, and local ports.

Comes in: an open Stream, or a callable that opens one. Goes out: what asyncio's libraries work on, or a local
TCP or UNIX port that leads to a peer. It uses only the public interface of a stream. Levels 0 to 4 never
import it.
"""

from p2pcore.streams.forward import Forward, forward, to_local
from p2pcore.streams.transport import StreamTransport, open_pair

__all__ = ["Forward", "StreamTransport", "forward", "open_pair", "to_local"]
