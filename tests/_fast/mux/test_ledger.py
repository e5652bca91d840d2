"""What connections use is counted exactly, and its limits hold: streams by connection, peer, host; memory.

Comes in: frames by hand, on one or several connections of one or several peers. Goes out: the counts of their
ledger, checked against a recount, and what the peers were told. Source: RM-T12, T13, T14, T19.
"""

from __future__ import annotations

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
from _fast.mplex_chain import CLOSE_I, MSG_I, NEW, RESET_I, RESET_R, RawMplex, msg
from harness import looped, settle
from p2pcore import codes, errors, limits
from p2pcore._fast.loop.ledger import CALM, CAREFUL, FULL, TIGHT, Ledger
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxStream

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
    assert (ledger.num_conns, ledger.num_streams) == (0, 0)
    assert (ledger.unread, ledger.unsent, ledger.used) == (0, 0, 0)
    for i in range(2):
        share = ledger.share(f"peer {i}")
        assert (share.conns, share.streams, share.held) == (0, 0, 0)
