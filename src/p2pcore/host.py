"""The host: one complete node. Only this module and `compose` name concrete parts.

Comes in: names and option objects. Goes out: connections, streams, the answers of ping, identify, echo and
perf. It owns everything it makes, and closes all of it at its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from p2pcore import compose, limits, options
from p2pcore._fast.loop.ledger import Ledger
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.address_hint import meant
from p2pcore.aio import collector
from p2pcore.aio.descriptors import raise_limit
from p2pcore.aio.stopping import Interrupted, Stopping, drain_time
from p2pcore.dialing.addr_book import AddrBook
from p2pcore.dialing.dialer import DialOptions
from p2pcore.errors import AddressError, GoAway, IdentityError, StreamReset, SwarmClosed, is_elsewhere
from p2pcore.interfaces import Conn, Gater, Notifiee, ProtocolHandler
from p2pcore.late import Late
from p2pcore.protocols import ping
from p2pcore.relay.transport import RelayTransport
from p2pcore.resources.conn_manager import ConnManager
from p2pcore.resources.options import Limits
from p2pcore.resources.report import LimitUse
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.announce import Announcement, AnnounceOptions
from p2pcore.swarm.kept import Kept
from p2pcore.swarm.news import News
from p2pcore.swarm.options import ConnOptions, DrainOptions
from p2pcore.swarm.swarm import Swarm
from p2pcore.upgrade.listener import ListenerHooks, ListenerOptions
from p2pcore.upgrade.upgrader import StreamUpgrader, UpgraderOptions
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.version import __version__

if TYPE_CHECKING:
    from p2pcore.interfaces import Multiplexer, SecureTransport, Stream
    from p2pcore.metrics import (
        access_log as access_logs,
        health,
        host_metrics,
        recorder as recorders,
        traces as tracing,
    )
    from p2pcore.metrics.access_log import AccessLog, AccessLogOptions
    from p2pcore.metrics.health import Check
    from p2pcore.metrics.traces import TraceOptions
    from p2pcore.muxers.mplex import MplexOptions
    from p2pcore.muxers.yamux import YamuxOptions
    from p2pcore.protocols import echo, identify, perf
    from p2pcore.protocols.identify import IdentifyOptions
    from p2pcore.protocols.identify_message import IdentifyInfo
    from p2pcore.protocols.perf import PerfRun
    from p2pcore.relay.options import RelayOptions
    from p2pcore.relay.service import RelayService
    from p2pcore.security.pnet import PSK
    from p2pcore.swarm.conns import Connectedness
    from p2pcore.swarm.events import Event
    from p2pcore.swarm.listeners import ListenResult
    from p2pcore.swarm.subscriptions import Subscription
    from p2pcore.transports.tcp.ports import TcpOptions
    from p2pcore.transports.unix import UnixOptions
    from p2pcore.transports.websocket.transport import WebsocketOptions
else:  # a program may import Host and never make one
    echo, perf = Late("p2pcore.protocols.echo"), Late("p2pcore.protocols.perf")
    identify, health = Late("p2pcore.protocols.identify"), Late("p2pcore.metrics.health")
    recorders, tracing = Late("p2pcore.metrics.recorder"), Late("p2pcore.metrics.traces")
    access_logs, host_metrics = Late("p2pcore.metrics.access_log"), Late("p2pcore.metrics.host_metrics")

logger = logging.getLogger("p2pcore.host")

T = TypeVar("T")

Address = Multiaddr | str
"""A multiaddr, or its text. It ends with /p2p/ID if the peer is known."""
Target = Conn | PeerId | Multiaddr | str
"""A peer to talk to: an open connection, the id of a peer that is connected or in the address book, or an
address. Text is also possible."""


class Host:
    """A libp2p node on TCP, WebSocket, UNIX sockets and memory; an async context manager.

    Args:
        private_key: our identity; by default a new Ed25519 key.
        listen: addresses to listen on. Port 0 takes a free port. Without an address the node only dials.
        security, muxers: names (see compose.SECURITY and compose.MUXERS) or objects, in order of preference.
            With a single security protocol, a dial saves one round trip.
        psk: the key of a private network: a PSK, the path of a key file, the bytes of such a file, or the 32
            bytes of the key. Only peers with the same key can connect. If LIBP2P_FORCE_PNET=1 is in the
            environment, a key is required.
        gater: says who may connect, at five points; see interfaces.Gater and p2pcore.BasicGater.
        tcp, websocket, unix: how each transport dials and listens; see TcpOptions (for WebSocket too),
            WebsocketOptions, UnixOptions.
        yamux, mplex: bounds of connections and streams with this multiplexer; see YamuxOptions, MplexOptions.
        listener: bounds of each listener, and of upgrades in both directions; see ListenerOptions.
        dial: see DialOptions.
        limits: how many connections and streams there may be, and how much memory they may use; see Limits.
        conns: which connections the host keeps; see ConnOptions.
        conn_manager: which connections go when there are too many; see ConnManager.
        announce: addresses that peers are told in place of those we listen on (behind a NAT, in a
            container), or an AnnounceOptions, which can also add and hide some.
        addr_book: where peers can be reached; by default a new AddrBook, which ends with the host. To keep it
            in a file, give AddrBook(path).
        identify: whether identify is served, and what it tells peers; see IdentifyOptions. False also turns
            off the identification of new peers.
        ping, perf, echo: whether this protocol is served. `perf` is only for measurements.
        relay_service: makes this node a relay for other peers, see RelayOptions; None: it is not a relay.
        drain: how peers notice that this node ends; see DrainOptions.
        metrics: whether connections, dials and streams are counted for `Host.metrics`.
        access_log: whether the logger "p2pcore.access" gets a record when a connection ends. AccessLogOptions
            says which records there are; True: the default ones.
        traces: who takes spans of dials, upgrades, identify and streams; see TraceOptions. None: nobody.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. The message names it.
        IdentityError, OSError: `psk` is not a key, or its file cannot be read.

    Attributes:
        private_key: our identity.
        swarm: has everything that Host has no method for.
        relay: the client of relays. It can reserve a place at a relay without a listener.
        relay_service: the relay of this node, with its counters, or None.
        listen_results: the result of each listen address at the start.
        metrics: see HostMetrics; `host.metrics.text()` is what Prometheus takes.
        alive, ready: the checks behind /healthz and /readyz; add more with `host.ready.add`.
    """

    def __init__(
        self,
        private_key: PrivateKey | None = None,
        listen: Sequence[Address] = ("/ip4/127.0.0.1/tcp/0",),
        *,
        security: Sequence[str | SecureTransport] = ("noise",),
        muxers: Sequence[str | Multiplexer] = ("yamux",),
        psk: PSK | str | os.PathLike[str] | bytes | None = None,
        gater: Gater | None = None,
        tcp: TcpOptions | None = None,
        websocket: WebsocketOptions | None = None,
        unix: UnixOptions | None = None,
        yamux: YamuxOptions | None = None,
        mplex: MplexOptions | None = None,
        listener: ListenerOptions | None = None,
        dial: DialOptions | None = None,
        limits: Limits | None = None,
        conns: ConnOptions | None = None,
        conn_manager: ConnManager | None = None,
        announce: AnnounceOptions | Sequence[Address] = (),
        addr_book: AddrBook | None = None,
        identify: IdentifyOptions | bool = True,
        ping: bool = True,
        perf: bool = False,
        echo: bool = False,
        relay_service: RelayOptions | None = None,
        drain: DrainOptions | None = None,
        metrics: bool = True,
        access_log: AccessLogOptions | bool = False,
        traces: TraceOptions | None = None,
    ) -> None:
        for name, is_served in (("ping", ping), ("perf", perf), ("echo", echo), ("metrics", metrics)):
            options.flag(name, is_served)
        self.private_key = _identity(private_key)
        self._listen = _addresses(listen)
        self._was_started = False
        self.listen_results: list[ListenResult] = []
        conns = options.given("conns", conns, ConnOptions)
        conn_manager = options.given("conn_manager", conn_manager, ConnManager)
        addr_book = options.given("addr_book", addr_book, AddrBook)
        dial = options.given("dial", dial, DialOptions)
        self._drain = options.given("drain", drain, DrainOptions)
        if conns.raise_descriptors:
            raise_limit()  # first: the limits follow from what the process may have
        in_force = options.given("limits", limits, Limits).resolved()
        admission = Admission(gater, in_force)
        news = News()
        recorder = news.metrics = recorders.Recorder() if metrics else None
        if traces is not None:
            options.instance("traces", traces, tracing.TraceOptions)
            news.traces = tracing.Traces(traces)
        ledger = Ledger()
        upgrader = StreamUpgrader(
            self.private_key,
            compose.security(security, self.private_key),
            compose.muxers(muxers, yamux, mplex),
            _upgrader_options(listener, admission, news, ledger),
            compose.protector(psk),
        )
        self.swarm = Swarm(
            self.private_key.peer_id(),
            compose.transports(upgrader, self._listen, tcp, websocket, unix, is_psk=psk is not None),
            admission=admission,
            news=news,
            resolver=dial.resolver,
            conn_manager=conn_manager,
            duplicates=conns.duplicates,
            max_dials=dial.max_dials,
            max_handlers_per_conn=2 * compose.max_inbound_streams(muxers, yamux, mplex),
            ledger=ledger,
            addr_book=addr_book,
        )
        self._home = self.swarm.home
        self.access_log = _access_log(self.swarm, news, access_log)
        self.metrics = host_metrics.HostMetrics(self.swarm, news, recorder, lambda: self.relay_service)
        self._is_started = False
        self.alive = health.Health("alive", {})
        self.ready = health.Health("ready", self._checks())
        self._identify = _identify_service(self.swarm, self.private_key, identify, news)
        self.relay = RelayTransport(upgrader, self.swarm, self._addrs_changed)
        self.swarm.add_transport(self.relay)
        self._announcement = _announcement(announce, self.swarm.local_peer)
        self.swarm.announce = lambda addrs: self._announcement.applied(self.relay.announced(addrs))
        self.relay_service = _relay_service(self.swarm, self.private_key, relay_service)
        self._ping_locks: weakref.WeakValueDictionary[PeerId, asyncio.Lock] = weakref.WeakValueDictionary()
        self._serve(ping, identify is not False, perf, echo)

    def _addrs_changed(self) -> None:
        """The relay client has reserved a place, or lost one; or `announce` has changed."""
        self._identify.changed()
        self.swarm.addrs_changed()

    def _serve(self, with_ping: bool, with_identify: bool, with_perf: bool, with_echo: bool) -> None:
        if with_identify:
            self._identify.start()
            self.swarm.tell_draining = self._identify.tell_draining
        if with_ping:
            self.swarm.set_stream_handler(ping.PROTOCOL, ping.PingServer().serve)
        if with_perf:
            self.swarm.set_stream_handler(perf.PROTOCOL, perf.serve)
        if with_echo:
            self.swarm.set_stream_handler(echo.PROTOCOL, echo.serve)

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listens on all addresses. Call it once.

        A host that was closed stays closed. A new Host with the same arguments, and the `private_key` of this
        one, is the same peer again.

        Raises:
            ListenError: no address works; the host is closed then.
            SwarmClosed: the host was closed. RuntimeError: it has started already.
        """
        self._home.check_loop()
        self._check_new()
        try:
            self.listen_results = await self.swarm.listen(*self._listen)
        except BaseException:
            await self.close()
            raise
        self._is_started = True
        for result in self.listen_results:
            if result.error is not None:
                logger.warning("cannot listen on %s: %s", result.addr, result.error)

    def _check_new(self) -> None:
        if self.swarm.is_closed:
            raise SwarmClosed(
                "this host was closed and cannot start again: make a new Host; "
                "with private_key=host.private_key it is the same peer"
            )
        if self._was_started:
            raise RuntimeError("this host has started already: call start() or `async with` once")
        self._was_started = True

    async def close(self) -> None:
        """Ends listeners, streams and connections, for good. Idempotent, bounded in time."""
        self._home.check_loop()
        self.metrics.lag.close()
        await self._identify.close()
        if self.relay_service is not None:
            self.relay_service.close()
        await self.relay.close()
        await self.swarm.close()
        if self.access_log is not None:
            self.access_log.close()

    async def drain(
        self,
        timeout_s: float = limits.DRAIN_TIMEOUT_S,
        *,
        accept_queued: bool = True,
        delay_s: float | None = None,
    ) -> int:
        """Ends in order, so that peers notice and go elsewhere; then closes. See Swarm.drain.

        `is_draining` becomes True. After `delay_s` the listeners close, and peers are told. Streams that are
        open go on for up to `timeout_s`. New ones are served for a while, then reset with STREAM_SHUTDOWN.

        Args:
            delay_s: instead of `delay_s` of the option `drain`.

        Returns: the number of streams that were cut off.
        """
        options.seconds("timeout_s", timeout_s, or_zero=True)
        options.flag("accept_queued", accept_queued)
        how = self._drain if delay_s is None else replace(self._drain, delay_s=delay_s)
        self._home.check_loop()
        cut = await self.swarm.drain(timeout_s, accept_queued, how)
        await self.close()
        return cut

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        drain_s = drain_time(asyncio.get_running_loop())
        if drain_s is None:
            await self.close()
        else:  # a signal ends the program, see `run`
            await self.drain(drain_s)

    # -- what it is ----------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """Our id."""
        return self.swarm.local_peer

    @property
    def addrs(self) -> list[Multiaddr]:
        """The addresses that peers are told: where we listen, with real ports, changed as `announce` says.

        Interface addresses replace a wildcard.
        """
        return self.swarm.interface_listen_addresses()

    def set_announce(self, announce: AnnounceOptions | Sequence[Address]) -> None:
        """Other addresses to tell from now on, like the argument `announce`. Connected peers get a push.

        Raises: TypeError, ValueError, AddressError, LimitExceeded: see AnnounceOptions. Nothing has changed.
        """
        self._home.check_thread()
        self._announcement = _announcement(announce, self.peer_id)
        self._addrs_changed()

    @property
    def addrs_with_peer(self) -> list[Multiaddr]:
        """The same as `addrs`, each with /p2p/ID. Peers dial these."""
        return [addr.with_p2p(self.peer_id) for addr in self.addrs]

    @property
    def is_draining(self) -> bool:
        """True from the moment `drain` is called, or a signal ends the program: send new peers elsewhere."""
        return self.swarm.is_draining

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that inbound streams may speak."""
        return self.swarm.protocols

    @property
    def conn_manager(self) -> ConnManager:
        """Says which connections go when there are too many: tag, protect and keep peers with it."""
        return self.swarm.conn_manager

    @property
    def addr_book(self) -> AddrBook:
        """Where peers can be reached: what they told, where they were reached, what the program has added."""
        return self.swarm.addr_book

    def _checks(self) -> dict[str, Check]:
        return {
            "starting": lambda: None if self._is_started else "it has not listened yet",
            "draining": lambda: "it takes no new work" if self.is_draining else None,
            "closed": lambda: "it was closed" if self.swarm.is_closed else None,
            "listeners": self.metrics.listeners_down,
        }

    # -- connections and streams ---------------------------------------------------------------

    async def connect(self, target: Target, *more: Address, ignore_backoff: bool = False) -> Conn:
        """A connection to `target`: the present one, or a new one.

        Args:
            target: see Target. An address without /p2p/ID always makes a new connection, and whoever answers
                there is taken: look at `Conn.remote_peer` before you trust it. Host names are resolved. A
                peer id alone is dialled at the addresses of `addr_book`.
            more: further addresses of the same peer, tried together with the first.
            ignore_backoff: dial even an address that failed a short while ago.

        Raises:
            DialError, SwarmClosed: see Swarm.dial_peer.
            AddressError, IdentityError: `target` is malformed.
        """
        self._home.check_loop()
        if not isinstance(target, (PeerId, Multiaddr, str)):
            if not hasattr(target, "new_stream"):
                raise TypeError(f"target must be a multiaddr, a peer id or a Conn, not {target!r}")
            return target
        if isinstance(target, PeerId) or (isinstance(target, str) and not target.startswith("/")):
            return await self.swarm.dial_peer(_peer(target), more, ignore_backoff=ignore_backoff)
        addr = Multiaddr(target)
        peer = addr.peer_id
        if peer is not None:
            return await self.swarm.dial_peer(peer, (addr, *more), ignore_backoff=ignore_backoff)
        if more:
            raise AddressError(f"{addr} has no /p2p/ID; several addresses need the id of their peer")
        return await self.swarm.dial_addr(addr)

    async def new_stream(
        self, target: Target, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> Stream:
        """A stream to `target` that speaks the first of `protocols` the peer has.

        A single protocol is negotiated lazily: this call does not wait for the answer. If the peer does not
        speak it, the first read raises ProtocolNotSupported.

        A peer that drains is asked for no more streams: another connection to it is used, or a new one.

        Args:
            target: see `connect`.
            protocols: one protocol id, or several in order of preference.
            allow_limited: use a connection even if a relay limits it. Otherwise wait for a direct connection,
                see Swarm.new_stream.

        Raises: the errors of `connect` and Swarm.new_stream.
        """
        conn = await self.connect(target)
        if conn is target:
            return await conn.new_stream(protocols, allow_limited)
        try:
            return await self.swarm.new_stream(conn.remote_peer, protocols, allow_limited)
        except (GoAway, StreamReset) as error:
            if not is_elsewhere(error):
                raise
        conn = await self.connect(target)  # once: another connection, or another node at the peer's addresses
        return await self.swarm.new_stream(conn.remote_peer, protocols, allow_limited)

    @asynccontextmanager
    async def stream(
        self, target: Target, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> AsyncGenerator[Stream, None]:
        """`async with host.stream(target, protocols) as stream:` opens a stream as `new_stream` does.

        The stream is closed at the end of the block, and reset if the block raises or is cancelled.
        """
        async with await self.new_stream(target, protocols, allow_limited) as stream:
            yield stream

    def keep(self, peer: PeerId | str, addrs: Iterable[Address] = ()) -> Kept:
        """Stays connected to `peer`: dials it now, and again whenever its last connection is lost.

        It is dialled at `addrs` and where `addr_book` says. The pauses grow from a second to five minutes,
        each cut or stretched by up to half. They end early when addresses of the peer come, or when those of
        our network interfaces change. The peer is protected from the connection manager. Events: KeepLost,
        KeepRestored.

        Returns: a handle. Its `close`, or `async with`, lets the peer go; `await kept.connected()` waits for
            a connection. If several parts of a program keep one peer, it is let go with the last handle. If
            the peer is blocked, it is let go at once.
        Raises:
            AddressError, IdentityError: malformed. TypeError: `addrs` is no list of them.
            LimitExceeded: MAX_KEPT_PEERS peers are kept.
            SwarmClosed, RuntimeError: the host does not run, or runs on another loop.
        """
        return self.swarm.keep(PeerId(peer), addrs)

    async def close_peer(self, peer: PeerId | str, code: int = 0) -> None:
        """Closes every connection to `peer` and sends it `code` (see p2pcore.codes)."""
        self._home.check_loop()
        await self.swarm.close_peer(PeerId(peer), code)

    async def close_conn(self, conn_id: str, code: int = 0) -> bool:
        """Closes the connection with this `Conn.id`. Returns: whether there was one."""
        self._home.check_loop()
        return await self.swarm.close_conn(conn_id, code)

    def block_peer(self, peer: PeerId | str) -> None:
        """Refuses `peer` from now on, in both directions, and closes its connections; see Swarm.block_peer.

        Raises: IdentityError: `peer` is malformed.
        """
        self.swarm.block_peer(PeerId(peer))

    def unblock_peer(self, peer: PeerId | str) -> None:
        """Ends `block_peer`. If the peer was kept, call `keep` again. Raises IdentityError."""
        self.swarm.unblock_peer(PeerId(peer))

    def connectedness(self, peer: PeerId | str) -> Connectedness:
        """Whether there is an open connection to `peer`, and whether a relay limits it."""
        return self.swarm.connectedness(PeerId(peer))

    def events(self, *kinds: type[Event], queue: int = limits.EVENT_QUEUE_LENGTH) -> Subscription:
        """The events from now on: `async for event in host.events(): ...`. They end with the host.

        Args:
            kinds: classes of p2pcore.swarm.events. Without kinds: all events.
            queue: events kept for a slow reader. If there are more, the oldest are dropped, and a Missed says
                how many.

        Raises: ValueError, TypeError, LimitExceeded: see Events.subscribe.
        """
        self._home.check_thread()
        return self.swarm.events.subscribe(kinds, queue)

    def counters(self) -> dict[str, int]:
        """How often each thing has happened since the start, by name, for logs and metrics.

        There are counters for connections that opened, closed or were refused, for dials, and for refused
        streams. Further counters are for all listeners together: failed upgrades by reason, errors of
        accept(2), answered HTTP requests, and times in which no connection was accepted, by reason. No number
        ever falls.
        """
        return self.swarm.counters()

    def set_stream_handler(
        self,
        protocol: str,
        handler: ProtocolHandler,
        *,
        max_streams: int | None = None,
        max_streams_per_peer: int | None = None,
        cancel: bool = True,
    ) -> None:
        """Serves inbound streams of `protocol`, and tells peers; see Swarm.set_stream_handler.

        Args:
            max_streams: handlers of this protocol that may run at once; more streams are reset. None: no
                limit. max_streams_per_peer: the same for one peer.
            cancel: cancel a handler when its stream is reset or its connection is lost.

        Raises: TypeError: `handler` is not `async`, or does not take one argument. ValueError, TypeError:
            `protocol` is not a valid protocol id, or another argument is wrong.
        """
        self._home.check_thread()
        options.stream_handler("handler", handler)
        for name, most in (("max_streams", max_streams), ("max_streams_per_peer", max_streams_per_peer)):
            if most is not None:
                options.whole(name, most, 1)
        options.flag("cancel", cancel)
        self.swarm.set_stream_handler(
            protocol,
            handler,
            max_streams=max_streams,
            max_streams_per_peer=max_streams_per_peer,
            cancel=cancel,
        )
        self._identify.changed()

    def remove_stream_handler(self, protocol: str) -> None:
        """Stops serving `protocol`, and tells peers."""
        self._home.check_thread()
        self.swarm.remove_stream_handler(protocol)
        self._identify.changed()

    def notify(self, notifiee: Notifiee) -> None:
        """Calls `notifiee` for listeners and connections from now on; see Swarm.notify."""
        self._home.check_thread()
        options.satisfies("notifiee", notifiee, Notifiee)
        self.swarm.notify(notifiee)

    def stop_notify(self, notifiee: Notifiee) -> None:
        """Stops calling `notifiee`."""
        self._home.check_thread()
        self.swarm.stop_notify(notifiee)

    # -- protocols -----------------------------------------------------------------------------

    async def ping(
        self, target: Target, count: int = 1, timeout_s: float = limits.PING_TIMEOUT_S
    ) -> list[float]:
        """Pings `count` times. Returns: the round-trip times in seconds. Raises: the errors of `pings`."""
        async with aclosing(self.pings(target, count, timeout_s)) as rtts:
            return [rtt async for rtt in rtts]

    async def pings(
        self, target: Target, count: int, timeout_s: float = limits.PING_TIMEOUT_S
    ) -> AsyncGenerator[float, None]:
        """Pings `count` times, and yields each round-trip time in seconds as soon as it is known.

        For each peer only one caller pings at a time; others wait. If you stop the iteration early, use
        `contextlib.aclosing`.

        Raises: the errors of `new_stream` and protocols.ping.ping.
        """
        options.whole("count", count, most=sys.maxsize)
        options.seconds("timeout_s", timeout_s)
        conn = await self.connect(target)
        lock = self._ping_locks.setdefault(conn.remote_peer, asyncio.Lock())
        async with (
            lock,
            aclosing(ping.pings(lambda: conn.new_stream(ping.PROTOCOL, True), count, timeout_s)) as rtts,
        ):
            async for rtt in rtts:
                self.metrics.pinged(rtt)
                yield rtt

    async def identify(self, target: Target) -> IdentifyInfo:
        """What the peer says about itself. Asks the peer if that is not known yet.

        Raises: the errors of IdentifyService.identify in protocols.identify.
        """
        return await self._identify.identify(await self.connect(target))

    def info_of(self, conn: Conn) -> IdentifyInfo | None:
        """What the peer of `conn` has said about itself so far. None: nothing yet. Never asks the peer."""
        return identify.info_of(conn)

    async def echo(self, target: Target, data: bytes, allow_limited: bool = False) -> bytes:
        """Sends `data` to the peer's echo. Returns: what came back. Raises: see protocols.echo.echo."""
        return await echo.echo(await self.new_stream(target, echo.PROTOCOL, allow_limited), data)

    async def perf(self, target: Target, upload: int, download: int) -> PerfRun:
        """Measures `upload` bytes to the peer and `download` bytes back. Raises: see protocols.perf.perf."""
        return await perf.perf(await self.new_stream(target, perf.PROTOCOL), upload, download)

    # -- limits --------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """The limits in force. They have numbers in the place of AUTO."""
        return self.swarm.limits

    def set_limits(self, limits: Limits) -> None:
        """New limits from now on. Lower limits close nothing; they only refuse what is new.

        A limit that is AUTO follows from what the machine allows now.
        """
        self._home.check_thread()
        options.instance("limits", limits, Limits)
        self.swarm.set_limits(limits.resolved())

    def limits_report(self) -> list[LimitUse]:
        """How much of each limit is used and was used, and how often it has refused something.

        `p2pcore.resources.report.table` makes text of it. It looks at every peer: do not call it often.
        """
        self._home.check_thread()
        return self.swarm.limits_report()


def _peer(target: PeerId | str) -> PeerId:
    """The peer that `target` names. Raises AddressError: it is an address in another form; IdentityError."""
    try:
        return PeerId(target)
    except IdentityError:
        hint = meant(str(target))
        if hint is None:
            raise
        raise AddressError(
            f"{target!r} is neither a multiaddr nor a peer id; perhaps {hint} is meant"
        ) from None


def _identity(key: PrivateKey | None) -> PrivateKey:
    if key is None:
        return PrivateKey.generate()
    if isinstance(key, str | bytes | os.PathLike):
        raise TypeError(
            f"private_key must be a PrivateKey, not a {type(key).__name__}: PrivateKey.read(path) reads a "
            "file, PrivateKey.from_protobuf, from_base64 and from_pem read a key"
        )
    options.instance("private_key", key, PrivateKey, is_secret=True)
    return key


def _addresses(listen: Sequence[Address]) -> list[Multiaddr]:
    options.items("listen", listen, "addresses", Multiaddr, str)
    return [Multiaddr(addr) for addr in listen]


def _announcement(given: AnnounceOptions | Sequence[Address], local_peer: PeerId) -> Announcement:
    """Makes what is applied of `announce`. A list replaces what we listen on."""
    if not isinstance(given, AnnounceOptions):
        options.items("announce", given, "addresses, or an AnnounceOptions", Multiaddr, str)
        given = AnnounceOptions(replace=given)
    return Announcement(given, local_peer)


def _upgrader_options(
    listener: ListenerOptions | None, admission: Admission, news: News, ledger: Ledger
) -> UpgraderOptions:
    listener = options.given("listener", listener, ListenerOptions)
    later = admission.admits_later if admission.waits_at_accept else None
    hooks = ListenerHooks(admission.admits, later, news, is_early=not admission.has_gater)
    return UpgraderOptions(listener.accept_timeout, listener, hooks, admission, ledger, news.traces)


def _access_log(swarm: Swarm, news: News, choice: AccessLogOptions | bool) -> AccessLog | None:
    if choice is False:
        return None
    options.instance("access_log", choice, bool, access_logs.AccessLogOptions)
    log = news.access = access_logs.AccessLog(access_logs.AccessLogOptions() if choice is True else choice)
    swarm.log_streams(log.streams)
    return log


def _identify_service(
    swarm: Swarm, key: PrivateKey, choice: IdentifyOptions | bool, news: News
) -> identify.IdentifyService:
    """Makes the identify service. In Host.__init__ the name `identify` is an argument, not the module."""
    options.instance("identify", choice, bool, identify.IdentifyOptions)
    given = identify.IdentifyOptions() if isinstance(choice, bool) else choice
    if given.agent_version is None:
        given = replace(given, agent_version=f"p2pcore/{__version__}")
    return identify.IdentifyService(swarm, key, given, swarm.addr_book.identified, news.traces)


def _relay_service(swarm: Swarm, key: PrivateKey, choice: RelayOptions | None) -> RelayService | None:
    if choice is None:
        return None
    from p2pcore.relay.options import RelayOptions  # here, because few nodes are relays
    from p2pcore.relay.service import RelayService

    options.instance("relay_service", choice, RelayOptions)
    service = RelayService(swarm, key, choice)
    service.start()
    return service


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    spin_s: float = limits.SPIN_S,
    drain_s: float = limits.DRAIN_TIMEOUT_S,
) -> T:
    """Runs `main` to its end on a new uvloop event loop. It is like `asyncio.run`, with another loop.

    At the first SIGINT (Ctrl-C) or SIGTERM, `main` is cancelled, and each `async with Host(...)` that it
    leaves drains: streams that peers have opened may go on until their handlers return. A second signal ends
    the process at once. Signals that the program handles itself, and other threads, are left alone.

    Until it returns, Python's collector looks at all objects ten times less often, and never at those that
    are there now: with 8,000 streams a look stops the loop for 80 ms (docs/decisions/0046). `main` may call
    `gc.set_threshold` itself.

    Args:
        debug: the loop's debug mode; None: by PYTHONASYNCIODEBUG.
        spin_s: see `tune_loop`.
        drain_s: seconds that each host may drain after a signal.

    Raises:
        TypeError: `main` is not a coroutine. RuntimeError: an event loop runs in this thread already.
        SystemExit: a signal has ended `main`. The exit status is 128 plus the number of the signal, and no
            traceback is shown. It is a KeyboardInterrupt too.
        Exception: any error of `main`.
    """
    if not asyncio.iscoroutine(main):
        raise TypeError(f"main must be a coroutine, as main() of an async function is, not {main!r}")
    with closing(main):  # this may end before it begins; then Python would warn that nobody has awaited it
        if _running_loop() is not None:
            what = "p2pcore.run starts an event loop, but one runs here already: await the coroutine"
            raise RuntimeError(what)
        _check_spin(spin_s)
        options.seconds("drain_s", drain_s, or_zero=True)
        return _run(main, debug, spin_s, Stopping(drain_s))


def _run(main: Coroutine[Any, Any, T], debug: bool | None, spin_s: float, stopping: Stopping) -> T:
    import uvloop

    with (
        collector.seldom(),
        closing(stopping.watch(main)) as watched,
        stopping.armed(),
        asyncio.Runner(debug=debug, loop_factory=uvloop.new_event_loop) as runner,
    ):
        if spin_s != limits.SPIN_S:
            tune_loop(runner.get_loop(), spin_s=spin_s)
        try:
            return runner.run(watched)
        except asyncio.CancelledError:
            if stopping.received is None:
                raise
            raise Interrupted(128 + stopping.received) from None


def tune_loop(loop: asyncio.AbstractEventLoop | None = None, *, spin_s: float = limits.SPIN_S) -> None:
    """Sets options that all hosts on one event loop share, for a program that does not use `run`.

    Args:
        loop: the event loop; by default the running loop.
        spin_s: seconds, 0 (never) to limits.MAX_SPIN_S. After a short message the loop looks for the answer
            for so long before it sleeps, if the last answers came quickly. It costs CPU time.

    Raises:
        TypeError, ValueError: `spin_s` has a wrong type or value.
        RuntimeError: no loop is given, and none runs.
    """
    _check_spin(spin_s)
    loop = loop or asyncio.get_running_loop()
    loop_state(loop).spin_s = spin_s


def _check_spin(spin_s: float) -> None:
    options.seconds("spin_s", spin_s, or_zero=True, most=limits.MAX_SPIN_S, why="never")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
