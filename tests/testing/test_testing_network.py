"""Networks in memory: two hosts in one line; each condition does what it says, and bytes keep their order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from harness import eventually, looped
from p2pcore import Host, Stream
from p2pcore.errors import ConnectionClosed, DialError, P2PError
from p2pcore.testing import Conditions, Network, connected_pair, virtual
from virtual_time import now

ECHO: dict[str, Any] = {"echo": True}
PROTOCOL = "/echo/1.0.0"


async def echoed(a: Host, b: Host, data: bytes) -> bytes:
    """`data`, as `b` sends it back."""
    stream = await a.new_stream(b.peer_id, PROTOCOL)
    writing = asyncio.ensure_future(write(stream, data))
    got = b"".join([chunk async for chunk in chunks(stream)])
    await writing
    return got


async def connected_echo(a: Host, b: Host, data: bytes) -> bytes:
    await a.connect(b.addrs_with_peer[0])
    return await echoed(a, b, data)


async def write(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    await stream.close_write()


async def chunks(stream: Stream) -> Any:
    while chunk := await stream.read():
        yield chunk


@looped
async def test_two_hosts_are_connected_in_one_line() -> None:
    async with connected_pair(b=ECHO) as (a, b):
        assert [conn.remote_peer for conn in a.swarm.conns()] == [b.peer_id]
        assert [conn.remote_peer for conn in b.swarm.conns()] == [a.peer_id]
        data = os.urandom(1 << 20)
        assert await echoed(a, b, data) == data
        assert len(await b.ping(a.peer_id)) == 1
    assert a.swarm.is_closed
    assert b.swarm.is_closed


def test_it_runs_on_the_loop_of_asyncio_too() -> None:
    async def main() -> None:
        async with connected_pair(b=ECHO) as (a, b):
            assert await echoed(a, b, b"?") == b"?"

    asyncio.run(main())


@looped
async def test_the_second_host_listens_in_memory() -> None:
    with pytest.raises(ValueError, match="/memory/0, not on"):
        async with connected_pair(b={"listen": ()}):
            pass


@virtual
async def test_a_delay_is_a_delay() -> None:
    async with connected_pair(Conditions(delay_s=0.25)) as (a, b):
        assert await a.ping(b.peer_id, 3) == pytest.approx([0.5] * 3)
        start = now()
        await a.ping(b.peer_id)
        assert now() - start == pytest.approx(0.5)


@virtual
async def test_a_bandwidth_is_a_bandwidth() -> None:
    async with connected_pair(Conditions(bandwidth=1e5), b=ECHO) as (a, b):
        start = now()
        data = os.urandom(1_000_000)
        assert await echoed(a, b, data) == data
        assert 10 < now() - start < 16, "both ways at once"


@virtual
async def test_a_window_of_a_connection_holds_back_no_delay() -> None:
    async with connected_pair(Conditions(delay_s=0.05), b=ECHO) as (a, b):
        start = now()
        data = os.urandom(8 << 20)
        assert await echoed(a, b, data) == data
        assert now() - start < 10, "the windows of streams grow as they do on sockets"


@virtual
async def test_what_is_lost_comes_late_and_in_order() -> None:
    async with connected_pair(Conditions(delay_s=0.01, loss=0.05, jitter_s=0.02), b=ECHO) as (a, b):
        start = now()
        data = os.urandom(500_000)
        assert await echoed(a, b, data) == data
        assert now() - start > 0.4


def times(seed: int) -> list[float]:
    """When each of 20 pings on a bad network was answered."""
    found: list[float] = []

    @virtual
    async def pings() -> None:
        bad = Conditions(delay_s=0.01, jitter_s=0.5, loss=0.2)
        async with connected_pair(bad, a={"identify": False}, b={"identify": False}, seed=seed) as (a, b):
            for _ in range(20):
                await a.ping(b.peer_id)
                found.append(now())

    pings()
    return found


def test_a_seed_decides_what_chance_decides() -> None:
    assert times(1) == times(1) != times(2)


@looped
async def test_a_cut_breaks_connections_and_new_ones_are_possible() -> None:
    network = Network()
    async with network.pair(b=ECHO) as (a, b), network.host() as c:
        await c.connect(b.addrs_with_peer[0])
        stream = await a.new_stream(b.peer_id, PROTOCOL)
        assert network.cut(a, b) == 1
        with pytest.raises(ConnectionClosed, match="reset by peer"):
            await stream.read()
        await eventually(lambda: [conn.remote_peer for conn in b.swarm.conns()] == [c.peer_id])
        assert network.cut(a, b) == 0
        await a.connect(b.addrs_with_peer[0])
        assert await echoed(a, b, b"again") == b"again"


@pytest.mark.parametrize("most", [0, 1, 500, 5_000, 300_000])
@virtual
async def test_a_connection_breaks_at_the_byte_it_is_told_to(most: int) -> None:
    network = Network()
    async with network.host(echo=True) as b, network.host() as a:
        network.set(a, b, Conditions(delay_s=0.01, cut_after=most))
        with pytest.raises(P2PError):
            await connected_echo(a, b, bytes(1 << 20))
        await asyncio.sleep(1)
        assert a.swarm.conns() == b.swarm.conns() == []
        network.set(a, b, Conditions())
        await a.connect(b.addrs_with_peer[0], ignore_backoff=True)
        assert await echoed(a, b, b"again") == b"again"


@virtual
async def test_silence_holds_everything_back_until_it_is_healed() -> None:
    network = Network(Conditions(delay_s=0.01))
    async with network.pair(b=ECHO) as (a, b):
        network.silence(a, b)
        answer = asyncio.ensure_future(echoed(a, b, b"hello"))
        await asyncio.sleep(5)
        assert not answer.done()
        network.heal(a, b)
        start = now()
        assert await answer == b"hello"
        assert now() - start < 0.1


@virtual
async def test_nobody_answers_a_dial_into_silence() -> None:
    network = Network()
    async with network.host() as a, network.host() as b:
        network.silence(a, b)
        start = now()
        with pytest.raises(DialError):
            await a.connect(b.addrs_with_peer[0])
        assert 1 < now() - start < 120


@virtual
async def test_conditions_hold_for_their_two_hosts_and_for_open_connections() -> None:
    network = Network()
    async with network.pair() as (a, b), network.host() as c:
        await c.connect(b.addrs_with_peer[0])
        network.set(a, b, Conditions(delay_s=1))
        assert await a.ping(b.peer_id) == pytest.approx([2])
        assert await c.ping(b.peer_id) == pytest.approx([0])


@virtual
async def test_a_close_arrives_behind_what_was_written() -> None:
    async with connected_pair(Conditions(delay_s=0.5)) as (a, b):
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def take(stream: Stream) -> None:
            got.set_result(b"".join([chunk async for chunk in chunks(stream)]))

        b.set_stream_handler("/take", take)
        stream = await a.new_stream(b.peer_id, "/take")
        await write(stream, b"last words")
        await a.close()
        assert await got == b"last words"


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("delay_s", -1, ValueError),
        ("jitter_s", "1", TypeError),
        ("bandwidth", 0, ValueError),
        ("bandwidth", True, TypeError),
        ("loss", 1.0, ValueError),
        ("loss", float("nan"), ValueError),
        ("cut_after", -1, ValueError),
        ("cut_after", 1.5, TypeError),
    ],
)
def test_a_wrong_condition_is_named(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=field):
        Conditions(**{field: value})


def test_importing_it_loads_neither_pytest_nor_the_host() -> None:
    code = (
        "import p2pcore.testing, sys\n"
        "print('p2pcore.host' in sys.modules)\n"
        "from p2pcore.testing import *\n"
        "print(connected_pair.__name__, Network.__name__, 'pytest' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "connected_pair", "Network", "False"]
