"""Which connection is used: limited and relayed ones, the best of several, closing one, waiting for a direct
one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import eventually, looped
from hosts import pair
from p2pcore import Connectedness, Direction, Host, Limits, YamuxOptions, codes, limits
from p2pcore.errors import ConnectionClosed, LimitedConnection, StreamReset, SwarmClosed
from p2pcore.interfaces import Stream
from swarm_fakes import FakeConn, make_swarm, peer
from virtual_time import now, virtual

THEM = peer(1)
RELAYED = f"/ip4/5.6.7.8/tcp/1/p2p/{peer(3)}/p2p-circuit"


@looped
async def test_the_best_connection_is_not_limited_then_direct_then_busiest_then_newest() -> None:
    swarm, _ = make_swarm()
    worst_first = [
        FakeConn(THEM, streams=9, is_limited=True, at=RELAYED),
        FakeConn(THEM, streams=8, is_limited=True),
        FakeConn(THEM, streams=7, at=RELAYED),
        FakeConn(THEM, streams=1),
        FakeConn(THEM, streams=1),
        FakeConn(THEM, streams=2),
    ]
    for best in worst_first:
        swarm.add_conn(best)
        assert swarm.best_conn(THEM).session is best  # type: ignore[union-attr]
    ranked = [conn.session for conn in swarm._conns.ranked(THEM)]
    assert ranked == worst_first[::-1]
    await swarm.close()


@looped
async def test_connectedness_tells_limited_connections() -> None:
    swarm, _ = make_swarm()
    assert swarm.connectedness(THEM) is Connectedness.NOT_CONNECTED
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    assert swarm.connectedness(THEM) is Connectedness.LIMITED
    direct = swarm.add_conn(FakeConn(THEM))
    assert swarm.connectedness(THEM) is Connectedness.CONNECTED
    direct.session.is_closed = True  # type: ignore[misc]
    assert swarm.connectedness(THEM) is Connectedness.LIMITED
    await swarm.close()


@looped
async def test_the_stat_of_a_connection_is_a_value() -> None:
    swarm, _ = make_swarm()
    fake = FakeConn(THEM, Direction.OUTBOUND, streams=3)
    conn = swarm.add_conn(fake)
    stat = conn.stat
    fake.num_streams = 9
    assert (stat.direction, stat.is_limited, stat.num_streams) == (Direction.OUTBOUND, False, 3)
    assert stat.opened_at == conn.opened_at
    assert conn.stat.num_streams == 9
    await swarm.close()


@looped
async def test_one_connection_is_closed_by_its_id_and_no_other() -> None:
    swarm, _ = make_swarm()
    first, second, other = (swarm.add_conn(FakeConn(each)) for each in (THEM, THEM, peer(2)))
    assert await swarm.close_conn(second.id, 7)
    assert second.session.close_code == 7  # type: ignore[attr-defined]
    assert set(swarm.conns()) == {first, other}
    assert not await swarm.close_conn(second.id)
    assert not await swarm.close_conn("nonsense")
    await swarm.close()


@looped
async def test_a_peer_is_told_the_code_its_connections_are_closed_with() -> None:
    async with pair() as p:
        ended: list[Any] = []
        p.conn.add_close_callback(ended.append)
        await p.server.close_peer(p.dialer.peer_id, codes.CONN_GARBAGE_COLLECTED)
        await eventually(lambda: ended)
        assert (ended[0].code, ended[0].remote) == (codes.CONN_GARBAGE_COLLECTED, True)
        assert p.server.connectedness(p.dialer.peer_id) is Connectedness.NOT_CONNECTED


# -- limited connections -----------------------------------------------------------------------


@looped
async def test_a_limited_connection_opens_streams_on_request_alone() -> None:
    swarm, _ = make_swarm()
    conn = swarm.add_conn(FakeConn(THEM, is_limited=True))
    with pytest.raises(LimitedConnection, match="allow_limited"):
        await conn.new_stream("/x")
    assert (await conn.new_stream("/x", allow_limited=True)).conn is conn.session
    assert (await swarm.new_stream(THEM, "/x", allow_limited=True)).conn is conn.session
    await swarm.close()


@virtual
async def test_a_stream_waits_for_a_direct_connection() -> None:
    swarm, _ = make_swarm()
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    opening = [asyncio.create_task(swarm.new_stream(THEM, "/x")) for _ in range(2)]
    await asyncio.sleep(20)
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    swarm.add_conn(FakeConn(peer(2)))
    await asyncio.sleep(20)
    assert not any(task.done() for task in opening)
    direct = swarm.add_conn(FakeConn(THEM))
    streams = await asyncio.gather(*opening)
    assert [stream.conn for stream in streams] == [direct.session] * 2
    assert now() == 40
    assert swarm._conns._waiting == {}
    await swarm.close()


@virtual
async def test_a_stream_waits_no_longer_than_a_dial() -> None:
    swarm, _ = make_swarm()
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    with pytest.raises(LimitedConnection, match=r"no direct connection .* in 60 s.* needs allow_limited"):
        await swarm.new_stream(THEM, "/x")
    assert now() == limits.DIAL_PEER_TIMEOUT_S
    assert swarm._conns._waiting == {}
    await swarm.close()


@virtual
async def test_waiting_for_a_direct_connection_ends_with_the_last_limited_one_or_the_swarm() -> None:
    swarm, _ = make_swarm()
    conns = [swarm.add_conn(FakeConn(peer(n), is_limited=True)) for n in (1, 2)]
    first, second = (asyncio.create_task(swarm.new_stream(peer(n), "/x")) for n in (1, 2))
    await asyncio.sleep(1)
    await conns[0].close()
    with pytest.raises(ConnectionClosed, match="has ended"):
        await first
    await swarm.close()
    with pytest.raises(SwarmClosed):
        await second


@virtual
async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    swarm, _ = make_swarm()
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    opening = asyncio.create_task(swarm.new_stream(THEM, "/x"))
    await asyncio.sleep(1)
    opening.cancel()
    await asyncio.wait([opening])
    assert (opening.cancelled(), swarm._conns._waiting) == (True, {})
    await swarm.close()


@looped
async def test_a_failing_direct_connection_is_not_replaced_by_a_limited_one() -> None:
    swarm, _ = make_swarm()
    swarm.add_conn(FakeConn(THEM, is_limited=True))
    swarm.add_conn(FakeConn(THEM)).session.open_error = TimeoutError("slow")  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError, match="slow"):
        await swarm.new_stream(THEM, "/x")
    await swarm.close()


# -- streams -----------------------------------------------------------------------------------


async def refused(stream: Stream) -> int:
    with pytest.raises(StreamReset) as caught:
        await stream.read()
    return caught.value.code


@pytest.mark.parametrize("which", ["of a connection", "of all"])
@looped
async def test_a_handler_that_hangs_counts_although_its_stream_is_gone(
    which: str,
) -> None:
    limit: dict[str, Any] = {
        "of a connection": {"yamux": YamuxOptions(max_inbound_streams=2)},
        "of all": {"limits": Limits(max_streams=4)},
    }[which]

    release = asyncio.Event()
    running: list[Stream] = []

    async def hang(stream: Stream) -> None:
        running.append(stream)
        await release.wait()

    async with pair({"echo": True} | limit) as p:
        p.server.set_stream_handler("/hang", hang, cancel=False)
        for number in range(1, 5):
            stream = await p.conn.new_stream("/hang")
            await eventually(lambda number=number: len(running) == number)
            stream.reset()
            await eventually(lambda: p.server_conn.num_streams == 0)
        more = await p.conn.new_stream("/echo/1.0.0")
        assert await refused(more) == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        assert p.server.counters()["streams refused"] == 1
        release.set()
        await eventually(lambda: p.server.swarm.num_handlers_running == 0)
        assert await p.dialer.echo(p.conn, b"again") == b"again"


@looped
async def test_the_handlers_of_one_connection_do_not_count_for_another() -> None:
    options = {"echo": True, "yamux": YamuxOptions(max_inbound_streams=1)}
    async with pair(options) as p, Host(listen=(), identify=False) as other:
        release = asyncio.Event()
        running: list[Stream] = []

        async def hang(stream: Stream) -> None:
            running.append(stream)
            await release.wait()

        p.server.set_stream_handler("/hang", hang)
        for number in (1, 2):
            stream = await p.conn.new_stream("/hang")
            await eventually(lambda number=number: len(running) == number)
            stream.reset()
            await eventually(lambda: p.server_conn.num_streams == 0)
        assert await other.echo(p.server.addrs_with_peer[0], b"x") == b"x"
        release.set()
