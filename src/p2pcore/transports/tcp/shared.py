"""One TCP port for several kinds of connections, recognized by their first three bytes.

Comes in: a listening socket. Goes out: a RawListener for each kind (plain libp2p, HTTP, TLS); its connections
are started already and have lost no byte. A connection without a listener for its kind is closed and counted.
Silent peers do not block others, see aio/intake.py. Errors of accept(2) go to the listeners, which pause and
bind again. The port is closed with the last of its listeners. Never looks at more than three bytes.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import errno
import logging
from collections.abc import Callable

from p2pcore._fast.chain.multistream import HEADER
from p2pcore.aio.intake import Bounds, Intake, Why
from p2pcore.aio.threshold import Threshold
from p2pcore.errors import ListenerClosed, P2PError
from p2pcore.interfaces import RawConn, RawListener
from p2pcore.limits import (
    ACCEPTS_PER_TURN,
    MAX_PEEKED,
    MAX_PEEKS,
    MAX_SLOW_PEEKS,
    MAX_WAITING_UPGRADES,
    PEEK_TIMEOUT_S,
    PEEKED_TIMEOUT_S,
    UPGRADE_SLOW_S,
)
from p2pcore.values.multiaddr import Multiaddr

logger = logging.getLogger("p2pcore.tcpreuse")

PEEK_BYTES = 3
_MULTISTREAM = HEADER[:PEEK_BYTES]
_METHODS = ("GET", "HEA", "POS", "PUT", "DEL", "CON", "OPT", "TRA", "PAT", "PRI")
_HTTP = frozenset(method.encode() for method in _METHODS)
_TLS = frozenset(bytes((0x16, 3, minor)) for minor in (1, 2, 3))


class Kind(enum.Enum):
    """How a connection begins."""

    PLAIN = "plain libp2p"
    HTTP = "HTTP"
    TLS = "TLS"


class Refusal(enum.StrEnum):
    """Why a connection of a shared port was closed before a listener accepted it."""

    UNKNOWN = "unknown first bytes"
    UNWANTED = "no listener for its kind"
    TIMEOUT = "timeout"
    ENDED = "ended by the peer"
    NOT_ACCEPTED = "not accepted"
    TOO_MANY_SLOW = Why.TOO_MANY_SLOW
    TOO_MANY_OF_BLOCK = Why.TOO_MANY_OF_BLOCK
    NO_DESCRIPTOR = Why.NO_DESCRIPTOR


def kind_of(first: bytes, is_psk: bool = False) -> Kind | None:
    """The kind of a connection that begins with these three bytes; None: no known kind.

    Args:
        is_psk: plain connections begin with a random nonce (libp2p's private networks), so everything except
            HTTP and TLS is plain. One nonce in 1.3 million looks like HTTP or TLS, and that dial fails.
    """
    if first in _HTTP:
        return Kind.HTTP
    if first in _TLS:
        return Kind.TLS
    return Kind.PLAIN if first == _MULTISTREAM or (is_psk and len(first) == PEEK_BYTES) else None


class TcpReuseListener:
    """The connections of one kind on a shared port: satisfies RawListener. SharedPort.listen creates it."""

    __slots__ = (
        "_changed",
        "_error",
        "_loop",
        "_port",
        "_ready",
        "admits",
        "is_closed",
        "is_draining",
        "is_paused",
        "kind",
    )

    def __init__(self, port: SharedPort, kind: Kind) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._ready: dict[RawConn, asyncio.TimerHandle] = {}  # oldest first
        self._changed = asyncio.Event()
        self._error: OSError | None = None
        self.admits: Callable[[RawConn], bool] | None = None
        self.kind = kind
        self.is_draining = False
        self.is_paused = False
        self.is_closed = False

    @property
    def multiaddr(self) -> Multiaddr:
        """The address of the port, with its number, without a protocol above TCP."""
        return self._port.multiaddr

    async def accept(self) -> RawConn:
        """The next connection of this kind. It reads already. If this is cancelled, no connection is lost.

        Raises:
            ListenerClosed: the listener was closed.
            OSError: accept(2) failed for the port; each listener of the port raises it once.
        """
        while True:
            if self._error is not None:
                error, self._error = self._error, None
                try:
                    raise error
                finally:
                    del error  # else it keeps itself alive by its traceback
            if self._ready and (self.is_draining or not self.is_paused):
                conn = next(iter(self._ready))
                self._ready.pop(conn).cancel()
                self._port.let_next_in()
                return conn
            if self.is_closed or (self.is_draining and not self._port.is_settling):
                raise ListenerClosed(f"the listener on {self.multiaddr} is closed")
            self._port.go_on()
            self._changed.clear()
            await self._changed.wait()

    def screen(self, admits: Callable[[RawConn], bool]) -> bool:
        """From now on the port asks `admits` about each connection before it reads a byte of it.

        `admits` closes and counts those it refuses. Returns: True.
        """
        self.admits = admits
        self._port.screening_changed()
        return True

    async def rebind(self) -> None:
        """Replaces the port's lost socket, if no other listener has done so. Raises as MaListener.rebind."""
        if self.is_closed:
            raise ListenerClosed(f"the listener on {self.multiaddr} is closed")
        await self._port.rebind()

    def pause(self) -> None:
        """See interfaces.RawListener. The port accepts until all its listeners pause."""
        self.is_paused = True
        self._port.pausing_changed()

    def resume(self) -> None:
        """See interfaces.RawListener."""
        self.is_paused = False
        self._port.pausing_changed()
        self.wake()

    def drain(self) -> None:
        """Drains: `accept` returns the connections that have come, then raises ListenerClosed.

        When all listeners of a port drain, the kernel's queue is served too. While others go on, nobody can
        tell for which listener a queued connection is.
        """
        self.is_draining = True
        self._port.drain()
        self.wake()

    async def close(self) -> None:
        """Closes this listener; the last one also closes the port. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.admits = None  # it refers to the listener that refers to this one
        for conn, timer in self._ready.items():
            timer.cancel()
            conn.abort()
            self._port.let_next_in()
        self._ready.clear()
        self.wake()
        await self._port.closed(self)

    # -- for SharedPort ------------------------------------------------------------------------

    def wake(self) -> None:
        """Makes `accept` look again."""
        self._changed.set()

    def fail(self, error: OSError) -> None:
        """Makes `accept` raise `error`."""
        self._error = error
        self.wake()

    def give(self, conn: RawConn) -> None:
        """Hands `conn` over. If nobody accepts it in time, the port refuses it."""
        self._ready[conn] = self._loop.call_later(PEEKED_TIMEOUT_S, self._overdue, conn)
        self.wake()

    def _overdue(self, conn: RawConn) -> None:
        del self._ready[conn]
        self._port.refuse(conn, Refusal.NOT_ACCEPTED)
        self._port.let_next_in()


class SharedPort:
    """A listening socket that at most one listener of each kind shares.

    Args:
        inner: returns connections that nobody has started; owned.
        is_psk: see `kind_of`.
        on_closed: called once, when the port is free again.

    Attributes:
        refused: connections that no listener accepted, counted by Refusal.
    """

    def __init__(
        self,
        inner: RawListener,
        is_psk: bool = False,
        on_closed: Callable[[SharedPort], None] = lambda port: None,
    ) -> None:
        self._inner = inner
        self._is_psk = is_psk
        self._on_closed = on_closed
        self._listeners: dict[Kind, TcpReuseListener] = {}
        self._peeked = Threshold(MAX_PEEKED)
        bounds = Bounds(MAX_PEEKS, UPGRADE_SLOW_S, MAX_SLOW_PEEKS, MAX_WAITING_UPGRADES, PEEK_TIMEOUT_S)
        self._intake: Intake[RawConn] = Intake(self._sort, self._drop_unfinished, bounds, self._peeked)
        self._num_accepted = 0
        self._failed = False
        self._resumed = asyncio.Event()
        self._is_over = False
        self._is_drained = False
        self.refused: collections.Counter[Refusal] = collections.Counter()
        self._admits: Callable[[RawConn], bool] | None = None
        self._accepting = asyncio.get_running_loop().create_task(self._accept_loop())

    @property
    def multiaddr(self) -> Multiaddr:
        """The bound address, with the real port."""
        return self._inner.multiaddr

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that have a listener."""
        return frozenset(self._listeners)

    def listen(self, kind: Kind) -> TcpReuseListener:
        """A listener for one kind. Raises OSError: EADDRINUSE: the kind has one already."""
        if self._is_over or kind in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{self.multiaddr} has a listener for {kind.value} already")
        listener = self._listeners[kind] = TcpReuseListener(self, kind)
        self.pausing_changed()
        return listener

    # -- accepting -----------------------------------------------------------------------------

    async def _accept_loop(self) -> None:
        try:
            while True:
                await self._peeked.wait()
                await self._intake.wait()
                try:
                    self._take(await self._inner.accept())
                except ListenerClosed:
                    break
                except OSError as error:
                    await self._report(error)
                    continue
                self._num_accepted += 1
                if not self._num_accepted % ACCEPTS_PER_TURN:
                    await asyncio.sleep(0)
            await self._intake.wait_empty()
        except Exception:
            logger.exception("the shared port %s ended", self.multiaddr)
            await self._inner.close()
        finally:
            self._is_drained = True
            for listener in self._listeners.values():
                listener.is_draining = True
                listener.wake()

    def _take(self, conn: RawConn) -> None:
        if self._admits is not None and not self._admits(conn):
            return
        if not self._intake.offer(conn, conn.block):
            conn.abort()
            self.refused[Refusal.TOO_MANY_OF_BLOCK] += 1

    def let_next_in(self) -> None:
        """A connection of a known kind has gone: the next may be looked at."""
        self._peeked.release()
        self._intake.go_on()

    def pausing_changed(self) -> None:
        """Called when a listener has come, gone, paused or resumed."""
        if self._listeners and all(each.is_paused for each in self._listeners.values()):
            self._inner.pause()
        else:
            self._inner.resume()

    def screening_changed(self) -> None:
        """Called when a listener has gone, or wants to be asked. All are of one host: one is asked."""
        self._admits = next((each.admits for each in self._listeners.values() if each.admits), None)

    async def _report(self, error: OSError) -> None:
        """Makes every listener raise `error`; returns when one of them, after its pause, asks for more."""
        self._failed = True
        self._resumed.clear()
        for listener in self._listeners.values():
            listener.fail(error)
        await self._resumed.wait()

    def go_on(self) -> None:
        """Goes on after an error: a listener asks for connections."""
        self._failed = False
        self._resumed.set()

    async def rebind(self) -> None:
        """Replaces a lost socket, once for all listeners."""
        if self._failed:
            await self._inner.rebind()
            self._failed = False

    async def _sort(self, conn: RawConn, accepted_at: float) -> None:
        """The task of one connection, until its kind is known."""
        has_worked = False
        try:
            listener = await self._peek(conn)
            if isinstance(listener, Refusal):
                self.refuse(conn, listener)
            elif self._peeked.count >= 2 * MAX_PEEKED:
                # While the port is full, a slow connection is refused: the bound does not count slow ones.
                self.refuse(conn, Refusal.NOT_ACCEPTED)
            else:
                has_worked = True
                self._peeked.acquire()
                listener.give(conn)
        except BaseException:
            conn.abort()
            raise
        finally:
            self._intake.release(conn, has_worked)

    async def _peek(self, conn: RawConn) -> TcpReuseListener | Refusal:
        try:
            async with asyncio.timeout(PEEK_TIMEOUT_S):
                await conn.start()
                first = await conn.mailbox.peek(PEEK_BYTES)
        except TimeoutError:
            return Refusal.TIMEOUT
        except (OSError, P2PError):
            return Refusal.ENDED
        if len(first) < PEEK_BYTES:
            return Refusal.ENDED
        kind = kind_of(first, self._is_psk)
        if kind is None:
            return Refusal.UNKNOWN
        return self._listeners.get(kind, Refusal.UNWANTED)

    def refuse(self, conn: RawConn, why: Refusal) -> None:
        """Closes `conn`, and counts it."""
        conn.abort()
        self.refused[why] += 1
        if logger.isEnabledFor(logging.DEBUG):  # making an address takes microseconds
            logger.debug("inbound connection from %s to %s: %s", conn.remote_multiaddr, self.multiaddr, why)

    def _drop_unfinished(self, conn: RawConn, why: Why) -> None:
        self.refuse(conn, Refusal(why))

    # -- the end -------------------------------------------------------------------------------

    @property
    def is_settling(self) -> bool:
        """True while every listener drains and accepted connections may still come."""
        return not self._is_drained and all(each.is_draining for each in self._listeners.values())

    def drain(self) -> None:
        """Empties the kernel's queue and ends, when every listener drains."""
        if self._listeners and all(each.is_draining for each in self._listeners.values()):
            self._inner.drain()
            self.go_on()

    async def closed(self, listener: TcpReuseListener) -> None:
        """Called when `listener` has closed; the last one closes the port."""
        self._listeners.pop(listener.kind, None)
        self.screening_changed()
        if self._listeners:
            self.pausing_changed()
            self.drain()
            return
        self._is_over = True
        await self._inner.close()
        self._on_closed(self)
        self._accepting.cancel()
        unfinished, tasks = self._intake.close()
        for conn in unfinished:
            conn.abort()
        await asyncio.wait([self._accepting, *tasks])
