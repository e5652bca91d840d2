"""The host: one node, composed. With `compose` the only module that names concrete parts.

Comes in: plain keyword arguments. Goes out: connections, streams, the answers of ping, identify, echo and
perf. It owns everything it makes, from `async with` to its end, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import weakref
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from p2pcore import __version__, compose, limits
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.errors import AddressError
from p2pcore.muxers.yamux import YamuxOptions
from p2pcore.protocols import echo, identify, perf, ping
from p2pcore.relay.transport import RelayTransport
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.conn import SwarmConn
from p2pcore.swarm.events import Event, Events, Subscription
from p2pcore.swarm.swarm import Swarm
from p2pcore.upgrade.listener import ListenerOptions
from p2pcore.upgrade.upgrader import StreamUpgrader, UpgraderOptions
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore.interfaces import Gater, Multiplexer, Notifiee, Resolver, SecureTransport, Stream
    from p2pcore.protocols.identify_message import IdentifyInfo
    from p2pcore.protocols.perf import PerfRun
    from p2pcore.relay.service import RelayOptions, RelayService
    from p2pcore.security.pnet import PSK
    from p2pcore.swarm.conns import Connectedness
    from p2pcore.swarm.listeners import ListenResult
    from p2pcore.swarm.streams import ProtocolHandler
    from p2pcore.transports.websocket.transport import WebsocketOptions

logger = logging.getLogger("p2pcore.host")

T = TypeVar("T")

Address = Multiaddr | str
"""A multiaddr, or its text; with /p2p/ID at its end where the peer is known."""
Target = SwarmConn | PeerId | Multiaddr | str
"""Whom to talk to: an open connection, a connected peer's id, or an address; the latter two also as text."""


class Host:
    """A libp2p node on TCP, WebSocket, UNIX sockets and memory; an async context manager.

    Args:
        private_key: our identity; a fresh Ed25519 key by default.
        listen: addresses to listen on; port 0 takes a free one, none at all makes a node that only dials.
        security, muxers: names (see compose.SECURITY and compose.MUXERS) or objects, in order of preference.
            A dialler with one security protocol saves the round trip that choosing takes.
        psk: the key of a private network: a PSK, the path of a key file, its bytes, or the key's own 32. Only
            peers that have it can be talked to. LIBP2P_FORCE_PNET=1 in the environment asks for one.
        ping, identify, perf, echo: which protocols are served. Without `identify` peers are not
            identified on their own either. `perf` is for measurements only.
        agent_version, protocol_version: what identify tells peers; free text.
        reuse_port: let other processes share the listening ports.
        backlog: connections the kernel may queue for a listener.
        linger: SO_LINGER in seconds; see TcpOptions.
        share_port: plain TCP and WebSocket may share every port, and those that ask for port 0 get one.
            Addresses of `listen` with the same IP address and port share it anyway.
        dial_from_listener: dial from the port that listens, so that a NAT shows peers one port for both.
        unix_mode: permissions of the files of /unix addresses, 0o600 for instance; None: as the umask says.
        dial_from: the local IP address to dial from; sockets: listening sockets to take over; see TcpOptions.
        websocket: certificates, HTTP and proxies of /ws and /tls/ws addresses; see WebsocketOptions.
        accept_timeout: seconds from accept(2) to a finished upgrade.
        accept_queue_length: finished connections a listener keeps before it takes no more.
        max_upgrading: upgrades under way on one listener.
        max_inbound_streams: open streams of the peer on one connection.
        max_window_bytes, window_budget_bytes: how far the receive windows grow: of a stream, of a connection.
        keepalive_s: idle seconds before a yamux ping; 0 leaves it to the kernel's keepalive.
        push_delay_s: changes within this many seconds make one identify push.
        relay_service: what others may have relayed by this node; None: nothing.
        gater: says who may connect, at five points; see interfaces.Gater, and p2pcore.BasicGater.
        max_conns, max_conns_per_peer: hard caps on connections, both ways; max_conns_per_ip: on inbound
            ones of one public IPv4 address or IPv6 /56. None: only the operating system has one.
        duplicates: "keep" several connections to one peer, or "dedup": close what is superfluous.
        resolver: looks host names up; by default as the machine does.
        max_dials: addresses dialled at once; more wait in line.
        spin_s: seconds, at most limits.MAX_SPIN_S, for which the event loop looks for the answer to a short
            message before it sleeps, where answers have come quickly lately; 0: never. One value for all
            hosts of a loop: that of the last to start.

    Attributes:
        private_key, swarm: the identity, and the swarm for all that is not wrapped here.
        relay: the client of relays, for reservations without a listener of their own.
        relay_service: the relay this node is, with its counters, or None.
        listen_results: what became of each listen address, since the start.
    """

    def __init__(
        self,
        private_key: PrivateKey | None = None,
        listen: Sequence[Address] = ("/ip4/127.0.0.1/tcp/0",),
        *,
        security: Sequence[str | SecureTransport] = ("noise",),
        muxers: Sequence[str | Multiplexer] = ("yamux",),
        psk: PSK | str | os.PathLike[str] | bytes | None = None,
        ping: bool = True,
        identify: bool = True,
        perf: bool = False,
        echo: bool = False,
        agent_version: str = f"p2pcore/{__version__}",
        protocol_version: str = "ipfs/0.1.0",
        reuse_port: bool = False,
        backlog: int = limits.LISTEN_BACKLOG,
        linger: int | None = None,
        share_port: bool = False,
        dial_from_listener: bool = False,
        unix_mode: int | None = None,
        dial_from: str | None = None,
        sockets: Sequence[socket.socket] = (),
        websocket: WebsocketOptions | None = None,
        accept_timeout: float = limits.ACCEPT_TIMEOUT_S,
        accept_queue_length: int = limits.ACCEPT_QUEUE_LENGTH,
        max_upgrading: int = limits.MAX_UPGRADING,
        max_inbound_streams: int = limits.YAMUX_MAX_INBOUND_STREAMS,
        max_window_bytes: int = limits.YAMUX_MAX_WINDOW_BYTES,
        window_budget_bytes: int = limits.YAMUX_WINDOW_BUDGET_BYTES,
        keepalive_s: float = 0.0,
        push_delay_s: float = limits.IDENTIFY_PUSH_DELAY_S,
        relay_service: RelayOptions | None = None,
        gater: Gater | None = None,
        max_conns: int | None = None,
        max_conns_per_peer: int | None = None,
        max_conns_per_ip: int | None = None,
        duplicates: str = "keep",
        resolver: Resolver | None = None,
        max_dials: int = limits.MAX_DIALS,
        spin_s: float = limits.SPIN_S,
    ) -> None:
        if not 0 <= spin_s <= limits.MAX_SPIN_S:
            raise ValueError(f"spin_s must be from 0 to {limits.MAX_SPIN_S:g} seconds, not {spin_s:g}")
        self._spin_s = spin_s
        self.private_key = private_key or PrivateKey.generate()
        self._listen = [Multiaddr(addr) for addr in listen]
        self.listen_results: list[ListenResult] = []
        yamux = YamuxOptions(
            max_inbound_streams=max_inbound_streams,
            max_window_bytes=max_window_bytes,
            window_budget_bytes=window_budget_bytes,
            keepalive_s=keepalive_s,
        )
        admission = Admission(gater, max_conns, max_conns_per_peer, max_conns_per_ip)
        events = Events()
        accept = ListenerOptions(
            accept_timeout=accept_timeout,
            queue_length=accept_queue_length,
            max_upgrading=max_upgrading,
            admits=None if admission.is_trivial else admission.admits,
            on_upgrade_failed=events.upgrade_failed,
            on_state_changed=events.listener_changed,
        )
        upgrader = StreamUpgrader(
            self.private_key,
            compose.security(security, self.private_key),
            compose.muxers(muxers, yamux),
            UpgraderOptions(
                timeout=accept_timeout,
                listener=accept,
                check_secured=None if gater is None else admission.check_secured,
            ),
            compose.protector(psk),
        )
        transports = compose.transports(
            upgrader,
            self._listen,
            sockets,
            websocket,
            unix_mode,
            linger=linger,
            reuse_port=reuse_port,
            backlog=backlog,
            dial_from=dial_from,
            dial_from_listener=dial_from_listener,
            share_port=share_port,
            is_psk=psk is not None,
        )
        self.swarm = Swarm(
            self.private_key.peer_id(),
            transports,
            admission=admission,
            events=events,
            resolver=resolver,
            duplicates=duplicates,
            max_dials=max_dials,
            max_handlers_per_conn=2 * max_inbound_streams,
        )
        self._identify = _identify_service(
            self.swarm, self.private_key, agent_version, protocol_version, push_delay_s
        )
        self.relay = RelayTransport(upgrader, self.swarm, self._addrs_changed)
        self.swarm.add_transport(self.relay)
        self.swarm.announce = self.relay.announced
        self.relay_service = _relay_service(self.swarm, self.private_key, relay_service)
        self._ping_locks: weakref.WeakValueDictionary[PeerId, asyncio.Lock] = weakref.WeakValueDictionary()
        self._serve(ping, identify, perf, echo)

    def _addrs_changed(self) -> None:
        """The relay has reserved a place, or lost one."""
        self._identify.changed()
        self.swarm.addrs_changed()

    def _serve(self, with_ping: bool, with_identify: bool, with_perf: bool, with_echo: bool) -> None:
        if with_identify:
            self._identify.start()
        if with_ping:
            self.swarm.set_stream_handler(ping.PROTOCOL, ping.PingServer().serve)
        if with_perf:
            self.swarm.set_stream_handler(perf.PROTOCOL, perf.serve)
        if with_echo:
            self.swarm.set_stream_handler(echo.PROTOCOL, echo.serve)

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listens. Raises ListenError where no address works; then everything is closed again."""
        loop_state(asyncio.get_running_loop()).spin_s = self._spin_s
        try:
            self.listen_results = await self.swarm.listen(*self._listen)
        except BaseException:
            await self.close()
            raise
        for result in self.listen_results:
            if result.error is not None:
                logger.warning("cannot listen on %s: %s", result.addr, result.error)

    async def close(self) -> None:
        """Ends listeners, streams and connections. Idempotent, bounded in time."""
        await self._identify.close()
        if self.relay_service is not None:
            self.relay_service.close()
        await self.relay.close()
        await self.swarm.close()

    async def drain(self, timeout_s: float = limits.DRAIN_TIMEOUT_S, *, accept_queued: bool = True) -> int:
        """Ends without cutting anybody off who ends in time; see Swarm.drain. Returns: streams cut off."""
        cut = await self.swarm.drain(timeout_s, accept_queued)
        await self.close()
        return cut

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- what it is ----------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """Our id."""
        return self.swarm.local_peer

    @property
    def addrs(self) -> list[Multiaddr]:
        """Where we listen: real ports, wildcards replaced by the addresses of the interfaces."""
        return self.swarm.interface_listen_addresses()

    @property
    def addrs_with_peer(self) -> list[Multiaddr]:
        """As `addrs`, each with /p2p/ID: what others dial."""
        return [addr.with_p2p(self.peer_id) for addr in self.addrs]

    @property
    def protocols(self) -> tuple[str, ...]:
        """What inbound streams may speak."""
        return self.swarm.protocols

    # -- connections and streams ---------------------------------------------------------------

    async def connect(self, target: Target, *more: Address, ignore_backoff: bool = False) -> SwarmConn:
        """A connection to `target`: the one there is, or a new one.

        Args:
            target: see Target. An address without /p2p/ID is always dialled anew. Host names are resolved.
            more: further addresses of the same peer, tried together with the first.
            ignore_backoff: dial even an address that failed a short while ago.

        Raises: DialError, SwarmClosed; AddressError, IdentityError: `target` is malformed.
        """
        if isinstance(target, SwarmConn):
            return target
        if isinstance(target, PeerId) or (isinstance(target, str) and not target.startswith("/")):
            return await self.swarm.dial_peer(PeerId(target), more, ignore_backoff=ignore_backoff)
        addr = Multiaddr(target)
        peer = addr.peer_id
        if peer is not None:
            return await self.swarm.dial_peer(peer, (addr, *more), ignore_backoff=ignore_backoff)
        if more:
            raise AddressError(f"{addr} names no peer, so no other address can be tried for it")
        return await self.swarm.dial_addr(addr)

    async def new_stream(
        self, target: Target, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> Stream:
        """A stream to `target` that speaks the first of `protocols` it has.

        One protocol is negotiated lazily: nothing is waited for, and a peer that lacks it shows as
        ProtocolNotSupported at the first read. `allow_limited`: a connection that a relay bounds will do;
        without it such a one waits for a direct one, see Swarm.new_stream.

        Raises: as `connect`; as Swarm.new_stream.
        """
        conn = await self.connect(target)
        if conn is target:
            return await conn.new_stream(protocols, allow_limited)
        return await self.swarm.new_stream(conn.remote_peer, protocols, allow_limited)

    async def close_peer(self, peer: PeerId | str, code: int = 0) -> None:
        """Closes every connection to `peer`, telling it `code` (see p2pcore.codes)."""
        await self.swarm.close_peer(PeerId(peer), code)

    async def close_conn(self, conn_id: str, code: int = 0) -> bool:
        """Closes one connection, by its `SwarmConn.id`. Returns: whether there was one."""
        return await self.swarm.close_conn(conn_id, code)

    def connectedness(self, peer: PeerId | str) -> Connectedness:
        """Whether there is an open connection to `peer`, and whether it is a limited one."""
        return self.swarm.connectedness(PeerId(peer))

    def events(self, *kinds: type[Event], queue: int = limits.EVENT_QUEUE_LENGTH) -> Subscription:
        """What happens from now on: `async for event in host.events(): ...`; ends with the host.

        Args:
            kinds: classes of p2pcore.swarm.events; all without any.
            queue: events kept for a slow reader. Then the oldest are dropped, and a Missed tells how many.

        Raises: ValueError, TypeError, LimitExceeded: see Events.subscribe.
        """
        return self.swarm.events.subscribe(kinds, queue)

    def counters(self) -> dict[str, int]:
        """How often things have happened since the start, by name, for logs and metrics.

        Connections opened, closed and refused, addresses dialled, streams refused; of all listeners, upgrades
        failed by reason, errors of accept(2), and HTTP requests answered. No number ever falls.
        """
        return self.swarm.counters()

    def set_stream_handler(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serves inbound streams of `protocol`; see Swarm.set_stream_handler. Peers are told."""
        self.swarm.set_stream_handler(protocol, handler)
        self._identify.changed()

    def remove_stream_handler(self, protocol: str) -> None:
        """Serves `protocol` no more. Peers are told."""
        self.swarm.remove_stream_handler(protocol)
        self._identify.changed()

    def notify(self, notifiee: Notifiee) -> None:
        """Tells `notifiee` of listeners and connections; see Swarm.notify."""
        self.swarm.notify(notifiee)

    def stop_notify(self, notifiee: Notifiee) -> None:
        """Tells `notifiee` nothing more."""
        self.swarm.stop_notify(notifiee)

    # -- protocols -----------------------------------------------------------------------------

    async def ping(
        self, target: Target, count: int = 1, timeout_s: float = limits.PING_TIMEOUT_S
    ) -> list[float]:
        """`count` pings one after another. Returns: the round trips in seconds. Raises as `pings`."""
        async with aclosing(self.pings(target, count, timeout_s)) as rtts:
            return [rtt async for rtt in rtts]

    async def pings(
        self, target: Target, count: int, timeout_s: float = limits.PING_TIMEOUT_S
    ) -> AsyncGenerator[float, None]:
        """`count` pings, each round trip as it is known. One caller at a time for each peer.

        Leave it early only through `contextlib.aclosing`. Raises as `new_stream` and protocols.ping.ping.
        """
        conn = await self.connect(target)
        lock = self._ping_locks.setdefault(conn.remote_peer, asyncio.Lock())
        async with (
            lock,
            aclosing(ping.pings(lambda: conn.new_stream(ping.PROTOCOL, True), count, timeout_s)) as rtts,
        ):
            async for rtt in rtts:
                yield rtt

    async def identify(self, target: Target) -> IdentifyInfo:
        """What the peer says of itself: what is known, or asked now. Raises as protocols.identify."""
        return await self._identify.identify(await self.connect(target))

    async def echo(self, target: Target, data: bytes, allow_limited: bool = False) -> bytes:
        """Sends `data` to the peer's echo, and returns what came back. Raises as protocols.echo.echo."""
        return await echo.echo(await self.new_stream(target, echo.PROTOCOL, allow_limited), data)

    async def perf(self, target: Target, upload: int, download: int) -> PerfRun:
        """Measures: `upload` bytes there, `download` bytes back. Raises as protocols.perf.PerfRun.run."""
        return await perf.perf(await self.new_stream(target, perf.PROTOCOL), upload, download)


def _identify_service(swarm: Swarm, key: PrivateKey, *settings: Any) -> identify.IdentifyService:
    """Outside Host.__init__, whose arguments are named like the modules."""
    return identify.IdentifyService(swarm, key, *settings)


def _relay_service(swarm: Swarm, key: PrivateKey, options: RelayOptions | None) -> RelayService | None:
    if options is None:
        return None
    from p2pcore.relay.service import RelayService  # for the few nodes that are relays

    service = RelayService(swarm, key, options)
    service.start()
    return service


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Runs `main` to its end on a fresh uvloop event loop, as `asyncio.run` does on asyncio's."""
    import uvloop

    with asyncio.Runner(debug=debug, loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
