"""The connection manager's promises: CM-T01 to T16 of the list of cases, and what defends against crowds."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from trimming import Room, at, id_of, trimmed

from harness import ended_by, eventually, looped, seconds, settle
from hosts import BARE, pair
from p2pcore import (
    ConnManager,
    Direction,
    GoAway,
    Host,
    LimitExceeded,
    Limits,
    Stream,
    TcpOptions,
    codes,
    limits,
)
from p2pcore.resources import conn_manager
from p2pcore.resources.order import block_of
from p2pcore.swarm.events import ConnTrimmed, KeepLost, KeepRestored
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import FakeConn, make_swarm
from virtual_time import now, virtual

TRIMMED = codes.CONN_GARBAGE_COLLECTED


# -- marks -------------------------------------------------------------------------------------


@virtual
async def test_cm_t01_above_the_high_mark_it_closes_down_to_the_low_one_and_never_the_newcomer() -> None:
    room = Room(low=200, high=300, grace_s=0)
    room.add(range(300))
    await trimmed(room)
    assert room.gone == set()
    for number in range(300):
        room.manager.tag(id_of(number), "worth", number)
    room.add([300])
    await trimmed(room)
    assert room.gone == set(range(101))
    assert {room.code_of(number) for number in room.gone} == {TRIMMED}
    assert room.num_left == 200


@virtual
async def test_cm_t02_tagged_peers_stay_and_a_negative_value_goes_first() -> None:
    room = Room(low=299, high=300, grace_s=0)
    room.add(range(300))
    for number in range(100):
        room.manager.tag(id_of(number), "worth", 10)
    room.manager.tag(id_of(150), "bad", -5)
    room.add([300])
    await trimmed(room)
    assert 150 in room.gone
    room.add(range(301, 303))
    await trimmed(room)
    assert len(room.gone) > 2
    assert not room.gone & set(range(100))


@virtual
async def test_cm_t03_young_ones_wait_for_their_grace_and_then_go_without_a_new_connection() -> None:
    room = Room(low=10, high=20, grace_s=0.1)
    room.add([0])
    await asyncio.sleep(1)
    room.add(range(1, 31))
    await asyncio.sleep(0.09)
    assert room.gone == set()
    await asyncio.sleep(0.1)
    assert room.num_left == 10


@virtual
async def test_cm_t04_both_connections_of_a_peer_count_and_one_may_be_enough() -> None:
    room = Room(low=4, high=5, grace_s=0)
    room.add([0], peer=77)
    await asyncio.sleep(2)
    room.add([1], peer=77)
    room.add(range(2, 5), streams=1)
    await trimmed(room)
    assert room.gone == set()
    room.add([5], streams=1)
    await trimmed(room)
    assert room.gone == {0, 1}
    room = Room(low=4, high=4, grace_s=0)
    room.add([0], peer=77)
    await asyncio.sleep(2)
    room.add([1], peer=77)
    room.add(range(2, 5), streams=1)
    await trimmed(room)
    assert room.gone == {0}


@virtual
async def test_cm_t05_a_peer_is_protected_under_each_name() -> None:
    room = Room(low=1, high=1, grace_s=0)
    room.add([0])
    room.manager.protect(id_of(0), "a")
    room.manager.protect(id_of(0), "b")
    assert room.manager.unprotect(id_of(0), "a")
    assert room.manager.is_protected(id_of(0))
    assert room.manager.is_protected(id_of(0), "b")
    assert not room.manager.is_protected(id_of(0), "a")
    room.add([1])
    await trimmed(room)
    assert room.gone == set()
    assert not room.manager.unprotect(id_of(0), "b")
    await asyncio.sleep(0.1)
    room.add([2])
    await trimmed(room)
    assert 0 in room.gone


@virtual
async def test_cm_t06_protection_is_not_counted() -> None:
    manager = ConnManager()
    manager.protect(id_of(1), "a")
    manager.protect(id_of(1), "a")
    assert not manager.unprotect(id_of(1), "a")
    assert not manager.is_protected(id_of(1))


@virtual
async def test_protection_with_a_time_limit_ends_by_itself() -> None:
    manager = ConnManager()
    manager.protect(id_of(1), "a", ttl_s=5)
    await asyncio.sleep(4.9)
    assert manager.is_protected(id_of(1))
    await asyncio.sleep(0.2)
    assert not manager.is_protected(id_of(1))
    assert len(manager._protections) == 0


@virtual
async def test_cm_t07_a_tag_set_before_its_peer_connects_counts_and_ends_if_it_never_does() -> None:
    room = Room(low=1, high=1, grace_s=0, tag_ttl_s=60)
    room.manager.tag(id_of(1), "worth", 10)
    room.manager.tag(id_of(2), "worth", 10)
    room.add([0, 1])
    await trimmed(room)
    assert room.gone == {0}
    await asyncio.sleep(61)
    assert room.manager.value(id_of(1)) == 10
    assert room.manager.tags(id_of(2)) == {}
    assert len(room.manager._tags) == 1


@virtual
async def test_tags_of_a_peer_that_goes_are_kept_for_a_while_and_only_of_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_ABSENT_TAGGED_PEERS", 3)
    room = Room(tag_ttl_s=60)
    room.add([0])
    room.manager.tag(id_of(0), "worth", 5)
    await asyncio.sleep(100)
    room[0].end()
    await settle()
    await asyncio.sleep(50)
    assert room.manager.value(id_of(0)) == 5
    await asyncio.sleep(11)
    assert room.manager.value(id_of(0)) == 0
    for number in range(1, 6):
        room.manager.tag(id_of(number), "worth", 1)
    assert [number for number in range(1, 6) if room.manager.value(id_of(number))] == [3, 4, 5]


@virtual
async def test_connections_cost_no_call_until_something_is_wanted_of_them() -> None:
    room = Room(low=80, high=100, grace_s=0)
    assert (room.manager.joined_above, room.manager.wants_ends) == (100, False)
    room.add(range(101))
    await trimmed(room)
    assert room.manager.wants_ends
    for use in (
        Room(idle_s=5),
        tagged := Room(),
        bumped := Room(),
        kept := Room(),
    ):
        tagged.manager.tag(id_of(1), "x", 1)
        bumped.manager.bump(id_of(1), "x", 1)
        kept.manager.keep(id_of(1))
        assert (use.manager.joined_above, use.manager.wants_ends) == (-1, True)
        use.manager.set_max_conns(1000)
        assert use.manager.joined_above == -1
        await use.manager.close()


@virtual
async def test_a_peer_has_gone_only_with_its_last_connection() -> None:
    room = Room(tag_ttl_s=60)
    room.add([0, 1], peer=7)
    room.manager.tag(id_of(7), "worth", 5)
    events = room.swarm.events.subscribe([KeepLost])
    room.manager.keep(id_of(7))
    room[0].end()
    await asyncio.sleep(100)
    assert room.manager.value(id_of(7)) == 5
    room[1].end()
    await asyncio.sleep(100)
    assert room.manager.value(id_of(7)) == 0
    assert isinstance(await anext(events), KeepLost)
    assert not events._queue
    await room.manager.close()


ORDER = ["a value less", "no streams", "idle longer", "inbound", "younger"]


@pytest.mark.parametrize("step", range(len(ORDER)), ids=ORDER)
def test_cm_t08_each_part_of_the_order_decides_only_where_all_before_it_are_equal(step: int) -> None:
    """Of 1 and 2, the former is worse in this part, the latter in all later parts."""

    def is_worse(number: int, part: int) -> bool:
        return part == step if number == 1 else part > step

    @virtual
    async def test() -> None:
        room = Room(low=2, high=2, grace_s=0)
        for number in (1, 2) if is_worse(2, 4) else (2, 1):
            await asyncio.sleep(0.2)
            room.add([number], direction=Direction.INBOUND if is_worse(number, 3) else Direction.OUTBOUND)
            room.manager.tag(id_of(number), "v", 1 if is_worse(number, 0) else 2)
            room[number].num_streams = 0 if is_worse(number, 1) else 1
            room[number].active_at = 90 if is_worse(number, 2) else 100
        room.add([3])
        room.manager.tag(id_of(3), "v", 9)
        await trimmed(room)
        assert room.gone == {1}

    test()


class FakeLedger:
    """A budget of memory; what is used follows from what the connections of `room` hold."""

    elsewhere = 0

    def __init__(self, room: Room, memory: int) -> None:
        self.room = room
        self.memory = memory

    @property
    def used(self) -> int:
        alive = [fake for fake in self.room.conns.values() if not fake.is_closed]
        streams = sum(fake.num_streams for fake in alive) * limits.STREAM_COST_BYTES
        bytes_held = sum(fake.unread + fake.unsent + limits.CONN_COST_BYTES for fake in alive)
        return self.elsewhere + streams + bytes_held

    @property
    def state(self) -> int:
        return 3 if self.used * 100 > self.memory * limits.MEMORY_FULL_END_PERCENT else 0


@virtual
async def test_cm_t09_under_memory_pressure_the_largest_holders_go_and_protected_ones_last() -> None:
    room = Room()
    room.add(range(10))
    for number in range(10):
        room[number].unread, room[number].unsent = 500_000 * number, 500_000 * number
    room[5].num_streams = 2000  # as much as 4 MB
    for number in (8, 9):
        room.manager.protect(id_of(number), "mine")
    ledger = FakeLedger(room, 48_000_000)
    room.manager.relieve(ledger)
    await settle(20)
    assert room.gone == {5}
    assert room.code_of(5) == codes.CONN_RESOURCE_LIMIT_EXCEEDED
    assert room[5].reset_code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
    ledger.memory = 19_000_000
    room.manager.relieve(ledger)
    await settle(20)
    await asyncio.sleep(1)
    assert room.gone == {2, 3, 4, 5, 6, 7, 9}
    assert ledger.state == 0


@virtual
async def test_a_block_that_holds_much_in_many_connections_goes_before_one_large_holder() -> None:
    room = Room()
    room.add(range(1000, 1200), block=70_000)
    room.add([0])
    for fake in room.conns.values():
        fake.unread = 400_000
    room[0].unread = 4_000_000
    room.manager.relieve(FakeLedger(room, 80_000_000))
    await asyncio.sleep(1)
    assert 0 not in room.gone
    assert 0 < len(room.gone) < 200


@virtual
async def test_small_holders_stay_even_if_memory_stays_full() -> None:
    """What is held by nobody here, such as by handlers of connections that have ended, is no reason."""
    room = Room()
    room.add(range(100))
    ledger = FakeLedger(room, 1_000_000)
    ledger.elsewhere = 2_000_000
    room[7].unread = 50_000
    room.manager.relieve(ledger)
    await asyncio.sleep(10)
    assert room.gone == {7}


@virtual
async def test_relief_goes_on_while_memory_is_full_and_ends_with_it() -> None:
    room = Room()
    room.add(range(300))
    for number in range(300):
        room[number].unread = 1_000_000
    ledger = FakeLedger(room, 100_000_000)
    room.manager.relieve(ledger)
    await asyncio.sleep(10)
    assert room.num_left == 84
    assert room.swarm.counters()["connections trimmed: memory"] == 216


@virtual
async def test_cm_t10_a_value_halves_with_time_and_is_dropped_when_it_has_faded() -> None:
    manager = ConnManager()
    manager.tag(id_of(1), "x", 8, half_life_s=60)
    await asyncio.sleep(60)
    assert manager.value(id_of(1)) == pytest.approx(4)
    await asyncio.sleep(120)
    assert manager.tags(id_of(1)) == {"x": pytest.approx(1)}
    await asyncio.sleep(61)
    assert manager.tags(id_of(1)) == {}
    assert len(manager._tags) == 0


@virtual
async def test_a_bump_adds_to_what_is_left_up_to_its_cap() -> None:
    manager = ConnManager()
    manager.bump(id_of(1), "x", 8, half_life_s=60)
    await asyncio.sleep(60)
    manager.bump(id_of(1), "x", 3, half_life_s=60)
    assert manager.value(id_of(1)) == pytest.approx(7)
    manager.bump(id_of(1), "x", 30, cap=15)
    assert manager.value(id_of(1)) == 15
    manager.untag(id_of(1), "x")
    assert manager.value(id_of(1)) == 0


@virtual
async def test_cm_t11_an_idle_connection_is_closed_and_a_stream_begins_the_time_anew() -> None:
    room = Room(idle_s=5)
    room.add([0, 1])
    events = room.swarm.events.subscribe([ConnTrimmed])
    await asyncio.sleep(4.9)
    room[0].num_streams = 1
    await asyncio.sleep(0.5)
    assert room.gone == {1}
    assert room.code_of(1) == TRIMMED
    await asyncio.sleep(10)
    room[0].num_streams, room[0].active_at = 0, now()
    await asyncio.sleep(4.9)
    assert room.gone == {1}
    await asyncio.sleep(0.3)
    assert room.gone == {0, 1}
    assert (await anext(events)).reason == "idle"  # type: ignore[attr-defined]
    assert room.swarm.counters()["connections trimmed: idle"] == 2


@virtual
async def test_idle_connections_stay_that_the_program_protects_tags_or_wants_to_keep() -> None:
    asked = []

    def may_close(conn: Any) -> bool:
        asked.append(conn.remote_peer)
        if conn.remote_peer == id_of(3):
            raise ValueError("a fault of the program")
        return bool(conn.remote_peer == id_of(4))

    room = Room(idle_s=5, may_close=may_close)
    room.add(range(5))
    room.manager.protect(id_of(0), "mine")
    room.manager.tag(id_of(1), "useful", 1)
    await asyncio.sleep(6)
    assert room.gone == {4}
    assert set(asked) == {id_of(2), id_of(3), id_of(4)}
    await asyncio.sleep(5)
    assert Counter(asked)[id_of(2)] == 2
    room.manager.untag(id_of(1), "useful")
    await asyncio.sleep(6)
    assert room.gone == {4}  # may_close says no


@virtual
async def test_nothing_is_kept_of_connections_that_have_ended_while_they_waited_to_be_idle() -> None:
    room = Room(idle_s=5)
    room.add(range(1000))
    for fake in room.conns.values():
        fake.end()
    await settle()
    assert not room.manager._idle._slot_of  # type: ignore[union-attr]
    assert not room.manager._idle._slots  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "max_conns"),
    [({"high": 101}, 100), ({"low": 91}, 100), ({"low": 20, "high": 10}, None), ({"low": 0}, None)],
)
def test_cm_t12_marks_that_do_not_fit_are_refused(options: dict[str, int], max_conns: int | None) -> None:
    with pytest.raises(ValueError, match=r"high|low"):
        Host(limits=Limits(max_conns=max_conns), conn_manager=ConnManager(**options))  # type: ignore[arg-type]


def test_the_marks_follow_from_the_cap_on_connections() -> None:
    manager = ConnManager()
    assert (manager.low, manager.high) == (None, None)
    manager.set_max_conns(1000)
    assert (manager.low, manager.high) == (800, 900)
    manager.set_max_conns(None)
    assert manager.high is None
    manager.set_max_conns(9)
    assert (manager.low, manager.high) == (9, 9)
    manager.set_max_conns(1)
    assert (manager.low, manager.high) == (1, 1)
    off = ConnManager(high=0)
    off.set_max_conns(1000)
    assert off.high is None
    half = ConnManager(high=500)
    half.set_max_conns(1000)
    assert (half.low, half.high) == (445, 500)


@virtual
async def test_lowering_the_cap_closes_nothing_until_the_next_connection_comes() -> None:
    room = Room(grace_s=0)
    room.add(range(100))
    room.manager.set_max_conns(50)
    await trimmed(room)
    assert room.gone == set()
    room.add([100])
    await trimmed(room)
    assert room.num_left == 40


@virtual
async def test_cm_t13_where_all_are_protected_nothing_is_closed_and_it_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    look = conn_manager.Choice.look
    monkeypatch.setattr(
        conn_manager.Choice, "look", lambda self, part: (passes.append(now()), look(self, part))
    )
    room = Room(low=5, high=10, grace_s=0)
    for number in range(40):
        room.manager.protect(id_of(number), "mine")
    with caplog.at_level(logging.WARNING):
        for number in range(40):
            room.add([number])
            await asyncio.sleep(0.1)
    await asyncio.sleep(60)
    assert room.gone == set()
    assert len([record for record in caplog.records if "none can be closed" in record.message]) == 1
    assert len(passes) <= 30  # one for each connection above the mark, and then none
    passes.clear()
    for number in range(40, 140):  # of a hundred that come at once, the first is enough
        room.manager.protect(id_of(number), "mine")
        room.add([number])
    await asyncio.sleep(60)
    assert len(passes) <= 2


@virtual
async def test_cm_t14_a_kept_peer_is_dialled_again_with_growing_pauses() -> None:
    swarm, tcp = make_swarm()
    manager, peer = swarm.conn_manager, id_of(1)
    events = swarm.events.subscribe([KeepLost, KeepRestored])
    manager.keep(peer, ["/ip4/10.0.0.1/tcp/1"])
    await settle(10)
    assert swarm.num_conns == 1
    assert manager.is_protected(peer)
    pauses = []
    for _ in range(4):
        pauses.append(await lost(swarm, tcp.conns[-1]))
    for pause, expected in zip(pauses, (1, 2, 4, 8), strict=True):
        assert expected * 0.5 <= pause <= expected * 1.5 + LOOK_S
    await asyncio.sleep(limits.KEEP_STEADY_S)
    assert 0.5 <= await lost(swarm, tcp.conns[-1]) <= 1.5 + LOOK_S
    seen = [type(await anext(events)) for _ in range(10)]
    assert seen == [KeepLost, KeepRestored] * 5
    await manager.unkeep(peer)
    tcp.conns[-1].end()
    await asyncio.sleep(1000)
    assert swarm.num_conns == 0
    assert not manager.is_protected(peer)


LOOK_S = 0.01


async def lost(swarm: Any, fake: FakeConn) -> float:
    """Ends the connection; returns after how long there is another one."""
    began = now()
    fake.end()
    await settle()
    assert swarm.num_conns == 0
    while not swarm.num_conns:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    return now() - began


@virtual
async def test_a_kept_peer_that_cannot_be_reached_is_dialled_for_ever_and_not_after_the_end() -> None:
    swarm, tcp = make_swarm()
    target = Multiaddr("/ip4/10.0.0.1/tcp/1")
    tcp.errors[target] = OSError("no route")
    events = swarm.events.subscribe([KeepLost, KeepRestored])
    swarm.conn_manager.keep(id_of(1), [target])
    await asyncio.sleep(3600)
    assert 10 <= len(tcp.dialled) <= 40
    assert isinstance(await anext(events), KeepLost)
    del tcp.errors[target]
    await asyncio.sleep(limits.KEEP_PAUSE_MAX_S * 1.5)
    assert isinstance(await anext(events), KeepRestored)
    tcp.errors[target] = OSError("no route")
    tcp.conns[-1].end()
    await asyncio.sleep(1)
    await swarm.close()
    num = len(tcp.dialled)
    await asyncio.sleep(3600)
    assert len(tcp.dialled) == num


@virtual
async def test_cm_t15_a_trim_of_1800_of_18000_does_a_bounded_part_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts: list[int] = []
    look = conn_manager.Choice.look
    monkeypatch.setattr(
        conn_manager.Choice, "look", lambda self, part: (parts.append(len(part)), look(self, part))
    )
    room = Room(low=16_200, high=18_000, grace_s=0)
    room.add(range(18_000))
    for number in range(0, 18_000, 2):
        room.manager.tag(id_of(number), "worth", 10)
    room.add([18_000])
    before = closed = 0
    for _ in range(100):
        await asyncio.sleep(0)
        closed = len(room.manager._closing) + 18_001 - room.num_left
        assert closed - before <= limits.TRIM_CLOSINGS
        before = closed
    await trimmed(room)
    assert len(room.gone) == 1801
    assert not room.gone & set(range(0, 18_000, 2))
    assert max(parts) <= limits.TRIM_PART_CONNS
    assert sum(parts) == 18_001


@virtual
async def test_cm_t16_a_burst_above_the_mark_in_one_turn_is_one_trim_and_none_of_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = []
    start = conn_manager.Turns.start
    monkeypatch.setattr(
        conn_manager.Turns, "start", lambda self, work: (starts.append(work), start(self, work))
    )
    room = Room(low=200, high=300, grace_s=0)
    room.add(range(300))
    room.add(range(300, 330))
    await trimmed(room)
    assert len(starts) == 1
    assert len(room.gone) == 130
    assert room.gone <= set(range(300))


# -- crowds ------------------------------------------------------------------------------------


def crowd(room: Room, **more: Any) -> None:
    """40 honest ones in blocks of their own, then 400 attackers with what `more` says; nobody is old."""
    room.add(range(40))
    room.add(range(1000, 1400), **more)


@pytest.mark.parametrize(
    "more",
    [{"block": 70_000}, {"block": 70_000, "streams": 3}, {"peer": 5000}],
    ids=["block", "streams", "peer"],
)
def test_a_block_or_a_peer_that_fills_the_node_loses_its_own_connections(more: dict[str, int]) -> None:
    @virtual
    async def test() -> None:
        room = Room(low=320, high=400)
        crowd(room, **more)
        await trimmed(room)
        for number in range(40, 80):
            room.add([number])
            await trimmed(room)
            room.add([2000 + number], **more)
            await trimmed(room)
        assert not room.gone & set(range(80))
        assert {room[number].abort_code for number in room.gone} == {TRIMMED}
        assert room.num_left <= 400
        assert room.swarm.counters()["connections trimmed: crowd"] == len(room.gone)

    test()


@virtual
async def test_a_crowd_keeps_its_share() -> None:
    room = Room(low=320, high=400, grace_s=0)
    room.add(range(300), streams=1)
    await asyncio.sleep(5)
    room.add(range(1000, 1100), block=70_000)
    await trimmed(room)
    assert room.gone == set()
    room.add([300])
    await trimmed(room)
    # 20 of 100 are above the share of 80. The others have no streams, so as usual they go before those that
    # have.
    assert room.num_left == 320
    assert len(room.gone - set(range(1000, 1100))) == 0
    assert room.swarm.counters()["connections trimmed: crowd"] == 20
    assert room.swarm.counters()["connections trimmed: marks"] == 61


@virtual
async def test_300_busy_connections_of_an_office_outlive_idle_strangers() -> None:
    """The honest twin of a crowd: many users behind one address, on a node that reaches its high mark."""
    room = Room(low=1638, high=1843)
    room.add(range(1543))
    await asyncio.sleep(30)
    room.add(range(5000, 5300), block=70_000, streams=2)
    await asyncio.sleep(30)
    room.add([1543])
    await trimmed(room)
    assert room.num_left == 1638
    assert not room.gone & set(range(5000, 5300))


@virtual
async def test_where_all_come_through_one_proxy_old_and_idle_ones_go_before_new_ones() -> None:
    room = Room(low=320, high=400)
    room.add(range(200), block=1)
    await asyncio.sleep(60)
    room.add(range(200, 390), block=1, streams=1)
    await asyncio.sleep(60)
    room.add(range(390, 401), block=1)
    await trimmed(room)
    assert room.num_left == 320
    assert room.gone <= set(range(200))


@virtual
async def test_many_young_connections_from_many_blocks_never_push_out_old_ones() -> None:
    room = Room(low=320, high=400, grace_s=20)
    room.add(range(300))
    await asyncio.sleep(60)
    room.add(range(1000, 1300))
    await asyncio.sleep(10)
    assert room.gone == set()
    room.manager.tag(id_of(0), "x", 1)
    await asyncio.sleep(15)
    assert room.num_left <= 400


@virtual
async def test_a_crowd_is_found_while_young_connections_are_waited_for() -> None:
    room = Room(low=320, high=400, grace_s=20)
    room.add(range(401))
    await asyncio.sleep(1)
    assert room.gone == set()
    for number in range(1000, 1400):
        room.add([number], block=70_000)
        await asyncio.sleep(0.01)
    assert len(room.gone) > 200
    assert room.gone <= set(range(1000, 1400))
    await asyncio.sleep(20)
    assert room.num_left <= 400


@virtual
async def test_the_newcomer_of_a_crowd_stays_even_if_the_trim_takes_several_passes() -> None:
    room = Room(low=320, high=400)
    room.add(range(1000, 1401), block=70_000)
    await trimmed(room)
    assert room.gone
    assert 1400 not in room.gone


@virtual
async def test_silent_connections_go_before_those_that_have_been_used() -> None:
    room = Room(low=80, high=100, grace_s=5)
    room.add(range(50))
    await asyncio.sleep(100)
    for number in range(50):
        room[number].active_at = now()
    room.add(range(1000, 1050))
    await asyncio.sleep(1)
    for number in range(50):
        room[number].active_at = now()
    await asyncio.sleep(10)
    room.add([2000])
    await trimmed(room)
    assert room.num_left == 80
    assert room.gone <= set(range(1000, 1050))


@pytest.mark.parametrize(
    ("addr", "block"),
    [
        ("/ip4/1.2.3.4/tcp/5", "04 01 02 03 04"),
        ("/ip6/2001:db8:1:2233::7/tcp/5", "29 20 01 0d b8 00 01 22"),
        ("/ip4/1.2.3.4/tcp/5/p2p/12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p/p2p-circuit", None),
        ("/ip6zone/eth0/ip6/fe80::7/tcp/5", "29 fe 80 00 00 00 00 00"),
        ("/unix/tmp/x", None),
    ],
)
def test_a_block_is_an_ip4_address_or_an_ip6_56(addr: str, block: str | None) -> None:
    assert block_of(Multiaddr(addr)) == (None if block is None else bytes.fromhex(block))
    assert block_of(None) is None


@virtual
async def test_make_room_closes_the_least_useful_at_once_young_ones_last_and_protected_ones_never() -> None:
    room = Room()
    room.add(range(4))
    await asyncio.sleep(60)
    room.add(range(4, 8))
    room.manager.protect(id_of(0), "mine")
    room.manager.tag(id_of(1), "worth", 1)
    room.manager.make_room(2)
    await trimmed(room)
    assert room.gone == {2, 3}
    assert all(room[number].aborted for number in room.gone)
    room.manager.make_room(100)
    await trimmed(room)
    assert room.gone == {1, 2, 3, 4, 5, 6, 7}


@virtual
async def test_the_connections_of_one_peer_are_looked_at_in_parts_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    look = conn_manager.Choice.look
    monkeypatch.setattr(
        conn_manager.Choice, "look", lambda self, part: (sizes.append(len(part)), look(self, part))
    )
    room = Room(low=2500, high=3000)
    room.add(range(3001), peer=7)
    for number in range(3001, 3010):  # its connections come and go meanwhile
        await asyncio.sleep(0)
        room.add([number], peer=7)
        room[number].end()
    await trimmed(room)
    assert max(sizes) <= limits.TRIM_PART_CONNS
    assert room.num_left == 2500


@virtual
async def test_room_is_made_for_many_at_once_because_all_connections_are_looked_at() -> None:
    room = Room()
    room.add(range(640))
    room.manager.make_room(1)
    room.manager.make_room(1)
    await trimmed(room)
    assert len(room.gone) == 10


# -- on real connections -----------------------------------------------------------------------


@looped
async def test_a_trimmed_peer_gets_the_go_away_and_the_node_tells_it() -> None:
    async with Host(**BARE, conn_manager=ConnManager(1, 2, grace_s=0)) as server:
        events = server.events(ConnTrimmed)
        dialers = [Host(**BARE, listen=()) for _ in range(3)]
        conns = [await dialer.connect(server.addrs_with_peer[0]) for dialer in dialers]
        await eventually(lambda: conns[0].is_closed and conns[1].is_closed)
        assert not conns[2].is_closed
        for conn in conns[:2]:
            error = conn.session.close_reason
            assert isinstance(error, GoAway)
            assert (error.code, error.remote) == (TRIMMED, True)
        assert (await anext(events)).reason == "marks"
        await eventually(lambda: server.swarm.num_conns == 1)
        assert server.counters()["connections trimmed: marks"] == 2
        for dialer in dialers:
            await dialer.close()


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
def test_a_session_knows_when_its_peer_was_active_last(muxer: str) -> None:
    @looped
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with pair({"muxers": [muxer], "echo": True}, {"muxers": [muxer]}) as p:
            assert p.conn.session.active_at == 0
            before = loop.time()
            await p.dialer.echo(p.conn, b"hello")
            await eventually(lambda: p.server_conn.num_streams == 0)
            assert before - 0.1 <= p.server_conn.session.active_at <= loop.time() + 0.1
            assert p.conn.session.active_at > 0

    test()


@looped
async def test_a_ping_of_the_muxer_is_no_activity() -> None:
    async with pair() as p:
        await p.conn.session.ping()
        assert p.conn.session.active_at == p.server_conn.session.active_at == 0


@looped
async def test_idle_connections_of_a_host_are_closed() -> None:
    async with pair({"conn_manager": ConnManager(idle_s=0.2), "echo": True}) as p:
        stream = await p.conn.new_stream("/echo/1.0.0")
        await stream.write(b"x")
        await stream.read_exactly(1)
        await asyncio.sleep(0.5)
        assert not p.conn.is_closed
        await stream.close()
        await eventually(lambda: p.conn.is_closed, seconds(20))
        assert p.conn.session.close_reason.code == TRIMMED


@looped
async def test_when_memory_is_full_the_peer_that_nobody_reads_goes_and_the_honest_one_stays() -> None:
    async def never_reads(stream: Stream) -> None:
        await asyncio.Event().wait()

    async with (
        Host(**BARE, echo=True) as server,
        Host(**BARE, listen=()) as one,
        Host(**BARE, listen=()) as two,
    ):
        server.set_stream_handler("/never", never_reads)
        server.swarm.ledger.memory = 1024 * 1024
        greedy = await one.connect(server.addrs_with_peer[0])
        honest = await two.connect(server.addrs_with_peer[0])
        streams = [await greedy.new_stream("/never") for _ in range(6)]
        for stream in streams:
            await stream.write(b"x")
        await eventually(lambda: server.swarm.num_handlers_running == 6)
        ended = asyncio.create_task(ended_by(greedy))
        await asyncio.gather(*(stream.write(bytes(250_000)) for stream in streams), return_exceptions=True)
        error = await ended
        assert isinstance(error, GoAway)
        assert (error.code, error.remote) == (codes.CONN_RESOURCE_LIMIT_EXCEEDED, True)
        await eventually(lambda: server.swarm.num_conns == 1)
        assert await two.echo(honest, b"still here") == b"still here"
        assert server.counters()["connections trimmed: memory"] == 1


@looped
async def test_a_block_of_real_addresses_that_fills_a_node_does_not_keep_others_out() -> None:
    """127.0.0.2 opens connections without end; newcomers of 127.0.0.3 get in, and the old one stays."""
    options: dict[str, Any] = {
        "conn_manager": ConnManager(96, 120),
        "limits": Limits(max_conns=133, max_conns_per_peer=None),
        "echo": True,
    }
    async with Host(**BARE | options) as server:
        where = server.addrs_with_peer[0]

        def dialer(block: int) -> Host:
            return Host(**BARE, listen=(), tcp=TcpOptions(dial_from=f"127.0.0.{block}"))

        async with dialer(2) as attacker, dialer(3) as honest:
            old = await honest.connect(where)
            held = []
            for _ in range(30):
                held += await asyncio.gather(*(attacker.swarm.dial_addr(where) for _ in range(10)))
                fresh = await honest.swarm.dial_addr(where)
                assert await honest.echo(fresh, b"x") == b"x"
                await fresh.close()
                await eventually(lambda: server.swarm.num_conns <= 125)
            assert await honest.echo(old, b"x") == b"x"
            assert server.counters()["connections refused"] == 0
            assert sum(conn.is_closed for conn in held) >= 180


@looped
async def test_a_manager_belongs_to_one_host() -> None:
    manager = ConnManager()
    async with Host(**BARE, conn_manager=manager) as host:
        assert host.conn_manager is manager
        with pytest.raises(ValueError, match="another host"):
            Host(**BARE, conn_manager=manager)
    with pytest.raises(RuntimeError, match="while its host runs"):
        manager.keep(id_of(1))


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"low": "1"}, TypeError),
        ({"high": -1}, ValueError),
        ({"grace_s": -1}, ValueError),
        ({"idle_s": 0}, ValueError),
        ({"may_close": 1}, TypeError),
        ({"tag_ttl_s": 0}, ValueError),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(options))):
        ConnManager(**options)


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf")])
def test_a_value_is_a_finite_number(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="value"):
        ConnManager().tag(id_of(1), "x", value)


def test_tags_protections_and_kept_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TAGS_PER_PEER", 2)
    monkeypatch.setattr(limits, "MAX_PROTECTED_PEERS", 1)
    monkeypatch.setattr(limits, "MAX_KEPT_PEERS", 0)
    manager = ConnManager()
    for name in "ab":
        manager.tag(id_of(1), name, 1)
        manager.protect(id_of(1), name)
    manager.tag(id_of(1), "a", 2)
    for call in (
        lambda: manager.tag(id_of(1), "c", 1),
        lambda: manager.protect(id_of(1), "c"),
        lambda: manager.protect(id_of(2), "a"),
        lambda: manager.keep(id_of(1)),
    ):
        with pytest.raises(LimitExceeded):
            call()


@virtual
async def test_a_protection_that_has_ended_makes_way_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PROTECTED_PEERS", 1)
    manager = ConnManager()
    manager.protect(id_of(1), "a", ttl_s=1)
    await asyncio.sleep(2)
    manager.protect(id_of(2), "a")
    assert manager.is_protected(id_of(2))


def test_an_address_has_its_own_block() -> None:
    assert len({block_of(at(number)) for number in range(70_000)}) == 70_000
