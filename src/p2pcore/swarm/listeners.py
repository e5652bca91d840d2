"""The listeners of a swarm: one accept loop each, results for each address, and what they are bound to.

Comes in: addresses to listen on. Goes out: connections, handed to the swarm as they are accepted; reports of
listeners that opened or ended. One task runs for each listener. A refused connection ends no loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from p2pcore.manet.netif import expand_wildcards
from p2pcore.values.multiaddr import Multiaddr

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn, Listener, Transport
    from p2pcore.swarm.news import News

logger = logging.getLogger("p2pcore.swarm")


Announce = Callable[[list[Multiaddr]], list[Multiaddr]]
"""See Swarm.announce."""


@dataclass(frozen=True, slots=True)
class ListenResult:
    """What became of one address given to `Swarm.listen`.

    Attributes:
        addr: as it was given; bound: what it is bound to, with the real port, or None; error: why it is not.
    """

    addr: Multiaddr
    bound: Multiaddr | None
    error: Exception | None


class Listeners:
    """Every listener of one swarm.

    Args:
        transport_for: what listens on an address, or None.
        add_conn: takes over an accepted connection.
        news: told of listeners and addresses.

    Attributes:
        announce: see Swarm.announce.
    """

    def __init__(
        self,
        transport_for: Callable[[Multiaddr], Transport | None],
        add_conn: Callable[[CapableConn], object],
        news: News,
    ) -> None:
        self._transport_for = transport_for
        self._add_conn = add_conn
        self._news = news
        self._tasks: dict[Listener, asyncio.Task[None]] = {}
        self.announce: Announce = list
        self._expanded: tuple[float, tuple[Multiaddr, ...]] | None = None
        self._is_closed = False
        self._complaints = Complaints(logger)
        self._last_announced: list[Multiaddr] = []

    # -- opening -------------------------------------------------------------------------------

    async def listen(self, addrs: Collection[Multiaddr]) -> list[ListenResult]:
        """See Swarm.listen."""
        results = [await self._result(addr) for addr in addrs]
        causes = [(result.addr, result.error) for result in results if result.error is not None]
        if results and len(causes) == len(results):
            texts = "; ".join(f"{addr}: {error}" for addr, error in causes)
            failure = ListenError(f"cannot listen on any address: {texts}")
            failure.causes = tuple(causes)
            raise failure
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
            raise AddressError(f"{addr}: listening takes a numeric address, /ip4 or /ip6, not a host name")
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
        self._expanded = None  # what is known of the addresses is old
        self._news.listener_opened(bound)
        self.tell_addrs()
        return bound

    # -- accepting -----------------------------------------------------------------------------

    async def _accept_loop(self, listener: Listener, bound: Multiaddr) -> None:
        error: BaseException | None = None
        try:
            while True:
                made = await listener.accept()
                try:
                    self._add_conn(made)
                except SwarmClosed:
                    return
                except (GaterRefused, LimitExceeded):
                    pass  # the admission has told it
                except Exception:  # one connection is lost, not the listener
                    logger.exception("a connection to %s could not be taken over", bound)
                    made.abort()
                del made  # or this would hold it until the next one comes
        except ListenerClosed as closed:
            error = closed.__cause__
        except Exception as failure:
            error = failure
            logger.exception("listener of %s failed", bound)
        finally:
            await self._ended(listener, bound, error)

    async def _ended(self, listener: Listener, bound: Multiaddr, error: BaseException | None) -> None:
        """The end of every accept loop; a listener still registered was closed by nobody here."""
        if self._tasks.pop(listener, None) is not None:
            logger.warning("listener of %s ended by itself", bound)
            error = error or ListenerClosed(f"the listener of {bound} ended by itself")
        else:
            error = None
        self._expanded = None
        self._news.listener_ended(bound, error)
        self.tell_addrs()
        await listener.close()

    # -- addresses -----------------------------------------------------------------------------

    def bound(self) -> list[Multiaddr]:
        """What the listeners are bound to, wildcards as they are."""
        return [listener.multiaddr for listener in self._tasks]

    def interface_addrs(self) -> list[Multiaddr]:
        """As `bound`, with a wildcard replaced by each interface's address of its family."""
        now = asyncio.get_running_loop().time()
        if self._expanded is None or now - self._expanded[0] > limits.INTERFACE_ADDRS_TTL_S:
            before, self._expanded = self._expanded, (now, tuple(expand_wildcards(self.bound())))
            if before is not None and before[1] != self._expanded[1]:
                self._tell(self._expanded[1])
        return list(self._expanded[1])

    def announced(self) -> list[Multiaddr]:
        """`interface_addrs`, as `announce` has them."""
        return self._announce(self.interface_addrs())

    def _announce(self, addrs: list[Multiaddr]) -> list[Multiaddr]:
        """What `announce` makes of `addrs`; where it raises, its last answer: it may hide some."""
        try:
            self._last_announced = list(self.announce(addrs))
        except RAISED:
            self._complaints.raised("announce")
        return list(self._last_announced)

    def own_addrs(self) -> Collection[Multiaddr]:
        """Where dialling would reach ourselves."""
        return self.interface_addrs() if self._tasks else ()

    def tell_addrs(self) -> None:
        """Tells of the addresses as they are now."""
        if self._news.wants_addrs:
            try:
                self._tell(self.interface_addrs())
            except OSError as error:  # no listener is the worse for it
                logger.warning("cannot read the addresses of the interfaces: %s", error)

    def _tell(self, addrs: Iterable[Multiaddr]) -> None:
        if self._news.wants_addrs:
            self._news.addrs_changed(tuple(self._announce(list(addrs))))

    # -- closing -------------------------------------------------------------------------------

    def take_out(self) -> dict[Listener, asyncio.Task[None]]:
        """Every listener with its accept loop, none of which is registered any more."""
        taken, self._tasks = self._tasks, {}
        return taken

    def refuse_new(self) -> None:
        """From now on `add` raises SwarmClosed."""
        self._is_closed = True

    async def close_bound_to(self, addrs: Collection[Multiaddr]) -> None:
        """Closes the listeners bound to any of `addrs`; others are ignored."""
        await self.close({each: task for each, task in self._tasks.items() if each.multiaddr in addrs})

    async def close(self, chosen: dict[Listener, asyncio.Task[None]]) -> None:
        """Closes some listeners, registered or taken out, and waits for their loops."""
        for listener in chosen:
            self._tasks.pop(listener, None)
        await asyncio.gather(*(listener.close() for listener in chosen), return_exceptions=True)
        if chosen:
            await asyncio.wait(chosen.values())
