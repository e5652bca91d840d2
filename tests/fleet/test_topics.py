"""Messages to all who subscribed: from every process to every process, slow peers, ended streams, bounds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from fleets import TOPIC, Yard, until, yard

from p2pcore import DeadlineExceeded, Host, LimitExceeded, Stream, StreamReset
from p2pcore.errors import BusDown
from p2pcore.fleet import Fleet, TopicSubscription
from p2pcore.limits import FLEET_MAX_MESSAGE_BYTES, FLEET_TOPIC_LOOK_S, FLEET_TOPIC_QUEUE
from virtual_time import now, virtual


@dataclass
class Room:
    """Subscribers at a yard. A subscriber says a topic, and reads what is published."""

    made: Yard
    subscriptions: list[TopicSubscription] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(len(self.made.fleets)):
            self.serve(number)

    def serve(self, number: int) -> None:
        fleet, host = self.made.fleets[number], self.made.hosts[number]

        async def subscribe(stream: Stream) -> None:
            topic = (await stream.read_msg()).decode()
            self.subscriptions.append(await fleet.subscribe(topic, stream))
            await stream.write_msg(b"welcome")
            while await stream.read():  # until the peer ends it
                pass

        host.set_stream_handler(TOPIC, subscribe)

    async def subscriber(self, at: int, topic: str = "news") -> Stream:
        host = await self.made.stack.enter_async_context(
            self.made.network.host(listen=(), ping=False, identify=False)
        )
        await host.connect(self.made.hosts[at].addrs_with_peer[0])
        stream = await host.new_stream(self.made.hosts[at].peer_id, TOPIC)
        await stream.write_msg(topic.encode())
        assert await stream.read_msg() == b"welcome"
        return stream


def topics(fleet: Fleet) -> Any:
    assert fleet._parts is not None
    return fleet._parts.topics


@virtual
async def test_a_message_reaches_all_subscribers_of_all_processes_once() -> None:
    async with yard(3) as made:
        room = Room(made)
        streams = [await room.subscriber(n % 3) for n in range(9)]
        other = await room.subscriber(0, "other.topic")
        for number, fleet in enumerate(made.fleets):
            await fleet.publish("news", b"from %d" % number)
        await made.fleets[2].publish("other.topic", b"o")
        for stream in streams:
            assert sorted([await stream.read_msg() for _ in range(3)]) == [b"from 0", b"from 1", b"from 2"]
        assert await other.read_msg() == b"o"
        assert now() < 1


@virtual
async def test_messages_of_one_process_come_in_order() -> None:
    async with yard(2) as made:
        room = Room(made)
        streams = [await room.subscriber(n % 2) for n in range(4)]
        for n in range(50):
            await made.fleets[0].publish("news", b"%d" % n)
        for stream in streams:
            assert [await stream.read_msg() for _ in range(50)] == [b"%d" % n for n in range(50)]


@virtual
async def test_one_message_crosses_the_bus_for_each_publish() -> None:
    async with yard(2) as made:
        room = Room(made)
        for _ in range(5):
            await room.subscriber(1)
        got: list[Any] = []
        await made.buses[0].subscribe("p2pcore.topic.news", got.append)
        await made.fleets[0].publish("news", b"1")
        await asyncio.sleep(1)
        assert len(got) == 1


@virtual
async def test_a_process_without_subscribers_gets_nothing() -> None:
    async with yard(3) as made:
        room = Room(made)
        await room.subscriber(1)
        assert list(made.engine._subscribers).count("p2pcore.topic.news") == 1
        assert len(made.engine._subscribers["p2pcore.topic.news"]) == 1


@virtual
async def test_a_subscription_ends_with_its_stream_and_by_close() -> None:
    async with yard(2) as made:
        room = Room(made)
        first, second = await room.subscriber(0), await room.subscriber(0)
        first.reset()
        room.subscriptions[1].close()
        room.subscriptions[1].close()
        await until(lambda: made.hosts[0].swarm.num_handlers_running == 1)
        await asyncio.sleep(FLEET_TOPIC_LOOK_S + 1)
        assert topics(made.fleets[0]).num_subscribers == 0
        assert topics(made.fleets[0]).num_topics == 0
        assert "p2pcore.topic.news" not in made.engine._subscribers
        await made.fleets[1].publish("news", b"1")
        second.set_read_deadline(1)
        with pytest.raises(DeadlineExceeded):
            await second.read_msg()


@virtual
async def test_subscribers_that_come_and_go_leave_nothing() -> None:
    async with yard(1) as made:
        room = Room(made)
        for number in range(20):
            stream = await room.subscriber(0, f"t{number}")
            await stream.close()
        await asyncio.sleep(FLEET_TOPIC_LOOK_S + 1)
        assert topics(made.fleets[0]).num_topics == 0
        assert len(made.engine._subscribers) == 2  # orders, and pipes


@virtual
async def test_a_slow_peer_misses_messages_and_is_sent_away_and_others_do_not_notice() -> None:
    async with yard(2, max_missed=3) as made:
        room = Room(made)
        slow, quick = await room.subscriber(1), await room.subscriber(1)
        message = bytes(200_000)
        got = 0
        while slow.close_reason is None:
            await made.fleets[0].publish("news", message)
            assert await quick.read_msg() == message
            got += 1
            assert got < 100
        assert isinstance(slow.close_reason, StreamReset)
        assert got > 4
        assert topics(made.fleets[1]).dropped["slow"] == 4
        assert topics(made.fleets[1]).num_subscribers == 1
        assert 'p2pcore_fleet_topic_dropped_total{reason="slow"} 4' in made.hosts[1].metrics.text()


@virtual
async def test_a_queue_that_is_full_drops_and_counts() -> None:
    async with yard(2) as made:
        room = Room(made)
        stream = await room.subscriber(1)
        found = topics(made.fleets[1])._topics["news"]
        async with found.order:  # nothing is sent meanwhile
            for n in range(FLEET_TOPIC_QUEUE + 11):
                await made.fleets[0].publish("news", b"%d" % n)
            await asyncio.sleep(1)
        got = [int(await stream.read_msg()) for _ in range(FLEET_TOPIC_QUEUE + 1)]
        assert got == list(range(FLEET_TOPIC_QUEUE + 1))  # one more was taken out of the queue
        assert topics(made.fleets[1]).dropped["queue"] == 10
        await asyncio.sleep(1)
        assert topics(made.fleets[1])._num_bytes == 0
        assert not topics(made.fleets[1])._tasks


@virtual
async def test_without_the_engine_local_subscribers_get_the_message_and_the_publisher_an_error() -> None:
    async with yard(2) as made:
        room = Room(made)
        here, there = await room.subscriber(0), await room.subscriber(1)
        made.engine.stop()
        late = await room.subscriber(0, "late")
        with pytest.raises(BusDown):
            await made.fleets[0].publish("news", b"1")
        with pytest.raises(BusDown):
            await made.fleets[0].publish("late", b"1")
        assert await here.read_msg() == await late.read_msg() == b"1"
        made.engine.start()
        await asyncio.sleep(1)
        await made.fleets[1].publish("late", b"2")
        await made.fleets[1].publish("news", b"2")
        assert await late.read_msg() == await here.read_msg() == await there.read_msg() == b"2"


@virtual
async def test_wrong_topics_and_messages_are_refused() -> None:
    async with yard(1) as made:
        fleet = made.fleets[0]
        for topic in ("", "two words", "a..b", "*", "x" * 300, 7):
            with pytest.raises((TypeError, ValueError)):
                await fleet.publish(topic, b"")  # type: ignore[arg-type]
            with pytest.raises((TypeError, ValueError)):
                await fleet.subscribe(topic, object())  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await fleet.publish("news", "text")  # type: ignore[arg-type]
        with pytest.raises(LimitExceeded):
            await fleet.publish("news", bytes(FLEET_MAX_MESSAGE_BYTES + 1))


def test_there_are_not_endlessly_many_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pcore.fleet.topics.FLEET_MAX_TOPICS", 2)

    @virtual
    async def main() -> None:
        async with yard(1) as made:
            room = Room(made)
            await room.subscriber(0, "a")
            b = await room.subscriber(0, "b")
            with pytest.raises(LimitExceeded):
                await made.fleets[0].subscribe("c", b)
            b.reset()
            await until(lambda: made.hosts[0].swarm.num_handlers_running == 1)
            await room.subscriber(0, "c")

    main()


@virtual
async def test_each_await_of_subscribe_and_publish_can_be_cancelled() -> None:
    async with yard(2) as made:
        room = Room(made)
        streams = [await room.subscriber(n) for n in (0, 1)]
        served: list[Host] = made.hosts
        for turns in range(8):
            stream = await room.subscriber(0, "x")
            inner = served[0].swarm.conns()[-1]
            assert inner
            for call in (
                made.fleets[0].publish("news", b"1"),
                made.fleets[0].subscribe(f"cancelled{turns}", stream),
            ):
                task: asyncio.Future[Any] = asyncio.ensure_future(call)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await made.fleets[0].publish("news", b"last")
        for each in streams:
            while await each.read_msg() != b"last":
                pass


@virtual
async def test_a_process_that_dies_takes_its_subscribers_with_it() -> None:
    async with yard(3) as made:
        room = Room(made)
        await room.subscriber(1)
        stays = await room.subscriber(2)
        await made.kill(1)
        await made.fleets[0].publish("news", b"1")
        assert await stays.read_msg() == b"1"
