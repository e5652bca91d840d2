"""Messages to all peers of a fleet that subscribed to a topic.

Comes in: streams of subscribers, messages of this process and of others. Goes out: one message on the bus for
each that is published here, and a broadcast to the streams here. Nobody waits for a slow peer: it misses
messages, and after too many its stream is reset. What other processes publish waits in a bounded queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from typing import TYPE_CHECKING

from p2pcore import codes
from p2pcore.errors import BusDown, LimitExceeded
from p2pcore.limits import (
    FLEET_MAX_MESSAGE_BYTES,
    FLEET_MAX_TOPICS,
    FLEET_TOPIC_QUEUE,
    FLEET_TOPIC_QUEUE_BYTES,
)
from p2pcore.streams.broadcast import broadcast

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bus, BusMessage, Subscription
    from p2pcore.interfaces import Stream

logger = logging.getLogger("p2pcore.fleet")


class TopicSubscription:
    """What ends the subscription of one stream. It ends with the stream, too."""

    __slots__ = ("_stream", "_topic")

    def __init__(self, topic: _Topic, stream: Stream) -> None:
        self._topic = topic
        self._stream = stream

    def close(self) -> None:
        """The stream gets no more messages of this topic. Idempotent."""
        self._topic.missed.pop(self._stream, None)


class _Topic:
    """The subscribers of this process to one topic.

    Attributes:
        missed: how many messages in a row each stream has missed.
        waiting: messages of other processes. is_drained: a task sends them.
        order: all streams get the messages in the same order. joining: one subscribes on the bus.
        on_bus: the subscription to the messages of other processes.
    """

    __slots__ = ("is_drained", "joining", "missed", "on_bus", "order", "waiting")

    def __init__(self) -> None:
        self.missed: dict[Stream, int] = {}
        self.waiting: deque[bytes] = deque()
        self.is_drained = False
        self.order = asyncio.Lock()
        self.joining = asyncio.Lock()
        self.on_bus: Subscription | None = None


class Topics:
    """See above.

    Args:
        bus: carries messages to the other processes. prefix: of the subjects of all topics.
        process: the id of this process. max_missed: messages in a row that a slow peer may miss.

    Attributes:
        sent: messages that streams have taken. dropped: those that none got, by the reason: "slow" peers, a
            full "queue".
    """

    def __init__(self, bus: Bus, prefix: str, process: str, max_missed: int) -> None:
        self._bus = bus
        self._prefix = prefix
        self._process = process.encode()
        self._max_missed = max_missed
        self._topics: dict[str, _Topic] = {}
        self._num_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.dropped: Counter[str] = Counter()

    @property
    def num_topics(self) -> int:
        """The topics that peers of this process subscribe to."""
        return len(self._topics)

    @property
    def num_subscribers(self) -> int:
        """The subscriptions of streams here."""
        return sum(len(topic.missed) for topic in self._topics.values())

    # -- subscribing ---------------------------------------------------------------------------

    async def subscribe(self, topic: str, stream: Stream) -> TopicSubscription:
        """Sends `stream` the messages of `topic` from now on. Raises LimitExceeded: there are many topics.

        While the engine is away, only messages of this process come.
        """
        found = self._topics.get(topic)
        if found is None:
            if len(self._topics) >= FLEET_MAX_TOPICS:
                self.sweep()
            if len(self._topics) >= FLEET_MAX_TOPICS:
                raise LimitExceeded("FLEET_MAX_TOPICS", len(self._topics) + 1, FLEET_MAX_TOPICS)
            found = self._topics[topic] = _Topic()
        found.missed[stream] = 0
        try:
            await self._join(topic, found)
        except BusDown:
            pass  # `rejoin` does it later
        except BaseException:
            found.missed.pop(stream, None)
            raise
        return TopicSubscription(found, stream)

    async def rejoin(self) -> None:
        """Subscribes on the bus what could not be while the engine was away. Raises BusDown."""
        for topic, found in list(self._topics.items()):
            await self._join(topic, found)

    async def _join(self, topic: str, found: _Topic) -> None:
        if found.on_bus is not None:
            return
        async with found.joining:
            if found.on_bus is None and self._topics.get(topic) is found:
                subject = self._prefix + topic
                found.on_bus = await self._bus.subscribe(subject, lambda said: self._deliver(found, said))

    def sweep(self) -> None:
        """Forgets streams that have ended, and topics without a stream."""
        for topic, found in list(self._topics.items()):
            for stream in [each for each in found.missed if each.is_closed]:
                del found.missed[stream]
            if not found.missed and not found.joining.locked():
                self._forget(topic)

    def _forget(self, topic: str) -> None:
        found = self._topics.pop(topic)
        if found.on_bus is not None:
            found.on_bus.close()
        self._num_bytes -= sum(map(len, found.waiting))
        found.waiting.clear()

    # -- publishing ----------------------------------------------------------------------------

    async def publish(self, topic: str, message: bytes) -> None:
        """Sends `message` to all streams of `topic` here, then to the other processes.

        Raises:
            BusDown: peers of other processes may not get it; those of this one have got it.
            LimitExceeded: it is longer than FLEET_MAX_MESSAGE_BYTES; nobody gets it.
        """
        if len(message) > FLEET_MAX_MESSAGE_BYTES:
            raise LimitExceeded("FLEET_MAX_MESSAGE_BYTES", len(message), FLEET_MAX_MESSAGE_BYTES)
        found = self._topics.get(topic)
        if found is not None:
            await self._send(found, message)
        head = bytes((len(self._process),)) + self._process
        await self._bus.publish(self._prefix + topic, head + message)

    def _deliver(self, found: _Topic, said: BusMessage) -> None:
        """A message of the bus: it waits until the earlier ones have been sent."""
        if not said.data:
            return
        start = 1 + said.data[0]
        if said.data[1:start] == self._process:  # `publish` has sent it
            return
        message = said.data[start:]
        if (
            len(found.waiting) >= FLEET_TOPIC_QUEUE
            or self._num_bytes + len(message) > FLEET_TOPIC_QUEUE_BYTES
        ):
            self.dropped["queue"] += 1
            return
        found.waiting.append(message)
        self._num_bytes += len(message)
        if not found.is_drained:
            found.is_drained = True
            task = asyncio.get_running_loop().create_task(self._drain(found))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self, found: _Topic) -> None:
        try:
            while found.waiting:
                message = found.waiting.popleft()
                self._num_bytes -= len(message)
                await self._send(found, message)
        finally:
            found.is_drained = False

    async def _send(self, found: _Topic, message: bytes) -> None:
        async with found.order:
            result = await broadcast(found.missed, message, prefix="varint")
        self.sent += result.num_sent
        self.dropped["slow"] += len(result.slow)
        for stream in result.gone:
            found.missed.pop(stream, None)
        slow = {stream: found.missed.get(stream, 0) + 1 for stream in result.slow}
        for stream in found.missed:
            found.missed[stream] = slow.get(stream, 0)
        for stream, missed in slow.items():
            if missed > self._max_missed:
                stream.reset(codes.STREAM_RESOURCE_LIMIT_EXCEEDED)
                found.missed.pop(stream, None)

    async def close(self) -> None:
        """Ends all subscriptions. The streams stay open."""
        for topic in list(self._topics):
            self._forget(topic)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
