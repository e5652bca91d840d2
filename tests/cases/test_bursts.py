"""More calls at once than a connection takes: those within the limit live, the others wait, or fail alone.

Comes in: busy and well-behaved clients, and raw peers with limits of their own. Goes out: the promise that
nothing honest ends a connection. The attackers are in _fast/mux/test_yamux_attacks.py.
"""

from __future__ import annotations

import asyncio
import collections
import logging

import pytest

from _fast import mplex_chain
from _fast.chains import ACK, FIN, RST, SYN, WU, Frame, RawYamux, data, frame
from _fast.mplex_chain import RawMplex
from harness import eventually, looped, settle
from hosts import Pair, pair
from p2pcore import YamuxOptions, codes, limits
from p2pcore.interfaces import Stream

REFUSED = codes.STREAM_RESOURCE_LIMIT_EXCEEDED


async def call(hosts: Pair) -> bytes:
    stream = await hosts.conn.new_stream("/x/1")
    await stream.write(b"abcd")
    answer = await stream.read_exactly(4)
    await stream.close()
    return answer


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@looped
async def test_1400_calls_at_once_are_all_answered(muxer: str) -> None:
    go_on = asyncio.Event()

    async def serve(stream: Stream) -> None:
        got = await stream.read_exactly(4)
        await go_on.wait()
        await stream.write(got)

    async with pair({"muxers": [muxer]}, {"muxers": [muxer]}) as hosts:
        hosts.server.set_stream_handler("/x/1", serve)
        calls = [asyncio.ensure_future(call(hosts)) for _ in range(1400)]
        await eventually(lambda: hosts.server_conn.num_streams >= 1000)
        go_on.set()
        assert collections.Counter(await asyncio.gather(*calls)) == {b"abcd": 1400}
        assert hosts.server.counters()["streams refused"] == 0


@looped
async def test_streams_within_the_limit_live_whatever_comes_beyond_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = RawYamux()
    kept: list[Stream] = []
    peer.session.set_stream_handler(kept.append)
    most, beyond = limits.YAMUX_MAX_INBOUND_STREAMS, 5000
    ids = range(1, 2 * (most + beyond), 2)
    with caplog.at_level(logging.WARNING):
        for id in ids:  # as a client that does not wait: open, ask, end
            peer.deliver(frame(WU, SYN, id), data(id, b"?" * 100), frame(WU, FIN, id))
    await settle()
    assert not peer.session.is_closed
    refused = [f for f in await peer.answers() if f.flags & RST]
    assert refused == [Frame(WU, RST, id, REFUSED) for id in ids[most:]]
    assert peer.session.num_refused == beyond
    assert len(caplog.records) == 1, "told once"
    caplog.clear()
    assert len(kept) == most
    for stream in kept:
        assert await stream.read() == b"?" * 100


@looped
async def test_refused_streams_are_counted_also_after_the_connection() -> None:
    async with pair({"yamux": YamuxOptions(max_inbound_streams=2)}) as hosts:
        hosts.server.set_stream_handler("/x/1", hold)
        streams = [await hosts.conn.open_stream() for _ in range(5)]
        await eventually(lambda: sum(stream.is_closed for stream in streams) == 3)
        assert hosts.server.counters()["streams refused"] == 3
        await hosts.conn.close()
        await eventually(lambda: not hosts.server.swarm.num_conns)
        assert hosts.server.counters()["streams refused"] == 3


async def hold(stream: Stream) -> None:
    await stream.read()


@looped
async def test_1000_opens_at_once_against_accept_stream_are_refused_one_by_one_with_mplex() -> None:
    peer = RawMplex()
    most = limits.MPLEX_MAX_UNACCEPTED_STREAMS
    peer.deliver(*(mplex_chain.msg(mplex_chain.NEW, id) for id in range(1000)))
    assert len(await peer.answers()) == 1000 - most
    assert [(await peer.session.accept_stream()).id for _ in range(most)] == list(range(most))
    peer.deliver(mplex_chain.msg(mplex_chain.NEW, 1000))
    assert (await peer.session.accept_stream()).id == 1000


# -- what a peer takes ------------------------------------------------------------------------------


async def opened(peer: RawYamux, count: int) -> list[asyncio.Task[Stream]]:
    """As many opens as `count`, and a peer that acknowledges nothing yet."""
    tasks = [asyncio.ensure_future(peer.session.open_stream()) for _ in range(count)]
    await settle()
    return tasks  # type: ignore[return-value]


def done(tasks: list[asyncio.Task[Stream]]) -> list[Stream]:
    return [task.result() for task in tasks if task.done()]


@pytest.mark.parametrize(("first", "most"), [("ack", limits.YAMUX_MAX_OUTBOUND_STREAMS), ("data", 448)])
@looped
async def test_we_open_no_more_than_go_and_rust_take(first: str, most: int) -> None:
    """Go acknowledges as it accepts; rust only with its first data, and ends the connection at the 513th."""
    peer = RawYamux(is_client=True)
    tasks = await opened(peer, 1400)
    told = 0
    while told < len(done(tasks)):
        for stream in done(tasks)[told:]:
            told += 1
            peer.deliver(frame(WU, ACK, stream.id) if first == "ack" else data(stream.id, b"x", ACK))
        await settle(16)
    assert told == most
    for stream in done(tasks)[:10]:
        stream.reset()
    await eventually(lambda: len(done(tasks)) == most + 10)
    peer.session.abort()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["before it was accepted", "by a code"])
@looped
async def test_a_refusal_lowers_how_many_we_open(how: str) -> None:
    peer = RawYamux(is_client=True)
    most = 16 if how == "before it was accepted" else 160
    tasks = await opened(peer, most + 4)
    for at, stream in enumerate(done(tasks)):
        if at < most:
            peer.deliver(frame(WU, ACK, stream.id))
        elif how == "by a code":
            peer.deliver(frame(WU, ACK, stream.id), frame(WU, RST, stream.id, REFUSED))
        else:
            peer.deliver(frame(WU, RST, stream.id))
    waiting = await opened(peer, 3)
    assert not done(waiting)
    done(tasks)[0].reset()
    await settle()
    assert len(done(waiting)) == 1
    assert peer.session.num_streams == most
    peer.session.abort()
    await asyncio.gather(*waiting, return_exceptions=True)


@looped
async def test_refusals_by_a_busy_peer_leave_many_places_although_few_streams_are_open() -> None:
    """A cap on handlers refuses streams while calls that timed out still run there."""
    peer = RawYamux(is_client=True)
    for stream in done(await opened(peer, 100)):
        peer.deliver(frame(WU, ACK, stream.id), frame(WU, RST, stream.id, REFUSED))
    assert peer.session.num_streams == 0
    for stream in done(await opened(peer, 128)):
        peer.deliver(frame(WU, ACK, stream.id))
    assert peer.session.num_streams == 128


@looped
async def test_a_reset_by_a_handler_is_no_refusal() -> None:
    peer = RawYamux(is_client=True)
    first, second = done(await opened(peer, 2))
    peer.deliver(frame(WU, ACK, first.id), data(second.id, b"x", ACK), frame(WU, RST, second.id, REFUSED))
    assert len(done(await opened(peer, 100))) == 100
