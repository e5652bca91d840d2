"""One session of yamux or mplex, and a peer by hand: frames in any order, of any size, cut anywhere.

A peer's frames end the session with one of the two typed errors, or leave it in a state that adds up. Our
side reads, answers, closes and resets the streams that it gets, each as its number says.
"""

from __future__ import annotations

import asyncio
from typing import Any

from promise import check, cut, named, run, same, settle

from _fast.chains import RawMuxer
from p2pcore import errors
from p2pcore._fast.loop.ledger import Ledger
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore._fast.mux.yamux import YamuxSession

ENDS = (errors.RemoteProtocolError, errors.LimitExceeded, errors.GoAway, errors.ConnectionClosed)
MAX_STREAMS = 8
LARGEST = 256 * 1024


class Peer(RawMuxer):
    """A session with small limits, so that a short input reaches them."""

    def __init__(self, kind: Any, is_client: bool) -> None:
        self.kind = kind
        super().__init__(is_client, max_inbound_streams=MAX_STREAMS)
        self.streams: list[Any] = []

    async def finish(self) -> None:
        self.session.abort()
        self.wire.abort()
        await settle(2)
        self.near.close()
        self.far.close()


async def _ours(peer: Peer, outbound: int) -> None:
    """What our side does before the peer's bytes come: opens streams, writes, closes some."""
    for n in range(outbound):
        stream = await peer.session.open_stream()
        peer.streams.append(stream)
        if n % 2:
            await stream.write(b"x" * n)
        if n % 3 == 1:
            await stream.close_write()


async def _taken(stream: Any) -> tuple[Any, ...]:
    """What a stream has brought, and how it ended."""
    got, end = b"", None
    try:
        while stream.num_buffered:
            got += await stream.read()
        last = asyncio.ensure_future(stream.read())
        await settle(2)
        end = "goes on" if last.cancel() else last.result()
    except errors.P2PError as error:
        end = named(error)
    check(len(got) <= LARGEST, "a stream brought more than its window", len(got))
    return stream.id, stream.is_inbound, got, end, stream.is_closed


async def _session(kind: Any, data: bytes, pieces: list[bytes]) -> tuple[Any, ...]:
    peer = Peer(kind, bool(data[0] & 1))
    peer.session.set_stream_handler(peer.streams.append)
    await _ours(peer, (data[0] >> 1) % 6)
    await settle()
    for piece in pieces:
        peer.deliver(piece)
    n = peer.session.num_streams
    check(n <= MAX_STREAMS + 6, "more streams than allowed", n)
    await settle()
    if data[0] & 128:
        peer.deliver_eof()
    taken = [await _taken(stream) for stream in peer.streams]
    reason = peer.session.close_reason
    check(reason is None or isinstance(reason, ENDS), "another end than promised", reason)
    closed = await _left(peer)
    sent = await peer.all_sent()
    check(len(sent) <= 64 * len(data) + LARGEST, "more was sent than asked for", len(sent))
    adds_up(peer.session, peer.streams, closed)
    await peer.finish()
    nothing_counted(peer.ledger)
    adds_up(peer.session, peer.streams, closed)
    return taken, type(reason).__name__, sent


async def _left(peer: Peer) -> list[Any]:
    """Leaves each stream in a way of its own. Returns: those that may have no place in the table any more."""
    closed = []
    for place, stream in enumerate(peer.streams):
        way = place % 5
        if way in (0, 2):
            await stream.close_write()
        if way in (0, 3):
            await stream.close_read()
        if way == 4:
            stream.reset(7)
        if way == 0:
            closed.append(stream)
    await settle()
    return closed


def nothing_counted(ledger: Ledger) -> None:
    """The session has given everything back."""
    names = ("num_conns", "num_streams", "unread", "unsent", "used")
    left = {name: getattr(ledger, name) for name in names if getattr(ledger, name)}
    check(not left, "a ledger still counts of a session that has ended", left)


def adds_up(session: Any, held: list[Any], closed: list[Any]) -> None:
    """The table has each stream that is held and has not ended; it may have those `closed` here.

    And one of mplex whose name has not come whole, so that nobody has it yet.
    """
    if session.close_reason is not None:
        same(session.num_streams, 0, "streams of a session that has ended")
        return
    living = [stream for stream in held if not stream.is_closed]
    least = sum(all(stream is not other for other in closed) for stream in living)
    n = session.num_streams
    most = len(living) + 1
    check(least <= n <= most, "the table does not have the streams that live", least, n, most)


def _fuzz(kind: Any, data: bytes) -> None:
    async def main() -> None:
        raw = data[1:]
        whole, pieces = await _session(kind, data, [raw]), await _session(kind, data, cut(raw))
        # A rate that is nearly used up may depend on the time between two runs.
        if "LimitExceeded" not in (whole[1], pieces[1]):
            same(whole, pieces, "a session depends on how its input is cut")

    if data:
        run(main())


def yamux(data: bytes) -> None:
    """The first byte says which side is ours, how many streams we open, and whether the input ends."""
    _fuzz(YamuxSession, data)


def mplex(data: bytes) -> None:
    """As yamux."""
    _fuzz(MplexSession, data)


TARGETS = {"yamux": yamux, "mplex": mplex}
