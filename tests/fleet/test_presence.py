"""Where peers are: after connects and disconnects, after a process died, while the engine is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from fleets import Yard, until, until_found, yard

from many_peers import ManyPeers
from p2pcore import Host, IdentityError, PeerId
from p2pcore.errors import BusDown
from p2pcore.fleet import BusBack, BusLost, Fleet, MemoryBus
from p2pcore.fleet.memory_bus import MemoryBucket
from p2pcore.fleet.presence import key_of
from p2pcore.limits import (
    FLEET_BATCH,
    FLEET_EXPIRY_S,
    FLEET_LATE_S,
    FLEET_LEASE_S,
    FLEET_LOOK_S,
    FLEET_REFRESH_S,
    FLEET_RENEW_S,
)
from virtual_time import now, virtual

KNOWN_S = FLEET_LATE_S + FLEET_LOOK_S
"""After it, a process that was killed is known to have ended."""


async def machines(fleet: Fleet, peer: PeerId) -> list[str]:
    return sorted(place.machine for place in await fleet.where(peer))


def parts(fleet: Fleet) -> Any:
    assert fleet._parts is not None
    return fleet._parts


def requests_of(bus: MemoryBus) -> list[str]:
    """The list of the subjects of all requests from now on."""
    subjects: list[str] = []
    request = bus.request

    async def noted(subject: str, data: bytes, *, timeout_s: float) -> bytes:
        subjects.append(subject)
        return await request(subject, data, timeout_s=timeout_s)

    bus.request = noted  # type: ignore[method-assign]
    return subjects


def entries(made: Yard) -> dict[str, bytes]:
    table = made.engine._buckets["p2pcore-peers"].table
    return {key: value for shard in table._tree for key, value in table.get(shard).items()}


# -- who is where ------------------------------------------------------------------------------


@virtual
async def test_a_connected_peer_is_found_from_every_process() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await asyncio.sleep(0.1)
        for number, fleet in enumerate(made.fleets):
            (place,) = await fleet.where(peer.id)
            assert place.process == made.fleets[1].process
            assert place.machine == "m1"
            assert place.host_peer == made.hosts[1].peer_id
            assert place.is_local is (number == 1)


@virtual
async def test_the_text_of_an_id_will_do_and_nonsense_is_refused() -> None:
    async with yard(1) as made:
        peer = await made.peer(0)
        assert len(await made.fleets[0].where(str(peer.id))) == 1
        with pytest.raises(IdentityError):
            await made.fleets[0].where("nonsense")


@virtual
async def test_a_peer_that_left_is_nowhere() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await until_found(lambda: machines(made.fleets[0], peer.id), ["m1"])
        await peer.host.close_peer(made.hosts[1].peer_id)
        assert await until_found(lambda: machines(made.fleets[0], peer.id), []) <= 0.1
        assert entries(made) == {}


@virtual
async def test_a_peer_that_left_and_came_back_is_found_again() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        for _ in range(2):
            await until_found(lambda: machines(made.fleets[0], peer.id), ["m1"])
            await peer.host.close_peer(made.hosts[1].peer_id)
            await until_found(lambda: machines(made.fleets[0], peer.id), [])
            await made.connect(peer, 1)


@virtual
async def test_a_peer_of_two_processes_is_at_both_and_here_first() -> None:
    async with yard(3) as made:
        peer = await made.peer(2, 1)
        await asyncio.sleep(0.1)
        assert await machines(made.fleets[0], peer.id) == ["m1", "m2"]
        for here in (1, 2):
            first, second = await made.fleets[here].where(peer.id)
            assert first.is_local
            assert not second.is_local


@virtual
async def test_a_second_connection_of_a_peer_changes_nothing() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        second = await peer.host.swarm.dial_addr(made.hosts[1].addrs_with_peer[0])
        await until(lambda: made.hosts[1].swarm.num_conns == 2)
        await asyncio.sleep(0.1)
        assert made.fleets[0].num_connected() in (0, 1)
        await second.close()
        await asyncio.sleep(1)
        assert await machines(made.fleets[0], peer.id) == ["m1"]
        assert made.fleets[0].num_connected() == 1


@virtual
async def test_peers_that_were_connected_before_the_fleet_began_are_found() -> None:
    async with yard(1) as made:
        host = await made.stack.enter_async_context(made.network.host(ping=False, identify=False))
        made.hosts.append(host)
        peer = await made.peer(1)
        async with Fleet(host, MemoryBus(made.engine), machine="late"):
            await asyncio.sleep(0.1)
            assert await machines(made.fleets[0], peer.id) == ["late"]


@virtual
async def test_the_number_of_connected_peers_is_exact_after_half_a_second() -> None:
    async with yard(3) as made:
        peers = [await made.peer(n % 3) for n in range(9)]
        await asyncio.sleep(FLEET_REFRESH_S + 0.1)
        assert [fleet.num_connected() for fleet in made.fleets] == [9, 9, 9]
        await peers[0].host.close()
        await asyncio.sleep(FLEET_REFRESH_S + 0.1)
        assert [fleet.num_connected() for fleet in made.fleets] == [8, 8, 8]


@virtual
async def test_two_fleets_of_different_names_do_not_meet() -> None:
    async with yard(1) as made:
        other = await made.fleet(name="other")
        peer = await made.peer(0)
        await asyncio.sleep(0.1)
        assert await other.where(peer.id) == ()
        assert len(other.processes()) == 1


# -- what it costs -----------------------------------------------------------------------------


class Puts:
    """Counts the writes of the bucket with the peers, and what is in them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        put = MemoryBucket.put

        async def counted(bucket: MemoryBucket, given: Mapping[str, bytes | None]) -> None:
            if bucket._entries.name == "p2pcore-peers":
                self.sizes.append(len(given))
            await put(bucket, given)

        monkeypatch.setattr(MemoryBucket, "put", counted)


def test_connects_of_fifty_milliseconds_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    puts = Puts(monkeypatch)

    @virtual
    async def main() -> None:
        async with yard(1) as made:
            for _ in range(20):
                await made.peer(0)
            await asyncio.sleep(1)
            assert sum(puts.sizes) == 20
            assert len(puts.sizes) <= 2
            before = len(puts.sizes)
            await asyncio.sleep(600)
            assert len(puts.sizes) == before, "an idle connection costs nothing"
            await asyncio.sleep(600)
            assert sum(puts.sizes) == 40, "but one entry in ten to twenty minutes"

    main()


def test_a_peer_that_came_and_went_meanwhile_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    puts = Puts(monkeypatch)

    @virtual
    async def main() -> None:
        async with yard(1) as made:
            peer = await made.peer(0)
            await peer.host.close()
            await until(lambda: not made.hosts[0].swarm.num_conns)
            await asyncio.sleep(1)
            assert puts.sizes == []

    main()


# -- a process that dies -----------------------------------------------------------------------


@virtual
async def test_a_killed_process_counts_for_nothing_after_two_seconds() -> None:
    async with yard(3) as made:
        peer = await made.peer(1)
        await until_found(lambda: machines(made.fleets[0], peer.id), ["m1"])
        await made.kill(1)
        assert await until_found(lambda: machines(made.fleets[0], peer.id), []) <= KNOWN_S
        assert len(made.fleets[0].processes()) == len(made.fleets[2].processes()) == 2
        assert entries(made) != {}


@virtual
async def test_a_process_that_stands_still_counts_for_nothing_after_its_lease() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await until_found(lambda: machines(made.fleets[0], peer.id), ["m1"])
        await made.stand_still(1)
        assert KNOWN_S < await until_found(lambda: machines(made.fleets[0], peer.id), []) <= FLEET_LEASE_S


@virtual
async def test_a_killed_process_is_known_in_time_although_our_own_loop_stands_still_for_a_moment() -> None:
    async with yard(2) as made:
        await made.kill(1)
        began = now()
        directory = parts(made.fleets[0]).directory
        directory._ticked_at -= 2  # as if no tick had come for so long
        await until(lambda: len(made.fleets[0].processes()) == 1)
        assert now() - began <= KNOWN_S


@virtual
async def test_our_own_loop_that_stood_still_ends_no_lease_before_what_waits_was_read() -> None:
    async with yard(2) as made:
        await asyncio.sleep(2 * FLEET_LEASE_S)  # the trust of the beginning is over
        directory = parts(made.fleets[0]).directory
        heard, (at, lease) = next(iter(directory._heard.items()))
        directory._heard[heard] = at - 10, lease
        directory._ticked_at -= 10
        directory.tick()
        assert directory.is_alive(heard)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        assert directory.is_alive(heard)


@virtual
async def test_a_process_that_is_late_and_still_there_is_asked_and_stays() -> None:
    async with yard(2) as made:
        other = made.fleets[1]
        parts(other).member._loop = _Standing(parts(other).member._loop)
        asked = requests_of(made.buses[0])
        await asyncio.sleep(KNOWN_S + 0.1)
        assert asked
        assert set(asked) == {f"p2pcore.to.{other.process}"}
        assert parts(made.fleets[0]).directory.is_alive(other.process)
        assert parts(made.fleets[0]).member._asking == {}


def test_a_healthy_fleet_writes_two_leases_a_second_for_each_process_and_asks_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    puts: list[str] = []
    put = MemoryBucket.put

    async def counted(bucket: MemoryBucket, given: Mapping[str, bytes | None]) -> None:
        puts.append(bucket._entries.name)
        await put(bucket, given)

    monkeypatch.setattr(MemoryBucket, "put", counted)

    @virtual
    async def main() -> None:
        async with yard(3) as made:
            for n in range(6):
                await made.peer(n % 3)
            await asyncio.sleep(1)
            puts.clear()
            asked = requests_of(made.buses[0])
            await asyncio.sleep(60)
            assert set(puts) == {"p2pcore-processes"}
            assert len(puts) <= 3 * 60 / FLEET_REFRESH_S
            assert asked == []

    main()


@virtual
async def test_a_process_that_stands_still_loses_no_peer_to_others_for_good() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(0.1)
        member = parts(made.fleets[1]).member
        member._loop = _Standing(member._loop)
        await asyncio.sleep(5)
        assert await machines(made.fleets[0], peer.id) == []
        member._loop = asyncio.get_running_loop()
        member._woken.set()
        await asyncio.sleep(0.1)
        assert await machines(made.fleets[0], peer.id) == ["m1"]


class _Standing:
    """A loop whose time stands still: nothing is ever due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._at = loop.time()
        self.call_later = loop.call_later
        self.create_task = loop.create_task

    def time(self) -> float:
        return self._at - 1000


@virtual
async def test_entries_of_a_killed_process_go_after_an_hour_and_those_of_others_stay() -> None:
    async with yard(3) as made:
        for n in range(6):
            await made.peer(n % 3)
        await asyncio.sleep(0.1)
        await made.kill(1)
        assert len(entries(made)) == 6
        await asyncio.sleep(FLEET_EXPIRY_S)
        assert len(entries(made)) == 4
        assert not any(key.endswith(made.fleets[1].process) for key in entries(made))
        await asyncio.sleep(FLEET_EXPIRY_S)
        assert len(entries(made)) == 4


@virtual
async def test_an_entry_of_a_process_that_nobody_knows_counts_for_nothing() -> None:
    async with yard(1) as made:
        peer = await made.peer()
        bucket = await made.buses[0].bucket("p2pcore-peers", expiry_s=FLEET_EXPIRY_S)
        await bucket.put({f"{key_of(peer.id)}.gone": b"1"})
        assert await made.fleets[0].where(peer.id) == ()


@virtual
async def test_a_process_that_leaves_takes_its_entries_with_it() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await until_found(lambda: machines(made.fleets[0], peer.id), ["m1"])
        await made.fleets[1].close()
        assert await machines(made.fleets[0], peer.id) == []
        assert entries(made) == {}
        assert len(made.fleets[0].processes()) == 1
        await made.fleets[1].close()


# -- the engine is away ------------------------------------------------------------------------


@virtual
async def test_what_is_here_is_found_without_the_engine_and_the_rest_fails_at_once() -> None:
    async with yard(2) as made:
        here, there = await made.peer(0), await made.peer(1)
        await asyncio.sleep(1)
        made.engine.stop()
        began = now()
        assert await machines(made.fleets[0], here.id) == ["m0"]
        with pytest.raises(BusDown):
            await made.fleets[0].where(there.id)
        assert now() == began
        await asyncio.sleep(1)
        assert not made.fleets[0].is_up
        assert made.fleets[0].num_connected() == 1
        assert [place.is_local for place in made.fleets[0].processes()] == [True]


@virtual
async def test_presence_is_restored_with_what_changed_meanwhile() -> None:
    async with yard(2) as made:
        stays, leaves = await made.peer(1), await made.peer(1)
        await asyncio.sleep(1)
        made.engine.stop()
        await leaves.host.close()
        comes = await made.peer(1)
        await asyncio.sleep(10)
        made.engine.start()
        await asyncio.sleep(0.2)
        assert await machines(made.fleets[0], stays.id) == ["m1"]
        assert await machines(made.fleets[0], comes.id) == ["m1"]
        assert await machines(made.fleets[0], leaves.id) == []
        assert len(entries(made)) == 2


@virtual
async def test_presence_is_restored_when_the_engine_has_lost_all() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(1)
        made.engine.stop()
        await asyncio.sleep(10)
        made.engine.start(forget=True)
        await asyncio.sleep(FLEET_REFRESH_S + 0.1)
        assert await machines(made.fleets[0], peer.id) == ["m1"]
        assert len(made.fleets[0].processes()) == 2


@virtual
async def test_leases_that_held_when_the_engine_went_away_hold_when_it_returns() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(1)
        directory = parts(made.fleets[0]).directory
        heard: list[bool] = []
        with made.hosts[0].events(BusBack) as events:
            made.engine.stop()
            await asyncio.sleep(10)
            made.engine.start(forget=True)
            await anext(events)
            heard.append(directory.is_alive(made.fleets[1].process))
        await asyncio.sleep(0.2)
        heard.append(directory.is_alive(made.fleets[1].process))
        assert heard == [True, True]
        assert await machines(made.fleets[0], peer.id) == ["m1"]


@virtual
async def test_a_process_that_died_while_the_engine_was_away_is_gone_two_seconds_after_its_return() -> None:
    async with yard(2) as made:
        peer = await made.peer(1)
        await asyncio.sleep(1)
        made.engine.stop()
        await made.kill(1)
        await asyncio.sleep(10)
        made.engine.start()
        await asyncio.sleep(2.1)
        assert await machines(made.fleets[0], peer.id) == []
        assert len(made.fleets[0].processes()) == 1


@virtual
async def test_nothing_grows_while_peers_come_and_go_without_an_engine() -> None:
    async with yard(1) as made:
        made.engine.stop()
        await asyncio.sleep(1)
        for _ in range(30):
            peer = await made.peer(0)
            await peer.host.close()
        await until(lambda: not made.hosts[0].swarm.num_conns)
        presence = parts(made.fleets[0]).presence
        assert not presence.has_changes
        assert presence.num_written == 0


@virtual
async def test_an_event_and_a_metric_say_that_the_engine_is_away() -> None:
    async with yard(1) as made:
        with made.hosts[0].events(BusLost, BusBack) as events:
            made.engine.stop()
            assert isinstance(await anext(events), BusLost)
            assert "p2pcore_fleet_up 0" in made.hosts[0].metrics.text()
            made.engine.start()
            assert await anext(events) == BusBack()
            assert "p2pcore_fleet_up 1" in made.hosts[0].metrics.text()
        await made.fleets[0].close()
        assert "p2pcore_fleet" not in made.hosts[0].metrics.text()


@virtual
async def test_a_fleet_starts_without_the_engine_and_joins_when_it_comes() -> None:
    async with yard(1) as made:
        made.engine.stop()
        late = await made.fleet()
        assert not late.is_up
        peer = await made.peer(1)
        assert await machines(late, peer.id) == ["m1"]
        made.engine.start()
        await asyncio.sleep(FLEET_REFRESH_S + 0.1)
        assert late.is_up
        assert await machines(made.fleets[0], peer.id) == ["m1"]


@virtual
async def test_a_process_that_comes_late_asks_each_other_one_once_where_peers_are() -> None:
    async with yard(2) as made:
        peers = [await made.peer(n) for n in (0, 1, 1)]
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        host = await made.stack.enter_async_context(made.network.host(ping=False, identify=False))
        bus = MemoryBus(made.engine)
        asked = requests_of(bus)
        async with Fleet(host, bus) as late:
            await until(lambda: len(asked) == 2)
            await asyncio.sleep(0)
            guesses = [parts(late).hints.guess(peer.id) for peer in peers]
            assert guesses == [made.fleets[n].process for n in (0, 1, 1)]
            await asyncio.sleep(10)
            assert len(asked) == 2


@virtual
async def test_entries_that_are_written_again_are_news_again() -> None:
    async with yard(2) as made:
        peer = await made.peer(0)
        await asyncio.sleep(2 * FLEET_REFRESH_S)
        hints = parts(made.fleets[1]).hints
        hints.forget(peer.id)
        await asyncio.sleep(FLEET_RENEW_S + 2 * FLEET_REFRESH_S)
        assert hints.guess(peer.id) == made.fleets[0].process


def test_what_a_process_tells_of_its_peers_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pcore.fleet.presence.FLEET_MAX_NEWS", 100)
    monkeypatch.setattr("p2pcore.fleet.presence.FLEET_MAX_TOLD", 50)

    @virtual
    async def main() -> None:
        async with yard(1) as made:
            presence = parts(made.fleets[0]).presence
            presence._network = ManyPeers(200)
            presence.restore()
            await asyncio.sleep(0.1)
            assert len(presence._news) <= 100
            assert len(presence.marks()) == 4 * 50
            assert presence.num_written == 200
            presence._network = made.hosts[0].swarm

    main()


@virtual
async def test_a_restoration_goes_at_a_bounded_pace() -> None:
    async with yard(1) as made:
        presence = parts(made.fleets[0]).presence
        presence._network = ManyPeers(2 * FLEET_BATCH + 1)
        presence.restore()
        sizes = []
        for _ in range(100):
            await asyncio.sleep(0.05)
            sizes.append(len(entries(made)))
        assert [size for size in dict.fromkeys(sizes) if size] == [
            FLEET_BATCH,
            2 * FLEET_BATCH,
            2 * FLEET_BATCH + 1,
        ]
        presence._network = made.hosts[0].swarm


# -- use ---------------------------------------------------------------------------------------


@virtual
async def test_a_fleet_is_used_while_it_runs_and_starts_once() -> None:
    async with yard(1) as made:
        fleet = made.fleets[0]
        peer = await made.peer()
        with pytest.raises(RuntimeError, match="already"):
            await fleet.start()
        await fleet.close()
        with pytest.raises(RuntimeError, match="not running"):
            await fleet.where(peer.id)
        fresh = Fleet(made.hosts[0], made.buses[0])
        with pytest.raises(RuntimeError, match="not running"):
            await fresh.where(peer.id)


@pytest.mark.parametrize(
    "wrong", [{"name": "two words"}, {"name": 1}, {"max_missed": -1}, {"machine": 1}, {"bus": object()}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    @virtual
    async def main() -> None:
        async with Host(listen=()) as host:
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                Fleet(host, **{"bus": MemoryBus()} | wrong)

    main()


@virtual
async def test_each_await_of_a_start_can_be_cancelled() -> None:
    async with yard(1) as made:
        host = await made.stack.enter_async_context(made.network.host())
        for turns in range(40):
            fleet = Fleet(host, MemoryBus(made.engine))
            task = asyncio.ensure_future(fleet.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await fleet.close()
        assert "p2pcore_fleet" not in host.metrics.text()
        await asyncio.sleep(3)
        assert len(made.fleets[0].processes()) == 1
        assert len(made.engine._subscribers) == 2  # of the process that is left: orders, and pipes
