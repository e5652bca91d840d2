"""The swarm: every listener, dial and connection of one node, and the streams on them.

Comes in: transports, addresses to listen on and to dial, stream handlers, notifiees. Goes out: connections,
negotiated streams, notifications, events. Knows only the interfaces Transport and Listener.

It runs one task for each listener, each address that is being dialled and each running stream handler. It
runs no task and no timer for a connection. A swarm belongs to one event loop. Names are go-libp2p's.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from p2pcore import codes, limits, options
from p2pcore._fast.loop.ledger import FULL, TIGHT, Ledger
from p2pcore.aio.descriptors import descriptors_of
from p2pcore.aio.home import Home
from p2pcore.dialing.addr_book import AddrBook
from p2pcore.dialing.dialer import Dialer
from p2pcore.errors import (
    ConnectionClosed,
    GaterRefused,
    LimitedConnection,
    LimitExceeded,
    LocalProtocolError,
    StreamReset,
    SwarmClosed,
    is_elsewhere,
)
from p2pcore.resources.conn_manager import ConnManager
from p2pcore.resources.held import parts
from p2pcore.resources.report import LimitUse, ledger_uses
from p2pcore.resources.turns import Turns
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.capped import CappedHandler
from p2pcore.swarm.conn import Conn, ConnOwner
from p2pcore.swarm.conns import Connectedness, ConnTable, connectedness_of
from p2pcore.swarm.duplicates import POLICIES, Duplicates
from p2pcore.swarm.kept import Kept
from p2pcore.swarm.listeners import Announce, Listeners, ListenResult
from p2pcore.swarm.news import News
from p2pcore.swarm.options import DrainOptions
from p2pcore.swarm.streams import StreamServer, TracedStreams
from p2pcore.swarm.transports import Transports
from p2pcore.values.multiaddr import Multiaddr

if TYPE_CHECKING:
    from p2pcore.interfaces import (
        CapableConn,
        Listener,
        Notifiee,
        ProtocolHandler,
        Resolver,
        Stream,
        Transport,
    )
    from p2pcore.metrics.access_log import StreamLog
    from p2pcore.resources.options import Limits
    from p2pcore.swarm.subscriptions import Events
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.swarm")

_OUTBOUND = codes.Direction.OUTBOUND  # a member of an enum costs more to look up
_USUAL_DRAIN = DrainOptions()
_NEXT_CONN = (ConnectionClosed, StreamReset, TimeoutError)
"""After one of these errors of a connection, `new_stream` tries the next connection (W33)."""


class Swarm:
    """Listens, dials, and holds the connections of one peer.

    Args:
        local_peer: our id.
        transports: in order of preference for dialling.
        admission: the gater and the limits on connections. The default admits everybody.
        news: the swarm reports here. Give it if other parts, for instance listeners, report there too.
        resolver: looks up host names; None: the operating system's resolver.
        conn_manager: closes connections when there are too many; None: it closes none, until it is told to.
        duplicates: "keep" allows several connections to one peer; "dedup" closes all but one, see
            p2pcore.swarm.duplicates.
        max_dials: addresses dialled at once. Further dials wait.
        max_handlers_per_conn: handlers of one connection that may run at once. Further streams are reset. A
            handler counts until it returns, even if its stream has ended.
        ledger: counts streams and memory. The swarm sets its limits.
        addr_book: remembers where peers can be reached; None: a new one, without a file.

    Raises:
        ValueError: `duplicates` is neither "keep" nor "dedup".

    Attributes:
        home: the event loop where the coroutines below must run; each raises RuntimeError on another one.
        admission: the gater and the limits on connections.
        is_draining: True from the moment `drain` is called.
        tell_draining: tells all peers that this node drains; `drain` awaits it. By default nobody is told.
        addr_book: see AddrBook.
    """

    def __init__(
        self,
        local_peer: PeerId,
        transports: Iterable[Transport] = (),
        *,
        admission: Admission | None = None,
        news: News | None = None,
        resolver: Resolver | None = None,
        conn_manager: ConnManager | None = None,
        duplicates: str = "keep",
        max_dials: int = limits.MAX_DIALS,
        max_handlers_per_conn: int = limits.MAX_HANDLERS_PER_CONN,
        ledger: Ledger | None = None,
        addr_book: AddrBook | None = None,
    ) -> None:
        if duplicates not in POLICIES:
            raise ValueError(f"duplicates must be one of {', '.join(POLICIES)}, not {duplicates!r}")
        self.home = Home()
        self._local_peer = local_peer
        self.admission = admission or Admission()
        self.ledger = ledger or Ledger()
        self._news = news or News()
        self._news.notifiees.network = self
        self._transports = Transports()
        self._duplicates = Duplicates()
        self._dedups = duplicates == "dedup"
        self._conns = ConnTable(self._duplicates)
        self._num_made = 0
        how = (max_handlers_per_conn, self._news.stream_refused, self.ledger, self.admission.refusals)
        metrics, traces = self._news.metrics, self._news.traces
        self._streams = StreamServer(*how) if traces is None else TracedStreams(traces, *how)
        self._streams.metrics = None if metrics is None else metrics.inbound
        self._serve = self._streams.serve  # one bound method for all connections
        outbound = None if metrics is None else metrics.outbound
        self._owner = ConnOwner(self._conn_ended, outbound, traces)
        self._listeners = Listeners(self._transports.for_listening, self.begin_conn, self._news)
        self.addr_book = AddrBook() if addr_book is None else addr_book
        self._dialer = Dialer(
            local_peer,
            self._conns,
            self.begin_conn,
            self._transports.for_dialing,
            self._listeners.own_addrs,
            self.admission,
            self._news,
            self.addr_book,
            resolver,
            max_dials,
        )
        self.admission.news = self._news
        self.admission.conns = self._conns
        self.admission.watch_blocks(self._blocked)
        self._blocking = Turns()
        self._manager = conn_manager or ConnManager()
        self._apply(self.admission.limits)
        self._manager.attach(self._conns, self._news, self._dial_kept)
        self.addr_book.attach(self._conns.of, self._manager.addrs_came)
        self.ledger.on_state = self._memory_changed
        self._is_full = False
        self._closing: asyncio.Task[None] | None = None
        self.is_draining = False
        self.tell_draining: Callable[[], Awaitable[None]] = _tell_nobody
        for transport in transports:
            self.add_transport(transport)

    @property
    def local_peer(self) -> PeerId:
        """Our id."""
        return self._local_peer

    @property
    def is_closed(self) -> bool:
        """True from the moment `close` is called."""
        return self._closing is not None

    @property
    def events(self) -> Events:
        """The subscriptions to events; see p2pcore.swarm.subscriptions."""
        return self._news.events

    @property
    def conn_manager(self) -> ConnManager:
        """Knows which connections to keep when there are many."""
        return self._manager

    def counters(self) -> dict[str, int]:
        """How often each thing has happened, by name; see `Host.counters`."""
        counts = self._news.counters() | self._listeners.counters()
        counts["streams refused"] += sum(conn.session.num_refused for conn in self.conns())
        return counts

    # -- transports ----------------------------------------------------------------------------

    def add_transport(self, transport: Transport) -> None:
        """Registers `transport` for each of its protocols. Dials prefer transports that were added earlier.

        Raises:
            ValueError: it handles no protocol, or another transport handles one of them already.
            SwarmClosed: the swarm was closed.
        """
        self._check_open()
        self._transports.add(transport)

    def transport_for_listening(self, addr: Multiaddr) -> Transport | None:
        """The transport of the last component of `addr`. If components belong to proxies: the last proxy."""
        return self._transports.for_listening(addr)

    def transport_for_dialing(self, addr: Multiaddr) -> Transport | None:
        """The first transport that can dial `addr` without its /p2p/ID. A proxy in `addr` comes first."""
        return self._transports.for_dialing(addr)

    # -- listening -----------------------------------------------------------------------------

    async def listen(self, *addrs: Multiaddr | str) -> list[ListenResult]:
        """Listens on each address. At least one must work.

        Returns: one result for each address, in order.
        Raises:
            ListenError: no address worked. Its `causes` has (address, error) for each.
            SwarmClosed: the swarm was closed.
        """
        self.home.check_loop()
        self._check_open()
        descriptors_of(asyncio.get_running_loop()).add_spare(self._spare_descriptor)
        return await self._listeners.listen([Multiaddr(addr) for addr in addrs])

    async def add_listen_addr(self, addr: Multiaddr | str) -> Multiaddr:
        """Listens on `addr`. Notifiees are called before the first connection is accepted.

        Returns: the bound address, with the real port.
        Raises:
            SwarmClosed: the swarm was closed. NoTransport: no transport listens on such an address.
            AddressError: `addr` has a host name.
            Exception: what the transport's `listen` raises.
        """
        self.home.check_loop()
        return await self._listeners.add(Multiaddr(addr))

    async def listen_close(self, *addrs: Multiaddr | str) -> None:
        """Closes the listeners that are bound to one of `addrs`. Their connections stay open."""
        self.home.check_loop()
        await self._listeners.close_bound_to({Multiaddr(addr) for addr in addrs})

    def listen_addresses(self) -> list[Multiaddr]:
        """The addresses the listeners are bound to. A wildcard stays a wildcard."""
        return self._listeners.bound()

    def interface_listen_addresses(self) -> list[Multiaddr]:
        """The addresses to tell peers: interface addresses replace a wildcard, then `announce` is applied."""
        return self._listeners.announced()

    @property
    def announce(self) -> Announce:
        """A function from the addresses we listen on to the addresses that peers are told.

        By default it changes nothing. After you set it, call `addrs_changed` each time its result changes.
        """
        return self._listeners.announce

    @announce.setter
    def announce(self, announce: Announce) -> None:
        self._listeners.announce = announce

    def addrs_changed(self) -> None:
        """Reports the present result of `announce` to subscribers."""
        self._listeners.tell_addrs()

    # -- dialling ------------------------------------------------------------------------------

    async def dial_peer(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr | str] = (),
        *,
        force_direct: bool = False,
        ignore_backoff: bool = False,
    ) -> Conn:
        """The best connection to `peer`. If there is none, dials `addrs`, or what the address book has.

        Calls for one peer share one dial. If one caller is cancelled, the dial goes on for the others. If the
        last caller is cancelled, the dial ends.

        Args:
            addrs: addresses, numeric or with host names; the first MAX_DIAL_ADDRS are used. Without any, the
                addresses of the address book are dialled; with some, only these.
                p2pcore.dialing.ranker gives their order and the pauses between them.
            force_direct: do not use a relayed connection. Also sets `ignore_backoff`.
            ignore_backoff: dial even addresses that failed a short while ago.

        Raises:
            DialError: there are no addresses, or all failed: `causes` has each. Or `cause` says why: the peer
                is this node, or the gater or a cap has refused.
            SwarmClosed: the swarm was closed before or during the call.
        """
        self.home.check_loop()
        self._check_open()
        return await self._dialer.dial_peer(peer, addrs, force_direct, ignore_backoff)

    async def dial_addr(self, addr: Multiaddr | str) -> Conn:
        """A new connection to `addr`, even if there is one already.

        The peer must prove the /p2p/ID in `addr`, if there is one. The address is dialled even if it failed a
        short while ago. If it has a host name, all addresses of that name are tried.

        Raises:
            DialError: no address worked; `causes` has the errors.
            SwarmClosed: the swarm was closed before or during the call.
        """
        self.home.check_loop()
        self._check_open()
        return await self._dialer.dial_addr(Multiaddr(addr))

    def keep(self, peer: PeerId, addrs: Iterable[Multiaddr | str] = ()) -> Kept:
        """See Host.keep."""
        self.home.check_loop()
        self._check_open()
        where = [Multiaddr(addr) for addr in options.listed("addrs", addrs, "multiaddrs", str, Multiaddr)]
        return Kept(self._manager.hold(peer, where), self._manager, self._conns)

    async def _dial_kept(self, peer: PeerId, addrs: tuple[Multiaddr, ...]) -> Conn:
        """Dials for the connection manager: a kept peer, at `addrs` and where else it may be."""
        known = dict.fromkeys([*addrs, *(addr.with_p2p(peer) for addr in self.addr_book.addrs(peer))])
        return await self.dial_peer(peer, known, ignore_backoff=True)

    def pause_accepting(self, why: str = "memory", at_most_s: float | None = None) -> None:
        """Makes all listeners, later ones included, take no new connection until `resume_accepting(why)`.

        Peers stay in the kernel's backlog; circuits that a relay offers are refused. Handshakes that have
        begun go on. There may be several reasons at once. `counters` says how often and how long each was
        one.

        Args:
            why: a name for the reason; there must be few. at_most_s: seconds; None: no limit.
        """
        self._listeners.pause_accepting(why, at_most_s)

    def resume_accepting(self, why: str = "memory") -> None:
        """Ends one reason of `pause_accepting`. Idempotent."""
        self._listeners.resume_accepting(why)

    # -- connections ---------------------------------------------------------------------------

    def add_conn(self, made: CapableConn) -> Conn:
        """Takes over the result of an upgrade: registers it, reports it, then accepts its streams.

        Raises:
            SwarmClosed, GaterRefused, LimitExceeded: `made` was aborted, with the matching code.
            LocalProtocolError: the gater waits, so this needs `begin_conn`. `made` was aborted.
        """
        begun = self.begin_conn(made)
        if isinstance(begun, Conn):
            return begun
        begun.close()
        made.abort(codes.CONN_GATED)
        raise LocalProtocolError("the gater does not answer at once: use begin_conn")

    def begin_conn(self, made: CapableConn) -> Conn | Coroutine[Any, Any, Conn]:
        """As `add_conn`; if the gater waits, it returns a coroutine, which has to be awaited."""
        loop = asyncio.get_running_loop()
        self._num_made += 1
        conn = Conn(made, self._num_made, loop.time(), self._owner)
        asked = None
        if self.admission.has_gater:
            try:
                asked = self.admission.check_upgraded(conn)
            except GaterRefused as error:
                conn.abort(error.code)
                raise
        return self._take_over(conn) if asked is None else self._take_over_later(conn, asked)

    async def _take_over_later(self, conn: Conn, asked: Awaitable[None]) -> Conn:
        """Takes `conn` over if the gater admits it. Its streams wait until then."""
        try:
            await asked
        except BaseException as error:
            conn.abort(error.code if isinstance(error, GaterRefused) else codes.CONN_SHUTDOWN)
            raise
        return self._take_over(conn)

    def _take_over(self, conn: Conn) -> Conn:
        if self.is_closed:
            conn.abort(codes.CONN_SHUTDOWN)
            raise SwarmClosed("the swarm was closed")
        try:
            self.admission.admit(conn)
        except LimitExceeded:
            conn.abort(codes.CONN_RESOURCE_LIMIT_EXCEEDED)
            raise
        before = self._conns.state(conn.remote_peer) if self._news.events.is_wanted else None
        self._conns.attach(conn.remote_peer, conn)
        session = conn.session
        session.owner = conn
        session.account(self.ledger, self.ledger.share(conn.remote_peer))
        if self._dedups:
            self._duplicates.joined(conn)
        if self._conns.num_conns > self._manager.joined_above:
            self._manager.joined(conn)
        self._news.conn_opened(conn, before and self._change(conn, before))
        session.set_stream_handler(self._serve)
        session.add_close_callback(conn)  # behind the handler: one that has ended gives its streams first
        if self._conns.num_conns >= self._room:
            self._look_for_room()
        return conn

    def _conn_ended(self, conn: Conn, error: BaseException | None) -> None:
        """Each session calls this when it ends: from the event loop, so never inside `add_conn`."""
        before = self._conns.state(conn.remote_peer) if self._news.events.is_wanted else None
        self._conns.detach(conn)
        if self._dedups:
            self._duplicates.left(conn)
        if conn.session.num_refused:
            self._news.streams_refused(conn.session.num_refused)
        self.admission.left(conn)
        if self._is_full:
            self._look_for_room()
        self.ledger.forget(conn.remote_peer)
        if conn._info is not None or conn._kind.direction is _OUTBOUND or self.addr_book.has_names:
            self.addr_book.left(conn)
        if not self._conns.num_conns:
            self._streams.shrink()
        self._news.conn_closed(conn, error, before and self._change(conn, before))
        if self._manager.wants_ends:
            self._manager.left(conn, error)
        self._streams.conn_ended(conn)

    # -- blocking ------------------------------------------------------------------------------

    def block_peer(self, peer: PeerId) -> None:
        """Refuses `peer` from now on, in both directions, and closes its connections with CONN_GATED.

        It is not kept any more (ConnManager.keep). A gater that is a BasicGater blocks it. Another one, also
        of a class made from BasicGater, is not asked about the peer any more.
        """
        self.home.check_thread()
        self.admission.blocker.block_peer(peer)

    def unblock_peer(self, peer: PeerId) -> None:
        """Ends `block_peer`."""
        self.home.check_thread()
        self.admission.blocker.unblock_peer(peer)

    def _blocked(self, peer: PeerId | None) -> None:
        """The gater blocks `peer` now, or a network: closes what is open, in turns of the loop."""
        if peer is not None:
            self._manager.stop_keeping(peer)
            for conn in self._conns.of(peer):
                conn.abort(codes.CONN_GATED)
        elif self.num_conns:
            self._blocking.stop()  # what it has not looked at comes again
            self._blocking.start(self._close_blocked())

    def _close_blocked(self) -> Iterator[None]:
        for part in parts(self._conns.rows()):
            for conn in part:
                if self.admission.blocks(conn.remote_peer, conn.remote_multiaddr):
                    conn.abort(codes.CONN_GATED)
            yield

    def _look_for_room(self) -> None:
        """Keeps new peers in the kernel's backlog while the node is full."""
        is_full = self.admission.is_full
        if is_full and not self._is_full:
            self.admission.keeps_waiting()
            self.pause_accepting("max_conns")
        elif self._is_full and not is_full:
            self.resume_accepting("max_conns")
        self._is_full = is_full

    def _memory_changed(self, was: int, now: int) -> None:
        """Is told the states of the ledger's memory, before and now."""
        if now < TIGHT:
            self.resume_accepting()
        elif now > was:
            self.pause_accepting(at_most_s=limits.MEMORY_PAUSE_S)
        if now >= FULL:
            self._manager.relieve(self.ledger)

    def _spare_descriptor(self) -> bool:
        """Descriptors have run short. Gives up some connections; False: there is none."""
        if not self.num_conns:
            return False
        self._manager.make_room(limits.TRIM_CLOSINGS)
        return True

    def _change(self, conn: Conn, before: Connectedness) -> Connectedness | None:
        """The new connectedness of the peer of `conn`. None: it is still `before`."""
        now = self._conns.state(conn.remote_peer)
        return None if now is before else now

    @property
    def listeners(self) -> list[Listener]:
        """The listeners that have not ended, those that drain too."""
        return self._listeners.living

    @property
    def dialer(self) -> Dialer:
        """Knows what dials have shown so far."""
        return self._dialer

    def pauses(self) -> dict[str, int]:
        """How often and how long accepting was paused; see Pauses.counters."""
        return self._listeners.counters()

    @property
    def num_conns(self) -> int:
        """The number of open connections."""
        return self._conns.num_conns

    def conns(self) -> list[Conn]:
        """All connections."""
        return self._conns.all()

    def peers(self) -> list[PeerId]:
        """The peers that we are connected to."""
        return self._conns.peers()

    def conns_to_peer(self, peer: PeerId) -> list[Conn]:
        """The connections to `peer`, oldest first."""
        return self._conns.of(peer)

    def best_conn(self, peer: PeerId) -> Conn | None:
        """The best open connection to `peer`, or None.

        Not limited is better than limited, then direct better than relayed, then more streams, then newer.
        """
        return self._conns.best(peer)

    def connectedness(self, peer: PeerId) -> Connectedness:
        """Whether there is an open connection to `peer`, and whether a relay limits it."""
        return connectedness_of(self._conns.open(peer))

    async def close_peer(self, peer: PeerId, code: int = 0) -> None:
        """Closes every connection to `peer` and sends it `code`."""
        self.home.check_loop()
        await asyncio.gather(*(conn.close(code) for conn in self.conns_to_peer(peer)))

    async def close_conn(self, conn_id: str, code: int = 0) -> bool:
        """Closes only the connection with this id (W26), and sends `code`. Returns: whether there was one."""
        self.home.check_loop()
        conn = self._conns.with_id(conn_id)
        if conn is None:
            return False
        await conn.close(code)
        return True

    # -- streams -------------------------------------------------------------------------------

    async def new_stream(
        self, peer: PeerId, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> Stream:
        """A stream to `peer` on its best connection. If that connection fails, on the next best (W33).

        If all connections are limited and `allow_limited` is not set, this waits up to DIAL_PEER_TIMEOUT_S
        for a direct connection. A hole punch may bring one.

        Raises:
            ConnectionClosed: no connection is left.
            LimitedConnection: no direct connection came.
            The other errors of Conn.new_stream.
        """
        self.home.check_loop()
        ranked = self._conns.ranked(peer)
        if not allow_limited and ranked and ranked[0].is_limited:
            await self._wait_direct(peer)
            ranked = self._conns.ranked(peer)
        failure: Exception = ConnectionClosed(f"no open connection to {peer}")
        for conn in ranked:
            if conn.is_limited and not allow_limited:
                continue
            try:
                return await conn.new_stream(protocols, allow_limited)
            except _NEXT_CONN as error:
                failure = error
                if is_elsewhere(error) and not conn.is_closed:
                    self.peer_drains(conn)
        try:
            raise failure
        finally:
            del failure  # else it keeps itself alive by its traceback

    def peer_drains(self, conn: Any) -> None:
        """The peer of `conn` has said that it is draining.

        From now on `best_conn`, `dial_peer` and `new_stream` do not use `conn`. It is closed here once it has
        no stream, if the peer does not do that.
        """
        if self._conns.give_out_no_more(conn):
            if self._dedups:
                self._duplicates.left(conn)  # else the connection that replaces it would be superfluous
            self._news.peer_draining(conn)
            asyncio.get_running_loop().call_later(limits.LEAVING_LOOK_S, self._look_at_leaving, conn)

    def _look_at_leaving(self, conn: Any) -> None:
        if conn.is_closed:
            return
        if conn.num_streams:
            asyncio.get_running_loop().call_later(limits.LEAVING_LOOK_S, self._look_at_leaving, conn)
        else:
            conn.abort()

    async def _wait_direct(self, peer: PeerId) -> None:
        try:
            async with asyncio.timeout(limits.DIAL_PEER_TIMEOUT_S):
                await self._conns.wait_direct(peer)
        except TimeoutError:
            raise LimitedConnection(
                f"no direct connection to {peer} in {limits.DIAL_PEER_TIMEOUT_S:g} s; a stream on a "
                "limited connection needs allow_limited"
            ) from None

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that inbound streams may speak."""
        return self._streams.protocols

    @property
    def num_handlers_running(self) -> int:
        """The number of inbound streams that are being negotiated or served."""
        return self._streams.num_running

    def set_stream_handler(
        self,
        protocol: str,
        handler: ProtocolHandler,
        *,
        max_streams: int | None = None,
        max_streams_per_peer: int | None = None,
        cancel: bool = True,
    ) -> None:
        """Serves inbound streams of `protocol` with `await handler(stream)`, each in a task of its own.

        The stream is closed when `handler` returns, and reset when it raises. `stream.conn` is its
        connection. If `handler` returns the stream itself, the swarm leaves it open: other code must end it.

        Args:
            max_streams: handlers of this protocol that may run at once; a further stream is reset with
                STREAM_RESOURCE_LIMIT_EXCEEDED. None: no limit. max_streams_per_peer: the same for one peer.
            cancel: a handler is cancelled when its stream is reset or its connection is lost. The exact rule
                is in docs/streams.md. False: it goes on, and learns it when it uses the stream.

        Raises: ValueError: `protocol` is not a valid protocol id.
        """
        if max_streams is not None or max_streams_per_peer is not None:
            refusals = self.admission.refusals
            handler = CappedHandler(protocol, handler, max_streams, max_streams_per_peer, refusals)
        self._streams.set(protocol, handler, cancel)

    def log_streams(self, log: StreamLog | None) -> None:
        """`log` hears of each inbound stream from now on, if streams are counted; None: nobody does."""
        self._streams.access = log

    def remove_stream_handler(self, protocol: str) -> None:
        """Stops serving `protocol`."""
        self._streams.remove(protocol)

    # -- notifications and the end -------------------------------------------------------------

    def notify(self, notifiee: Notifiee) -> None:
        """Calls `notifiee` for listeners and connections from now on.

        Calls are synchronous, in order of registration. For each connection there is one `connected` and one
        `disconnected`. All notifiees have returned from `connected` before a stream of that connection is
        served, and before the first `disconnected`.
        """
        self._news.notifiees.add(notifiee)

    def stop_notify(self, notifiee: Notifiee) -> None:
        """Stops calling `notifiee`."""
        self._news.notifiees.remove(notifiee)

    async def drain(
        self,
        timeout_s: float = limits.DRAIN_TIMEOUT_S,
        accept_queued: bool = True,
        how: DrainOptions = _USUAL_DRAIN,
    ) -> int:
        """Ends in order: stops listening, closes each connection when it has no stream, then `close`.

        First `is_draining` becomes True, and after `how.delay_s` the listeners close. Then `tell_draining`
        tells the peers. Connections without streams are closed in the order of a trim
        (p2pcore.resources.order). Skips new ones: their first stream may be coming.

        The go-away comes after the last stream, not before it: when rust-libp2p and js-libp2p receive a
        go-away, they end all streams of the connection.

        Args:
            timeout_s: seconds after `how.delay_s`. Then streams and handlers that are still there are cut.
            accept_queued: see interfaces.Listener.drain.
            how: see DrainOptions.

        Returns: the number of streams that were cut off.
        """
        self.home.check_loop()
        if not self.is_draining:
            self.is_draining = True
            self._news.draining(how.delay_s, timeout_s)
            await asyncio.sleep(how.delay_s)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        self._manager.stop()
        listeners = self._listeners.take_out()
        drains = [listener.drain(accept_queued) for listener in listeners]
        # A task, because a gather that is cancelled and not awaited complains at its end.
        draining = loop.create_task(_wait(asyncio.gather(*drains, return_exceptions=True)))
        telling = loop.create_task(self._tell_peers(how.refuse_after_s))
        try:
            async with asyncio.timeout_at(end):
                while not draining.done() or self.num_conns or self._streams.num_running:
                    if telling.done():
                        self._manager.drain(loop.time() - limits.DRAIN_GRACE_S)
                    await asyncio.sleep(limits.DRAIN_LOOK_S)
        except TimeoutError:
            logger.info("%d streams did not end in %g s", self._num_streams(), timeout_s)
        finally:
            draining.cancel()
            telling.cancel()
        cut = self._num_streams()
        await _bounded("listeners", self._listeners.close(listeners))
        await self.close()
        return cut

    async def _tell_peers(self, refuse_after_s: float | None) -> None:
        """Tells the peers that we drain, and refuses new streams after a while. Returns when they know.

        Before that nothing is closed: a peer that has not heard of it may just be opening a stream.
        """
        if refuse_after_s is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(refuse_after_s, self._streams.refuse)
        bound = limits.DRAIN_REFUSE_AFTER_S if refuse_after_s is None else refuse_after_s
        with suppress(TimeoutError):
            async with asyncio.timeout(bound):
                await self.tell_draining()

    def _num_streams(self) -> int:
        return sum(conn.num_streams for conn in self.conns())

    async def close(self) -> None:
        """Ends dials, listeners, handlers and connections. Each step is bounded in time. Idempotent."""
        self.home.check_loop()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._shut_down())
        await asyncio.shield(self._closing)

    async def _shut_down(self) -> None:
        descriptors_of(asyncio.get_running_loop()).remove_spare(self._spare_descriptor)
        self._manager.stop()
        self._blocking.stop()
        self.admission.stop_watching(self._blocked)
        self._dialer.close()
        self._listeners.refuse_new()
        self._conns.fail(SwarmClosed("the swarm was closed"))
        listeners = self._listeners.take_out()
        await _bounded("listeners", self._listeners.close(listeners))
        for task in listeners.values():
            task.cancel()
        await self._streams.close()
        await _bounded("superfluous connections", self._duplicates.close())
        conns = self.conns()
        closing = asyncio.gather(*(conn.close(codes.CONN_SHUTDOWN) for conn in conns), return_exceptions=True)
        await _bounded("connections", _wait(closing))
        for conn in conns:
            conn.abort(codes.CONN_SHUTDOWN)
        await asyncio.sleep(0)  # sessions report their end in the event loop's next turn
        await _bounded("trimmed connections", self._manager.close())
        await _bounded("the address book", self.addr_book.close())
        self._news.events.close()

    def _check_open(self) -> None:
        if self.is_closed:
            raise SwarmClosed("the swarm was closed")

    # -- limits --------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.admission.limits

    def set_limits(self, limits: Limits) -> None:
        """New limits from now on. They close nothing; they refuse what is new.

        Args:
            limits: without AUTO; see Limits.resolved.

        Raises:
            ValueError: the connection manager's high mark is above `max_conns`; nothing has changed.
        """
        self._apply(limits)
        self.admission.set_limits(limits)
        self._look_for_room()
        self._look_for_room()

    def _apply(self, limits: Limits) -> None:
        """The marks, and the limits of streams and memory. Raises ValueError before it changes anything."""
        self._manager.set_max_conns(limits.max_conns)
        self.ledger.max_streams = limits.max_streams or 0
        self.ledger.max_streams_per_conn = limits.max_streams_per_conn or 0
        self.ledger.max_streams_per_peer = limits.max_streams_per_peer or 0
        self.ledger.memory = limits.memory or 0
        self._streams.set_limits(limits)
        self._room = limits.max_conns or sys.maxsize

    def limits_report(self) -> list[LimitUse]:
        """See Host.limits_report."""
        refused = Counter(self.admission.refusals.counts) + Counter(self.ledger.refused)
        shares = [self.ledger.share(peer) for peer in self._conns.peers()]
        uses = [*self.admission.uses(), *ledger_uses(self.ledger, self.limits, shares)]
        others = refused.keys() - {use.limit for use in uses}
        uses += [LimitUse(limit, None, None, None) for limit in sorted(others)]
        return [replace(use, refused=refused[use.limit]) for use in uses]


async def _tell_nobody() -> None: ...


async def _wait(future: asyncio.Future[Any]) -> None:
    await future


async def _bounded(what: str, work: Coroutine[Any, Any, None]) -> None:
    """Awaits `work` for at most SWARM_CLOSE_TIMEOUT_S."""
    try:
        async with asyncio.timeout(limits.SWARM_CLOSE_TIMEOUT_S):
            await work
    except TimeoutError:
        logger.warning("%s did not close in %g s", what, limits.SWARM_CLOSE_TIMEOUT_S)
