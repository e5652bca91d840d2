"""The listeners of a swarm: the accept loop of each, and the addresses they are bound to.

Comes in: addresses to listen on. Goes out: a result for each address, accepted connections for the swarm, and
reports of listeners that open or end. One task runs for each listener. A refused connection does not end it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.dialing.dns import needs_resolving
from p2pcore.errors import (
    AddressError,
    GaterRefused,
    LimitExceeded,
    ListenerClosed,
    ListenError,
    NoTransport,
    SwarmClosed,
)
from p2pcore.manet.netif import expand_wildcards, prepare
from p2pcore.swarm.conn import Conn
from p2pcore.swarm.pauses import Pauses
from p2pcore.values.multiaddr import Multiaddr

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn, Listener, Transport
    from p2pcore.swarm.news import News

logger = logging.getLogger("p2pcore.swarm")


Announce = Callable[[list[Multiaddr]], list[Multiaddr]]
"""See Swarm.announce."""


@dataclass(frozen=True, slots=True)
class ListenResult:
    """The result for one address given to `Swarm.listen`.

    Attributes:
        addr: the address as given.
        bound: the address with the real port; None if it could not be bound.
        error: why it could not be bound, or None.
    """

    addr: Multiaddr
    bound: Multiaddr | None
    error: Exception | None


class Listeners:
    """All listeners of one swarm.

    Args:
        transport_for: gives the transport that listens on an address, or None.
        begin_conn: takes over an accepted connection. It returns a coroutine if the gater waits.
        news: hears of listeners and addresses.

    Attributes:
        announce: see Swarm.announce.
    """

    def __init__(
        self,
        transport_for: Callable[[Multiaddr], Transport | None],
        begin_conn: Callable[[CapableConn], Conn | Coroutine[Any, Any, Conn]],
        news: News,
    ) -> None:
        self._transport_for = transport_for
        self._begin_conn = begin_conn
        self._asking: set[asyncio.Task[None]] = set()
        self._news = news
        self._tasks: dict[Listener, asyncio.Task[None]] = {}
        self._living: set[Listener] = set()
        self.announce: Announce = list
        self._expanded: tuple[float, tuple[Multiaddr, ...]] | None = None
        self._is_closed = False
        self._pauses = Pauses()
        self._pause_ends: dict[str, asyncio.TimerHandle] = {}
        self._complaints = Complaints(logger)
        self._last_announced: list[Multiaddr] = []

    # -- opening -------------------------------------------------------------------------------

    async def listen(self, addrs: Collection[Multiaddr]) -> list[ListenResult]:
        """See Swarm.listen."""
        results = [await self._result(addr) for addr in addrs]
        causes = [(result.addr, result.error) for result in results if result.error is not None]
        if results and len(causes) == len(results):
            raise ListenError.of_all(causes)
        return results

    async def _result(self, addr: Multiaddr) -> ListenResult:
        try:
            return ListenResult(addr, await self.add(addr), None)
        except Exception as error:
            return ListenResult(addr, None, error)

    async def add(self, addr: Multiaddr) -> Multiaddr:
        """See Swarm.add_listen_addr."""
        if self._is_closed:
            raise SwarmClosed("the swarm was closed")
        if needs_resolving(addr) and "p2p-circuit" not in addr:  # a relay is dialled, so it may have a name
            raise AddressError(f"{addr}: listening needs a numeric address (/ip4 or /ip6), not a host name")
        transport = self._transport_for(addr)
        if transport is None:
            raise NoTransport(f"no transport for {addr}")
        listener = await transport.listen(addr)
        if self._is_closed:
            await listener.close()
            raise SwarmClosed("the swarm was closed")
        bound = listener.multiaddr
        task = asyncio.get_running_loop().create_task(self._accept_loop(listener, bound))
        self._tasks[listener] = task
        self._living.add(listener)
        if self._pauses.is_paused:
            listener.pause_accepting()
        self._expanded = None  # the known addresses are out of date
        if bound.is_unspecified:
            prepare()
        self._news.listener_opened(bound)
        self.tell_addrs()
        return bound

    # -- accepting -----------------------------------------------------------------------------

    async def _accept_loop(self, listener: Listener, bound: Multiaddr) -> None:
        error: BaseException | None = None
        try:
            while True:
                made = await listener.accept()
                begun = None
                try:
                    begun = self._begin_conn(made)
                    if not isinstance(begun, Conn):
                        await self._later(begun)
                except SwarmClosed:
                    return
                except (GaterRefused, LimitExceeded):
                    pass  # the admission has reported it
                except Exception:  # we lose one connection, not the listener
                    logger.exception("cannot take over a connection to %s", bound)
                    made.abort()
                del made, begun  # else these variables would keep it alive until the next one comes
        except ListenerClosed as closed:
            error = closed.__cause__
        except Exception as failure:
            error = failure
            logger.exception("the listener on %s failed", bound)
        finally:
            await self._ended(listener, bound, error)

    async def _later(self, begun: Coroutine[Any, Any, Conn]) -> None:
        """Has a task finish `begun`. Waits only while so many of them do that the gater cannot keep up."""
        task = asyncio.get_running_loop().create_task(self._awaited(begun))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        while len(self._asking) >= limits.MAX_GATER_WAITS:
            await asyncio.wait(self._asking, return_when=asyncio.FIRST_COMPLETED)

    async def _awaited(self, begun: Coroutine[Any, Any, Conn]) -> None:
        try:
            await begun
        except (GaterRefused, LimitExceeded, SwarmClosed):
            pass  # the admission has reported it
        except Exception:
            logger.exception("cannot take over a connection")

    async def _ended(self, listener: Listener, bound: Multiaddr, error: BaseException | None) -> None:
        """Ends every accept loop. If the listener is still registered, we have not closed it ourselves."""
        if self._tasks.pop(listener, None) is not None:
            logger.warning("the listener on %s ended by itself", bound)
            error = error or ListenerClosed(f"the listener on {bound} ended by itself")
        else:
            error = None
        self._expanded = None
        self._living.discard(listener)
        self._news.listener_ended(bound, error, getattr(listener, "num_accepted", 0))
        self.tell_addrs()
        await listener.close()

    def pause_accepting(self, why: str, at_most_s: float | None) -> None:
        """See Swarm.pause_accepting."""
        self._pauses.pause(why)
        self._set_end(why, at_most_s)
        for listener in self._tasks:
            listener.pause_accepting()

    def _set_end(self, why: str, after_s: float | None) -> None:
        timer = self._pause_ends.pop(why, None)
        if timer is not None:
            timer.cancel()
        if after_s is not None:
            loop = asyncio.get_running_loop()
            self._pause_ends[why] = loop.call_later(after_s, self.resume_accepting, why)

    def resume_accepting(self, why: str) -> None:
        """See Swarm.pause_accepting."""
        self._set_end(why, None)
        self._pauses.resume(why)
        if not self._pauses.is_paused:
            for listener in self._tasks:
                listener.resume_accepting()

    def counters(self) -> dict[str, int]:
        """See Pauses.counters."""
        return self._pauses.counters()

    @property
    def living(self) -> list[Listener]:
        """The listeners that have not ended, those that drain too."""
        return list(self._living)

    # -- addresses -----------------------------------------------------------------------------

    def bound(self) -> list[Multiaddr]:
        """The addresses the listeners are bound to. A wildcard stays a wildcard."""
        return [listener.multiaddr for listener in self._tasks]

    def interface_addrs(self) -> list[Multiaddr]:
        """The addresses of `bound`; the interface addresses of its family replace a wildcard."""
        now = asyncio.get_running_loop().time()
        if self._expanded is None or now - self._expanded[0] > limits.INTERFACE_ADDRS_TTL_S:
            before, self._expanded = self._expanded, (now, tuple(expand_wildcards(self.bound())))
            if before is not None and before[1] != self._expanded[1]:
                self._tell(self._expanded[1])
        return list(self._expanded[1])

    def announced(self) -> list[Multiaddr]:
        """The result of `announce` for `interface_addrs`."""
        return self._announce(self.interface_addrs())

    def _announce(self, addrs: list[Multiaddr]) -> list[Multiaddr]:
        """The result of `announce` for `addrs`. If it raises: its last result, since it may hide some."""
        try:
            self._last_announced = list(self.announce(addrs))
        except RAISED:
            self._complaints.raised("announce")
        return list(self._last_announced)

    def own_addrs(self) -> Collection[Multiaddr]:
        """The addresses at which a dial would reach this node."""
        return self.interface_addrs() if self._tasks else ()

    def tell_addrs(self) -> None:
        """Reports the addresses as they are now."""
        if self._news.wants_addrs:
            try:
                self._tell(self.interface_addrs())
            except OSError as error:  # the listeners work all the same
                logger.warning("cannot read the addresses of the interfaces: %s", error)

    def _tell(self, addrs: Iterable[Multiaddr]) -> None:
        if self._news.wants_addrs:
            self._news.addrs_changed(tuple(self._announce(list(addrs))))

    # -- closing -------------------------------------------------------------------------------

    def take_out(self) -> dict[Listener, asyncio.Task[None]]:
        """Unregisters all listeners. Returns: each listener with the task of its accept loop."""
        taken, self._tasks = self._tasks, {}
        return taken

    def refuse_new(self) -> None:
        """Makes every later `add` raise SwarmClosed."""
        self._is_closed = True
        for why in list(self._pause_ends):
            self._set_end(why, None)

    async def close_bound_to(self, addrs: Collection[Multiaddr]) -> None:
        """Closes the listeners that are bound to one of `addrs`. Unknown addresses are ignored."""
        await self.close({each: task for each, task in self._tasks.items() if each.multiaddr in addrs})

    async def close(self, chosen: dict[Listener, asyncio.Task[None]]) -> None:
        """Closes the `chosen` listeners, registered or taken out, and waits until their tasks end."""
        for listener in chosen:
            self._tasks.pop(listener, None)
        await asyncio.gather(*(listener.close() for listener in chosen), return_exceptions=True)
        if chosen:
            await asyncio.wait(chosen.values())
        if self._is_closed and self._asking:
            for task in self._asking:
                task.cancel()
            await asyncio.wait(self._asking)
