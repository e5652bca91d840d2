"""identify and identify push: tells each peer about us, and learns the same about it.

Comes in: connections (as a notifiee of the swarm), streams of both protocols. Goes out: an IdentifyInfo for
each connection, as long as it lives. Each exchange has one task, for at most 5 seconds; an identified
connection has no task and no timer. Nothing waits for identify. One timer gathers changes before a push.
Source: libp2p/specs identify.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from p2pcore import limits, options
from p2pcore.aio.log_fields import of_conn
from p2pcore.errors import ConnectionClosed, LimitExceeded, P2PError, RemoteProtocolError
from p2pcore.pb import envelope_pb2, peer_record_pb2  # noqa: F401  (a first peer shall not wait for them)
from p2pcore.protocols.identify_message import IdentifyInfo, MessageReader, Prepared, build, encode, update
from p2pcore.protocols.identify_unread import Unread
from p2pcore.values.record import PeerRecord
from p2pcore.values.scope import Scope, is_local, scope_of, told_to

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, Network, Stream
    from p2pcore.metrics.traces import Traces
    from p2pcore.pb.identify_pb2 import Identify
    from p2pcore.values.keys import PrivateKey
    from p2pcore.values.multiaddr import Multiaddr

logger = logging.getLogger("p2pcore.identify")

PROTOCOL = "/ipfs/id/1.0.0"
PUSH_PROTOCOL = "/ipfs/id/push/1.0.0"
DRAINING = "/p2pcore/draining/1.0.0"
"""In the list of protocols of a node that drains: new streams should go elsewhere. Nothing serves it."""
DRAINING_PROTOCOLS = (PROTOCOL, PUSH_PROTOCOL, DRAINING)
"""What a node that drains says it serves, so that peers of any implementation take it for nothing else."""
RATE_WINDOW_S = 60.0
"""The period that MAX_IDENTIFY_PER_MINUTE is counted in."""
BYTES_PER_WORK = 8
"""Bytes of a message that cost as much to read as one unit of limits.TURN_WORK: 80 KiB take 1.6 ms."""
MAX_PUSHES_AT_ONCE = 4
"""Inbound pushes of one connection at one time; a refused push may be the last one, and would be missed."""


class RateLimit:
    """Counts the requests of each connection: `at_once` at one time, MAX_IDENTIFY_PER_MINUTE in a minute.

    All counts are reset together.
    """

    __slots__ = ("_active", "_at_once", "_began", "_counts", "_now")

    def __init__(self, at_once: int, now: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._now = now
        self._began = now()
        self._active: dict[object, int] = {}
        self._counts: dict[object, int] = {}

    def enter(self, key: object) -> None:
        """Admits one more request of `key`, until `release`. Raises LimitExceeded."""
        if self._now() - self._began >= RATE_WINDOW_S:
            self._began = self._now()
            self._counts.clear()
        count = self._counts.get(key, 0) + 1
        if count > limits.MAX_IDENTIFY_PER_MINUTE:
            raise LimitExceeded("MAX_IDENTIFY_PER_MINUTE", count, limits.MAX_IDENTIFY_PER_MINUTE)
        active = self._active.get(key, 0) + 1
        if active > self._at_once:
            raise LimitExceeded("identify streams at once", active, self._at_once)
        self._counts[key] = count
        self._active[key] = active

    def forget(self, key: object) -> None:
        """Call it when `key` has ended: removes its counts."""
        self._counts.pop(key, None)
        if not self._counts:
            self._counts.clear()  # an emptied table keeps its memory

    def release(self, key: object) -> None:
        """Call it when an admitted request has ended."""
        self._active[key] -= 1
        if not self._active[key]:
            del self._active[key]


@dataclass(frozen=True, slots=True)
class IdentifyOptions:
    """What identify tells peers about us, and when.

    Attributes:
        agent_version: free text, at most limits.MAX_AGENT_CHARS characters; None: "p2pcore/VERSION".
        protocol_version: free text of the same length; the peers of one network usually share it.
        push_delay_s: changes within this many seconds are sent as one push.

    Raises:
        TypeError, ValueError: a field has a wrong type or value.
    """

    agent_version: str | None = None
    protocol_version: str = "ipfs/0.1.0"
    push_delay_s: float = limits.IDENTIFY_PUSH_DELAY_S

    def __post_init__(self) -> None:
        if self.agent_version is not None:
            options.text("agent_version", self.agent_version, limits.MAX_AGENT_CHARS)
        options.text("protocol_version", self.protocol_version, limits.MAX_AGENT_CHARS)
        options.seconds("push_delay_s", self.push_delay_s, or_zero=True)


class IdentifyService:
    """Both roles of identify and push for one swarm, and a notifiee of it.

    Args:
        network: the swarm whose connections are identified.
        key: signs our peer record; peers are told its public half.
        options: see IdentifyOptions.
        learned: called with each connection whose peer has told about itself.
        traces: makes a span of each exchange that we begin; None: nobody does.
    """

    def __init__(
        self,
        network: Network,
        key: PrivateKey,
        options: IdentifyOptions = IdentifyOptions(),
        learned: Callable[[Conn], None] | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._network = network
        self._key = key
        self._learned = learned
        self._traces = traces
        self._versions = (options.agent_version or "", options.protocol_version)
        self._push_delay_s = options.push_delay_s
        self._push_timer: asyncio.TimerHandle | None = None
        self._push_round: asyncio.Task[None] | None = None
        self._running: dict[Conn, asyncio.Task[None]] = {}
        self._asked = RateLimit(1)
        self._pushed = RateLimit(MAX_PUSHES_AT_ONCE)
        self._addrs: list[Multiaddr] = []
        self._addrs_until = 0.0
        self._told: tuple[list[Multiaddr], tuple[str, ...]] = ([], ())
        self._messages: dict[Scope, Prepared] = {}
        self._record_seq = 0
        self._is_draining = False

    def start(self) -> None:
        """Serves both protocols and identifies every connection from now on."""
        self._network.set_stream_handler(PROTOCOL, self.serve)
        self._network.set_stream_handler(PUSH_PROTOCOL, self.serve_push)
        self._network.notify(self)

    async def close(self) -> None:
        """Stops; cancels every exchange and waits until it has ended."""
        self._network.stop_notify(self)
        if self._push_timer is not None:
            self._push_timer.cancel()
            self._push_timer = None
        tasks: list[asyncio.Task[Any]] = list(self._running.values())
        if self._push_round is not None:
            tasks.append(self._push_round)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- learning of others --------------------------------------------------------------------

    async def identify(self, conn: Conn) -> IdentifyInfo:
        """What we know about the peer of `conn`; asks it first if we know nothing.

        Raises: ProtocolNotSupported, RemoteProtocolError, LimitExceeded, DeadlineExceeded, StreamReset,
            ConnectionClosed: there was no valid answer.
        """
        if (known := info_of(conn)) is not None:
            return known
        await asyncio.shield(self._exchange(conn))
        info = info_of(conn)
        assert info is not None, "the exchange has learned it"
        return info

    def _exchange(self, conn: Conn) -> asyncio.Task[None]:
        """The running exchange on `conn`; begins one if there is none."""
        task = self._running.get(conn)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(conn))
            self._running[conn] = task
            task.add_done_callback(partial(_log_failure, conn))
            if self._traces is not None:
                task.add_done_callback(self._traces.identify(conn, PROTOCOL))
        return task

    async def _ask(self, conn: Conn) -> None:
        try:
            stream = await conn.new_stream(PROTOCOL, allow_limited=True)
            message = await _read_message(stream)
            await stream.close()
            self._learn(conn, message)
        finally:
            del self._running[conn]

    def _learn(self, conn: Conn, message: Identify) -> None:
        """Keeps the first message of a peer unread; others change what is known."""
        if message.HasField("publicKey") and not conn.remote_peer.matches(message.publicKey):
            raise RemoteProtocolError("identify has the key of another peer")
        told: Unread | IdentifyInfo | None = None
        if conn._info is None:
            told = Unread.of(conn.remote_peer, message)
        if told is None:
            info = update(info_of(conn) or IdentifyInfo(conn.remote_peer), message)
            assert info is not None, "its key was compared"
            told = _with_own_addr(info, conn)
        conn._info = told
        if DRAINING in told.protocols:
            self._network.peer_drains(conn)
        if self._learned is not None:
            self._learned(conn)

    # -- telling others ------------------------------------------------------------------------

    async def serve(self, stream: Stream) -> None:
        """The stream handler of identify: writes our message; its caller closes the stream.

        Raises: LimitExceeded: this connection asks too often.
        """
        conn = _living(stream)
        self._asked.enter(conn)
        try:
            stream.set_deadline(limits.IDENTIFY_TIMEOUT_S)
            await stream.write(self._message_for(conn))
        finally:
            self._asked.release(conn)

    async def serve_push(self, stream: Stream) -> None:
        """The stream handler of identify push: takes the changes. Raises as `identify`."""
        conn = _living(stream)
        self._pushed.enter(conn)
        try:
            self._learn(conn, await _read_message(stream))
        finally:
            self._pushed.release(conn)

    def _message_for(self, conn: Conn) -> bytes:
        protocols = DRAINING_PROTOCOLS if self._is_draining else self._network.protocols
        told = (self._own_addrs(), protocols)
        if told != self._told:
            self._told = told
            self._messages.clear()
        scope = scope_of(conn.remote_multiaddr)
        message = self._messages.get(scope)
        if message is None:
            message = self._messages[scope] = self._build(scope)
        remote = conn.remote_multiaddr
        # Over a UNIX socket or in memory the address is useless, and js-libp2p fails if it gets one.
        return encode(message, None if remote is None or is_local(remote) else remote.without_zone())

    def _own_addrs(self) -> list[Multiaddr]:
        """The addresses to tell. A flood of connections does not ask for them each time."""
        now = asyncio.get_running_loop().time()
        if now >= self._addrs_until:
            self._addrs = self._network.interface_listen_addresses()
            self._addrs_until = now + limits.IDENTIFY_ADDRS_TTL_S
        return self._addrs

    def _build(self, scope: Scope) -> Prepared:
        """The message for peers at distance `scope`."""
        addrs = told_to(scope, self._told[0])
        envelope = None
        if addrs:
            record = PeerRecord.make(self._network.local_peer, addrs, self._record_seq, time.time_ns())
            self._record_seq = record.seq
            envelope = record.seal(self._key).raw
        return Prepared.of(build(self._key, self._told[1], addrs, *self._versions, envelope))

    # -- pushing changes -----------------------------------------------------------------------

    def changed(self) -> None:
        """Protocols or addresses have changed: a little later, connected peers that take pushes are told."""
        self._addrs_until = 0.0
        if self._push_timer is None and self._network.num_conns and not self._is_draining:
            loop = asyncio.get_running_loop()
            self._push_timer = loop.call_later(self._push_delay_s, self._begin_push)

    def _begin_push(self) -> None:
        self._push_timer = None
        if self._push_round is not None:
            self.changed()
        elif not self._network.is_closed:
            self._push_round = asyncio.get_running_loop().create_task(self._push_all())

    async def _push_all(self) -> None:
        conns = iter(
            [conn for conn in map(self._network.best_conn, self._network.peers()) if _takes_push(conn)]
        )
        try:
            await asyncio.gather(*(self._push_each(conns) for _ in range(limits.MAX_IDENTIFY_PUSHES)))
        finally:
            self._push_round = None

    async def _push_each(self, conns: Iterator[Conn | None], is_read: bool = False) -> None:
        for conn in conns:
            if conn is None:
                continue
            if is_read and (asked := self._running.get(conn)) is not None:
                await asyncio.wait([asked])
            if _takes_push(conn):
                await _quietly(conn, self.push(conn, is_read))

    async def tell_draining(self) -> None:
        """From now on tells every peer that new streams should go elsewhere: first those that are connected.

        Returns when all of them that take pushes have read it. The streams that a peer opened before it knew
        have arrived by then. A peer that we are just identifying is told when we know it. Each peer has
        IDENTIFY_TIMEOUT_S, and as long again for that.
        """
        self._is_draining = True
        found = map(self._network.conns_to_peer, self._network.peers())
        conns = [conn for each in found for conn in each if conn in self._running or _takes_push(conn)]
        num = min(len(conns), limits.DRAIN_TELLS)
        left = iter(conns)
        await asyncio.gather(*(self._push_each(left, is_read=True) for _ in range(num)))

    async def push(self, conn: Conn, is_read: bool = False) -> None:
        """Sends the peer of `conn` our present state. Raises as Conn.new_stream and the calls of Stream.

        Args:
            is_read: return only when the peer has read it and has ended its side of the stream.
        """
        stream = await conn.new_stream(PUSH_PROTOCOL, allow_limited=True)
        try:
            stream.set_deadline(limits.IDENTIFY_TIMEOUT_S)
            await stream.write(self._message_for(conn))
            if is_read:
                await stream.close_write()
                while await stream.read():
                    pass
            await stream.close()
        except BaseException:
            stream.reset()
            raise

    # -- notifiee ------------------------------------------------------------------------------

    def connected(self, network: Network, conn: Conn) -> None:
        """Identifies `conn`, in a task that ends within IDENTIFY_TIMEOUT_S."""
        self._exchange(conn)

    def disconnected(self, network: Network, conn: Conn) -> None:
        """Removes its counts. A running exchange fails by itself; what it learned is gone with `conn`."""
        self._asked.forget(conn)
        self._pushed.forget(conn)

    def listen(self, network: Network, addr: Multiaddr) -> None:
        """Our addresses have changed."""
        self.changed()

    def listen_close(self, network: Network, addr: Multiaddr) -> None:
        """Our addresses have changed."""
        self.changed()


async def _read_message(stream: Stream) -> Identify:
    """Reads all messages up to the end of the stream, merged; resets the stream on any failure."""
    reader = MessageReader()
    try:
        stream.set_deadline(limits.IDENTIFY_TIMEOUT_S)
        size = 0
        while data := await stream.read():
            size += len(data)
            reader.feed(data)
        if size > limits.MAX_IDENTIFY_AT_ONCE_BYTES:
            await stream.turn(size // BYTES_PER_WORK)
        return reader.result()
    except BaseException:
        stream.reset()
        raise


def _living(stream: Stream) -> Conn:
    """The connection of `stream`. Raises ConnectionClosed: it has ended, so nothing may be counted for it."""
    if stream.conn.is_closed:
        raise ConnectionClosed("the connection has ended")
    return stream.conn


def info_of(conn: Conn) -> IdentifyInfo | None:
    """What the peer of `conn` has told us so far; None: nothing yet. The first call reads it."""
    told = conn._info
    if isinstance(told, Unread):
        told = conn._info = _with_own_addr(told.read(), conn)
    return told if isinstance(told, IdentifyInfo) else None


def _with_own_addr(info: IdentifyInfo, conn: Conn) -> IdentifyInfo:
    """`info`, with one object for our address in place of two that are equal."""
    if info.observed_addr == conn.local_multiaddr:
        return replace(info, observed_addr=conn.local_multiaddr)
    return info


def _takes_push(conn: Conn | None) -> bool:
    told = None if conn is None else conn._info
    return isinstance(told, Unread | IdentifyInfo) and PUSH_PROTOCOL in told.protocols


async def _quietly(conn: Conn, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except (P2PError, OSError) as error:
        logger.debug("%s: push failed: %r", conn.id, error, extra=of_conn(conn))


def _log_failure(conn: Conn, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        unexpected = not isinstance(error, P2PError | OSError)
        level = logging.ERROR if unexpected else logging.DEBUG
        logger.log(level, "%s: identify failed: %r", conn.id, error, extra=of_conn(conn))
