"""What every security protocol promises: identities, multiplexers, data, ends, and nothing for the hostile.

Comes in: interfaces.SecureTransport alone, for every name in compose.SECURITY, over sockets and pipes that
cut at every byte and anywhere. Goes out: the same promises for each. What only one has is tested beside it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conformance.muxed_pairs import joined
from conformance.secure_pairs import KINDS, MUXERS, SECURITY, BrokenCable, Ends, Kind, ends, pattern, secured
from harness import looped, settle
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.errors import (
    ConnectionClosed,
    HandshakeError,
    IncompleteRead,
    LimitExceeded,
    P2PError,
    PeerIdMismatch,
    PeerIsSelf,
    ProtocolNotSupported,
    RemoteProtocolError,
)
from p2pcore.interfaces import Secured
from p2pcore.values.keys import KeyType, PrivateKey
from p2pcore.values.peer_id import PeerId

over_all = pytest.mark.parametrize("kind", KINDS, ids=str)
over_sockets = pytest.mark.parametrize("kind", SECURITY, ids=str)

BROKEN = (HandshakeError, ConnectionClosed, IncompleteRead, RemoteProtocolError, LimitExceeded)
"""All that a peer may cause, in the handshake or behind it."""


# -- identities ------------------------------------------------------------------------------------


@over_all
@looped
async def test_both_sides_learn_who_the_other_is(kind: Kind) -> None:
    async with ends(kind) as made:
        dialler, listener = await made.handshake()
        assert dialler.remote_peer == made.ids[1]
        assert dialler.remote_key == made.keys[1].public_key
        assert listener.remote_peer == made.ids[0]
        assert listener.remote_key == made.keys[0].public_key


@over_sockets
@pytest.mark.parametrize("type", list(KeyType), ids=lambda type: type.name.lower())
@looped
async def test_keys_of_every_type_are_proved(kind: Kind, type: KeyType) -> None:
    keys = PrivateKey.generate(type), PrivateKey.generate()
    async with ends(kind, keys=keys) as made:
        dialler, listener = await made.handshake()
        assert (dialler.remote_peer, listener.remote_peer) == made.ids[::-1]


@over_all
@looped
async def test_the_expected_peer_is_taken(kind: Kind) -> None:
    async with ends(kind) as made:
        results = await made.handshake(expected=made.ids[::-1])
        assert all(isinstance(each, Secured) for each in results)


@over_all
@pytest.mark.parametrize("side", [0, 1], ids=["dialler", "listener"])
@looped
async def test_another_peer_is_refused_by_name(kind: Kind, side: int) -> None:
    async with ends(kind) as made:
        other = PrivateKey.generate().peer_id()
        expected: list[PeerId | None] = [None, None]
        expected[side] = other
        error = (await made.handshake(expected))[side]
        assert isinstance(error, PeerIdMismatch)
        assert (error.expected, error.actual) == (other, made.ids[1 - side])


@over_sockets
@looped
async def test_ourselves_are_refused(kind: Kind) -> None:
    key = PrivateKey.generate()
    async with ends(kind, keys=(key, key)) as made:
        results = await made.handshake()
        assert any(isinstance(each, PeerIsSelf) and each.peer == key.peer_id() for each in results)


# -- multiplexers ----------------------------------------------------------------------------------


@over_all
@pytest.mark.parametrize(
    ("dialler", "listener", "agreed"),
    [
        (("/a", "/b"), ("/b", "/a"), "/a"),
        (("/c", "/b", "/a"), ("/a", "/b"), "/b"),
        ((), ("/a",), None),
        (("/a",), (), None),
        ((), (), None),
    ],
)
@looped
async def test_the_diallers_first_multiplexer_that_both_have_is_agreed(
    kind: Kind, dialler: tuple[str, ...], listener: tuple[str, ...], agreed: str | None
) -> None:
    async with ends(kind) as made:
        results = await made.handshake(muxers=(dialler, listener))
        assert [each.muxer for each in results] == [agreed if kind.has_early_muxer else None] * 2


@over_all
@looped
async def test_no_multiplexer_in_common_has_one_type_on_both_sides(kind: Kind) -> None:
    if not kind.has_early_muxer:
        return
    async with ends(kind) as made:
        dialler, listener = await made.handshake(muxers=(("/a", "/b"), ("/c",)))
    for error, by_peer in ((dialler, False), (listener, True)):
        if error is None or isinstance(error, Secured):
            assert error is not None, "TLS goes on to negotiate by multistream-select"
            assert error.muxer is None
            continue
        assert isinstance(error, ProtocolNotSupported)
        assert (error.stage, error.by_peer) == ("muxer negotiation", by_peer)
        assert error.protocols == ("/a", "/b")


# -- data ------------------------------------------------------------------------------------------


@over_all
@looped
async def test_bytes_right_behind_the_handshake_are_not_lost(kind: Kind) -> None:
    """Each side writes as soon as it is done, whatever the other is at."""

    async def one(made: Ends, i: int) -> bytes:
        step = (made.transports[i].secure_outbound, made.transports[i].secure_inbound)[i]
        await step(made.boxes[i], None, MUXERS)
        made.boxes[i].write(b"from %d " % i + bytes(500))
        return await made.boxes[i].read_exactly(507)

    async with ends(kind) as made:
        assert await asyncio.gather(one(made, 0), one(made, 1)) == [
            b"from 1 " + bytes(500),
            b"from 0 " + bytes(500),
        ]


@over_all
@looped
async def test_bulk_goes_both_ways_at_once_and_comes_as_it_was(kind: Kind) -> None:
    size = kind.scaled(1 << 20, 100_000)

    async def send(box: Any, data: bytes) -> None:
        for at in range(0, len(data), 50_000):
            box.write(data[at : at + 50_000])
            await asyncio.sleep(0)

    async def receive(box: Any) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += await box.read(1 << 17)
        return bytes(data)

    async with secured(kind) as made:
        a, b = made.boxes
        there, back = pattern(size), pattern(size, 100)
        got = await asyncio.gather(send(a, there), send(b, back), receive(b), receive(a))
        assert got[2:] == [there, back]


@over_all
@looped
async def test_writes_of_every_size_come_as_they_were(kind: Kind) -> None:
    sizes = [0, 1, 2, 255, 256, 1000, 16383, 16384, 16385] + kind.scaled(1, 0) * [
        65_279,
        65_280,
        65_281,
        131_072,
    ]
    async with secured(kind) as made:
        a, b = made.boxes
        for size in sizes:
            a.write(pattern(size, size))
            assert await b.read_exactly(size) == pattern(size, size)


@over_sockets
@looped
async def test_idle_channels_hold_no_buffer_of_the_loop(kind: Kind) -> None:
    async with secured(kind) as made:
        a, b = made.boxes
        state = loop_state(asyncio.get_running_loop())
        for box, other in ((a, b), (b, a)):
            box.write(bytes(60_000))
            await other.read_exactly(60_000)
        await settle()
        free = state.num_free_records
        async with secured(kind) as more:
            c, d = more.boxes
            for box, other in ((a, b), (b, a), (c, d), (d, c)):
                box.write(bytes(60_000))
                await other.read_exactly(60_000)
            await settle()
            # As many as before: what the first two hold while idle, others would have had to make anew.
            assert state.num_free_records == free


# -- ends ------------------------------------------------------------------------------------------


@over_all
@pytest.mark.parametrize("side", [0, 1], ids=["dialler", "listener"])
@looped
async def test_an_orderly_close_comes_behind_all_data(kind: Kind, side: int) -> None:
    async with secured(kind) as made:
        one, other = made.boxes[side], made.boxes[1 - side]
        data = pattern(kind.scaled(300_000, 3000))
        one.write(data)
        made.wires[side].close()
        assert await read_to_end(other) == data


async def read_to_end(box: Any) -> bytes:
    data = bytearray()
    while piece := await box.read(1 << 16):
        data += piece
    return bytes(data)


@over_all
@looped
async def test_an_abort_ends_the_other_side(kind: Kind) -> None:
    async with secured(kind) as made:
        a, b = made.boxes
        a.abort()
        with pytest.raises((IncompleteRead, ConnectionClosed)):
            await b.read_exactly(1)
        with pytest.raises(ConnectionClosed):
            await a.read_exactly(1)
        with pytest.raises(ConnectionClosed):
            a.write(b"too late")


# -- hostile and broken ----------------------------------------------------------------------------


@over_sockets
@pytest.mark.parametrize("side", [0, 1], ids=["dialler", "listener"])
@looped
async def test_a_silent_peer_costs_no_more_than_the_callers_deadline(kind: Kind, side: int) -> None:
    async with ends(kind) as made:
        step = (made.transports[side].secure_outbound, made.transports[side].secure_inbound)[side]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await step(made.boxes[side], None, MUXERS)
        assert made.boxes[side].num_held == 0


async def length(kind: Kind, side: int) -> int:
    """Bytes this side sends in a handshake."""
    cables = joined(BrokenCable)
    async with ends(kind, cables) as made:
        await made.handshake()
        await settle()
        return cables[side].at


@over_sockets
@pytest.mark.parametrize("side", [0, 1], ids=["from the dialler", "from the listener"])
@looped
async def test_an_end_anywhere_in_the_handshake_fails_it(kind: Kind, side: int) -> None:
    size = await length(kind, side)
    for at in range(0, size, max(1, size // 60)):
        cables = joined(BrokenCable)
        cables[side].end = at
        async with ends(kind, cables) as made:
            results = await made.handshake()
            results += await exchange(made, results)
            assert any(isinstance(each, BROKEN) for each in results), (at, results)


@over_sockets
@pytest.mark.parametrize("side", [0, 1], ids=["from the dialler", "from the listener"])
@looped
async def test_no_changed_byte_of_the_handshake_goes_unnoticed(kind: Kind, side: int) -> None:
    size = await length(kind, side)
    for at in range(0, size, max(1, size // 60)):
        cables = joined(BrokenCable)
        cables[side].flip = at
        async with ends(kind, cables) as made:
            results = await bounded(made.handshake())
            if results is None:
                continue  # a length has grown: both sides wait, which is for their callers to end
            results += await exchange(made, results)
            assert all(isinstance(each, (Secured, bytes, *BROKEN)) for each in results), (at, results)
            assert not kind.proves or any(isinstance(each, BROKEN) for each in results), (at, results)


async def bounded(handshake: Any) -> list[Any] | None:
    """The handshake's results; None where both sides wait for more than there is."""
    task = asyncio.ensure_future(handshake)
    for _ in range(400):
        await asyncio.sleep(0)
        if task.done():
            return task.result()  # type: ignore[no-any-return]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def exchange(made: Ends, results: list[Any]) -> list[Any]:
    """What a byte each way comes to, where both sides believe they are secured."""
    if not all(isinstance(each, Secured) for each in results):
        return []

    async def one(box: Any) -> bytes:
        box.write(b"?")
        return await box.read_exactly(1)

    return await asyncio.gather(one(made.boxes[0]), one(made.boxes[1]), return_exceptions=True)


@over_sockets
@pytest.mark.parametrize("side", [0, 1], ids=["dialler", "listener"])
@pytest.mark.parametrize("garbage", [bytes(2000), b"\xff" * 2000, b"GET / HTTP/1.1\r\n\r\n" * 50])
@looped
async def test_garbage_in_place_of_a_handshake_is_a_handshake_error(
    kind: Kind, side: int, garbage: bytes
) -> None:
    async with ends(kind) as made:
        step = (made.transports[side].secure_outbound, made.transports[side].secure_inbound)[side]
        made.boxes[1 - side].write(garbage)
        made.wires[1 - side].close()
        with pytest.raises(HandshakeError):
            await step(made.boxes[side], None, MUXERS)


@over_sockets
@looped
async def test_garbage_behind_the_handshake_ends_the_connection(kind: Kind) -> None:
    if not kind.proves:
        pytest.skip("bytes without records are data, whatever they are")
    cables = joined(BrokenCable)
    async with ends(kind, cables) as made:
        results = await made.handshake()
        assert all(isinstance(each, Secured) for each in results)
        await settle()
        cables[1].deliver(bytes(range(256)) * 10)
        with pytest.raises(P2PError):
            await made.boxes[1].read_exactly(1)
