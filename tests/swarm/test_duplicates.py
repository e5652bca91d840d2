"""Several connections to one peer: kept by default, otherwise the same one survives on both ends."""

from __future__ import annotations

import asyncio

import pytest

from harness import eventually, looped
from p2pcore import ConnOptions, Direction, Host, PeerId, PrivateKey, codes, limits
from p2pcore.swarm import duplicates
from p2pcore.swarm.conn import Conn
from p2pcore.swarm.events import ConnClosed
from swarm_fakes import US, FakeConn, make_swarm, peer
from virtual_time import run_virtual, virtual

IN, OUT = Direction.INBOUND, Direction.OUTBOUND
LOWER = next(each for each in map(peer, range(1, 99)) if each < US)
HIGHER = next(each for each in map(peer, range(1, 99)) if each > US)


def survivors(remote: object, *directions: Direction, streams: int = 0, policy: str = "dedup") -> list[int]:
    """Which of inbound and outbound connections to `remote`, in order of arrival, are open after a while."""

    async def main() -> list[int]:
        swarm, _ = make_swarm(duplicates=policy)
        fakes = [FakeConn(remote, direction, streams) for direction in directions]  # type: ignore[arg-type]
        for fake in fakes:
            swarm.add_conn(fake)
        await asyncio.sleep(limits.DUPLICATE_LOOK_S * 3)
        closed = [fake.close_code for fake in fakes if fake.is_closed]
        assert set(closed) <= {codes.CONN_SUPPLANTED}
        alive = [number for number, fake in enumerate(fakes) if not fake.is_closed]
        await swarm.close()
        return alive

    return run_virtual(main())


@pytest.mark.parametrize("order", [(IN, OUT), (OUT, IN)])
def test_of_two_dials_that_crossed_that_of_the_lower_id_survives(order: tuple[Direction, ...]) -> None:
    assert survivors(HIGHER, *order) == [order.index(OUT)], "we are the lower: ours stays"
    assert survivors(LOWER, *order) == [order.index(IN)], "they are the lower: theirs stays"


def test_the_dialler_keeps_the_oldest_of_its_own_and_the_other_end_leaves_it_the_choice() -> None:
    assert survivors(HIGHER, OUT, OUT, OUT) == [0]
    assert survivors(LOWER, OUT, OUT, OUT) == [0]
    assert survivors(HIGHER, IN, IN, IN) == [0, 1, 2]
    assert survivors(HIGHER, IN, OUT, IN, OUT) == [1]


def test_by_default_all_are_kept() -> None:
    assert survivors(HIGHER, IN, OUT, OUT, policy="keep") == [0, 1, 2]
    with pytest.raises(ValueError, match="keep, dedup"):
        make_swarm(duplicates="some")


@virtual
async def test_a_connection_with_streams_is_given_out_no_more_and_closed_after_its_last() -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    kept, busy = FakeConn(HIGHER, OUT), FakeConn(HIGHER, IN, streams=3)
    swarm.add_conn(kept)
    swarm.add_conn(busy)
    assert swarm.best_conn(HIGHER).session is kept  # type: ignore[union-attr]
    await asyncio.sleep(100)
    assert not busy.is_closed
    busy.num_streams = 0
    await asyncio.sleep(limits.DUPLICATE_LOOK_S * 2)
    assert (busy.close_code, kept.is_closed) == (codes.CONN_SUPPLANTED, False)
    await swarm.close()


@virtual
async def test_a_superfluous_connection_stays_when_the_other_ends_first() -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    first, second = swarm.add_conn(FakeConn(HIGHER, OUT)), swarm.add_conn(FakeConn(HIGHER, IN))
    await first.close()
    assert swarm.best_conn(HIGHER) is second
    await asyncio.sleep(limits.DUPLICATE_LOOK_S * 3)
    assert swarm.conns() == [second]
    await swarm.close()


@virtual
async def test_limited_connections_are_no_duplicates() -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    for is_limited in (True, False, True):
        swarm.add_conn(FakeConn(HIGHER, OUT, is_limited=is_limited))
    await asyncio.sleep(limits.DUPLICATE_LOOK_S * 3)
    assert swarm.num_conns == 3
    await swarm.close()


@virtual
async def test_there_is_no_timer_without_duplicates() -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    swarm.add_conn(FakeConn(HIGHER))
    assert swarm._duplicates._timer is None
    swarm.add_conn(FakeConn(HIGHER, OUT))
    assert swarm._duplicates._timer is not None
    await asyncio.sleep(limits.DUPLICATE_LOOK_S * 3)
    assert swarm._duplicates._timer is None
    await swarm.close()


@virtual
async def test_a_connection_that_takes_the_place_of_one_that_ended_is_no_longer_superfluous() -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    conns = [swarm.add_conn(FakeConn(HIGHER, OUT, streams=1)) for _ in range(3)]
    theirs = swarm.add_conn(FakeConn(HIGHER, IN, streams=1))
    assert swarm.best_conn(HIGHER) is conns[0]
    for ended, follower in ((0, conns[1]), (1, conns[2]), (2, theirs)):
        await conns[ended].close()
        await asyncio.sleep(0.01)
        assert follower not in swarm._duplicates
        assert swarm.best_conn(HIGHER) is follower
    await theirs.close()
    await asyncio.sleep(limits.DUPLICATE_LOOK_S * 3)
    assert not swarm._duplicates._peers
    assert not swarm._duplicates._superfluous
    await swarm.close()


@pytest.mark.parametrize("direction", [IN, OUT])
@pytest.mark.parametrize("remote", [HIGHER, LOWER], ids=["higher", "lower"])
@virtual
async def test_the_last_of_many_connections_of_one_peer_costs_no_more_than_the_first(
    remote: PeerId, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm, _ = make_swarm(duplicates="dedup")
    swarm.events.subscribe((), 10)  # a subscriber wants to know the connectedness
    looked = 0

    class Counting(FakeConn):
        @property
        def is_closed(self) -> bool:
            nonlocal looked
            looked += 1
            return self._closed

        @is_closed.setter
        def is_closed(self, value: bool) -> None:
            self._closed = value

    is_ours = duplicates._is_ours

    def counting(conn: Conn) -> bool:
        nonlocal looked
        looked += 1
        return is_ours(conn)

    monkeypatch.setattr(duplicates, "_is_ours", counting)
    fakes = [Counting(remote, direction, streams=1) for _ in range(2000)]
    costs = []
    for fake in fakes:
        before = looked
        swarm.add_conn(fake)
        costs.append(looked - before)
    assert max(costs) <= 2 * max(costs[:2]) + 2, "looks at connections, by connection that joins"
    for fake in fakes[1000:]:
        before = looked
        fake.end()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        costs.append(looked - before)
    assert max(costs) <= 2 * max(costs[:2]) + 4, "and by connection that leaves"
    before = looked
    swarm._duplicates._look()
    assert looked - before <= 10 * 1000
    await swarm.close()


@looped
async def test_two_hosts_that_dial_each_other_agree_on_one_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "DUPLICATE_LOOK_S", 0.02)

    keys = sorted((PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2)), key=PrivateKey.peer_id)
    lower, higher = (Host(key, conns=ConnOptions(duplicates="dedup")) for key in keys)
    async with lower, higher:
        events = higher.events(ConnClosed)
        target, back = lower.addrs_with_peer[0], higher.addrs_with_peer[0]
        await asyncio.gather(lower.swarm.dial_addr(back), higher.swarm.dial_addr(target))
        event = await anext(events)
        assert isinstance(event, ConnClosed)
        assert (event.code, event.conn.direction) == (codes.CONN_SUPPLANTED, OUT)
        await eventually(lambda: lower.swarm.num_conns == higher.swarm.num_conns == 1)
        (left,) = lower.swarm.conns()
        assert left.direction is OUT
        assert len(await lower.ping(higher.peer_id)) == 1
