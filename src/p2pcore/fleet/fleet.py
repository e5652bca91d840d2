"""A fleet: many processes, on one machine or several, that act as one service.

Comes in: a host and a bus. Goes out: where each peer is connected, messages to peers of any process, messages
to all who subscribed, a block list for all. What concerns only this process needs no bus. Only this module
knows all parts. docs/fleet.md
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from p2pcore import options
from p2pcore.aio.turn import Cell, Turn
from p2pcore.errors import LimitExceeded
from p2pcore.fleet import names
from p2pcore.fleet.blocks import Blocks
from p2pcore.fleet.bus import Bus
from p2pcore.fleet.caps import Caps, FleetCaps
from p2pcore.fleet.delivery import Delivery
from p2pcore.fleet.directory import LEASES, Directory, Place
from p2pcore.fleet.envelope import Order
from p2pcore.fleet.events import BusBack, BusLost
from p2pcore.fleet.hints import Hints
from p2pcore.fleet.member import Member
from p2pcore.fleet.open import Opener, open_anywhere
from p2pcore.fleet.pipes import Pipes
from p2pcore.fleet.presence import Presence
from p2pcore.fleet.serving import Serving
from p2pcore.fleet.topics import Topics, TopicSubscription
from p2pcore.fleet.turns import Turns
from p2pcore.fleet.workers_bus import WorkersBus
from p2pcore.limits import (
    BUS_MAX_NAME_CHARS,
    FLEET_MAX_ID_BYTES,
    FLEET_MAX_MESSAGE_BYTES,
    FLEET_MAX_MISSED,
    FLEET_MAX_TIMEOUT_S,
    FLEET_TIMEOUT_S,
    FLEET_TURN_EXPIRY_S,
    FLEET_TURN_MAX_EXPIRY_S,
    FLEET_TURN_TIMEOUT_S,
    MAX_PROTOCOL_ID_BYTES,
)
from p2pcore.metrics.family import Family, family
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Subscription
    from p2pcore.host import Host
    from p2pcore.interfaces import Notifiee, Stream
    from p2pcore.workers.worker import Worker


class Fleet:
    """A process's part in a fleet; an async context manager.

        async with Host(...) as host, Fleet(host, bus) as fleet:
            answer = await fleet.request(peer, "/notify/1.0.0", b"hello", timeout_s=2)

    It joins although the engine of the bus is away, and then does what needs no bus; see `is_up`.

    Args:
        host: has started, and lives longer than the fleet.
        bus: carries the messages. It stays open: who made it closes it.
        name: of the fleet, one word; fleets with different names share a bus and do not meet.
        machine: the name of this machine, for people and for Place.machine; None: its host name.
        max_missed: messages in a row that a slow subscriber may miss before its stream is reset.
        caps: how many connections all processes may have together with one peer, or from one subnet; None:
            as many as their hosts allow.
        worker: of this process, if a Supervisor has started it; then `open` reaches the other workers. A
            WorkersBus brings it.

    Raises: TypeError, ValueError: an argument is wrong.

    Attributes:
        process: the id of this process in the fleet, a new one at each start.
    """

    def __init__(
        self,
        host: Host,
        bus: Bus,
        *,
        name: str = "p2pcore",
        machine: str | None = None,
        max_missed: int = FLEET_MAX_MISSED,
        caps: FleetCaps | None = None,
        worker: Worker | None = None,
    ) -> None:
        options.satisfies("bus", bus, Bus, may_wait=True)
        names.word("name", name)
        options.whole("max_missed", max_missed)
        self.process = secrets.token_hex(5)
        self._host = host
        self._bus = bus
        self._name = name
        self._machine = socket.gethostname() if machine is None else machine
        options.text("machine", self._machine, BUS_MAX_NAME_CHARS)
        self._max_missed = max_missed
        self._caps = None if caps is None else options.given("caps", caps, FleetCaps)
        self._parts: _Parts | None = None
        if worker is None and isinstance(bus, WorkersBus):
            worker = bus.worker
        self._opener = None if worker is None else Opener(host.swarm, worker, self.process)

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Joins. Call it once. Raises RuntimeError: it has started already."""
        if self._parts is not None:
            raise RuntimeError("this fleet has started already: make a new Fleet")
        self._parts = parts = _Parts(
            self._host, self._bus, self._name, self._here, self._max_missed, self._caps
        )
        for notifiee in parts.notifiees:
            self._host.notify(notifiee)
        self._host.metrics.add(self.families)
        try:
            if self._opener is not None:
                await self._opener.start()
            await parts.member.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Leaves the fleet: peers that are connected here count no more. Idempotent.

        Messages that this process is handing to peers for others fail with GONE. Streams over the bus end;
        others stay open.
        """
        parts = self._parts
        if parts is None or parts.is_closed:
            return
        parts.is_closed = True
        if self._opener is not None:
            self._opener.close()
        for notifiee in parts.notifiees:
            self._host.stop_notify(notifiee)
        self._host.metrics.remove(self.families)
        await parts.pipes.close()
        await parts.member.close()
        await parts.serving.close()
        await parts.topics.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _live(self) -> _Parts:
        if self._parts is None or self._parts.is_closed:
            raise RuntimeError("this fleet is not running: use it inside `async with`")
        return self._parts

    # -- who is where --------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether this process is in the fleet now, as far as is known: the engine of the bus is there.

        Changes are events of the host, BusLost and BusBack.
        """
        return self._parts is not None and self._parts.member.is_up

    def _here(self) -> Place:
        num_peers = self._parts.presence.num_peers if self._parts is not None else 0
        return Place(self.process, self._machine, os.getpid(), self._host.peer_id, num_peers, True)

    def processes(self) -> list[Place]:
        """The processes of the fleet, this one first, as each has described itself in the last half second.

        A process that was killed is there for two more seconds. While the engine is away: this one only.
        """
        return self._live().directory.places() if self.is_up else [self._here()]

    def num_connected(self) -> int:
        """The peers that are connected to the processes of the fleet. One with two of them counts twice.

        It is at most half a second old. While the engine is away: those of this process.
        """
        return sum(place.num_peers for place in self.processes())

    async def where(self, peer: PeerId | str) -> tuple[Place, ...]:
        """The processes that `peer` is connected to, this one first. (): it is not connected.

        It is right within 0.1 s after a connect or disconnect, and within 2 s after a process was killed.
        While the engine is away, a peer that is connected here is found here.

        Raises:
            BusDown: the engine is away, and the peer is not connected to this process.
            IdentityError: `peer` is malformed.
        """
        return await self._live().where(PeerId(peer))

    # -- a message to one peer -----------------------------------------------------------------

    async def request(
        self,
        peer: PeerId | str,
        protocol: str,
        message: bytes,
        *,
        timeout_s: float = FLEET_TIMEOUT_S,
        at_least_once_id: str | None = None,
    ) -> bytes:
        """Sends `message` to `peer`, wherever it is connected, and returns the message that it answers.

        The process that has the connection opens a stream of `protocol`, and sends and reads as `write_msg`
        and `read_msg` do, with a varint length. If this is cancelled, the peer may still get the message.

        Args:
            message, and the answer: at most FLEET_MAX_MESSAGE_BYTES.
            timeout_s: seconds from now for all of it, at most FLEET_MAX_TIMEOUT_S.
            at_least_once_id: None: the peer gets it at most once. A text of at most FLEET_MAX_ID_BYTES bytes,
                another one for each message: it is sent again after a failure, until the deadline. A process
                that has delivered it answers for it, so that the peer gets it again only after its process
                was lost or if it has moved to another one.

        Raises:
            NotDelivered: within the deadline; `reason` and `may_have_arrived` say more.
            LimitExceeded: `message` is too long. IdentityError: `peer` is malformed.
            TypeError, ValueError: another argument is wrong.
        """
        return await self._ask(peer, protocol, message, True, timeout_s, at_least_once_id)

    async def send(
        self,
        peer: PeerId | str,
        protocol: str,
        message: bytes,
        *,
        timeout_s: float = FLEET_TIMEOUT_S,
        at_least_once_id: str | None = None,
    ) -> None:
        """As `request`, without an answer: it returns when the peer has ended the stream in good order.

        A handler of p2pcore does so when it returns. What it may have sent before is dropped.
        """
        await self._ask(peer, protocol, message, False, timeout_s, at_least_once_id)

    async def _ask(
        self,
        peer: PeerId | str,
        protocol: str,
        message: bytes,
        wants_answer: bool,
        timeout_s: float,
        key: str | None,
    ) -> bytes:
        parts = self._live()
        options.seconds("timeout_s", timeout_s, most=FLEET_MAX_TIMEOUT_S)
        _check_protocol(protocol)
        if key is not None:
            _check_id(key)
        _check_message(message)
        order = Order(self.process, PeerId(peer), protocol, message, wants_answer, timeout_s, key or "")
        return await parts.delivery.ask(order)

    async def open(
        self, peer: PeerId | str, protocol: str, *, timeout_s: float = FLEET_TIMEOUT_S, over_bus: bool = False
    ) -> Stream:
        """A stream of `protocol` to `peer`, if a process of this machine has its connection, or over the bus.

        It is negotiated lazily, as `Host.new_stream` does. Between workers its bytes go through a UNIX
        socket. Half closes, resets with their codes and back-pressure pass through. `stream.conn` is then
        the link to the process, not to the peer.

        Args:
            timeout_s: seconds from now, at most FLEET_MAX_TIMEOUT_S.
            over_bus: True: its bytes may go over the bus, which reaches all processes. Such a stream ends
                with BusStreamLost when the engine of the bus goes away.

        Raises:
            NotDelivered: there is no stream. ELSEWHERE: the peer is connected to another machine, or this
                process is no worker, and `over_bus` is False. BUSY: too many streams are open over the bus.
                The other reasons are those of `request`.
            IdentityError: `peer` is malformed. TypeError, ValueError: another argument is wrong.
        """
        parts = self._live()
        options.seconds("timeout_s", timeout_s, most=FLEET_MAX_TIMEOUT_S)
        _check_protocol(protocol)
        pipes = parts.pipes if over_bus else None
        return await open_anywhere(
            PeerId(peer), protocol, timeout_s, self._host.swarm, parts.where, self._opener, pipes
        )

    # -- a message to many ---------------------------------------------------------------------

    async def subscribe(self, topic: str, stream: Stream) -> TopicSubscription:
        """Sends `stream` each message of `topic` from now on, as `write_msg` does, until the stream ends.

            async def news(stream):  # the handler of a protocol
                await fleet.subscribe("news", stream)
                while await stream.read():  # until the peer ends it
                    pass

        Nobody waits for a peer that reads too slowly: it misses messages, and its stream is reset after
        `max_missed` of them in a row. While the engine is away, only messages of this process come.

        Returns: what ends the subscription earlier.
        Raises:
            ValueError, TypeError: `topic` is not words of A-Z, a-z, 0-9, "-" and "_", joined by dots.
            LimitExceeded: peers of this process subscribe to FLEET_MAX_TOPICS topics.
        """
        parts = self._live()
        parts.check_topic(topic)
        return await parts.topics.subscribe(topic, stream)

    async def publish(self, topic: str, message: bytes) -> None:
        """Sends `message`, at most once, to all peers of the fleet that subscribed to `topic`.

        It returns when the streams of this process and the bus have taken it. What several processes publish
        at once may come to two peers in different orders.

        Raises:
            BusDown: peers of other processes may not get it. Those of this process get it.
            LimitExceeded: it is longer than FLEET_MAX_MESSAGE_BYTES. ValueError, TypeError: as `subscribe`.
        """
        parts = self._live()
        parts.check_topic(topic)
        _check_message(message)
        await parts.topics.publish(topic, message)

    # -- decisions for all ---------------------------------------------------------------------

    async def block(self, what: PeerId | str, *, reason: str = "") -> None:
        """Blocks a peer or an IP network in all processes, present and future, until `unblock`.

        Each process refuses it from then on, as `Host.block_peer` does, and closes its connections.

        Args: what: a peer id, "10.0.0.0/8", or an IP address.

        Raises:
            BusDown: the engine is away; it may be blocked or not.
            IdentityError, ValueError, TypeError: `what` or `reason` is wrong.
            LimitExceeded: FLEET_MAX_BLOCKS are blocked.
        """
        await self._live().blocks.block(what, reason)

    async def unblock(self, what: PeerId | str) -> None:
        """Ends `block` of the same peer or network. What the program has blocked itself stays blocked.

        Raises: as `block`.
        """
        await self._live().blocks.unblock(what)

    @property
    def blocked(self) -> dict[str, str]:
        """The block list of the fleet as far as this process knows it: what is blocked, and the reason."""
        return dict(self._live().blocks.reasons)

    def turn(
        self,
        name: str,
        *,
        timeout_s: float = FLEET_TURN_TIMEOUT_S,
        expiry_s: float = FLEET_TURN_EXPIRY_S,
    ) -> Turn:
        """The turn `name`, which one process of the fleet has at a time.

            async with fleet.turn("compaction") as turn:  # waits for it
                for part in parts:
                    await turn.hold()  # it is still ours, or is ours again
                    await compact(part)

        The process renews it. One that is killed, or has lost the bus, has it no more after `expiry_s`; it
        does not stop by itself what it does then: `turn.is_held` says so, and `turn.hold` waits.

        Args:
            name: a word of A-Z, a-z, 0-9, "-" and "_".
            timeout_s: the longest wait for it, seconds. expiry_s: seconds; longer than each step takes.

        Raises:
            TimeoutError: in `async with` and `hold`: others had it, or the bus was away, for `timeout_s`.
            TypeError, ValueError: an argument is wrong.
        """
        names.word("name", name)
        options.seconds("timeout_s", timeout_s, most=FLEET_MAX_TIMEOUT_S)
        options.seconds("expiry_s", expiry_s, most=FLEET_TURN_MAX_EXPIRY_S)
        return Turn(
            self._live().turns.cell(name),
            name,
            f"{self._machine}, process {self.process}",
            timeout_s=timeout_s,
            expiry_s=expiry_s,
        )

    @property
    def restart_cell(self) -> Cell | None:
        """For the supervisor of this worker: see workers/turns.py. None: it is the only one in the fleet."""
        return None if isinstance(self._bus, WorkersBus) else self._live().turns.cell("restart")

    # -- metrics -------------------------------------------------------------------------------

    def families(self) -> Iterable[Family]:
        """The metrics of this process's part. `host.metrics` has them while the fleet runs."""
        parts = self._parts
        if parts is None:
            return
        yield family("p2pcore_fleet_up", int(self.is_up))
        yield family("p2pcore_fleet_bus_dropped_total", self._bus.num_dropped)
        yield family("p2pcore_fleet_processes", len(parts.directory.ids) if self.is_up else 1)
        yield family("p2pcore_fleet_presence_entries", parts.presence.num_written)
        yield family("p2pcore_fleet_requests_total", _labelled(parts.delivery.asked))
        yield family("p2pcore_fleet_served_total", _labelled(parts.serving.served))
        yield family("p2pcore_fleet_bus_streams", parts.pipes.num_streams)
        yield family("p2pcore_fleet_subscribers", parts.topics.num_subscribers)
        yield family("p2pcore_fleet_topic_messages_total", parts.topics.sent)
        yield family("p2pcore_fleet_topic_dropped_total", _labelled(parts.topics.dropped))
        if parts.caps is not None:
            yield family("p2pcore_fleet_capped_total", _labelled(parts.caps.closed))


def _check_protocol(value: object) -> None:
    """Raises TypeError, ValueError."""
    options.text("protocol", value, MAX_PROTOCOL_ID_BYTES)
    if not options.is_protocol_id(value, MAX_PROTOCOL_ID_BYTES):  # type: ignore[arg-type]
        raise ValueError(f"protocol must be an id such as '/chat/1.0.0', not {value!r}")


def _check_id(value: object) -> None:
    """Raises TypeError, ValueError."""
    options.text("at_least_once_id", value, FLEET_MAX_ID_BYTES)
    if not value or not options.fits_utf8(value, FLEET_MAX_ID_BYTES):  # type: ignore[arg-type]
        raise ValueError(
            f"at_least_once_id must be a text of 1 to {FLEET_MAX_ID_BYTES} bytes of UTF-8, not {value!r}"
        )


def _check_message(message: object) -> None:
    """Raises TypeError, LimitExceeded."""
    if not isinstance(message, bytes):
        raise TypeError(f"message must be bytes, not {type(message).__name__}")
    if len(message) > FLEET_MAX_MESSAGE_BYTES:
        raise LimitExceeded("FLEET_MAX_MESSAGE_BYTES", len(message), FLEET_MAX_MESSAGE_BYTES)


def _labelled(counts: Counter[str]) -> dict[tuple[str, ...], int]:
    return {(name,): count for name, count in counts.copy().items()}


class _Parts:
    """What a running fleet is made of."""

    def __init__(
        self,
        host: Host,
        bus: Bus,
        name: str,
        here: Callable[[], Place],
        max_missed: int,
        caps: FleetCaps | None,
    ) -> None:
        swarm, process, clock = host.swarm, here().process, asyncio.get_running_loop().time
        self.is_closed = False
        self._events = swarm.events
        self.topic_prefix = f"{name}.topic."
        self.presence = Presence(swarm, process, lambda: self.member.changed())
        subject = f"{name}.to.{{}}".format
        self.hints = Hints()
        self.directory = Directory(
            swarm,
            here,
            clock,
            self.hints,
            lambda came: self.member.came(came),
            self._process_ended,
        )
        self.serving = Serving(swarm, self.presence.marks)
        self.delivery = Delivery(bus, subject, self.serving, self.directory, self.hints, self.where)
        pipe_subject = f"{name}.pipe.{{}}".format
        self.pipes = Pipes(swarm, bus, pipe_subject, process)
        self.topics = Topics(bus, self.topic_prefix, process, max_missed)
        self.turns = Turns(bus, f"{name}-turns")
        self.blocks = Blocks(bus, f"{name}-blocks", swarm.admission.blocker)
        self.caps = None
        if caps is not None:
            self.caps = Caps(
                caps, bus, f"{name}-caps", self.directory, process, lambda: self.member.changed()
            )
            for conn in swarm.conns():
                self.caps.connected(swarm, conn)
        self.member = Member(
            bus,
            name,
            subject,
            here,
            self.presence,
            self.directory,
            self.topics,
            self.hints,
            self.caps,
            (
                lambda: bus.subscribe(subject(process), self.serving.deliver),
                lambda: bus.subscribe(pipe_subject(process), self.pipes.deliver),
                self._watch_leases,
                self.blocks.watch,
                *(() if self.caps is None else (self.caps.watch,)),
            ),
            self._tell,
        )

    def _tell(self, is_up: bool, error: BaseException | None) -> None:
        if not is_up:
            self.pipes.away()
        self._events.emit(BusBack() if is_up else BusLost(error))

    def _process_ended(self, process: str) -> None:
        self.delivery.process_ended(process)
        self.pipes.process_ended(process)

    def check_topic(self, topic: object) -> None:
        """Raises ValueError, TypeError: it is no subject of the bus."""
        names.subject(self.topic_prefix + topic if isinstance(topic, str) else topic)

    @property
    def notifiees(self) -> list[Notifiee]:
        return [self.presence] if self.caps is None else [self.caps, self.presence]

    async def _watch_leases(self) -> Subscription:
        assert self.member.leases is not None
        return await self.member.leases.watch(LEASES, self.directory.lease)

    async def where(self, peer: PeerId) -> tuple[Place, ...]:
        return await self.directory.where(peer, self.member.peers, self.member.leases)
