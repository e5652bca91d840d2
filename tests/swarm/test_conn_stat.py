"""What a connection shows: bytes and streams both ways, activity, round trip, the program of its peer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from harness import ended_by, eventually, looped
from hosts import BARE, pair
from p2pcore import PSK, Host, YamuxOptions
from p2pcore.interfaces import ConnStat, Stream
from swarm_fakes import FakeConn, make_swarm, peer
from virtual_time import virtual

SECRET = PSK(bytes(32))
PLACES: list[tuple[str, dict[str, Any]]] = [
    ("/ip4/127.0.0.1/tcp/0", {}),
    ("/ip4/127.0.0.1/tcp/0", {"muxers": ("mplex",)}),
    ("/ip4/127.0.0.1/tcp/0", {"security": ("tls",)}),
    ("/ip4/127.0.0.1/tcp/0", {"psk": SECRET}),
    ("/ip4/127.0.0.1/tcp/0/ws", {}),
    ("/unix/{}", {}),
    ("/memory/4711", {}),
]


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def agree(one: ConnStat, other: ConnStat) -> bool:
    """Whether each end has received as many bytes as the other has sent."""
    return one.bytes_in == other.bytes_out and one.bytes_out == other.bytes_in


@pytest.mark.parametrize(("place", "both"), PLACES, ids=str)
@looped
async def test_each_end_has_received_as_many_bytes_as_the_other_has_sent(
    place: str, both: dict[str, Any], tmp_path: Any
) -> None:
    listen = [place.format(str(tmp_path / "s").lstrip("/"))]
    async with pair({"listen": listen} | both, both) as ends:
        ends.server.set_stream_handler("/echo", echo)
        before = ends.conn.stat
        assert before.bytes_out > 0, "the handshake counts"
        async with await ends.conn.new_stream("/echo") as stream:
            await stream.write(bytes(300_000))
            await stream.close_write()
            assert len(await stream.read_exactly(300_000, 300_000)) == 300_000
        await eventually(lambda: agree(ends.conn.stat, ends.server_conn.stat))
        after = ends.conn.stat
        for ours in (after.bytes_in - before.bytes_in, after.bytes_out - before.bytes_out):
            assert 300_000 < ours < 330_000


@looped
async def test_bytes_stay_known_when_the_connection_has_ended() -> None:
    async with pair() as ends:
        ends.server.set_stream_handler("/echo", echo)
        stream = await ends.conn.new_stream("/echo")
        await stream.write(bytes(5000))
        await stream.read_exactly(5000)
        await ends.conn.close()
        await ended_by(ends.server_conn)
        await eventually(lambda: agree(ends.conn.stat, ends.server_conn.stat))
        assert ends.conn.stat.bytes_in > 5000


@looped
async def test_streams_are_counted_by_who_opened_them_and_refused_ones_are_not() -> None:
    async with pair({"yamux": YamuxOptions(max_inbound_streams=2)}) as ends:
        ends.server.set_stream_handler("/echo", echo)
        for _ in range(3):
            async with await ends.conn.new_stream("/echo") as stream:
                await stream.write(b"x")
                await stream.read_exactly(1)
        kept = [await ends.conn.new_stream("/echo") for _ in range(3)]
        for stream in kept:
            await stream.write(b"x")
        count = ends.server.swarm.counters
        await eventually(lambda: count()["streams refused"] + ends.server_conn.stat.num_streams_in == 6)
        ours, theirs = ends.conn.stat, ends.server_conn.stat
        assert count()["streams refused"] >= 1
        assert (ours.num_streams_in, ours.num_streams_out, theirs.num_streams_out) == (0, 6, 0)


@virtual
async def test_activity_is_the_time_of_the_last_use_by_the_peer() -> None:
    swarm, _ = make_swarm()
    fake = FakeConn(peer(1))
    conn = swarm.add_conn(fake)
    assert conn.stat.active_at == conn.opened_at
    loop = asyncio.get_running_loop()
    await asyncio.sleep(60)
    fake.active_at = loop.time()
    assert conn.stat.active_at == pytest.approx(conn.opened_at + 60)
    await swarm.close()


@looped
async def test_the_round_trip_and_the_agent_are_none_until_they_are_known() -> None:
    async with Host(**BARE | {"identify": True}) as server, Host(listen=()) as dialer:
        conn = await dialer.connect(server.addrs_with_peer[0])
        assert conn.stat.rtt_s is None
        rtt = await conn.session.ping()  # type: ignore[attr-defined]
        assert conn.stat.rtt_s == rtt > 0
        await dialer.identify(conn)
        agent = conn.stat.agent
        assert agent is not None
        assert agent.startswith("p2pcore/")
        assert abs(conn.stat.active_at - time.time()) < 3600


@looped
async def test_mplex_measures_no_round_trip() -> None:
    async with pair({"muxers": ("mplex",)}, {"muxers": ("mplex",)}) as ends:
        assert ends.conn.stat.rtt_s is None
        assert ends.conn.stat.agent is None
