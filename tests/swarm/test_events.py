"""Events: what is told, to whom, and that a reader who is slow or gone costs nobody anything."""

from __future__ import annotations

import ast
import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

import p2pcore
from harness import eventually, looped, run
from p2pcore import Connectedness, DialError, Direction, Host, LimitExceeded, codes, limits
from p2pcore.errors import ConnectionClosed, GoAway, ListenerClosed
from p2pcore.swarm.events import (
    AddrsChanged,
    ConnClosed,
    ConnectednessChanged,
    ConnOpened,
    DialFailed,
    Event,
    ListenerEnded,
    ListenerOpened,
    ListenerRecovered,
    ListenerRetrying,
    Missed,
    UpgradeFailed,
)
from p2pcore.swarm.news import News
from p2pcore.swarm.subscriptions import Events, Subscription
from p2pcore.upgrade.listener import ListenerState
from swarm_fakes import FakeConn, Recorder, addr, make_swarm, peer
from virtual_time import virtual

THEM = peer(1)


def opened(port: int) -> ListenerOpened:
    return ListenerOpened(addr(port))


async def waiting(subscription: Subscription) -> list[Event]:
    """What is queued now; the subscription is closed."""
    subscription.close()
    return [event async for event in subscription]


# -- subscriptions -----------------------------------------------------------------------------


@looped
async def test_events_come_in_order_to_each_who_wants_them() -> None:
    events = Events()
    everything, listeners = events.subscribe(), events.subscribe([ListenerOpened, ListenerEnded])
    told = [opened(1), DialFailed(THEM, OSError()), ListenerEnded(addr(1), None)]
    for event in told:
        events.emit(event)
    assert await waiting(everything) == told
    assert await waiting(listeners) == [told[0], told[2]]


@looped
async def test_a_reader_is_woken_by_the_next_event() -> None:
    events = Events()
    subscription = events.subscribe()
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    events.emit(opened(1))
    assert await reader == opened(1)


@looped
async def test_a_slow_reader_loses_the_oldest_events_and_is_told_how_many() -> None:
    events = Events()
    slow, quick = events.subscribe(length=3), events.subscribe()
    for port in range(1, 11):
        events.emit(opened(port))
    assert await anext(slow) == Missed(7)
    assert await anext(slow) == opened(8)
    events.emit(opened(11))
    events.emit(opened(12))
    assert await waiting(slow) == [Missed(1), opened(10), opened(11), opened(12)]
    assert await waiting(quick) == [opened(port) for port in range(1, 13)]


@looped
async def test_a_cancelled_reader_has_taken_nothing() -> None:
    events = Events()
    subscription = events.subscribe()
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    events.emit(opened(1))
    reader.cancel()
    await asyncio.wait([reader])
    assert await anext(subscription) == opened(1)


@looped
async def test_there_is_one_reader_at_a_time() -> None:
    subscription = Events().subscribe()
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(subscription)
    reader.cancel()


@looped
async def test_a_subscription_ends_when_it_is_closed_left_or_dropped() -> None:
    def once(subscription: Subscription, events: Events) -> Subscription:
        events.emit(opened(1))
        return subscription

    events = Events()
    assert not events.is_wanted
    with events.subscribe() as subscription:
        assert events.is_wanted
    assert not events.is_wanted
    assert await waiting(subscription) == []
    subscription.close()
    kept = events.subscribe()
    async for _ in once(events.subscribe(), events):
        break
    dropped = events.subscribe()
    del dropped
    gc.collect()
    assert events._living() == [kept]
    del kept
    assert not events.is_wanted


@looped
async def test_a_waiting_reader_hears_the_end() -> None:
    events = Events()
    subscription = events.subscribe()

    async def read() -> list[Event]:
        return [event async for event in subscription]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    events.close()
    assert await reader == []
    assert await waiting(events.subscribe()) == [], "and so does who comes later"


@pytest.mark.parametrize("length", [0, -1, limits.MAX_EVENT_QUEUE_LENGTH + 1])
def test_a_bad_queue_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="queue"):
        Events().subscribe(length=length)


@pytest.mark.parametrize("kind", [int, "ConnOpened", opened(1)])
def test_what_is_no_kind_of_event_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="class of"):
        Events().subscribe([kind])


def test_the_number_of_subscriptions_is_bounded() -> None:
    events = Events()
    held = [events.subscribe() for _ in range(limits.MAX_EVENT_SUBSCRIBERS)]
    with pytest.raises(LimitExceeded, match="MAX_EVENT_SUBSCRIBERS"):
        events.subscribe()
    held.pop()
    events.subscribe()


@pytest.mark.source
def test_the_name_of_an_event_means_nothing_else() -> None:
    source = Path(p2pcore.__file__).parent
    found = set()
    for path in source.rglob("*.py"):
        if path.name == "events.py":
            continue
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            found |= {getattr(each, "id", getattr(each, "name", "")) for each in targets}
    assert {kind.__name__ for kind in Event.__subclasses__()} & found == set()


# -- what a swarm tells ------------------------------------------------------------------------


@looped
async def test_a_connection_is_told_opened_and_closed_with_its_code() -> None:
    swarm, _ = make_swarm()
    subscription = swarm.events.subscribe([ConnOpened, ConnClosed])
    conns = [swarm.add_conn(FakeConn(peer(number))) for number in range(1, 5)]
    await conns[0].close(7)
    conns[1].abort(8)
    conns[2].session.end(GoAway(9, True))  # type: ignore[attr-defined]
    broken = ConnectionClosed("gone")
    conns[3].session.end(broken)  # type: ignore[attr-defined]
    await eventually(lambda: not swarm.num_conns)
    events = await waiting(subscription)
    assert events[:4] == [ConnOpened(conn) for conn in conns]
    closed = {event.conn: event for event in events[4:] if isinstance(event, ConnClosed)}
    assert len(events) == 8
    assert [(closed[conn].code, closed[conn].by_peer) for conn in conns] == [
        (7, False),
        (8, False),
        (9, True),
        (None, False),
    ]
    assert closed[conns[3]].error is broken
    await swarm.close()


@looped
async def test_a_connection_that_ends_inside_connected_is_told_closed_once() -> None:
    swarm, _ = make_swarm()
    subscription = swarm.events.subscribe([ConnOpened, ConnClosed])
    recorder = Recorder([])
    recorder.on["connected"] = lambda network, conn: conn.abort(5)
    swarm.notify(recorder)
    conn = swarm.add_conn(FakeConn(THEM))
    await eventually(lambda: not swarm.num_conns)
    await swarm.close()
    first, second = await waiting(subscription)
    assert first == ConnOpened(conn)
    assert isinstance(second, ConnClosed)
    assert (second.conn, second.code, second.by_peer) == (conn, 5, False)


@looped
async def test_connectedness_is_told_only_when_it_changes() -> None:
    swarm, _ = make_swarm()
    subscription = swarm.events.subscribe([ConnectednessChanged])
    limited = swarm.add_conn(FakeConn(THEM, is_limited=True))
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    direct, second = swarm.add_conn(FakeConn(THEM)), swarm.add_conn(FakeConn(THEM))
    await second.close()
    await direct.close()
    await limited.close()
    await swarm.close()
    told = [event.connectedness for event in await waiting(subscription) if hasattr(event, "connectedness")]
    assert told == [
        Connectedness.LIMITED,
        Connectedness.CONNECTED,
        Connectedness.LIMITED,
        Connectedness.NOT_CONNECTED,
    ]


@looped
async def test_listeners_and_addresses_are_told() -> None:
    swarm, tcp = make_swarm()
    subscription = swarm.events.subscribe([ListenerOpened, ListenerEnded, AddrsChanged])
    await swarm.listen(addr(1), addr(2))
    tcp.listeners[0].queue.put_nowait(OSError("gone"))
    await eventually(lambda: swarm.listen_addresses() == [addr(2)] and tcp.listeners[0].is_closed)
    await swarm.close()
    events = await waiting(subscription)
    assert events[:4] == [
        ListenerOpened(addr(1)),
        AddrsChanged((addr(1),)),
        ListenerOpened(addr(2)),
        AddrsChanged((addr(1), addr(2))),
    ]
    died, changed, closed, none = events[4:]
    assert isinstance(died, ListenerEnded)
    assert (died.addr, type(died.error)) == (addr(1), OSError), "nobody closed it: it says why"
    assert changed == AddrsChanged((addr(2),))
    assert closed == ListenerEnded(addr(2), None)
    assert none == AddrsChanged(())


@virtual
async def test_addresses_that_change_under_a_wildcard_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm, _ = make_swarm()
    texts = ["10.0.0.1"]
    monkeypatch.setattr("p2pcore.manet.netif.interface_addresses", lambda: texts)
    await swarm.listen("/ip4/0.0.0.0/tcp/1")
    subscription = swarm.events.subscribe([AddrsChanged])
    for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.2"):
        texts[:] = [ip]
        assert swarm.interface_listen_addresses() == [addr(1, ip)]
        await asyncio.sleep(limits.INTERFACE_ADDRS_TTL_S + 1)
    assert await waiting(subscription) == [AddrsChanged((addr(1, "10.0.0.2"),))]
    await swarm.close()


@looped
async def test_a_listener_that_ends_without_a_reason_is_told_all_the_same() -> None:
    swarm, tcp = make_swarm()
    subscription = swarm.events.subscribe([ListenerEnded])
    await swarm.listen(addr(1))
    await swarm.listen(addr(2))
    tcp.listeners[0].queue.put_nowait(ListenerClosed("by itself"))
    event = await anext(subscription)
    assert isinstance(event, ListenerEnded)
    assert isinstance(event.error, ListenerClosed)
    closed = ListenerClosed("because of ...")
    closed.__cause__ = ZeroDivisionError()
    tcp.listeners[1].queue.put_nowait(closed)
    event = await anext(subscription)
    assert event == ListenerEnded(addr(2), closed.__cause__)
    await swarm.close()


@looped
async def test_a_listeners_troubles_are_told() -> None:
    news = News()
    news.listener_changed(addr(1), ListenerState.RETRYING, OSError("unheard"))
    subscription = news.events.subscribe()
    error = OSError(24, "too many open files")
    news.listener_changed(addr(1), ListenerState.RETRYING, error)
    news.listener_changed(addr(1), ListenerState.LISTENING, None)
    news.listener_changed(addr(1), ListenerState.CLOSED, None)
    assert await waiting(subscription) == [ListenerRetrying(addr(1), error), ListenerRecovered(addr(1))]


@looped
async def test_a_failed_dial_is_told_once_however_many_wait_for_it() -> None:
    swarm, tcp = make_swarm()
    subscription = swarm.events.subscribe([DialFailed])
    tcp.errors[addr(1)] = OSError("refused")
    tries = (swarm.dial_peer(THEM, [addr(1)]) for _ in range(3))
    errors = await asyncio.gather(*tries, return_exceptions=True)
    with pytest.raises(DialError):
        await swarm.dial_addr(addr(1))
    first, second = await waiting(subscription)
    assert isinstance(first, DialFailed)
    assert isinstance(second, DialFailed)
    assert first.peer == THEM
    assert any(first.error is error for error in errors)
    assert second.peer is None
    assert swarm.counters()["dials failed"] == 2
    await swarm.close()


@looped
async def test_failed_upgrades_are_told_on_both_sides_with_stage_and_addresses() -> None:
    async with Host() as server, Host(listen=()) as dialer:
        inbound, outbound = server.events(UpgradeFailed), dialer.events(UpgradeFailed)
        wrong = server.addrs[0].with_p2p(THEM)
        with pytest.raises(DialError):
            await dialer.connect(wrong)
        theirs, ours = await anext(inbound), await anext(outbound)
        assert isinstance(theirs, UpgradeFailed)
        assert isinstance(ours, UpgradeFailed)
        assert (theirs.direction, ours.direction) == (Direction.INBOUND, Direction.OUTBOUND)
        assert theirs.stage == ours.stage == "security handshake"
        assert theirs.local == ours.remote == server.addrs[0]
        assert theirs.remote is not None
        assert "expected peer" in str(ours.error)
        assert server.counters()["upgrades failed: security handshake"] == 1


def test_a_host_tells_of_its_connections_and_ends_with_it() -> None:
    async def main() -> list[Event]:
        async with Host(identify=False) as server, Host(listen=(), identify=False) as dialer:
            subscription = server.events()
            conn = await dialer.connect(server.addrs_with_peer[0])
            await eventually(lambda: server.swarm.num_conns)
            await conn.close(codes.CONN_GARBAGE_COLLECTED)
            await eventually(lambda: not server.swarm.num_conns)
        return [event async for event in subscription]

    events = run(main())
    assert [type(event) for event in events[:4]] == [
        ConnOpened,
        ConnectednessChanged,
        ConnectednessChanged,
        ConnClosed,
    ]
    closed: Any = events[3]
    assert (closed.code, closed.by_peer) == (codes.CONN_GARBAGE_COLLECTED, True)


@looped
async def test_each_host_counts_for_itself() -> None:
    async with Host(identify=False) as server, Host(listen=(), identify=False) as dialer:
        for _ in range(3):
            await (await dialer.connect(server.addrs_with_peer[0])).close()
        await eventually(lambda: server.counters()["connections closed"] == 3)
        assert (dialer.counters()["dials worked"], server.counters()["dials worked"]) == (3, 0)


@looped
async def test_counters_do_not_fall_when_a_listener_closes() -> None:
    async with Host(identify=False) as server, Host(listen=(), identify=False) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(server.addrs[0].with_p2p(THEM))
        await eventually(lambda: "upgrades failed: security handshake" in server.counters())
        before = server.counters()
        await server.swarm.listen_close(*server.swarm.listen_addresses())
        assert server.counters() == before


def test_errors_of_accept_are_counted_by_name() -> None:
    news = News()
    news.accept_failed(addr(1), OSError(24, "too many open files"))
    assert news.counters()["accept errors: EMFILE"] == 1


@looped
async def test_a_subscriber_that_never_reads_holds_nobody_up() -> None:
    async with Host(identify=False) as server, Host(listen=(), identify=False) as dialer:
        stuck = server.events(queue=2)
        for _ in range(5):
            conn = await dialer.connect(server.addrs_with_peer[0])
            await conn.close()
        await eventually(lambda: server.counters()["connections closed"] == 5)
        first = await anext(stuck)
        assert isinstance(first, Missed)
        assert first.count >= 10


@looped
async def test_without_subscribers_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"{name} was made for nobody")

    monkeypatch.setattr("p2pcore.swarm.news.events", Refusing())

    async with Host(identify=False) as server, Host(listen=(), identify=False) as dialer:
        conn = await dialer.connect(server.addrs_with_peer[0])
        await conn.close()
        await eventually(lambda: server.counters()["connections closed"] == 1)
