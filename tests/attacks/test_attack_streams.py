"""Attacks with streams: others are served, and memory keeps to its budget."""

from __future__ import annotations

import asyncio

from attacked import ECHO, arena, echoes, honest, node

from attacks.rawpeer import DATA, FIN, HEADER, SYN, WINDOW, RawPeer, frame, message, opening
from harness import eventually, looped
from p2pcore import Stream

COUNTED = "/counted/1"
KIB = 1024


def _flood(streams: int) -> bytes:
    """Streams of COUNTED that begin and end in one frame."""
    body = HEADER + message(COUNTED)
    return b"".join(frame(DATA, SYN | FIN, 1 + 2 * at, len(body), body) for at in range(streams))


@looped
async def test_streams_that_begin_and_end_at_once_leave_others_their_turn() -> None:
    """Counts the attackers' handlers that run before that of one honest message, sent after their frames."""
    served, before = 0, [-1]

    async def count(stream: Stream) -> None:
        nonlocal served
        served += 1

    async def note(stream: Stream) -> None:
        await stream.write(await stream.read_exactly(1))
        await stream.read_exactly(1)
        before[0] = served

    async with node() as host, honest() as one:
        host.set_stream_handler(COUNTED, count)
        host.set_stream_handler("/noted/1", note)
        conn = await one.connect(host.addrs_with_peer[0])
        stream = await conn.new_stream("/noted/1")
        await stream.write(b"x")
        await stream.read_exactly(1)
        peers = await arena(host, sources=16, identities=16).peers(16)
        assert len(peers) == 16
        flood = _flood(256)
        for peer in peers:
            peer.write(flood)
        await stream.write(b"y")
        await eventually(lambda: before[0] >= 0)
        assert before[0] <= 1024  # of 4,096
        for peer in peers:
            peer.abort()


@looped
async def test_idle_streams_of_one_identity_leave_places_for_others() -> None:
    async with node({"max_streams": 2000, "max_streams_per_peer": 300}) as host, honest() as one:
        peers = await arena(host, sources=4).peers(4)
        for peer in peers:
            for begun in range(0, 200, 100):
                peer.write(b"".join(opening(1 + 2 * at, ECHO) for at in range(begun, begun + 100)))
                await peer.ping()
        await eventually(lambda: host.swarm.ledger.num_streams == 300)
        assert await echoes(one, host.addrs[0])
        for peer in peers:
            peer.abort()


@looped
async def test_streams_without_a_protocol_are_bounded_in_all() -> None:
    async with node({"max_streams": 500, "max_streams_per_peer": 100}) as host, honest() as one:
        peers = await arena(host, sources=4, identities=4).peers(4)
        for peer in peers:
            peer.write(b"".join(frame(WINDOW, SYN, 1 + 2 * at, 0) for at in range(200)))
            await peer.ping()
        assert host.swarm.ledger.num_streams <= 400
        assert await echoes(one, host.addrs[0])
        for peer in peers:
            peer.abort()


async def _fill(peer: RawPeer, streams: int) -> None:
    """Fills each window twice: the echo gives one back before it waits for ours."""
    credit = {1 + 2 * at: 256 * KIB - 64 for at in range(streams)}

    def look(kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        if kind == WINDOW and stream in credit:
            credit[stream] += length

    peer.on_frame = look
    peer.write(b"".join(opening(stream, ECHO) for stream in credit))
    left = dict.fromkeys(credit, 480 * KIB)
    while peer.is_open and any(left.values()):
        for stream in credit:
            if size := min(credit[stream], 16 * KIB, left[stream]):
                credit[stream] -= size
                left[stream] -= size
                peer.write(frame(DATA, 0, stream, size, bytes(size)))
                await peer.drain()
        if not any(min(credit[stream], left[stream]) for stream in credit):
            before = dict(credit)
            await peer.ping()
            if credit == before:
                return


@looped
async def test_streams_that_are_filled_and_never_read_keep_to_the_budget() -> None:
    budget = 32 << 20
    async with node({"memory": budget}) as host, honest() as one:
        attackers = arena(host, sources=6, identities=6)
        for number in range(6):  # 6 x 32 x 256 KiB are 48 MiB
            if (peer := await attackers.peer(number)) is not None:
                await _fill(peer, 32)
        assert host.swarm.ledger.peaks["used"] <= budget
        await eventually(lambda: host.swarm.ledger.used < 0.95 * budget)
        assert await echoes(one, host.addrs[0])


@looped
async def test_bad_proposals_end_with_their_streams() -> None:
    body = HEADER + b"".join(message(f"/x/{at}") for at in range(63))
    async with node() as host, honest() as one:
        (peer,) = await arena(host).peers(1)
        peer.write(b"".join(frame(DATA, SYN | FIN, 1 + 2 * at, len(body), body) for at in range(200)))
        assert await echoes(one, host.addrs[0])
        await peer.ping()
        await eventually(lambda: host.swarm.ledger.num_streams == 0)
        peer.abort()


@looped
async def test_an_ended_attack_leaves_nothing_counted() -> None:
    async with node() as host:
        peers = await arena(host, sources=4, identities=4).peers(4)
        for peer in peers:
            peer.write(b"".join(opening(1 + 2 * at, ECHO, bytes(1000)) for at in range(100)))
            await peer.ping()
        await asyncio.gather(*(_ended(peer) for peer in peers))
        ledger = host.swarm.ledger
        await eventually(lambda: host.swarm.num_conns == 0)
        await eventually(lambda: not (ledger.num_streams or ledger.unread or ledger.unsent))


async def _ended(peer: RawPeer) -> None:
    peer.abort()
    await peer.lost
