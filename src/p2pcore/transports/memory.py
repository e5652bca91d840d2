"""Connections within one process: dials and listens on /memory/N.

Comes in: numbers. Goes out: upgraded connections and listeners, made of the same chain as those over sockets
but for its bottom, a MemoryWire. For tests and for nodes in one process: both ends live on one event loop. A
number is taken by one listener of the process. Never opens a descriptor.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import itertools

from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.memory import MemoryWire, memory_pair
from p2pcore.errors import AddressError, ListenerClosed
from p2pcore.interfaces import CapableConn, Listener, Upgrader
from p2pcore.limits import MEMORY_BACKLOG
from p2pcore.transports.tcp.transport import expected_peer
from p2pcore.values.multiaddr import Multiaddr, check_local
from p2pcore.values.peer_id import PeerId

_listeners: dict[int, MemoryListener] = {}
_numbers = itertools.count(1)


class MemoryConn:
    """One end of a connection within the process, before any upgrade: satisfies interfaces.RawConn."""

    __slots__ = ("_wire", "local_multiaddr", "remote_multiaddr")

    transport = "memory"
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
            ConnectionClosed: it has been replaced, or is gone.
        """
        return self._wire.open_mailbox()

    async def start(self) -> None:
        """Begins to take what the other end sends. Raises OSError: `abort` came first."""
        if self._wire.is_closed:
            raise ConnectionAbortedError("the connection was closed before it was started")
        self._wire.start()

    def abort(self) -> None:
        """Closes at once. Idempotent."""
        self._wire.abort()


class MemoryListener:
    """Satisfies interfaces.RawListener; use `MemoryListener.bind`."""

    __slots__ = ("_backlog", "_changed", "_closed", "_finishing", "_loop", "_number", "_queue", "multiaddr")

    def __init__(self, number: int, backlog: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._number = number
        self._backlog = backlog
        self._queue: collections.deque[MemoryConn] = collections.deque()
        self._changed = asyncio.Event()
        self._finishing = False
        self._closed = False
        self.multiaddr = Multiaddr(f"/memory/{number}")
        _listeners[number] = self

    @classmethod
    def bind(cls, addr: Multiaddr, backlog: int = MEMORY_BACKLOG) -> MemoryListener:
        """Listens on /memory/N; 0 takes a free number.

        Raises:
            AddressError: another address, or one that names a peer.
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
        """True once nobody can connect any more."""
        return self._closed or self._loop.is_closed()

    def connect(self) -> MemoryConn:
        """The dialler's end of a new connection; the other is for `accept`.

        Raises: OSError: ECONNREFUSED: it is closed, full, or belongs to another event loop.
        """
        full = len(self._queue) >= self._backlog
        if self._finishing or full or self.is_over or self._loop is not asyncio.get_running_loop():
            why = f"{self._backlog} connections wait there" if full else "nobody on this event loop listens"
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{self.multiaddr}: {why}")
        ours, theirs = memory_pair(self._loop)
        dialler = Multiaddr(f"/memory/{next(_numbers)}")
        self._queue.append(MemoryConn(theirs, self.multiaddr, dialler))
        self._changed.set()
        return MemoryConn(ours, dialler, self.multiaddr)

    async def accept(self) -> MemoryConn:
        """The next connection. Cancelled, it has taken none. Raises ListenerClosed."""
        while not self._queue:
            if self._finishing or self._closed:
                await self.close()
                raise ListenerClosed(f"the listener on {self.multiaddr} is closed")
            self._changed.clear()
            await self._changed.wait()
        return self._queue.popleft()

    async def rebind(self) -> None:
        """Nothing can be lost. Raises ListenerClosed."""
        if self._closed:
            raise ListenerClosed(f"the listener on {self.multiaddr} is closed")

    def finish(self) -> None:
        """`accept` gives out what is queued by now, then raises ListenerClosed."""
        self._finishing = True
        self._changed.set()

    async def close(self) -> None:
        """Stops listening; connections that nobody accepted are closed. Idempotent."""
        self._closed = True
        if _listeners.get(self._number) is self:
            del _listeners[self._number]
        while self._queue:
            self._queue.popleft().abort()
        self._changed.set()


class MemoryTransport:
    """The memory transport.

    Args:
        upgrader: secures and multiplexes what is dialled and accepted.
        backlog: dialled connections that may wait for a listener.
    """

    __slots__ = ("_backlog", "_upgrader")

    protocols = ("memory",)
    is_proxy = False

    def __init__(self, upgrader: Upgrader, backlog: int = MEMORY_BACKLOG) -> None:
        self._upgrader = upgrader
        self._backlog = backlog

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for /memory/N, N not 0, with or without a peer id behind."""
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
        return await self._upgrader.upgrade_outbound(listener.connect(), expected)

    async def listen(self, addr: Multiaddr) -> Listener:
        """Starts to accept and upgrade. Raises as MemoryListener.bind."""
        return self._upgrader.upgrade_listener(MemoryListener.bind(addr, self._backlog))


def memory_number(addr: Multiaddr) -> int:
    """N of /memory/N[/p2p/ID]. Raises AddressError: it is another address."""
    parts = str(addr.without_p2p()).split("/")[1:]
    if len(parts) != 2 or parts[0] != "memory":
        raise AddressError(f"{addr} is not /memory/N[/p2p/ID]")
    return int(parts[1])
