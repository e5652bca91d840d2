"""Sets SO_LINGER on each accepted connection of a listener.

Comes in: a listener of MaConn and a number of seconds. Goes out: the same connections. With 0, closing resets
the connection and loses unsent bytes. With more than 0, close(2) may block the event loop that long.
"""

from __future__ import annotations

from p2pcore import options
from p2pcore.limits import MAX_LINGER_S
from p2pcore.manet.conn import MaConn
from p2pcore.manet.listener import MaListener
from p2pcore.values.multiaddr import Multiaddr


class LingerListener:
    """A MaListener whose connections have SO_LINGER set.

    Args:
        inner: where connections come from; owned.
        seconds: whole seconds, 0..32767.

    Raises:
        ValueError: `seconds` is out of range.
    """

    __slots__ = ("_inner", "_seconds")

    def __init__(self, inner: MaListener, seconds: int) -> None:
        options.whole("linger", seconds, most=MAX_LINGER_S)
        self._inner = inner
        self._seconds = seconds

    @property
    def multiaddr(self) -> Multiaddr:
        """The bound address, with the real port."""
        return self._inner.multiaddr

    async def accept(self) -> MaConn:
        """As MaListener.accept."""
        conn = await self._inner.accept()
        conn.set_linger(self._seconds)
        return conn

    async def rebind(self) -> None:
        """As MaListener.rebind."""
        await self._inner.rebind()

    def pause(self) -> None:
        """As MaListener.pause."""
        self._inner.pause()

    def resume(self) -> None:
        """As MaListener.resume."""
        self._inner.resume()

    def drain(self) -> None:
        """As MaListener.drain."""
        self._inner.drain()

    async def close(self) -> None:
        """As MaListener.close."""
        await self._inner.close()
