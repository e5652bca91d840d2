"""What every muxer promises of streams: bytes in order, half closes, resets, waits that can be given up.

Comes in: interfaces.MuxedConn and Stream alone, over every channel, over sockets and a pipe that cuts at
every byte. Goes out: the same promises for yamux and mplex. What only one of them has is tested beside it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conformance.muxed_pairs import KINDS, Kind, connected, opened, pattern, read_all
from harness import eventually, looped, settle
from p2pcore import errors
from p2pcore.interfaces import Stream

pytestmark = [pytest.mark.parametrize("kind", KINDS, ids=str)]


# -- bytes ------------------------------------------------------------------------------------------


@looped
async def test_streams_that_take_turns_keep_their_own_bytes_in_order(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        pairs = [await opened(client, server) for _ in range(8)]
        sizes = (1, 3, 100, 127, 128, 129, kind.scaled(5000, 300), kind.scaled(20000, 400))
        sent: list[bytes] = [b""] * len(pairs)
        for turn in range(4):
            for i, (near, _) in enumerate(pairs):
                piece = pattern(sizes[(i + turn) % len(sizes)], i + turn)
                await near.write(piece)
                sent[i] += piece
        for i, (near, far) in enumerate(pairs):
            await near.close_write()
            assert await read_all(far) == sent[i]


@looped
async def test_writes_leave_in_the_order_they_were_made_awaited_or_not(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        pieces = [pattern(kind.scaled(50_000, 500), i) for i in range(12)]
        writes = [asyncio.ensure_future(near.write(piece)) for piece in pieces]
        got = await far.read_exactly(len(b"".join(pieces)) // 4)
        while len(got) < sum(map(len, pieces)):
            got += await far.read()
        assert got == b"".join(pieces)
        await asyncio.gather(*writes)


@looped
async def test_much_both_ways_at_once_arrives_whole(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        data = pattern(kind.scaled(4 << 20, 8000))

        async def send(stream: Stream) -> None:
            for at in range(0, len(data), 70_001):
                await stream.write(memoryview(data)[at : at + 70_001])
            await stream.close_write()

        got = await asyncio.gather(send(near), send(far), read_all(near), read_all(far))
        assert got[2] == got[3] == data
        assert near.is_closed
        assert far.is_closed


@looped
async def test_reading_into_a_buffer_and_by_exact_counts_gives_the_same_bytes(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        data, got = pattern(3000), bytearray()
        await near.write(data)
        buffer = bytearray(700)
        for wanted in itertools.cycle((700, 1, 300)):
            if len(got) + wanted > len(data):
                break
            if wanted == 700:
                got += buffer[: await far.readinto(buffer)]
            else:
                got += await far.read_exactly(wanted)
        await near.close_write()
        got += await read_all(far)
        assert got == data


@looped
async def test_an_empty_write_is_nothing(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        for _ in range(3):
            await near.write(b"")
        await near.write(b"x")
        assert await far.read() == b"x"


# -- ends of a stream -------------------------------------------------------------------------------


@looped
async def test_either_half_ends_by_itself(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        for who in (0, 1):
            ends = await opened(client, server)
            first, second = ends[who], ends[1 - who]
            await first.write(b"last")
            await first.close_write()
            await first.close_write()
            with pytest.raises(errors.StreamClosed):
                await first.write(b"more")
            assert await read_all(second) == b"last"
            assert await second.read() == b""
            assert not second.is_closed
            await second.write(b"goes on")
            assert await first.read_exactly(7) == b"goes on"
            with pytest.raises(errors.IncompleteRead):
                await second.read_exactly(1)
            await second.close_write()
            assert await first.read() == b""
            await eventually(lambda ends=ends: ends[0].is_closed and ends[1].is_closed)
        await eventually(lambda: client.num_streams == server.num_streams == 0)


@looped
async def test_end_of_data_waits_for_the_data(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        data = pattern(kind.scaled(1 << 20, 2000))
        writing = asyncio.ensure_future(near.write(data))
        await settle()
        await near.close_write()
        assert await read_all(far) == data
        await writing


@looped
async def test_a_closed_read_half_drops_what_comes_and_writing_goes_on(kind: Kind) -> None:
    """W35: go's CloseRead says nothing, and the peer stands still after one window. Here it never does."""
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        reading = asyncio.ensure_future(far.read())
        await settle()
        await far.close_read()
        with pytest.raises(errors.StreamClosed):
            await reading
        for _ in range(kind.scaled(12, 3)):
            await near.write(bytes(kind.scaled(100_000, 500)))
        assert far.num_buffered == 0  # type: ignore[attr-defined]
        await far.write(b"still here")
        assert await near.read_exactly(10) == b"still here"
        assert not near.is_closed


@looped
async def test_a_peer_that_goes_on_writing_to_a_closed_stream_is_told(kind: Kind) -> None:
    if kind.is_cut:
        pytest.skip("needs more than a window of bytes")
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        await far.close()

        async def write_on() -> None:
            while True:
                await near.write(bytes(65536))
                await asyncio.sleep(0)

        with pytest.raises(errors.StreamReset) as caught:
            await write_on()
        assert caught.value.remote
        await eventually(lambda: client.num_streams == server.num_streams == 0)


@looped
async def test_either_side_resets_both_halves(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        for who in (0, 1):
            ends = await opened(client, server)
            first, second = ends[who], ends[1 - who]
            await first.write(b"unread")
            reading = asyncio.ensure_future(first.read())
            await settle()
            first.reset(77)
            first.reset(78)
            with pytest.raises(errors.StreamReset) as mine:
                await reading
            assert (mine.value.remote, mine.value.code) == (False, 77)
            await eventually(lambda second=second: second.is_closed)
            for use in (second.read, lambda second=second: second.write(b"x")):
                with pytest.raises(errors.StreamReset) as theirs:
                    await use()
                assert theirs.value.remote
                assert theirs.value.code == (77 if kind.traits.tells_codes else 0)
        assert client.num_streams == server.num_streams == 0
        near, far = await opened(server, client)
        await near.write(b"unharmed")
        assert await far.read_exactly(8) == b"unharmed"


@looped
async def test_a_reset_wakes_a_write_that_waits(kind: Kind) -> None:
    if kind.is_cut:
        pytest.skip("needs more bytes than a socket takes")
    async with connected(kind, stall_s=0.1) as (client, server):
        for who in (0, 1):
            ends = await opened(client, server)
            writing = asyncio.ensure_future(ends[0].write(bytes(32 << 20)))
            await settle()
            assert not writing.done()
            ends[who].reset()
            with pytest.raises(errors.StreamReset):
                await writing


# -- waiting ----------------------------------------------------------------------------------------


READS: dict[str, Callable[[Stream], Awaitable[Any]]] = {
    "read": lambda s: s.read(),
    "read_exactly": lambda s: s.read_exactly(10),
    "readinto": lambda s: s.readinto(bytearray(10)),
}


@pytest.mark.parametrize("how", READS)
@looped
async def test_a_cancelled_read_takes_nothing(kind: Kind, how: str) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        if how == "read_exactly":
            await near.write(b"0123")
        reading = asyncio.ensure_future(READS[how](far))
        await settle()
        if how == "read_exactly":
            await eventually(lambda: far.num_buffered == 4)  # type: ignore[attr-defined]
        reading.cancel()
        await near.write(b"456789")
        with pytest.raises(asyncio.CancelledError):
            await reading
        wanted = b"0123456789" if how == "read_exactly" else b"456789"
        assert await far.read_exactly(len(wanted)) == wanted


@pytest.mark.parametrize("how", READS)
@looped
async def test_bytes_given_to_a_read_cancelled_in_the_same_turn_are_not_lost(kind: Kind, how: str) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        reading = asyncio.ensure_future(READS[how](far))
        await settle()
        await near.write(b"0123456789")
        for _ in range(200):
            await asyncio.sleep(0)
            if far.num_buffered:  # type: ignore[attr-defined]
                break
        taken = b""
        if not reading.cancel():
            result = reading.result()
            taken = b"0123456789"[: result if isinstance(result, int) else len(result)]
        else:
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert taken + await far.read_exactly(10 - len(taken)) == b"0123456789"


@looped
async def test_a_read_deadline_passes_takes_nothing_and_can_be_lifted(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        await near.write(b"01")
        await eventually(lambda: far.num_buffered == 2)  # type: ignore[attr-defined]
        far.set_read_deadline(0.02)
        with pytest.raises(errors.DeadlineExceeded):
            await far.read_exactly(4)
        with pytest.raises(TimeoutError):
            await far.read()
        far.set_read_deadline(None)
        await near.write(b"23")
        assert await far.read_exactly(4) == b"0123"


@looped
async def test_a_write_deadline_ends_a_write_that_waits(kind: Kind) -> None:
    if kind.is_cut:
        pytest.skip("needs more bytes than a socket takes")
    async with connected(kind) as (client, server):
        near, _ = await opened(client, server)
        near.set_write_deadline(0.02)
        with pytest.raises(errors.DeadlineExceeded):
            await near.write(bytes(32 << 20))


@looped
async def test_a_cancelled_write_lets_go_of_its_data_and_others_go_on(kind: Kind) -> None:
    if kind.is_cut:
        pytest.skip("needs more bytes than a socket takes")
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        data = bytearray(16 << 20)
        writing = asyncio.ensure_future(near.write(data))
        await settle()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        data.clear()  # nothing holds it any more
        last = asyncio.ensure_future(near.write(b"after"))
        got = b""
        while not got.endswith(b"after"):
            got = got[-5:] + await far.read()
        await last


# -- lazy negotiation -------------------------------------------------------------------------------


@looped
async def test_a_reply_that_is_expected_is_seen_by_no_read(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        near.expect(b"\x13/multistream/1.0.0\n\x03/x\n", "/x")
        await near.write(b"request")
        assert await far.read_exactly(7) == b"request"
        await far.write(b"\x13/multistream/1.0.0\n\x03/x\nanswer")
        assert await near.read_exactly(6) == b"answer"
        assert near.protocol == "/x"


@looped
async def test_a_refusal_that_was_not_expected_is_an_error_and_resets(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        near.expect(b"\x13/multistream/1.0.0\n\x03/x\n", "/x")
        await far.write(b"\x13/multistream/1.0.0\n\x03na\n")
        with pytest.raises(errors.ProtocolNotSupported):
            await near.read()
        await eventually(lambda: far.is_closed)
