"""A peer that is kept: connected again, woken early, let go with the last handle or when it is blocked."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from harness import eventually, looped, settle
from hosts import BARE
from p2pcore import ConnectionClosed, Host, Limits, limits
from p2pcore.errors import SwarmClosed
from p2pcore.resources.keeper import Keeper
from p2pcore.resources.network_watch import NetworkWatch
from p2pcore.swarm.events import KeepLost, KeepRestored
from swarm_fakes import FakeConn, FakeTransport, addr, make_swarm, peer
from virtual_time import now, virtual

THEM = peer(1)
HOME = addr(4001, "5.6.7.8")
REFUSED = ConnectionRefusedError("refused")


def lost_swarm(*, is_up: bool = False) -> tuple[Any, FakeTransport]:
    swarm, transport = make_swarm()
    if not is_up:
        transport.errors[HOME] = REFUSED
    return swarm, transport


def live(transport: FakeTransport) -> FakeConn:
    return transport.conns[-1]


@virtual
async def test_a_kept_peer_is_connected_again_and_events_say_so() -> None:
    swarm, transport = lost_swarm(is_up=True)
    events = swarm.events.subscribe((KeepLost, KeepRestored))
    async with swarm.keep(THEM, [HOME]) as kept:
        conn = await kept.connected()
        assert (kept.conn, kept.peer, kept.is_closed) == (conn, THEM, False)
        live(transport).end()
        await asyncio.sleep(0)
        assert kept.conn is None
        assert isinstance(await anext(events), KeepLost)
        assert await kept.connected() is not conn
        assert isinstance(await anext(events), KeepRestored)
    assert kept.is_closed
    live(transport).end()
    await asyncio.sleep(1000)
    assert len(transport.dialled) == 2
    await swarm.close()


@virtual
async def test_a_connection_that_is_about_to_end_is_none_to_wait_for() -> None:
    swarm, transport = lost_swarm(is_up=True)
    kept = swarm.keep(THEM, [HOME])
    first = await kept.connected()
    live(transport).is_closed = True  # it drains, and the swarm still lists it
    waiting = asyncio.create_task(kept.connected())
    await asyncio.sleep(60)
    assert not waiting.done()
    live(transport).end()
    assert await waiting is not first
    kept.close()
    await swarm.close()


@virtual
async def test_it_is_dialled_where_the_address_book_says_too() -> None:
    swarm, transport = lost_swarm()
    swarm.addr_book.add(THEM, addr(2, "9.9.9.9"))
    with swarm.events.subscribe((KeepRestored,)):
        kept = swarm.keep(THEM, [HOME])
        await kept.connected()
    assert addr(2, "9.9.9.9") in transport.dialled
    kept.close()
    await swarm.close()


@virtual
async def test_addresses_that_come_end_the_pause_but_no_sooner_than_a_second() -> None:
    swarm, transport = lost_swarm()
    kept = swarm.keep(THEM, [HOME])
    await asyncio.sleep(700)  # the pauses are minutes now
    before, at = len(transport.dialled), now()
    swarm.addr_book.add(THEM, addr(2, "9.9.9.9"))
    await kept.connected()
    assert len(transport.dialled) > before
    assert now() - at <= limits.KEEP_PAUSE_MIN_S
    live(transport).end()
    transport.errors[addr(2, "9.9.9.9")] = REFUSED
    await asyncio.sleep(5)
    count = len(transport.dialled)
    for port in range(10, 60):  # a flood of news causes no flood of dials
        swarm.addr_book.add(peer(1), addr(port, "5.5.5.5"))
        transport.errors[addr(port, "5.5.5.5")] = REFUSED
    await asyncio.sleep(0)
    assert len(transport.dialled) - count <= 2
    kept.close()
    await swarm.close()


@virtual
async def test_a_change_of_the_network_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["127.0.0.1"]
    swarm, transport = lost_swarm()
    swarm.conn_manager._network._addresses = lambda: list(found)
    kept = swarm.keep(THEM, [HOME])
    await asyncio.sleep(1000)
    count = len(transport.dialled)
    await asyncio.sleep(3 * limits.KEEP_LOOK_S)
    assert len(transport.dialled) - count <= 1, "no change, no dial"
    found.append("192.168.1.7")
    transport.errors.clear()
    async with asyncio.timeout(2 * limits.KEEP_LOOK_S):
        await kept.connected()
    kept.close()
    await swarm.close()


@virtual
async def test_the_interfaces_are_read_only_while_somebody_is_missed() -> None:
    looks = 0
    wanted = [True]
    changes: list[float] = []

    def addresses() -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise OSError("no descriptors")
        return ["::1"] if looks < 5 else ["::1", "::2"]

    watch = NetworkWatch(lambda: wanted[0], lambda: changes.append(now()), addresses)
    watch.watch()
    watch.watch()
    await asyncio.sleep(4.5 * limits.KEEP_LOOK_S)
    assert (looks, changes) == (5, [4 * limits.KEEP_LOOK_S])
    wanted[0] = False
    await asyncio.sleep(10 * limits.KEEP_LOOK_S)
    assert looks == 5
    watch.stop()


@virtual
async def test_several_handles_share_the_dials_and_the_last_one_lets_go() -> None:
    swarm, transport = lost_swarm()
    transport.errors[addr(2)] = REFUSED
    one, two = swarm.keep(THEM, [HOME]), swarm.keep(THEM, [addr(2)])
    await asyncio.sleep(30)
    assert set(transport.dialled) == {HOME, addr(2)}
    assert swarm.conn_manager.is_protected(THEM)
    one.close()
    one.close()
    assert (one.is_closed, two.is_closed) == (True, False)
    assert swarm.conn_manager.kept == [THEM]
    two.close()
    assert swarm.conn_manager.kept == []
    assert not swarm.conn_manager.is_protected(THEM)
    await swarm.close()


@virtual
async def test_a_peer_that_is_blocked_is_let_go_and_its_old_handle_ends_no_new_one() -> None:
    swarm, transport = lost_swarm(is_up=True)
    kept = swarm.keep(THEM, [HOME])
    await kept.connected()
    swarm.block_peer(THEM)
    assert kept.is_closed
    with pytest.raises(ConnectionClosed, match="not kept any more"):
        await asyncio.wait_for(until_lost(swarm, kept), 10)
    await asyncio.sleep(1000)
    assert len(transport.dialled) == 1
    swarm.unblock_peer(THEM)
    again = swarm.keep(THEM, [HOME])
    kept.close()
    assert not again.is_closed
    await again.connected()
    again.close()
    await swarm.close()


async def until_lost(swarm: Any, kept: Any) -> None:
    await asyncio.sleep(1)  # the connection is gone by now
    await kept.connected()


@virtual
async def test_who_waits_for_a_peer_hears_that_it_is_let_go() -> None:
    swarm, _ = lost_swarm()
    kept = swarm.keep(THEM, [HOME])
    waiting = asyncio.create_task(kept.connected())
    gone = asyncio.create_task(kept.connected())
    await asyncio.sleep(1)
    gone.cancel()
    await asyncio.sleep(0)
    kept.close()
    with pytest.raises(ConnectionClosed):
        await waiting
    late = swarm.keep(THEM, [HOME])
    waiting = asyncio.create_task(late.connected())
    await asyncio.sleep(1)
    await swarm.close()
    with pytest.raises(ConnectionClosed):
        await waiting
    with pytest.raises(SwarmClosed):
        swarm.keep(THEM)


@looped
async def test_a_client_that_keeps_a_server_comes_back_to_it() -> None:
    server = Host(**BARE)
    await server.start()
    key, where = server.private_key, server.addrs
    async with Host(**BARE | {"listen": ()}) as client, client.keep(server.peer_id, where) as kept:
        first = await kept.connected()
        await server.close()
        await eventually(lambda: kept.conn is None)
        async with Host(key, where, **BARE | {"limits": Limits()}):
            assert await kept.connected() is not first
        await settle()


@looped
async def test_keep_belongs_to_the_loop_of_its_host() -> None:
    async with Host(**BARE) as host:
        errors: list[BaseException] = []

        async def elsewhere() -> None:
            try:
                host.keep(THEM)
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(errors) == 1


@virtual
async def test_an_unexpected_error_of_a_dial_is_logged_and_the_peer_is_dialled_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    swarm, _ = lost_swarm(is_up=True)
    reports: list[Any] = []

    class Reports:
        def keep_lost(self, peer: Any, error: BaseException | None) -> None:
            reports.append(error)

        def keep_restored(self, peer: Any, conn: Any) -> None:
            reports.append(conn)

    bug = KeyError("a bug")

    async def dial(peer: Any, addrs: Any) -> Any:
        if not reports:
            raise bug
        return await swarm.dial_peer(THEM, [HOME])

    keeper = Keeper(THEM, [HOME], dial, Reports())
    keeper.start()
    await asyncio.sleep(limits.KEEP_PAUSE_MIN_S * 4)
    assert reports[0] is bug
    assert len(reports) == 2, "it is connected"
    assert "dialling the kept peer" in caplog.text
    await keeper.stop()
    await swarm.close()


@pytest.mark.parametrize("addrs", ["/ip4/5.6.7.8/tcp/1", HOME, 5, None, [5]])
@virtual
async def test_what_is_no_list_of_addresses_is_refused_by_name(addrs: Any) -> None:
    swarm, _ = lost_swarm()
    for keep in (swarm.keep, swarm.conn_manager.keep):
        with pytest.raises(TypeError, match="addrs"):
            keep(THEM, addrs)
    await swarm.close()


@virtual
async def test_handles_that_come_and_go_with_ever_new_addresses_have_a_bound() -> None:
    swarm, _ = lost_swarm(is_up=True)
    first = swarm.keep(THEM, [HOME])
    await first.connected()
    for port in range(1, limits.MAX_BOOK_ADDRS + 50):
        swarm.keep(THEM, [addr(port)]).close()
    keeper = swarm.conn_manager._keepers[THEM]
    assert len(keeper.addrs) == limits.MAX_BOOK_ADDRS
    assert keeper.addrs[-1] == addr(limits.MAX_BOOK_ADDRS + 49)
    first.close()
    await swarm.close()
