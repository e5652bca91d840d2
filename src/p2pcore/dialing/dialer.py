"""Dialling: from the id or an address of a peer to a connection of the swarm.

Comes in: ids and addresses, also with host names. Goes out: connections, or a DialError that lists each
address with its cause. The dialler resolves names, and leaves out addresses that failed a short while ago or
that never work from here. Calls for the same peer share one dial. At most MAX_DIALS addresses are dialled at
once; further ones wait, and peers share the slots fairly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from p2pcore import limits, options
from p2pcore.codes import Direction
from p2pcore.dialing.backoff import DialBackoff
from p2pcore.dialing.black_hole import BlackHoleDetector
from p2pcore.dialing.dns import SystemResolver, needs_resolving, resolve
from p2pcore.dialing.filter import Causes, DialFilter
from p2pcore.dialing.peer_dial import PeerDial
from p2pcore.dialing.slots import DialSlots
from p2pcore.errors import (
    AddressError,
    AddressInBackoff,
    BlackHoleSuspected,
    DialError,
    GaterRefused,
    LimitExceeded,
    PeerIdMismatch,
    PeerIsSelf,
    ResolutionError,
    SwarmClosed,
    is_ours,
)
from p2pcore.interfaces import Resolver
from p2pcore.swarm.conn import Conn
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.scope import Scope, scope_of

if TYPE_CHECKING:
    from p2pcore.dialing.addr_book import AddrBook
    from p2pcore.interfaces import CapableConn, Transport
    from p2pcore.swarm.admission import Admission
    from p2pcore.swarm.conns import ConnTable
    from p2pcore.swarm.news import News
    from p2pcore.values.peer_id import PeerId

_UNKNOWN = "no addresses are known; give one that ends with its /p2p/PEER_ID"
_NOT_ITS_FAULT = (SwarmClosed, GaterRefused, LimitExceeded, DialError)
"""Errors that say nothing about the address. DialError: a relay was not reached; it has its own back-off."""


@dataclass(frozen=True, slots=True)
class DialOptions:
    """How peers are dialled, with any transport.

    Attributes:
        max_dials: addresses dialled at once. Further dials wait.
        resolver: looks up host names; None: the operating system's resolver.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    max_dials: int = limits.MAX_DIALS
    resolver: Resolver | None = None

    def __post_init__(self) -> None:
        options.whole("max_dials", self.max_dials, 1)
        if self.resolver is not None:
            options.satisfies("resolver", self.resolver, Resolver)


class Dialer:
    """The dials of one swarm.

    Args:
        local_peer: our id. conns: the open connections.
        begin_conn: takes over a new connection. It returns a coroutine if the gater waits.
        transport_for, own_addrs: see DialFilter.
        admission: is asked before each dial. news: hears how dials end.
        book: gives the addresses of a peer that is dialled without any, and hears where peers were reached.
        resolver: looks up host names; None: the operating system's resolver.
        max_dials: addresses dialled at once.

    Attributes:
        backoff, black_holes: knowledge from earlier dials.
    """

    def __init__(
        self,
        local_peer: PeerId,
        conns: ConnTable,
        begin_conn: Callable[[CapableConn], Conn | Coroutine[Any, Any, Conn]],
        transport_for: Callable[[Multiaddr], Transport | None],
        own_addrs: Callable[[], Collection[Multiaddr]],
        admission: Admission,
        news: News,
        book: AddrBook,
        resolver: Resolver | None = None,
        max_dials: int = limits.MAX_DIALS,
    ) -> None:
        self._local_peer = local_peer
        self._conns = conns
        self._begin_conn = begin_conn
        self._filter = DialFilter(transport_for, own_addrs)
        self._admission = admission
        self._news = news
        self._book = book
        self._resolver = resolver or SystemResolver()
        self._slots = DialSlots(max_dials)
        self._dials: dict[tuple[PeerId, bool], PeerDial] = {}
        self._unshared: set[PeerDial] = set()
        self._alone: set[asyncio.Task[Any] | None] = set()  # callers that dial one numeric address
        self._is_closed = False
        self.backoff = DialBackoff()
        self.black_holes = BlackHoleDetector()

    # -- a peer --------------------------------------------------------------------------------

    def dial_peer(
        self, peer: PeerId, addrs: Iterable[Multiaddr | str], force_direct: bool, ignore_backoff: bool
    ) -> Coroutine[Any, Any, Conn]:
        """See Swarm.dial_peer."""
        work = self._dial_peer(peer, addrs, force_direct, ignore_backoff)
        traces = self._news.traces
        if traces is None or self._existing(peer, force_direct) is not None:
            return work
        return traces.dial(peer, work)

    async def _dial_peer(
        self, peer: PeerId, addrs: Iterable[Multiaddr | str], force_direct: bool, ignore_backoff: bool
    ) -> Conn:
        self._check_dial(peer)
        if (conn := self._existing(peer, force_direct)) is not None:
            return conn
        asked = self._ask_admission(peer)
        if asked is not None:
            await asked
            if (conn := self._existing(peer, force_direct)) is not None:
                return conn
        given = [Multiaddr(addr) for addr in addrs] or self._book.addrs(peer)
        num_skipped = max(0, len(given) - limits.MAX_DIAL_ADDRS)
        numeric, unresolved = given[: limits.MAX_DIAL_ADDRS], Causes()
        names = [addr for addr in numeric if self._needs_resolving(addr)]
        if names:
            numeric, unresolved = await self._resolved(numeric)
            self._check_open()
            if (conn := self._existing(peer, force_direct)) is not None:
                return conn
        good, causes = await self._usable(peer, numeric, force_direct, ignore_backoff)
        dial = self._dial_to_join(peer, force_direct, good, unresolved | causes, num_skipped)
        conn = await self._wait_for(peer, force_direct, dial)
        for name in names:
            if name not in unresolved:
                self._book.dialled(peer, name)
        return conn

    def _dial_to_join(
        self, peer: PeerId, force_direct: bool, good: list[Multiaddr], causes: Causes, num_skipped: int
    ) -> PeerDial:
        """The dial that runs, with the new addresses added, or a new dial. Raises DialError: no address."""
        dial = self._dials.get((peer, force_direct))
        joinable = dial is not None and not dial.is_over
        if not good and not joinable:
            reason = "no usable address" if causes else _UNKNOWN
            raise self._failed(peer, DialError(peer, tuple(causes.items()), reason, num_skipped))
        if dial is None or not joinable:
            dial = self._dials[peer, force_direct] = PeerDial(peer, self._dial_one, self._news.peer_dialled)
        dial.add(good, causes, num_skipped)
        return dial

    async def _wait_for(self, peer: PeerId, force_direct: bool, dial: PeerDial) -> Conn:
        try:
            return await dial.wait()
        except DialError as error:
            if (conn := self._existing(peer, force_direct)) is not None:
                return conn
            if not dial.is_reported:
                dial.is_reported = True
                self._failed(peer, error)
            raise
        finally:
            if dial.is_over and self._dials.get((peer, force_direct)) is dial:
                del self._dials[peer, force_direct]

    def _existing(self, peer: PeerId, force_direct: bool) -> Conn | None:
        conn = self._conns.best(peer)
        if conn is not None and force_direct and (conn.is_limited or not conn.is_direct):
            return None
        return conn

    async def _usable(
        self, peer: PeerId, addrs: Sequence[Multiaddr], force_direct: bool, ignore_backoff: bool
    ) -> tuple[list[Multiaddr], Causes]:
        """The numeric `addrs` to dial now, and why the others are left out."""
        good, causes = self._filter.choose(peer, addrs)
        now = asyncio.get_running_loop().time()
        usable = []
        for addr in await self._admitted(peer, good, causes):
            if force_direct and addr.is_relayed:
                causes[addr] = AddressError("the address is relayed, but a direct connection is required")
            elif not (ignore_backoff or force_direct) and (wait := self.backoff.wait(peer, addr, now)):
                causes[addr] = AddressInBackoff(wait)
            else:
                usable.append(addr)
        for addr, kind in self.black_holes.blocked(usable).items():
            usable.remove(addr)
            causes[addr] = BlackHoleSuspected(kind)
        return usable, causes

    async def _admitted(
        self, peer: PeerId | None, addrs: Iterable[Multiaddr], causes: Causes
    ) -> list[Multiaddr]:
        """The `addrs` that the gater allows. For the others, its error goes to `causes`."""
        asked: dict[Multiaddr, Awaitable[None]] = {}
        refused: Causes = {}
        for addr in addrs:
            try:
                answer = self._admission.check_addr_dial(peer, addr)
            except GaterRefused as error:
                refused[addr] = error
            else:
                if answer is not None:
                    asked[addr] = answer
        if asked:  # all at once: each may wait for seconds
            answers = await asyncio.gather(*asked.values(), return_exceptions=True)
            for addr, failure in zip(asked, answers, strict=True):
                if failure is not None:
                    refused[addr] = failure
        causes |= refused
        return [addr for addr in addrs if addr not in refused]

    # -- an address ----------------------------------------------------------------------------

    def dial_addr(self, addr: Multiaddr) -> Coroutine[Any, Any, Conn]:
        """See Swarm.dial_addr."""
        work, traces = self._dial_addr(addr), self._news.traces
        return work if traces is None else traces.dial(addr.peer_id, work)

    async def _dial_addr(self, addr: Multiaddr) -> Conn:
        peer = addr.peer_id
        self._check_dial(peer)
        asked = self._ask_admission(peer)
        if asked is not None:
            await asked
        if self._needs_resolving(addr):
            return await self._dial_name(addr, peer)
        if peer is None:
            self._check_not_ours([addr])
        target = addr.without_p2p()
        task = asyncio.current_task()
        self._alone.add(task)
        began_at = monotonic()
        try:
            answer = self._admission.check_addr_dial(peer, target)
            if answer is not None:
                await answer
            conn = await self._dial_one(target, peer)
            self._news.peer_dialled(True, 1, monotonic() - began_at)
            return conn
        except SwarmClosed:
            raise
        except asyncio.CancelledError:
            if task in self._alone or task is None or task.uncancel():
                raise  # `close` did not cancel it, or somebody else did as well
            raise SwarmClosed("the swarm was closed") from None
        except Exception as error:
            self._news.peer_dialled(False, 1, monotonic() - began_at)
            raise self._failed(peer, DialError(peer, [(target, error)])) from error
        finally:
            self._alone.discard(task)

    async def _dial_name(self, addr: Multiaddr, peer: PeerId | None) -> Conn:
        """Dials all addresses of a name. If `peer` is None, an answer with /p2p/ID needs proof of that id."""
        numeric, causes = await self._resolved([addr])
        self._check_open()
        if peer is None:
            self._check_not_ours(numeric)
        chosen, refused = self._filter.choose(peer, numeric)
        good = await self._admitted(peer, chosen, refused)
        self._check_open()
        if not good:
            raise self._failed(peer, DialError(peer, tuple((causes | refused).items()), "no usable address"))
        dial = PeerDial(peer, self._dial_one, self._news.peer_dialled)
        self._unshared.add(dial)
        dial.add(good, causes | refused)
        try:
            conn = await dial.wait()
        except DialError as error:
            raise self._failed(peer, error) from None
        else:
            self._book.dialled(conn.remote_peer, addr)
            return conn
        finally:
            self._unshared.discard(dial)

    async def _dial_one(self, addr: Multiaddr, peer: PeerId | None) -> Conn:
        """Connects to one numeric address, and records whether it worked."""
        if peer is None:
            peer, addr = addr.peer_id, addr.without_p2p()
        transport = self._filter.transport_to(addr)
        scope = scope_of(addr)
        try:
            if transport.is_proxy:  # needs no descriptor, but may itself need another dial
                conn = await self._connect(transport, addr, peer, scope)
            else:
                await self._slots.acquire(peer or addr)
                try:
                    conn = await self._connect(transport, addr, peer, scope)
                finally:
                    self._slots.release(peer or addr)
        except asyncio.CancelledError as error:
            self._news.addr_failed(addr, error, peer is not None and self._conns.count(peer) > 0)
            raise
        except Exception as error:
            self._learn(addr, peer, scope, error)
            raise
        self._news.addr_dialled(True)
        self.backoff.worked(conn.remote_peer, addr)
        if scope is Scope.PUBLIC:
            self.black_holes.record(addr, True)
        if conn.remote_multiaddr != addr:  # the address has more than the socket can show
            self._book.dialled(conn.remote_peer, addr)
        begun = self._begin_conn(conn)
        return begun if isinstance(begun, Conn) else await begun

    async def _connect(
        self, transport: Transport, addr: Multiaddr, peer: PeerId | None, scope: Scope
    ) -> CapableConn:
        limit = limits.DIAL_TIMEOUT_S if scope is Scope.PUBLIC else limits.DIAL_TIMEOUT_LOCAL_S
        began_at = monotonic()
        try:
            async with asyncio.timeout(limit):
                made = await transport.dial(addr, peer)
                self._news.addr_upgraded(made, began_at)
                return made
        except TimeoutError as error:
            if getattr(error, "stage", None) is not None:
                raise
            raise TimeoutError(str(error) or f"no connection after {limit:g} s") from None

    def _learn(self, addr: Multiaddr, peer: PeerId | None, scope: Scope, error: Exception) -> None:
        """Records that a dial of `addr` has failed. A cancelled dial does not come here."""
        self._news.addr_dialled(False)
        self._news.addr_failed(addr, error)
        stage = getattr(error, "stage", None)
        ours = is_ours(error)
        if scope is Scope.PUBLIC and not ours:  # a stage means that the peer has answered
            self.black_holes.record(addr, stage is not None)
        if peer is not None and not ours and not isinstance(error, _NOT_ITS_FAULT):
            self.backoff.failed(peer, addr, asyncio.get_running_loop().time())
        if peer is not None and isinstance(error, PeerIdMismatch):
            self._book.disproved(peer, addr)
        if stage is not None:
            self._news.upgrade_failed(Direction.OUTBOUND, str(stage), error, None, addr)

    @property
    def num_dialling(self) -> int:
        """Addresses that are being dialled now, without those behind a relay."""
        return self._slots.num_held

    # -- shared --------------------------------------------------------------------------------

    async def _resolved(self, addrs: Sequence[Multiaddr]) -> tuple[list[Multiaddr], Causes]:
        """`addrs` with the addresses of each name in its place, and the errors of names without any."""
        names = [addr for addr in addrs if self._needs_resolving(addr)]
        answers = await asyncio.gather(*map(self._resolve, names))
        found = dict(zip(names, answers, strict=True))
        numeric: dict[Multiaddr, None] = {}
        causes: Causes = {}
        for addr in addrs:
            answer = found.get(addr, [addr])
            if isinstance(answer, ResolutionError):
                causes[addr] = answer
            else:
                numeric.update(dict.fromkeys(answer))
        return list(numeric)[: limits.MAX_DIAL_ADDRS], causes

    def _needs_resolving(self, addr: Multiaddr) -> bool:
        return needs_resolving(addr) and not self._filter.keeps_name(addr)

    async def _resolve(self, addr: Multiaddr) -> list[Multiaddr] | ResolutionError:
        try:
            return await resolve(addr, self._resolver, self._filter.keeps_name)
        except ResolutionError as error:
            return error

    def _check_dial(self, peer: PeerId | None) -> None:
        self._check_open()
        if peer is not None and peer == self._local_peer:
            raise DialError(peer, (), cause=PeerIsSelf(peer))

    def _check_not_ours(self, addrs: Sequence[Multiaddr]) -> None:
        """Raises DialError if all of `addrs` lead to this node. It is the same error as for our own id."""
        if addrs and all(map(self._filter.is_own, addrs)):
            raise DialError(None, (), cause=PeerIsSelf(self._local_peer))

    def _ask_admission(self, peer: PeerId | None) -> Awaitable[None] | None:
        """Raises DialError: the gater or a limit refuses. Returns: what to await; None: nothing."""
        if self._admission.is_trivial:
            return None
        try:
            asked = self._admission.check_peer_dial(peer)
        except (GaterRefused, LimitExceeded) as error:
            raise self._failed(peer, DialError(peer, (), cause=error)) from error
        return None if asked is None else self._admitted_later(peer, asked)

    async def _admitted_later(self, peer: PeerId | None, asked: Awaitable[None]) -> None:
        try:
            await asked
        except GaterRefused as error:
            raise self._failed(peer, DialError(peer, (), cause=error)) from error
        self._check_open()

    def _check_open(self) -> None:
        if self._is_closed:
            raise SwarmClosed("the swarm was closed")

    def _failed(self, peer: PeerId | None, error: DialError) -> DialError:
        """Reports `error` to subscribers. Returns: `error`."""
        self._news.dial_failed(peer, error)
        return error

    def close(self) -> None:
        """Aborts every dial. No new dial can begin."""
        self._is_closed = True
        while self._alone:
            if (task := self._alone.pop()) is not None:
                task.cancel()
        for dial in [*self._dials.values(), *self._unshared]:
            dial.abort()
