"""What connections use is counted exactly, and its limits hold: streams by connection, peer, host; memory.

Comes in: frames by hand, on one or several connections of one or several peers. Goes out: the counts of their
ledger, checked against a recount, and what the peers were told. Source: RM-T12, T13, T14, T19.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from _fast.chains import (
    FIN,
    RST,
    SYN,
    WINDOW,
    WU,
    Frame,
    RawMuxer,
    RawYamux,
    data,
    frame,
    started,
)
from _fast.mplex_chain import CLOSE_I, CLOSE_R, MSG_I, MSG_R, NEW, RESET_I, RESET_R, RawMplex, msg
from harness import eventually, looped, settle
from p2pcore import codes, errors, limits
from p2pcore._fast.loop import ledger as ledger_module
from p2pcore._fast.loop.ledger import CALM, CAREFUL, FULL, TIGHT, Ledger
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxStream
from virtual_time import virtual

REFUSED = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
MIB = 1 << 20
STREAM = limits.STREAM_COST_BYTES
CONN = limits.CONN_COST_BYTES


class YamuxPeer(RawYamux):
    """The peer of a yamux session, in the words that the peers of both muxers share."""

    def syn(self, id: int) -> None:
        self.deliver(frame(WU, SYN, id))

    def say(self, id: int, body: bytes) -> None:
        self.deliver(data(id, body))

    def fin(self, id: int) -> None:
        self.deliver(frame(WU, FIN, id))

    def reset(self, id: int) -> None:
        self.deliver(frame(WU, RST, id))

    async def refused(self) -> list[int]:
        return [f.id for f in await self.answers() if f.flags & RST and f.length == REFUSED]


class MplexPeer(RawMplex):
    """The same for mplex."""

    def syn(self, id: int) -> None:
        self.deliver(msg(NEW, id))

    def say(self, id: int, body: bytes) -> None:
        self.deliver(msg(MSG_I, id, body))

    def fin(self, id: int) -> None:
        self.deliver(msg(CLOSE_I, id))

    def reset(self, id: int) -> None:
        self.deliver(msg(RESET_I, id))

    async def refused(self) -> list[int]:
        return [m.id for m in await self.answers() if m.flag == RESET_R]


Peer = YamuxPeer | MplexPeer
both = pytest.mark.parametrize("kind", [YamuxPeer, MplexPeer])


async def opened(peer: Peer, id: int = 1) -> Stream:
    """A stream that the peer opened, accepted."""
    peer.syn(id)
    return await peer.session.accept_stream()


def agree(*peers: RawMuxer) -> Ledger:
    """Checks that the ledger of `peers` counts what a recount finds."""
    ledger = peers[0].ledger
    assert ledger.recount(peer.session for peer in peers) == {}
    return ledger


# -- limits on streams ------------------------------------------------------------------------------


@both
@looped
async def test_the_cap_on_streams_of_a_peer_holds_over_its_connections(kind: Any) -> None:
    ledger = Ledger(max_streams_per_peer=4)
    one, two, other = kind(ledger=ledger), kind(ledger=ledger), kind(ledger=ledger, who="another")
    for peer in (one, two):
        for id in (1, 3, 5):
            peer.syn(id)
    other.syn(1)
    await settle()
    assert (await one.refused(), await two.refused(), await other.refused()) == ([], [3, 5], [])
    assert ledger.refused == {"max_streams_per_peer": 2}
    one.reset(1)
    two.syn(7)
    await settle()
    assert await two.refused() == [], "one has ended, so another one may begin"
    assert ledger.share("the peer").streams == 4
    agree(one, two, other)


@both
@looped
async def test_the_caps_hold_for_streams_that_came_before_the_session_was_counted(kind: Any) -> None:
    """A peer opens streams right behind its handshake, before the swarm has taken the connection."""
    ledger = Ledger(max_streams_per_peer=4)
    one = kind(ledger=ledger)
    for id in (1, 3, 5):
        one.syn(id)
    two, other = (kind(ledger=ledger, who=who, counts=False) for who in ("the peer", "another"))
    for peer in (two, other):
        for id in (1, 3, 5):
            peer.syn(id)
        peer.count()
    await settle()
    assert (await one.refused(), await two.refused(), await other.refused()) == ([], [3, 5], [])
    assert ledger.refused == {"max_streams_per_peer": 2}
    assert ledger.share("the peer").streams == 4
    kept = await two.session.accept_stream()
    two.syn(7)
    await settle()
    assert await two.refused() == [7]
    assert kept.id == 1
    agree(one, two, other)


@both
@looped
async def test_the_cap_on_all_streams_counts_those_opened_here_too(kind: Any) -> None:
    ledger = Ledger(max_streams=2)
    one, two = kind(ledger=ledger, who="one"), kind(ledger=ledger, who="two")
    ours = await one.session.open_stream()
    one.syn(2 if kind is MplexPeer else 1)
    await one.all_sent()
    two.syn(1)
    assert await two.refused() == [1]
    assert ledger.num_streams == 2
    assert ledger.refused == {"max_streams": 1}
    ours.reset()
    two.syn(3)
    assert await two.refused() == []
    agree(one, two)


@both
@looped
async def test_limits_set_while_running_end_no_stream(kind: Any) -> None:
    peer = kind()
    for id in (1, 3, 5):
        peer.syn(id)
    peer.ledger.max_streams_per_conn = 2
    peer.syn(7)
    assert await peer.refused() == [7]
    assert peer.session.num_streams == 3
    peer.ledger.max_streams_per_conn = 0
    peer.syn(9)
    assert await peer.refused() == []
    assert peer.ledger.refused == {"max_streams_per_conn": 1}


@both
@looped
async def test_a_stream_closed_here_is_no_stream_of_its_peer_but_has_its_cost(kind: Any) -> None:
    peer = kind(ledger=Ledger(max_streams_per_peer=1))
    stream = await opened(peer)
    await stream.close()
    share = peer.ledger.share("the peer")
    assert (share.streams, peer.ledger.num_streams) == (0, 1)
    assert peer.ledger.used == CONN + STREAM
    agree(peer)
    second = await opened(peer, 3)
    peer.fin(1)
    assert (share.streams, peer.ledger.num_streams) == (1, 1)
    agree(peer)
    second.reset()


@looped
async def test_a_refusal_says_who_how_much_and_which_option_once(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(max_streams_per_peer=1)
    peer = YamuxPeer(ledger=ledger)
    with caplog.at_level(logging.WARNING):
        for id in range(1, 21, 2):
            peer.syn(id)
    (record,) = caplog.records
    assert "1 of 1" in record.getMessage()
    assert "Limits.max_streams_per_peer" in record.getMessage()
    assert ledger.refused == {"max_streams_per_peer": 9}


@pytest.mark.parametrize("name", ["max_streams", "max_streams_per_conn", "max_streams_per_peer", "memory"])
def test_a_limit_cannot_be_negative_or_absurd(name: str) -> None:
    with pytest.raises(ValueError, match=r"-1"):
        Ledger(**{name: -1})
    with pytest.raises((ValueError, OverflowError)):
        Ledger(**{name: 1 << 62})
    assert getattr(Ledger(), name) == 0


# -- bytes ----------------------------------------------------------------------------------------


@both
@looped
async def test_unread_bytes_are_counted_until_they_are_read(kind: Any) -> None:
    peer = kind()
    stream = await opened(peer)
    for size in (5, 5000, 7):
        peer.say(1, bytes(size))
    ledger = agree(peer)
    assert (ledger.unread, peer.session.unread, stream.num_buffered) == (5012, 5012, 5012)
    assert ledger.used == 5012 + CONN + STREAM
    assert ledger.share("the peer").held == 5012 + STREAM
    await stream.read_exactly(12)
    assert agree(peer).unread == 5000
    assert await stream.readinto(bytearray(10)) == 10
    assert agree(peer).unread == 4990
    while stream.num_buffered:
        await stream.read()
    assert agree(peer).unread == 0


WAYS: dict[str, Callable[[Peer, Stream], object]] = {
    "close_read": lambda peer, stream: stream.close_read(),
    "close": lambda peer, stream: stream.close(),
    "reset here": lambda peer, stream: stream.reset(),
    "reset by the peer": lambda peer, stream: peer.reset(1),
}


@both
@pytest.mark.parametrize("way", WAYS)
@looped
async def test_bytes_that_nobody_can_read_any_more_are_given_back(kind: Any, way: str) -> None:
    peer = kind()
    stream = await opened(peer)
    peer.say(1, bytes(9000))
    WAYS[way](peer, stream)
    assert agree(peer).unread == 0


@both
@pytest.mark.parametrize("is_reset", [False, True])
@looped
async def test_bytes_of_a_stream_that_has_ended_count_until_read_or_dropped(
    kind: Any, is_reset: bool
) -> None:
    peer = kind()
    stream = await opened(peer)
    peer.say(1, bytes(9000))
    peer.fin(1)
    if is_reset:
        peer.reset(1)
    else:
        await stream.close_write()
    ledger = agree(peer)
    assert (ledger.num_streams, ledger.unread) == (0, 9000)
    await stream.read_exactly(1000)
    assert agree(peer).unread == 8000
    del stream
    gc.collect()
    assert agree(peer).unread == 0


@both
@looped
async def test_bytes_of_a_connection_that_has_ended_count_until_dropped(kind: Any) -> None:
    peer = kind()
    stream = await opened(peer)
    peer.say(1, bytes(9000))
    peer.deliver_eof()
    await settle()
    ledger = agree(peer)
    assert (ledger.num_conns, ledger.num_streams, ledger.unread) == (0, 0, 9000)
    ledger.forget("the peer")
    assert ledger.num_peers == 0
    await stream.read_exactly(4000)
    assert agree(peer).used == 5000
    ring: list[Any] = [stream]
    ring.append(ring)  # only the collector finds it
    del stream, ring
    gc.collect()
    assert agree(peer).used == 0


@both
@looped
async def test_bytes_of_a_read_that_was_cancelled_count_again(kind: Any) -> None:
    peer = kind()
    stream = await opened(peer)
    read = started(stream.readinto(bytearray(100)))
    await settle()
    peer.say(1, bytes(60))
    assert agree(peer).unread == 0, "they are in the caller's buffer"
    read.cancel()
    await settle()
    assert agree(peer).unread == 60


@both
@looped
async def test_bytes_that_a_long_read_gathers_are_counted(kind: Any) -> None:
    peer = kind()
    stream = await opened(peer)
    read = started(stream.read_exactly(WINDOW + 1000, WINDOW + 1000))
    await settle()
    for _ in range(4):
        peer.say(1, bytes(50_000))
        await settle()
    assert stream.num_buffered == 0
    assert agree(peer).unread == 200_000
    read.cancel()
    await settle()
    assert stream.num_buffered == agree(peer).unread == 200_000
    read = started(stream.read_exactly(WINDOW + 1000, WINDOW + 1000))
    await settle()
    peer.say(1, bytes(WINDOW + 1000 - 200_000))
    await read
    assert agree(peer).unread == 0


@looped
async def test_writes_that_wait_for_the_peers_window_are_counted() -> None:
    peer = YamuxPeer()
    stream = await opened(peer)
    write = started(stream.write(bytes(WINDOW + 5000)))
    await peer.all_sent()
    assert agree(peer).unsent == peer.session.unsent == 5000
    assert peer.ledger.share("the peer").held == 5000 + STREAM
    peer.deliver(frame(WU, 0, 1, 2000))
    assert agree(peer).unsent == 3000
    second = started(stream.write(bytes(100)))
    await settle()
    assert agree(peer).unsent == 3100
    second.cancel()
    await settle()
    assert agree(peer).unsent == 3000
    peer.reset(1)
    assert agree(peer).unsent == 0
    with pytest.raises(errors.StreamReset):
        await write


@both
@looped
async def test_what_the_socket_does_not_take_is_counted(kind: Any) -> None:
    peer = kind()
    stream = await opened(peer)
    await peer.all_sent()
    peer.clog()
    write = started(stream.write(bytes(100_000)))
    await settle()
    assert 100_000 < agree(peer).unsent < 300_000
    assert peer.session.unsent == peer.ledger.unsent
    assert peer.ledger.share("the peer").held < 100_000, "what waits at the socket is nobody's share"
    peer.sent()
    await peer.all_sent()
    await write
    assert agree(peer).unsent == 0


@both
@looped
async def test_what_waits_at_a_socket_that_is_lost_is_given_back(kind: Any) -> None:
    peer = kind()
    stream = await opened(peer)
    peer.clog()
    write = started(stream.write(bytes(100_000)))
    await settle()
    peer.session.abort()
    await settle()
    with pytest.raises(errors.GoAway):
        await write
    assert agree(peer).used == 0


@both
@looped
async def test_a_session_with_streams_is_counted_from_then_on(kind: Any) -> None:
    peer = kind()
    old = peer.ledger
    peer.session.abort()
    await settle()
    assert old.used == 0
    with pytest.raises(errors.LocalProtocolError):
        peer.session.account(old, old.share("the peer"))


# -- the states ------------------------------------------------------------------------------------


class Holder:
    """A peer with one stream: it sends, and we read, until a number of bytes is used."""

    def __init__(self, budget: int) -> None:
        self.peer = YamuxPeer(ledger=Ledger(memory=budget))
        self.ledger = self.peer.ledger

    async def to(self, used: int) -> int:
        """Returns the state then."""
        more = used - self.ledger.used
        if more > 0:
            self.peer.say(1, bytes(more))
        else:
            await self.stream.read_exactly(-more)
        assert self.ledger.used == used
        return self.ledger.state

    async def open(self) -> None:
        self.stream = await opened(self.peer)


PERCENT = 2000
EDGES = [(50, 45, CALM, CAREFUL), (80, 70, CAREFUL, TIGHT), (95, 85, TIGHT, FULL)]


@pytest.mark.parametrize(("enter", "leave", "below", "above"), EDGES)
@looped
async def test_a_state_begins_at_its_part_of_the_budget_and_ends_below_another(
    enter: int, leave: int, below: int, above: int
) -> None:
    holder = Holder(100 * PERCENT)
    await holder.open()
    assert await holder.to(enter * PERCENT - 1) == below
    assert await holder.to(enter * PERCENT) == above
    assert await holder.to(leave * PERCENT) == above, "it does not flap"
    assert await holder.to(leave * PERCENT - 1) == below
    assert await holder.to(enter * PERCENT - 1) == below
    agree(holder.peer)


@looped
async def test_a_change_of_state_is_told_from_the_loop_and_once() -> None:
    told: list[tuple[int, int]] = []
    holder = Holder(100 * PERCENT)
    await holder.open()
    holder.ledger.on_state = lambda old, new: told.append((old, new))
    await holder.to(90 * PERCENT)
    assert told == [], "not inside the frame"
    await settle()
    assert told == [(CALM, TIGHT)]
    await holder.to(10 * PERCENT)
    await holder.to(90 * PERCENT)
    await settle()
    assert told == [(CALM, TIGHT)], "it has not changed since"
    holder.ledger.memory = 0
    await settle()
    assert told == [(CALM, TIGHT), (TIGHT, CALM)]


@looped
async def test_what_reacts_to_a_state_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    holder = Holder(100 * PERCENT)
    await holder.open()
    holder.ledger.on_state = lambda old, new: 1 // 0
    await holder.to(90 * PERCENT)
    await settle()
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()
    assert holder.ledger.state == TIGHT


def test_a_budget_set_where_no_loop_runs_has_its_state() -> None:
    ledger = Ledger(memory=1)
    ledger.on_state = lambda old, new: None
    assert ledger.state == CALM
    ledger.memory = 100
    assert ledger.state == CALM


# -- what the states change ------------------------------------------------------------------------


async def hoard(ledger: Ledger, percent: int, who: str = "hoarder") -> YamuxPeer:
    """A peer that sends and whose streams nobody reads, until so much of the budget is used."""
    peer = YamuxPeer(ledger=ledger, who=who)
    wanted = -(-ledger.memory * percent // 100)
    for id in range(1, 2047, 2):
        left = wanted - ledger.used
        if left <= 0:
            break
        peer.syn(id)
        peer.say(id, bytes(min(max(left - STREAM, 1), 60_000)))
    assert ledger.used >= wanted
    return peer


async def grown(peer: YamuxPeer) -> YamuxStream:
    """A stream of which much was read within four round trips."""
    stream = await opened(peer, 5001)
    assert isinstance(stream, YamuxStream)
    for _ in range(8):
        for f in await peer.answers():
            if f.type == 2 and f.flags & SYN:
                peer.deliver(bytes(Frame(2, 2, 0, f.length)))  # the answer to its ping
        for _ in range(4):
            peer.say(5001, bytes(WINDOW // 4))
            await stream.read_exactly(WINDOW // 4)
    return stream


@pytest.mark.parametrize(("percent", "grows"), [(40, True), (60, False), (85, False)])
@looped
async def test_from_careful_on_windows_do_not_grow(percent: int, grows: bool) -> None:
    ledger = Ledger(memory=8 * MIB)
    hoarder = await hoard(ledger, percent)
    honest = YamuxPeer(ledger=ledger, who="honest")
    honest.session.ping()
    assert ((await grown(honest)).windows[2] > WINDOW) is grows
    agree(hoarder, honest)


@looped
async def test_while_memory_is_tight_a_grown_window_is_filled_only_to_its_first_size() -> None:
    ledger = Ledger(memory=8 * MIB)
    peer = YamuxPeer(ledger=ledger, who="honest")
    peer.session.ping()
    stream = await grown(peer)
    assert stream.windows[1] > WINDOW
    hoarder = await hoard(ledger, 80)
    for _ in range(1000):
        if stream.windows[1] <= WINDOW:
            break
        peer.say(5001, bytes(20_000))
        await stream.read_exactly(20_000)
    for _ in range(100):
        peer.say(5001, bytes(20_000))
        await stream.read_exactly(20_000)
        assert stream.windows[1] <= WINDOW < stream.windows[2]
    agree(peer, hoarder)


@both
@looped
async def test_while_memory_is_tight_only_peers_above_their_part_are_refused_streams(kind: Any) -> None:
    ledger = Ledger(memory=4 * MIB)
    others = [kind(ledger=ledger, who=f"honest {i}") for i in range(8)]
    hoarder = await hoard(ledger, 80)
    hoarder.syn(9001)
    for honest in others:
        honest.syn(1)
        honest.say(1, b"hello")
    assert await hoarder.refused() == [9001]
    assert [await honest.refused() for honest in others] == [[]] * 8
    assert ledger.refused == {"memory": 1}
    agree(hoarder, *others)


@both
@looped
async def test_when_memory_is_full_those_who_fill_it_get_no_new_stream(kind: Any) -> None:
    """An honest peer, which holds next to nothing, opens streams and uses the old ones."""
    ledger = Ledger(memory=4 * MIB)
    honest = kind(ledger=ledger, who="honest")
    stream = await opened(honest)
    hoarder = await hoard(ledger, 95)
    assert ledger.state == FULL
    hoarder.syn(2047)
    assert await hoarder.refused() == [2047]
    honest.syn(3)
    assert (await honest.session.accept_stream()).id == 3
    for _ in range(20):
        honest.say(1, bytes(5000))
        await stream.read_exactly(5000)
        await stream.write(bytes(5000))
    assert await honest.refused() == []
    agree(hoarder, honest)


@both
@looped
async def test_the_budget_holds_whatever_many_connections_send(kind: Any) -> None:
    budget = 4 * MIB
    ledger = Ledger(memory=budget)
    honest = kind(ledger=ledger, who="honest")
    stream = await opened(honest)
    peers = [kind(ledger=ledger, who=f"attacker {i % 3}") for i in range(12)]
    most = 0
    for id in range(1, 65, 2):
        for peer in peers:
            peer.syn(id)
    for _ in range(8):
        for id in range(1, 65, 2):
            for peer in peers:
                if not peer.session.is_closed:
                    peer.say(id, bytes(32_000))
                most = max(most, ledger.used)
    honest.say(1, b"still here")
    assert await stream.read_exactly(10) == b"still here"
    assert most <= budget
    assert ledger.refused["memory"] > 0
    assert not any(peer.session.is_closed for peer in peers)
    agree(honest, *peers)


@looped
async def test_the_budget_holds_whatever_is_written_for_peers_that_do_not_read() -> None:
    budget = 4 * MIB
    ledger = Ledger(memory=budget)
    peers = [YamuxPeer(ledger=ledger, who=f"attacker {i}") for i in range(4)]
    honest = YamuxPeer(ledger=ledger, who="honest")
    stream = await opened(honest)
    tasks = []
    for id in range(1, 41, 2):
        for peer in peers:
            for f in (frame(WU, SYN, id),):
                peer.deliver(f)
    for peer in peers:
        got: list[Stream] = []
        peer.session.set_stream_handler(got.append)
        await settle()
        for each in got:
            tasks += [started(each.write(bytes(WINDOW))), started(each.write(bytes(60_000)))]
        await peer.all_sent()
    assert ledger.used <= budget
    assert ledger.refused["memory"] > 0
    await stream.write(bytes(1000))
    done = [task for task in tasks if task.done() and task.exception()]
    assert all(isinstance(task.exception(), errors.StreamReset) for task in done)
    agree(honest, *peers)
    for peer in (*peers, honest):
        peer.session.abort()
    await settle()
    for task in tasks:
        if not task.exception():
            task.result()
    assert agree(honest, *peers).used == 0


async def ended_with_bytes(peer: Peer) -> Stream:
    """The answer to a call of ours, and its end, which nobody has read yet."""
    ours = await peer.session.open_stream()
    await ours.close_write()
    if isinstance(peer, YamuxPeer):
        peer.deliver(data(ours.id, bytes(3000)), frame(WU, FIN, ours.id))
    else:
        peer.deliver(msg(MSG_R, ours.id, bytes(3000)), msg(CLOSE_R, ours.id))
    return ours


@both
@looped
async def test_what_streams_that_have_ended_hold_goes_first_when_memory_is_full(kind: Any) -> None:
    ledger = Ledger(memory=4 * MIB)
    gone, finished = kind(ledger=ledger, who="gone"), kind(ledger=ledger, who="finished")
    lost, done = await opened(gone), await opened(finished)
    for peer in (gone, finished):
        peer.say(1, bytes(100_000))
        peer.fin(1)
    await done.close_write()
    gone.session.abort()
    await settle()
    assert ledger.unread == 200_000
    assert set(ledger.ended) == {lost, done}
    hoarder = await hoard(ledger, 95)
    caller = kind(ledger=ledger, who="quick")
    quick = await ended_with_bytes(caller)
    assert len(ledger.ended) == 3
    await settle()
    assert await quick.read_exactly(3000) == bytes(3000)
    await eventually(lambda: not ledger.ended)
    for stream in (lost, done):
        with pytest.raises(errors.P2PError):
            await stream.read()
    assert ledger.used < ledger.memory * 95 // 100
    agree(gone, finished, hoarder, caller)


@both
@looped
async def test_a_connection_that_is_closed_because_memory_is_full_frees_it_at_once(kind: Any) -> None:
    ledger = Ledger(memory=4 * MIB)
    peer = kind(ledger=ledger)
    stream = await opened(peer)
    peer.say(1, bytes(50_000))
    ledger.share("another")
    ledger.memory = ledger.used - 1
    assert ledger.state == FULL
    peer.session.abort()
    assert agree(peer).unread == 0
    with pytest.raises(errors.GoAway):
        await stream.read()


@both
@looped
async def test_a_connection_that_ends_while_there_is_room_keeps_what_has_come(kind: Any) -> None:
    peer = kind(ledger=Ledger(memory=4 * MIB))
    stream = await opened(peer)
    peer.say(1, bytes(5000))
    peer.session.abort()
    assert await stream.read_exactly(5000) == bytes(5000)


@looped
async def test_memory_goes_back_to_the_system_once_after_much_was_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(ledger_module, "_give_back", lambda: calls.append(0))
    peer = YamuxPeer()
    for id in range(1, 161, 2):
        peer.syn(id)
        for _ in range(4):
            peer.say(id, bytes(WINDOW // 4))
    high = peer.ledger.used
    assert high > limits.MEMORY_TRIM_BYTES
    assert calls == []
    peer.session.set_stream_handler(lambda stream: stream.reset())
    await eventually(lambda: calls)
    peer.session.abort()
    await settle()
    assert calls == [0]
    assert peer.ledger.peaks["used"] == high


@looped
async def test_the_record_buffers_of_a_loop_go_back_too() -> None:
    state = loop_state(asyncio.get_running_loop())
    peer = YamuxPeer()
    stream = await opened(peer)
    await stream.write(b"answer")
    await peer.all_sent()
    assert state.num_free_records == 1
    ledger_module._give_back()  # type: ignore[attr-defined]
    assert state.num_free_records == 0
    await stream.write(b"another")
    assert b"another" in await peer.all_sent()


@looped
async def test_a_tight_mplex_connection_stalls_at_one_streams_worth() -> None:
    ledger = Ledger(memory=8 * MIB)
    peer = MplexPeer(ledger=ledger, who="one")
    for id in (1, 3, 5, 7):
        peer.syn(id)
        peer.say(id, bytes(100_000))
    assert peer.reading
    hoarder = await hoard(ledger, 80)
    peer.say(1, b"x")
    assert not peer.reading
    agree(peer, hoarder)


# -- everything together ---------------------------------------------------------------------------


class Walk:
    """Does anything with the streams of some connections, and recounts after each step."""

    def __init__(self, kind: Any, seed: int) -> None:
        self.random = random.Random(seed)
        self.ledger = Ledger(memory=2 * MIB, max_streams_per_peer=12)
        self.peers: list[Peer] = [kind(ledger=self.ledger, who=f"peer {i % 2}") for i in range(4)]
        self.streams: list[tuple[Peer, Stream]] = []
        self.tasks: list[Any] = []
        self.next_id = 1
        for peer in self.peers:
            peer.session.set_stream_handler(lambda stream, peer=peer: self.streams.append((peer, stream)))

    async def step(self) -> None:
        peer = self.random.choice(self.peers)
        await self.random.choice([self.open, self.ours, self.say, self.act, self.act, self.read, self.write])(
            peer
        )
        await settle(2)

    async def open(self, peer: Peer) -> None:
        self.next_id += 2
        peer.syn(self.next_id)

    async def ours(self, peer: Peer) -> None:
        if not peer.session.is_closed and peer.session.num_streams < 20:
            self.streams.append((peer, await peer.session.open_stream()))

    async def say(self, peer: Peer) -> None:
        for owner, stream in self.streams:
            if owner is peer and stream.is_inbound and self.random.random() < 0.5:
                peer.say(stream.id, bytes(self.random.choice([1, 300, 5000, 20_000])))

    async def act(self, peer: Peer) -> None:
        if not self.streams:
            return
        at = self.random.randrange(len(self.streams))
        owner, stream = self.streams[at]
        way = self.random.choice(["fin", "reset", "close", "close_read", "close_write", "abort", "drop"])
        if way in ("fin", "reset") and stream.is_inbound:
            getattr(owner, way)(stream.id)
        elif way == "abort":
            stream.reset()
        elif way == "drop":
            del self.streams[at]
        elif way.startswith("close"):
            await getattr(stream, way)()

    async def read(self, peer: Peer) -> None:
        for _, stream in self.streams:
            if self.random.random() < 0.3 and not stream.is_closed:
                size = self.random.choice([1, 4000, WINDOW + 1])
                self.tasks.append(started(stream.read_exactly(size, size)))
        self.cancel_some()

    async def write(self, peer: Peer) -> None:
        for _, stream in self.streams:
            if self.random.random() < 0.3:
                self.tasks.append(started(stream.write(bytes(self.random.choice([10, 70_000, WINDOW])))))
        if self.random.random() < 0.5 and not peer.session.is_closed:
            await peer.all_sent()
        self.cancel_some()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await settle()
        for task in self.tasks:
            if not task.cancelled():
                task.exception()
        self.tasks.clear()
        self.streams.clear()

    def cancel_some(self) -> None:
        for task in self.tasks:
            if self.random.random() < 0.3:
                task.cancel()
            if task.done() and not task.cancelled():
                task.exception()
        self.tasks = [task for task in self.tasks if not task.done()]


@both
@pytest.mark.parametrize("seed", range(3))
@virtual  # on a busy machine it may take longer than a peer may take no byte
async def test_whatever_happens_the_counts_are_exact_and_end_at_zero(kind: Any, seed: int) -> None:
    walk = Walk(kind, seed)
    for i in range(150):
        await walk.step()
        if i % 5 == 0:
            agree(*walk.peers)
    assert walk.ledger.peaks["num_streams"] > 10
    for peer in walk.peers:
        peer.session.abort()
    await settle()
    await walk.end()
    gc.collect()
    ledger = agree(*walk.peers)
    assert (ledger.num_conns, ledger.num_streams) == (0, 0)
    assert (ledger.unread, ledger.unsent, ledger.used) == (0, 0, 0)
    for i in range(2):
        share = ledger.share(f"peer {i}")
        assert (share.conns, share.streams, share.held) == (0, 0, 0)
