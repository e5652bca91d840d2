"""Accepts raw connections, upgrades each in its own task, and gives out the finished connections.

Comes in: a RawListener and an Upgrader. Goes out: CapableConns through `accept`, failed upgrades to `news`
and to counters, its condition through `state`. It survives every error of accept(2). If its socket is lost,
it binds again. Every upgrade has a bound and a deadline. Only `close` and `drain` end it.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcore import options as checks
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.aio.intake import Bounds, Intake, Why
from p2pcore.aio.threshold import Threshold
from p2pcore.codes import CONN_RATE_LIMITED
from p2pcore.errors import ListenerClosed, RequestAnswered, UpgradeTimeout
from p2pcore.interfaces import (
    CapableConn,
    Direction,
    ListenerNews,
    ListenerState,
    RawConn,
    RawListener,
    Upgrader,
)
from p2pcore.limits import (
    ACCEPT_BACKOFF_MAX_S,
    ACCEPT_BACKOFF_MIN_S,
    ACCEPT_QUEUE_LENGTH,
    ACCEPT_TIMEOUT_S,
    ACCEPTS_PER_TURN,
    MAX_SLOW_UPGRADES,
    MAX_UPGRADING,
    MAX_WAITING_UPGRADES,
    UPGRADE_SLOW_S,
)
from p2pcore.manet.accept_errors import Backoff, is_temporary

if TYPE_CHECKING:
    from p2pcore.values.multiaddr import Multiaddr

logger = logging.getLogger("p2pcore.listener")

NOT_ACCEPTED = "not accepted"
TIMEOUT = "timeout"
INTERNAL_ERROR = "internal error"
REFUSED = "refused"

_WARN_EVERY_S = 1.0  # if there are very many, one line a second is enough


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """Bounds of a listener.

    Attributes:
        accept_timeout: seconds from accept(2) until `accept` takes the finished connection.
        queue_length: finished connections that may wait. When so many wait, no more are upgraded.
        max_upgrading: upgrades that run at once and are not slow. Others wait for their turn; blocks of
            addresses take turns.
        slow_after: seconds after which an upgrade counts as slow. It waits for its peer, which may be silent.
        max_slow: slow upgrades that run at once. When there is one more, the oldest of the block with the
            most of them is aborted.
        max_waiting: accepted connections that wait for their turn. When there is one more, the block with the
            most of them is refused; while all come from one block that finishes its handshakes, new peers
            stay in the kernel's backlog instead.
        backoff_min, backoff_max: seconds to pause after an error of accept(2).

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    accept_timeout: float = ACCEPT_TIMEOUT_S
    queue_length: int = ACCEPT_QUEUE_LENGTH
    max_upgrading: int = MAX_UPGRADING
    slow_after: float = UPGRADE_SLOW_S
    max_slow: int = MAX_SLOW_UPGRADES
    max_waiting: int = MAX_WAITING_UPGRADES
    backoff_min: float = ACCEPT_BACKOFF_MIN_S
    backoff_max: float = ACCEPT_BACKOFF_MAX_S

    def __post_init__(self) -> None:
        checks.seconds("accept_timeout", self.accept_timeout)
        checks.whole("queue_length", self.queue_length, 1)
        checks.whole("max_upgrading", self.max_upgrading, 1)
        checks.seconds("slow_after", self.slow_after)
        checks.whole("max_slow", self.max_slow)
        checks.whole("max_waiting", self.max_waiting)
        checks.seconds("backoff_min", self.backoff_min)
        checks.seconds("backoff_max", self.backoff_max)
        if self.backoff_max < self.backoff_min:
            least, most = self.backoff_min, self.backoff_max
            raise ValueError(f"backoff_max must be at least backoff_min ({least:g}), not {most:g}")

    @property
    def intake(self) -> Bounds:
        """The bounds of unfinished connections."""
        return Bounds(
            self.max_upgrading, self.slow_after, self.max_slow, self.max_waiting, self.accept_timeout
        )


@dataclass(frozen=True, slots=True)
class ListenerHooks:
    """The functions that a listener calls.

    Attributes:
        admits: says whether an accepted connection may be read from; None: always. If it says no or raises,
            there is no handshake, and the connection counts as REFUSED.
        is_early: `admits` looks at the peer's address alone, so a port that several listeners share may ask
            before it reads a byte.
        admits_later: the same question to somebody who has to wait for the answer; None: nobody.
        news: hears of failed upgrades, errors of accept(2) and changes of state. None: nobody hears.
    """

    admits: Callable[[RawConn], bool] | None = None
    admits_later: Callable[[RawConn], Awaitable[bool]] | None = None
    news: ListenerNews | None = None
    is_early: bool = False


class UpgradedListener:
    """Satisfies interfaces.Listener. Make it while an event loop runs; it listens at once.

    Args:
        inner: gives raw connections. The new object owns it.
        upgrader: secures and multiplexes raw connections.
        options, hooks: see ListenerOptions, ListenerHooks.

    Attributes:
        failures: the number of failed upgrades, by reason.
        accept_errors: the number of errors of accept(2), by name of the errno.
        num_accepted: raw connections accepted. num_rebinds: how often the socket was replaced.
        num_requests: plain HTTP requests that were answered. They do not count as failures.
    """

    def __init__(
        self,
        inner: RawListener,
        upgrader: Upgrader,
        options: ListenerOptions | None = None,
        hooks: ListenerHooks | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._inner = inner
        self._upgrader = upgrader
        self._options = options or ListenerOptions()
        self._hooks = hooks or ListenerHooks()
        self._threshold = Threshold(self._options.queue_length)
        self._backoff = Backoff(self._options.backoff_min, self._options.backoff_max)
        self._intake: Intake[RawConn] = Intake(
            self._upgrade, self._drop_unfinished, self._options.intake, self._threshold
        )
        self._ready: collections.deque[tuple[float, CapableConn]] = collections.deque()
        self._accepters: collections.deque[asyncio.Future[None]] = collections.deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._state = ListenerState.LISTENING
        self._closing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._cancelled: list[asyncio.Task[None]] = []
        self._ended_by: BaseException | None = None
        self._warned_at = float("-inf")
        self._complaints = Complaints(logger)
        self.failures: collections.Counter[str] = collections.Counter()
        self.accept_errors: collections.Counter[str] = collections.Counter()
        self.num_accepted = 0
        self.num_rebinds = 0
        self.num_requests = 0
        self._is_screened = self._hooks.is_early and _screens(inner, self._screen)
        self._incoming = self._loop.create_task(self._handle_incoming())
        logger.info("listening on %s", inner.multiaddr)

    @property
    def multiaddr(self) -> Multiaddr:
        """The address it is bound to, with the real port."""
        return self._inner.multiaddr

    @property
    def state(self) -> ListenerState:
        """Whether it takes connections now."""
        return self._state

    @property
    def num_upgrading(self) -> int:
        """The number of upgrades that run now."""
        return self._intake.num_running

    @property
    def num_ready(self) -> int:
        """The number of finished connections that wait for `accept`."""
        return len(self._ready)

    # -- raw connections -----------------------------------------------------------------------

    async def _handle_incoming(self) -> None:
        """Accepts raw connections until the listener ends."""
        try:
            while True:
                if self._threshold.is_full:
                    await self._threshold.wait()
                if self._intake.is_full:
                    await self._intake.wait()
                self._take(await self._accept_raw())
                self.num_accepted += 1
                if not self.num_accepted % ACCEPTS_PER_TURN:
                    await asyncio.sleep(0)
        except ListenerClosed as error:
            if self._draining is None:
                self._fail(error)
            else:
                await self._settle()
        except Exception as error:
            logger.exception("the listener on %s ended", self.multiaddr)
            self._fail(error)
            await self._inner.close()
        finally:
            self._fail(None)

    def _take(self, conn: RawConn) -> None:
        """Begins the upgrade of `conn`, now or when it is its turn, or refuses it unread."""
        if not self._is_screened and not self._screen(conn):
            return
        if not self._intake.offer(conn, conn.block):
            self._warn("refusing connections from %s: it has too many unfinished ones", conn.block)
            self._refuse(conn, Why.TOO_MANY_OF_BLOCK)

    def _screen(self, conn: RawConn) -> bool:
        """Whether `conn` may be read from. If not, it is closed and counted."""
        admits = self._hooks.admits
        if admits is None or self._admits(admits, conn):
            return True
        self._refuse(conn, REFUSED)
        return False

    def _refuse(self, conn: RawConn, reason: str) -> None:
        self.failures[reason] += 1
        self._report(lambda news: news.accept_refused(self.multiaddr, reason))
        conn.abort()

    def _admits(self, admits: Callable[[RawConn], bool], conn: RawConn) -> bool:
        try:
            return admits(conn)
        except RAISED:
            self._complaints.raised("admits")
            return False

    async def _settle(self) -> None:
        """Returns once no upgrade runs and `accept` has taken every finished connection."""
        await self._intake.wait_empty()
        await self._threshold.wait_empty()

    def _drop_unfinished(self, conn: RawConn, why: Why) -> None:
        """Aborts an unfinished connection: a silent one, or one of the block that has the most of them."""
        conn.abort()
        if why is Why.TIMEOUT:
            late = UpgradeTimeout(f"the peer sent nothing within {self._options.accept_timeout} s")
        else:
            late = UpgradeTimeout(f"aborted: {why}, and most of the unfinished ones are from its block")
        self._failed(why, conn.remote_multiaddr, late)

    async def _accept_raw(self) -> RawConn:
        while True:
            try:
                conn = await self._inner.accept()
            except ListenerClosed:
                raise
            except OSError as error:
                await self._recover(error)
            else:
                self._backoff.reset()
                return conn

    async def _recover(self, error: OSError) -> None:
        """Pauses after an error of accept(2). If the socket is lost, binds again until that works."""
        self.accept_errors[errno_name(error)] += 1
        self._report(lambda news: news.accept_failed(self.multiaddr, error))
        self._change_state(ListenerState.RETRYING, error)
        await asyncio.sleep(self._backoff.next())
        while not is_temporary(error):
            try:
                await self._inner.rebind()
            except ListenerClosed:
                raise
            except OSError as failure:
                self._change_state(ListenerState.RETRYING, failure)
                await asyncio.sleep(self._backoff.next())
            else:
                self.num_rebinds += 1
                break
        self._change_state(ListenerState.LISTENING, None)

    # -- upgrades ------------------------------------------------------------------------------

    async def _upgrade(self, conn: RawConn, accepted_at: float) -> None:
        """The only task of a connection. It ends when the upgrade ends."""
        deadline = accepted_at + self._options.accept_timeout
        has_worked = False
        later = self._hooks.admits_later
        try:
            if later is not None and not await later(conn):
                self._refuse(conn, REFUSED)
                return
            capable = await self._upgrader.upgrade_inbound(conn, deadline)
        except UpgradeTimeout as error:
            self._failed(TIMEOUT, conn.remote_multiaddr, error)
        except RequestAnswered:
            has_worked = True
            self.num_requests += 1
            self._report(lambda news: news.request_answered(self.multiaddr))
        except Exception as error:
            self._upgrade_failed(conn, error)
        else:
            has_worked = True
            self._offer(capable, deadline)
        finally:
            self._intake.release(conn, has_worked)

    def _upgrade_failed(self, conn: RawConn, error: Exception) -> None:
        reason = getattr(error, "stage", None)
        if reason is None:
            conn.abort()
            logger.error("upgrading a connection failed", exc_info=error)
        self._failed(reason or INTERNAL_ERROR, conn.remote_multiaddr, error)

    def _failed(self, reason: str, remote: Multiaddr | None, error: BaseException) -> None:
        self.failures[reason] += 1
        logger.debug("inbound connection from %s: %s: %s", remote, reason, error)
        self._report(
            lambda news: news.upgrade_failed(Direction.INBOUND, reason, error, self.multiaddr, remote)
        )

    # -- finished connections ------------------------------------------------------------------

    def _offer(self, conn: CapableConn, deadline: float) -> None:
        if self._state is ListenerState.CLOSED:
            conn.abort(CONN_RATE_LIMITED)
            return
        self._threshold.acquire()
        self._ready.append((deadline, conn))
        self._wake_accepter()
        self._sweep_at(deadline)

    def _wake_accepter(self) -> None:
        while self._accepters:
            accepter = self._accepters.popleft()
            if not accepter.done():
                accepter.set_result(None)
                return

    def _sweep_at(self, deadline: float) -> None:
        """Sets the one timer of the queue. If `accept` is quick enough, the queue is empty when it fires."""
        if self._sweep is not None:
            if self._sweep.when() <= deadline:
                return
            self._sweep.cancel()
        self._sweep = self._loop.call_at(deadline, self._drop_overdue)

    def _drop_overdue(self) -> None:
        self._sweep = None
        now = self._loop.time()
        for _ in range(len(self._ready)):
            deadline, conn = self._ready.popleft()
            if deadline > now:
                self._ready.append((deadline, conn))
                continue
            self._let_next_in()
            self._drop(conn)
        if self._ready:
            self._sweep_at(min(deadline for deadline, _ in self._ready))

    def _let_next_in(self) -> None:
        """A finished connection has left the queue."""
        self._threshold.release()
        self._intake.go_on()

    def _drop(self, conn: CapableConn) -> None:
        if conn.is_closed:
            return
        conn.abort(CONN_RATE_LIMITED)
        self._warn("dropped a connection from %s: not accepted in time", conn.remote_multiaddr)
        late = UpgradeTimeout(f"not accepted within {self._options.accept_timeout} s")
        self._failed(NOT_ACCEPTED, conn.remote_multiaddr, late)

    async def accept(self) -> CapableConn:
        """The next upgraded connection that is open or has streams. If cancelled, it has taken none.

        Raises:
            ListenerClosed: the listener has ended.
        """
        while True:
            while self._ready:
                _, conn = self._ready.popleft()
                self._let_next_in()
                if not conn.is_closed or conn.session.has_arrived:
                    return conn
            if self._state is ListenerState.CLOSED:
                raise ListenerClosed(f"the listener on {self.multiaddr} is closed") from self._ended_by
            await self._wait_ready()

    async def _wait_ready(self) -> None:
        accepter = self._loop.create_future()
        self._accepters.append(accepter)
        try:
            await accepter
        except BaseException:
            if accepter.cancelled():
                if accepter in self._accepters:
                    self._accepters.remove(accepter)
            elif self._ready:  # woken and cancelled in the same turn: the next waiter gets the connection
                self._wake_accepter()
            raise

    # -- the end -------------------------------------------------------------------------------

    def pause_accepting(self) -> None:
        """See interfaces.Listener. Upgrades of connections that have been accepted go on."""
        self._inner.pause()

    def resume_accepting(self) -> None:
        """See interfaces.Listener."""
        self._inner.resume()

    async def drain(self, accept_queued: bool = True) -> None:
        """See interfaces.Listener. Ends at the latest with the deadlines of the upgrades, or by `close`."""
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain(accept_queued))
        await asyncio.shield(self._draining)

    async def _drain(self, accept_queued: bool) -> None:
        if accept_queued:
            self._inner.drain()
        else:
            await self._inner.close()
        await asyncio.wait([self._incoming])
        await self.close()

    async def close(self) -> None:
        """Stops listening, aborts upgrades and connections not accepted, waits for tasks. Idempotent."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._fail(None)
        await self._inner.close()
        self._incoming.cancel()
        await asyncio.wait([self._incoming, *self._cancelled])
        logger.info("no longer listening on %s", self.multiaddr)

    def _fail(self, error: BaseException | None) -> None:
        """Makes `accept` raise from now on, and aborts every connection it holds. Never waits."""
        if self._state is ListenerState.CLOSED:
            return
        self._ended_by = error
        self._change_state(ListenerState.CLOSED, error)
        unfinished, self._cancelled = self._intake.close()
        for conn in unfinished:
            conn.abort()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._ready:
            self._threshold.release()
            self._ready.popleft()[1].abort(CONN_RATE_LIMITED)
        while self._accepters:
            self._wake_accepter()

    def _change_state(self, state: ListenerState, error: BaseException | None) -> None:
        if self._state is state or self._state is ListenerState.CLOSED:
            return
        self._state = state
        if error is not None:
            self._warn("the listener on %s is %s: %s", self.multiaddr, state.value, error)
        self._report(lambda news: news.listener_changed(self.multiaddr, state, error))

    def _report(self, tell: Callable[[ListenerNews], None]) -> None:
        """Calls `tell(news)`, if there are news. An error it raises does not end the listener."""
        if self._hooks.news is None:
            return
        try:
            tell(self._hooks.news)
        except RAISED:
            self._complaints.raised("the news of a listener")

    def _warn(self, text: str, *args: object) -> None:
        """Logs a warning, at most once a second. Further ones in that second are logged at debug."""
        now = self._loop.time()
        is_due = now - self._warned_at >= _WARN_EVERY_S
        if is_due:
            self._warned_at = now
        logger.log(logging.WARNING if is_due else logging.DEBUG, text, *args)


def _screens(inner: RawListener, admits: Callable[[RawConn], bool]) -> bool:
    """Has a shared port ask `admits` about each connection when it comes. False: `inner` is none."""
    screen: Callable[[Callable[[RawConn], bool]], bool] | None = getattr(inner, "screen", None)
    return screen is not None and screen(admits)


def errno_name(error: OSError) -> str:
    """The name under which an error of accept(2) is counted: "EMFILE", or its class if it has no errno."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
