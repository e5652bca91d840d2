"""Connections within one process: dials and listens on /memory/N.

Comes in: numbers. Goes out: upgraded connections and listeners. The chain is the same as over sockets, except
for its bottom layer, a MemoryWire. For tests and for nodes in one process: both ends live on one event loop.
Each number has at most one listener in the process. Never opens a descriptor.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import itertools
from collections.abc import Callable
from typing import TypeAlias

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.memory import MemoryWire, memory_pair
from p2pcore.errors import AddressError, ListenerClosed
from p2pcore.interfaces import CapableConn, Listener, Upgrader
from p2pcore.limits import MEMORY_BACKLOG
from p2pcore.transports.tcp.transport import expected_peer
from p2pcore.values.multiaddr import Multiaddr, check_local
from p2pcore.values.peer_id import PeerId

Wires: TypeAlias = Callable[[asyncio.AbstractEventLoop, Multiaddr], tuple[MemoryWire, MemoryWire]]
"""Makes the wires of a connection to the listener on an address: the dialler's first."""

_listeners: dict[int, MemoryListener] = {}
_numbers = itertools.count(1)


class MemoryConn:
    """One end of a connection within the process, before any upgrade: satisfies interfaces.RawConn."""

    __slots__ = ("_wire", "local_multiaddr", "remote_multiaddr")

    transport = block = "memory"
    is_limited = False
    expected_peer = None

    def __init__(self, wire: MemoryWire, local: Multiaddr, remote: Multiaddr) -> None:
        self._wire = wire
        self.local_multiaddr = local
        self.remote_multiaddr = remote

    @property
    def mailbox(self) -> Mailbox:
        """The top of the chain while steps are negotiated.

        Raises:
            ConnectionClosed: the mailbox has been replaced, or the connection is gone.
        """
        return self._wire.open_mailbox()

    async def start(self) -> None:
        """Begins to receive from the other end. Raises OSError: `abort` came first."""
        if self._wire.is_closed:
            raise ConnectionAbortedError("the connection was closed before it was started")
        self._wire.start()

    def abort(self) -> None:
        """Closes at once. Idempotent."""
        self._wire.abort()


class MemoryListener:
    """Satisfies interfaces.RawListener; use `MemoryListener.bind`."""

    __slots__ = (
        "_backlog",
        "_changed",
        "_closed",
        "_draining",
        "_is_paused",
        "_loop",
        "_number",
        "_queue",
        "multiaddr",
    )

    def __init__(self, number: int, backlog: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._number = number
        self._backlog = backlog
        self._queue: collections.deque[MemoryConn] = collections.deque()
        self._changed = asyncio.Event()
        self._draining = False
        self._is_paused = False
        self._closed = False
        self.multiaddr = Multiaddr(f"/memory/{number}")
        _listeners[number] = self

    @classmethod
    def bind(cls, addr: Multiaddr, backlog: int = MEMORY_BACKLOG) -> MemoryListener:
        """Listens on /memory/N; 0 takes a free number.

        Raises:
            AddressError: not /memory/N, or it names a peer.
            OSError: EADDRINUSE: the number is taken.
        """
        number = memory_number(addr)
        check_local(addr)
        if number == 0:
            number = next(each for each in _numbers if each not in _listeners)
        elif number in _listeners and not _listeners[number].is_over:
            raise OSError(errno.EADDRINUSE, f"{addr} is taken")
        return cls(number, backlog)

    @property
    def is_over(self) -> bool:
        """True when nobody can connect any more."""
        return self._closed or self._loop.is_closed()

    def connect(self, wires: Wires | None = None) -> MemoryConn:
        """The dialler's end of a new connection; `accept` returns the other end.

        Args:
            wires: makes its wires; None: wires without delay.

        Raises: OSError: ECONNREFUSED: it is closed, full, or belongs to another event loop.
        """
        full = len(self._queue) >= self._backlog
        if self._draining or full or self.is_over or self._loop is not asyncio.get_running_loop():
            why = f"{self._backlog} connections wait there" if full else "nobody on this event loop listens"
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{self.multiaddr}: {why}")
        ours, theirs = wires(self._loop, self.multiaddr) if wires else memory_pair(self._loop)
        dialler = Multiaddr(f"/memory/{next(_numbers)}")
        self._queue.append(MemoryConn(theirs, self.multiaddr, dialler))
        self._changed.set()
        return MemoryConn(ours, dialler, self.multiaddr)

    async def accept(self) -> MemoryConn:
        """The next connection. If cancelled, it has taken none. Raises ListenerClosed."""
        while not self._queue or (self._is_paused and not self._draining):
            if self._draining or self._closed:
                await self.close()
                raise ListenerClosed(f"the listener on {self.multiaddr} is closed")
            self._changed.clear()
            await self._changed.wait()
        return self._queue.popleft()

    async def rebind(self) -> None:
        """Does nothing: there is no socket to lose. Raises ListenerClosed."""
        if self._closed:
            raise ListenerClosed(f"the listener on {self.multiaddr} is closed")

    def pause(self) -> None:
        """See interfaces.RawListener: dials wait, and are refused when the backlog is full."""
        self._is_paused = True

    def resume(self) -> None:
        """See interfaces.RawListener."""
        self._is_paused = False
        self._changed.set()

    def drain(self) -> None:
        """Drains: `accept` returns the queued connections, then raises ListenerClosed."""
        self._draining = True
        self._changed.set()

    async def close(self) -> None:
        """Stops listening; connections that nobody has accepted are aborted. Idempotent."""
        self._closed = True
        if _listeners.get(self._number) is self:
            del _listeners[self._number]
        while self._queue:
            self._queue.popleft().abort()
        self._changed.set()


class MemoryTransport:
    """The memory transport.

    Args:
        upgrader: secures and multiplexes dialled and accepted connections.
        backlog: connections that may wait until a listener accepts them.

    Attributes:
        wires: makes the wires of each connection that is dialled; None: wires without delay. p2pcore.testing
            sets it.
    """

    __slots__ = ("_backlog", "_upgrader", "wires")

    protocols = ("memory",)
    is_proxy = False

    def __init__(self, upgrader: Upgrader, backlog: int = MEMORY_BACKLOG) -> None:
        self._upgrader = upgrader
        self._backlog = backlog
        self.wires: Wires | None = None

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for /memory/N where N is not 0; a peer id may follow."""
        try:
            return memory_number(addr) != 0
        except AddressError:
            return False

    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects and upgrades.

        Raises:
            AddressError: not a memory address, or `addr` and `peer` name two peers.
            OSError: ECONNREFUSED: nobody listens there, or its backlog is full.
            NegotiationError, HandshakeError, UpgradeTimeout: the upgrade failed, see `.stage`.
        """
        number = memory_number(addr)
        expected = expected_peer(addr, addr.peer_id, peer)
        listener = _listeners.get(number)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {addr}")
        return await self._upgrader.upgrade_outbound(listener.connect(self.wires), expected)

    async def listen(self, addr: Multiaddr) -> Listener:
        """Starts to accept and upgrade connections. Raises as MemoryListener.bind."""
        return self._upgrader.upgrade_listener(MemoryListener.bind(addr, self._backlog))


def memory_number(addr: Multiaddr) -> int:
    """N of /memory/N[/p2p/ID]. Raises AddressError: `addr` is another address."""
    parts = str(addr.without_p2p()).split("/")[1:]
    if len(parts) != 2 or parts[0] != "memory":
        raise AddressError(f"{addr} is not /memory/N[/p2p/ID]")
    return int(parts[1])
