"""The swarm: every listener, dial and connection of one node, and the streams on them.

Comes in: transports, addresses to listen on and to dial, stream handlers, notifiees. Goes out: connections,
negotiated streams, notifications. Sees Transport and Listener, never a concrete one.

It runs one task for each listener, each address being dialled and each running stream handler; none, and no
timer, for a connection. All of it belongs to the event loop it was first used on. Names are go-libp2p's.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2pcore import codes, limits
from p2pcore.addresses import Scope, scope_of
from p2pcore.errors import (
    AddressError,
    ConnectionClosed,
    DialError,
    LimitedConnection,
    ListenerClosed,
    ListenError,
    NoTransport,
    StreamReset,
    SwarmClosed,
)
from p2pcore.multiaddr import Multiaddr
from p2pcore.netif import expand_wildcards
from p2pcore.notify import Notifiees
from p2pcore.swarm_conn import Phase, SwarmConn
from p2pcore.swarm_dial import PeerDial
from p2pcore.swarm_streams import ProtocolHandler, StreamServer

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn, Listener, Notifiee, Stream, Transport
    from p2pcore.peer_id import PeerId

logger = logging.getLogger("p2pcore.swarm")


class Connectedness(enum.Enum):
    """Whether there is a connection to a peer."""

    NOT_CONNECTED = "not connected"
    CONNECTED = "connected"


@dataclass(frozen=True, slots=True)
class ListenResult:
    """What became of one address given to `Swarm.listen`.

    Attributes:
        addr: as it was given; bound: what it is bound to, with the real port, or None; error: why it is not.
    """

    addr: Multiaddr
    bound: Multiaddr | None
    error: Exception | None


class Swarm:
    """Listens, dials, and holds the connections of one peer.

    Args:
        local_peer: our id.
        transports: in order of preference for dialling.

    Attributes:
        announce: maps the addresses we listen on to those `interface_listen_addresses` gives, and peers are
            told; the same ones by default.
    """

    def __init__(self, local_peer: PeerId, transports: Iterable[Transport] = ()) -> None:
        self._local_peer = local_peer
        self._transports: list[Transport] = []
        self._listeners: dict[Listener, asyncio.Task[None]] = {}
        self._conns: dict[PeerId, SwarmConn | dict[SwarmConn, None]] = {}
        self._num_conns = 0
        self._num_added = 0
        self._dials: dict[PeerId, PeerDial] = {}
        self._streams = StreamServer()
        self._serve = self._streams.serve
        self._notifiees = Notifiees(self)
        self._expanded: tuple[float, list[Multiaddr]] | None = None
        self.announce: Callable[[list[Multiaddr]], list[Multiaddr]] = _as_they_are
        self._closing: asyncio.Task[None] | None = None
        self._unused: set[asyncio.Task[None]] = set()
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

    # -- transports ----------------------------------------------------------------------------

    def add_transport(self, transport: Transport) -> None:
        """Registers `transport` for each of its protocols; for dialling it comes after those before it.

        Raises: ValueError: it handles no protocol, or one that is taken; SwarmClosed.
        """
        self._check_open()
        if not transport.protocols:
            raise ValueError(f"{type(transport).__name__} handles no protocol")
        taken = {name for other in self._transports for name in other.protocols}
        if both := taken.intersection(transport.protocols):
            raise ValueError(f"there is a transport for {', '.join(sorted(both))} already")
        self._transports.append(transport)

    def transport_for_listening(self, addr: Multiaddr) -> Transport | None:
        """The transport of the last component of `addr`; where any belongs to a proxy, the last proxy."""
        names = [protocol.name for protocol in addr.protocols()]
        if not names:
            return None
        found = self._by_protocol(names[-1])
        for name in names:
            transport = self._by_protocol(name)
            if transport is not None and transport.is_proxy:
                found = transport
        return found

    def transport_for_dialing(self, addr: Multiaddr) -> Transport | None:
        """The first that can dial `addr`, a trailing /p2p/ID aside; a proxy where any component is its."""
        names = [protocol.name for protocol in addr.protocols()]
        for name in names:
            transport = self._by_protocol(name)
            if transport is not None and transport.is_proxy:
                return transport
        target = addr.without_p2p()
        return next((each for each in self._transports if each.can_dial(target)), None)

    def _by_protocol(self, name: str) -> Transport | None:
        return next((each for each in self._transports if name in each.protocols), None)

    # -- listening -----------------------------------------------------------------------------

    async def listen(self, *addrs: Multiaddr | str) -> list[ListenResult]:
        """Listens on each address; some may fail as long as one works.

        Returns: one result for each address, in order; empty for no addresses.
        Raises: ListenError: none worked; its `causes` are (address, error) of each. SwarmClosed.
        """
        self._check_open()
        results = [await self._listen_result(Multiaddr(addr)) for addr in addrs]
        causes = [(result.addr, result.error) for result in results if result.error is not None]
        if results and len(causes) == len(results):
            texts = "; ".join(f"{addr}: {error}" for addr, error in causes)
            failure = ListenError(f"cannot listen on any address: {texts}")
            failure.causes = tuple(causes)
            raise failure
        return results

    async def _listen_result(self, addr: Multiaddr) -> ListenResult:
        try:
            return ListenResult(addr, await self.add_listen_addr(addr), None)
        except Exception as error:
            return ListenResult(addr, None, error)

    async def add_listen_addr(self, addr: Multiaddr | str) -> Multiaddr:
        """Listens on `addr`. Notifiees are told before the first connection is accepted.

        Returns: what it is bound to, with the real port.
        Raises: SwarmClosed, NoTransport; whatever the transport's listen raises, unchanged.
        """
        addr = Multiaddr(addr)
        self._check_open()
        transport = self.transport_for_listening(addr)
        if transport is None:
            raise NoTransport(f"no transport for {addr}")
        listener = await transport.listen(addr)
        if self.is_closed:
            await listener.close()
            raise SwarmClosed("the swarm was closed")
        bound = listener.multiaddr
        self._expanded = None
        task = asyncio.get_running_loop().create_task(self._accept_loop(listener, bound))
        self._listeners[listener] = task
        self._notifiees.listen(bound)
        return bound

    async def _accept_loop(self, listener: Listener, bound: Multiaddr) -> None:
        try:
            while True:
                conn = await listener.accept()
                try:
                    self.add_conn(conn)
                except SwarmClosed:
                    return
        except ListenerClosed:
            pass
        except Exception:
            logger.exception("listener of %s failed", bound)
        finally:
            await self._listener_ended(listener, bound)

    async def _listener_ended(self, listener: Listener, bound: Multiaddr) -> None:
        """The end of every accept loop; a listener still registered was closed by nobody here."""
        if self._listeners.pop(listener, None) is not None:
            logger.warning("listener of %s ended by itself", bound)
        self._expanded = None
        self._notifiees.listen_close(bound)
        await listener.close()

    async def listen_close(self, *addrs: Multiaddr | str) -> None:
        """Closes the listeners bound to any of `addrs`; others are ignored. Their connections live on."""
        wanted = {Multiaddr(addr) for addr in addrs}
        chosen = {each: task for each, task in self._listeners.items() if each.multiaddr in wanted}
        await self._close_listeners(chosen)

    async def _close_listeners(self, chosen: dict[Listener, asyncio.Task[None]]) -> None:
        for listener in chosen:
            self._listeners.pop(listener, None)
        await asyncio.gather(*(listener.close() for listener in chosen), return_exceptions=True)
        if chosen:
            await asyncio.wait(chosen.values())

    def listen_addresses(self) -> list[Multiaddr]:
        """What the listeners are bound to, wildcards as they are."""
        return [listener.multiaddr for listener in self._listeners]

    def interface_listen_addresses(self) -> list[Multiaddr]:
        """As `listen_addresses`, with a wildcard replaced by each interface's address of its family."""
        now = asyncio.get_running_loop().time()
        if self._expanded is None or now - self._expanded[0] > limits.INTERFACE_ADDRS_TTL_S:
            self._expanded = (now, list(expand_wildcards(self.listen_addresses())))
        return self.announce(list(self._expanded[1]))

    # -- dialling ------------------------------------------------------------------------------

    async def dial_peer(self, peer: PeerId, addrs: Iterable[Multiaddr | str] = ()) -> SwarmConn:
        """The best connection to `peer`; dialled at `addrs`, and by all callers together, if there is none.

        Cancelling one caller leaves the dial to the others; the last one ends it.

        Raises:
            DialError: it is ourselves, there are no addresses, or all failed: `causes` has each.
            SwarmClosed: the swarm is, or was meanwhile, closed.
        """
        self._check_open()
        if peer == self._local_peer:
            raise DialError(peer, (), "it is this node itself")
        if (conn := self.best_conn(peer)) is not None:
            return conn
        good, causes = self._good_addrs(peer, [Multiaddr(addr) for addr in addrs])
        dial = self._dials.get(peer)
        joinable = dial is not None and not dial.is_over
        if not good and not joinable:
            raise DialError(peer, tuple(causes.items()), "no usable address" if causes else "no addresses")
        if dial is None or not joinable:
            dial = self._dials[peer] = PeerDial(peer, self._dial_one)
        dial.add(good, causes)
        return await self._wait_for(peer, dial)

    async def _wait_for(self, peer: PeerId, dial: PeerDial) -> SwarmConn:
        try:
            return await dial.wait()
        except DialError:
            if (conn := self.best_conn(peer)) is not None:
                return conn
            raise
        finally:
            if dial.is_over and self._dials.get(peer) is dial:
                del self._dials[peer]

    async def dial_addr(self, addr: Multiaddr | str) -> SwarmConn:
        """A new connection to `addr`, whatever others there are; its /p2p/ID, if any, must be proved.

        Raises: DialError, whose only cause is what went wrong; SwarmClosed.
        """
        self._check_open()
        target, peer = _split(Multiaddr(addr))
        if peer == self._local_peer:
            raise DialError(peer, (), "it is this node itself")
        try:
            return await self._dial_one(target, peer)
        except SwarmClosed:
            raise
        except Exception as error:
            raise DialError(peer, [(target, error)]) from error

    async def _dial_one(self, addr: Multiaddr, peer: PeerId | None) -> SwarmConn:
        transport = self._transport_to(addr)
        local = scope_of(addr) is not Scope.PUBLIC
        limit = limits.DIAL_TIMEOUT_LOCAL_S if local else limits.DIAL_TIMEOUT_S
        try:
            async with asyncio.timeout(limit):
                conn = await transport.dial(addr, peer)
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"no connection after {limit:g} s") from None
        return self.add_conn(conn)

    def _good_addrs(
        self, peer: PeerId, addrs: Sequence[Multiaddr]
    ) -> tuple[list[Multiaddr], dict[Multiaddr, BaseException]]:
        """What of `addrs` is worth dialling, less /p2p/ID, and why the rest is not."""
        good: dict[Multiaddr, None] = {}
        causes: dict[Multiaddr, BaseException] = {}
        for addr in addrs[: limits.MAX_DIAL_ADDRS]:
            target, named = _split(addr)
            try:
                if named is not None and named != peer:
                    raise AddressError(f"it names another peer than {peer}")
                self._transport_to(target)
                good[target] = None
            except (AddressError, ListenError) as error:
                causes[addr] = error
        return list(good), causes

    def _transport_to(self, addr: Multiaddr) -> Transport:
        """What dials `addr`. Raises NoTransport, or AddressError where it makes no sense to."""
        transport = self.transport_for_dialing(addr)
        if transport is None:
            raise NoTransport(f"no transport for {addr}")
        if addr.is_unspecified:
            raise AddressError("an unspecified address cannot be dialled")
        if not addr.is_relayed and self._listeners and addr in self.interface_listen_addresses():
            raise AddressError("this node itself listens there")
        return transport

    # -- connections ---------------------------------------------------------------------------

    def add_conn(self, conn: CapableConn) -> SwarmConn:
        """Takes over an upgraded connection: registers it, tells the notifiees, then lets its streams in.

        A second connection to a peer is kept; `best_conn` chooses between them.

        Raises: SwarmClosed: `conn` has been aborted.
        """
        if self.is_closed:
            conn.abort(codes.CONN_SHUTDOWN)
            raise SwarmClosed("the swarm was closed")
        self._num_added += 1
        wrapped = SwarmConn(self, conn, self._num_added)
        peer = conn.remote_peer
        self._attach(peer, wrapped)
        conn.owner = wrapped
        conn.add_close_callback(wrapped)
        self._notifiees.connected(wrapped)
        self._open(wrapped, conn)
        return wrapped

    def _open(self, wrapped: SwarmConn, conn: CapableConn) -> None:
        """The end of `add_conn`: streams may come, or the end that came meanwhile is told."""
        early = wrapped.phase is Phase.ENDED_EARLY
        wrapped.phase = Phase.OPEN
        if early:
            self.conn_ended(wrapped)
        else:
            conn.set_stream_handler(self._serve)

    def _attach(self, peer: PeerId, conn: SwarmConn) -> None:
        """Puts `conn` behind the others of `peer`; one connection, as most peers have, needs no dict."""
        others = self._conns.get(peer)
        if others is None:
            self._conns[peer] = conn
        elif isinstance(others, SwarmConn):
            self._conns[peer] = {others: None, conn: None}
        else:
            others[conn] = None
        self._num_conns += 1

    def detach(self, conn: SwarmConn) -> None:
        """Takes `conn` out of the lists: it is not given out any more. For SwarmConn."""
        peer = conn.remote_peer
        mine = self._conns.get(peer)
        if mine is conn:
            del self._conns[peer]
        elif isinstance(mine, dict) and conn in mine:
            del mine[conn]
            if not mine:
                del self._conns[peer]
        else:
            return
        self._num_conns -= 1
        if not self._num_conns:  # tables that were large stay so until they are cleared, although empty
            self._conns.clear()
            self._streams.shrink()

    def conn_ended(self, conn: SwarmConn) -> None:
        """Takes `conn` out and tells the notifiees, once, and after they heard it connect. For SwarmConn."""
        self.detach(conn)
        if conn.phase is Phase.NOTIFYING:
            conn.phase = Phase.ENDED_EARLY
        elif conn.phase is Phase.OPEN:
            conn.phase = Phase.ENDED
            self._notifiees.disconnected(conn)
            conn.owner = None

    @property
    def num_conns(self) -> int:
        """Connections open now."""
        return self._num_conns

    def conns(self) -> list[SwarmConn]:
        """All connections."""
        return [conn for peer in self._conns for conn in self.conns_to_peer(peer)]

    def peers(self) -> list[PeerId]:
        """The peers there is a connection to."""
        return list(self._conns)

    def conns_to_peer(self, peer: PeerId) -> list[SwarmConn]:
        """The connections to `peer`, oldest first."""
        mine = self._conns.get(peer, ())
        return [mine] if isinstance(mine, SwarmConn) else list(mine)

    def best_conn(self, peer: PeerId) -> SwarmConn | None:
        """The open connection to `peer` with most streams; of equals the newest; or None."""
        ranked = self._ranked(peer)
        return ranked[0] if ranked else None

    def _ranked(self, peer: PeerId) -> list[SwarmConn]:
        alive = [conn for conn in self.conns_to_peer(peer) if not conn.is_closed]
        if len(alive) > 1:
            alive.sort(key=lambda conn: (conn.num_streams, conn.ordinal), reverse=True)
        return alive

    def connectedness(self, peer: PeerId) -> Connectedness:
        """Whether there is an open connection to `peer`."""
        return Connectedness.CONNECTED if self.best_conn(peer) else Connectedness.NOT_CONNECTED

    async def close_peer(self, peer: PeerId) -> None:
        """Closes every connection to `peer`."""
        await asyncio.gather(*(conn.close() for conn in self.conns_to_peer(peer)))

    # -- streams -------------------------------------------------------------------------------

    async def new_stream(
        self, peer: PeerId, protocols: str | Sequence[str], allow_limited: bool = False
    ) -> Stream:
        """A stream to `peer` on its best connection, or the next best where that one fails (W33).

        Connections that nobody limits come first.

        Raises: ConnectionClosed: no connection is left; LimitedConnection: only limited ones are; otherwise
            as SwarmConn.new_stream.
        """
        failure: Exception = ConnectionClosed(f"no open connection to {peer}")
        for conn in sorted(self._ranked(peer), key=_is_limited):
            try:
                return await conn.new_stream(protocols, allow_limited)
            except (ConnectionClosed, LimitedConnection, StreamReset, TimeoutError) as error:
                failure = error
        raise failure

    @property
    def protocols(self) -> tuple[str, ...]:
        """What inbound streams may speak."""
        return self._streams.protocols

    @property
    def num_handlers_running(self) -> int:
        """Inbound streams being negotiated or served."""
        return self._streams.num_running

    def set_stream_handler(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serves inbound streams of `protocol` with `await handler(stream)`, each in a task of its own.

        The stream is closed when `handler` returns, reset when it raises; `stream.conn` is its connection.
        A handler that returns the stream has given it to somebody who will end it.
        Raises: ValueError: `protocol` is no good protocol id.
        """
        self._streams.set(protocol, handler)

    def remove_stream_handler(self, protocol: str) -> None:
        """Serves `protocol` no more."""
        self._streams.remove(protocol)

    # -- notifications and the end -------------------------------------------------------------

    def notify(self, notifiee: Notifiee) -> None:
        """Tells `notifiee` of listeners and connections from now on.

        Calls are synchronous, in order of registration. For each connection `connected` has returned from all
        notifiees before the first `disconnected`, there is one of each, and no stream of it is served before.
        """
        self._notifiees.add(notifiee)

    def stop_notify(self, notifiee: Notifiee) -> None:
        """Tells `notifiee` nothing more."""
        self._notifiees.remove(notifiee)

    async def drain(self, timeout_s: float = limits.DRAIN_TIMEOUT_S, accept_queued: bool = True) -> int:
        """Ends in good order: listens no more, closes each connection once it has no stream, then `close`.

        The go-away comes after the last stream, not before: rust-libp2p and js-libp2p end all streams of a
        connection when they hear it.

        Args:
            timeout_s: seconds; streams and handlers left then are cut off.
            accept_queued: as interfaces.Listener.drain.

        Returns: how many streams were cut off.
        """
        end = asyncio.get_running_loop().time() + timeout_s
        listeners, self._listeners = self._listeners, {}
        draining = asyncio.gather(
            *(listener.drain(accept_queued) for listener in listeners), return_exceptions=True
        )
        try:
            async with asyncio.timeout_at(end):
                while not draining.done() or self._num_conns or self._streams.num_running:
                    self._close_unused()
                    await asyncio.sleep(limits.DRAIN_LOOK_S)
        except TimeoutError:
            logger.info("%d streams did not end in %g s", self._num_streams(), timeout_s)
        cut = self._num_streams()
        draining.cancel()
        await _bounded("listeners", self._close_listeners(listeners))
        await self.close()
        return cut

    def _close_unused(self) -> None:
        """Closes connections without streams, but for new ones whose first stream may be under way."""
        newest = time.time() - limits.DRAIN_GRACE_S
        for conn in self.conns():
            if conn.num_streams == 0 and conn.opened_at < newest:
                task = asyncio.get_running_loop().create_task(conn.close())
                self._unused.add(task)
                task.add_done_callback(self._unused.discard)

    def _num_streams(self) -> int:
        return sum(conn.num_streams for conn in self.conns())

    async def close(self) -> None:
        """Ends dials, listeners, handlers and connections. Idempotent; each step is bounded in time."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._shut_down())
        await asyncio.shield(self._closing)

    async def _shut_down(self) -> None:
        for dial in list(self._dials.values()):
            dial.stop()
        listeners = dict(self._listeners)
        await _bounded("listeners", self._close_listeners(listeners))
        for task in listeners.values():
            task.cancel()
        await self._streams.close()
        conns = self.conns()
        closing = asyncio.gather(*(conn.close(codes.CONN_SHUTDOWN) for conn in conns), return_exceptions=True)
        await _bounded("connections", _wait(closing))
        for conn in conns:
            conn.abort(codes.CONN_SHUTDOWN)
        if self._unused:
            await _bounded("unused connections", _wait(asyncio.gather(*self._unused, return_exceptions=True)))

    def _check_open(self) -> None:
        if self.is_closed:
            raise SwarmClosed("the swarm was closed")


def _is_limited(conn: SwarmConn) -> bool:
    return conn.is_limited


def _as_they_are(addrs: list[Multiaddr]) -> list[Multiaddr]:
    return addrs


def _split(addr: Multiaddr) -> tuple[Multiaddr, PeerId | None]:
    """`addr` without the peer id at its end, and that id."""
    return addr.without_p2p(), addr.peer_id


async def _wait(future: asyncio.Future[Any]) -> None:
    await future


async def _bounded(what: str, work: Coroutine[Any, Any, None]) -> None:
    """Awaits `work`, at most SWARM_CLOSE_TIMEOUT_S."""
    try:
        async with asyncio.timeout(limits.SWARM_CLOSE_TIMEOUT_S):
            await work
    except TimeoutError:
        logger.warning("%s did not close in %g s", what, limits.SWARM_CLOSE_TIMEOUT_S)
