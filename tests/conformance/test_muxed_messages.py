"""What every muxer's stream promises of messages, of `async for`, and of waiting for its end.

Comes in: interfaces.Stream alone, over every channel and pipe of the suite of muxers. Goes out: messages with
bounds, clean ends, nothing lost to a cancelled call.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conformance.muxed_pairs import KINDS, Kind, connected, opened, pattern, read_all
from harness import eventually, looped, settle
from p2pcore import errors, limits
from p2pcore.interfaces import Prefix, Stream

pytestmark = [pytest.mark.parametrize("kind", KINDS, ids=str)]

PREFIXES: tuple[Prefix, Prefix] = ("varint", "u32")
LENGTHS = {"varint": {0: b"\x00", 1: b"\x01", 127: b"\x7f", 128: b"\x80\x01", 300: b"\xac\x02"}}
LENGTHS["u32"] = {n: n.to_bytes(4, "big") for n in LENGTHS["varint"]}


class Waits:
    """How often awaiting `op` had to wait."""

    def __init__(self, op: Any) -> None:
        self._op = op
        self.num = 0

    def __await__(self) -> Any:
        steps = self._op.__await__()
        while True:
            try:
                waiting = next(steps)
            except StopIteration as done:
                return done.value
            self.num += 1
            yield waiting


async def fill(stream: Stream) -> list[asyncio.Future[None]]:
    """Writes until a write waits. Returns: the writes that wait."""
    while True:
        write = asyncio.ensure_future(stream.write(pattern(64 << 10)))
        await asyncio.sleep(0)
        if not write.done():
            return [write]


# -- messages ---------------------------------------------------------------------------------------


@looped
async def test_messages_carry_their_length_in_front(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        for prefix in PREFIXES:
            near, far = await opened(client, server)
            for n, length in LENGTHS[prefix].items():
                await near.write_msg(pattern(n), prefix=prefix)
                assert await far.read_exactly(len(length) + n) == length + pattern(n)
                await far.write(length + pattern(n, 1))
                assert await near.read_msg(prefix=prefix) == pattern(n, 1)
            near.reset()


@looped
async def test_messages_of_all_sizes_and_kinds_of_buffer_come_whole_and_in_order(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        most = kind.scaled(1_000_000, 2000)
        sizes = [n for n in (0, 1, 5, 0, 127, 128, 4095, 4097, 16_384, 70_000, 262_144, 262_145) if n < most]
        data = [pattern(n, i) for i, n in enumerate([*sizes, most, 3])]

        async def send() -> None:
            for i, each in enumerate(data):
                await near.write_msg((bytes, bytearray, memoryview)[i % 3](each))
            await near.close()

        sending = asyncio.ensure_future(send())
        assert [message async for message in far.msgs()] == data
        await sending


@looped
async def test_many_writers_keep_their_messages_apart_while_the_stream_is_full(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        size = kind.scaled(100_000, 300)
        writes = [asyncio.ensure_future(near.write_msg(pattern(size + i, i))) for i in range(12)]
        await settle()
        for i in range(12):
            assert await far.read_msg() == pattern(size + i, i)
        await asyncio.gather(*writes)


@looped
async def test_a_message_that_is_here_is_read_without_a_wait(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        for i in range(3):
            await near.write_msg(pattern(200, i))
        await far.read_msg()
        await eventually(lambda: far.num_buffered == 404)  # type: ignore[attr-defined]
        read = Waits(far.read_msg())
        assert await read == pattern(200, 1)
        assert read.num == 0


@looped
async def test_an_end_before_a_message_ends_the_loop_and_a_single_read_says_so(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        await near.write_msg(b"last")
        await near.close_write()
        assert [message async for message in far.msgs()] == [b"last"]
        with pytest.raises(errors.IncompleteRead) as caught:
            await far.read_msg()
        assert caught.value.partial == b""


@pytest.mark.parametrize("sent", [b"\x80", b"\x05abc", b"\xac\x02" + b"x" * 299])
@looped
async def test_an_end_inside_a_message_is_an_error_with_what_came(kind: Kind, sent: bytes) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        await near.write(sent)
        await near.close_write()
        with pytest.raises(errors.IncompleteRead) as caught:
            await anext(far.msgs())
        assert caught.value.partial == sent


@looped
async def test_a_longer_message_is_refused_by_its_length_alone(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        for prefix, length in (("varint", b"\xe9\x07"), ("u32", b"\x00\x00\x03\xe9")):
            near, far = await opened(client, server)
            await near.write(length)
            with pytest.raises(errors.LimitExceeded, match="1001 is over the limit of 1000") as caught:
                await far.read_msg(1000, prefix=prefix)  # type: ignore[arg-type]
            assert (caught.value.used, caught.value.maximum) == (1001, 1000)
            await near.write(pattern(1001))  # nothing was taken out: a larger bound gets it
            assert await far.read_msg(1001, prefix=prefix) == pattern(1001)  # type: ignore[arg-type]


@looped
async def test_the_bound_without_an_argument_is_that_of_the_limits(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        await near.write((limits.MSG_MAX_BYTES + 1).to_bytes(4, "big"))
        with pytest.raises(errors.LimitExceeded) as caught:
            await far.read_msg(prefix="u32")
        assert caught.value.maximum == limits.MSG_MAX_BYTES


@pytest.mark.parametrize("length", [b"\x80\x00", b"\x81\x80\x00", b"\xff" * 9])
@looped
async def test_a_length_that_is_no_varint_is_refused(kind: Kind, length: bytes) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        await near.write(length + b"rest")
        with pytest.raises(errors.RemoteProtocolError, match=length.hex()):
            await far.read_msg()


@looped
async def test_the_largest_lengths_are_compared_before_anything_is_added(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        for prefix, length in (("varint", b"\xff" * 8 + b"\x7f"), ("u32", b"\xff" * 4)):
            near, far = await opened(client, server)
            await near.write(length)
            with pytest.raises(errors.LimitExceeded):
                await far.read_msg(1 << 31, prefix=prefix)  # type: ignore[arg-type]


@looped
async def test_wrong_arguments_are_named_when_the_call_is_awaited(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        for call in (
            far.read_msg(-1),
            far.read_msg(limits.MAX_SIZE_BYTES + 1),
            far.read_msg(prefix="u16"),  # type: ignore[arg-type]
            near.write_msg(b"", prefix="u16"),  # type: ignore[arg-type]
        ):
            with pytest.raises(ValueError, match=r"most must be from 0|prefix must be"):
                await call
        with pytest.raises(TypeError):
            await near.write_msg("text")  # type: ignore[arg-type]


@looped
async def test_a_cancelled_read_of_a_message_takes_nothing_of_it(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        size = kind.scaled(400_000, 1000)
        for cut in (1, 2, 3, size // 2):
            near, far = await opened(client, server)
            sent = size.to_bytes(4, "big") + pattern(size)
            read = asyncio.ensure_future(far.read_msg(prefix="u32"))
            first = asyncio.ensure_future(near.write(sent[:cut]))
            await settle(20)
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)
            rest = asyncio.ensure_future(near.write(sent[cut:]))
            assert await far.read_msg(prefix="u32") == pattern(size)
            await asyncio.gather(first, rest)


@looped
async def test_a_message_cut_by_a_cancelled_write_resets_the_stream(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, _ = await opened(client, server)
        write = asyncio.ensure_future(near.write_msg(bytes(32 << 20)))
        await settle()
        assert not write.done()
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
        assert isinstance(near.close_reason, errors.StreamReset)
        with pytest.raises(errors.StreamReset):
            await near.write_msg(b"next")


@looped
async def test_a_message_of_which_nothing_was_sent_can_be_taken_back(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        waiting = await fill(near)
        write = asyncio.ensure_future(near.write_msg(b"never"))
        await settle()
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
        assert near.close_reason is None
        await asyncio.gather(read_until(far, waiting[0]), near.write_msg(b"next"), *waiting)


async def read_until(stream: Stream, write: asyncio.Future[None]) -> None:
    """Reads until `write` is done, and then the message behind it, and no other."""
    got = b""
    while not got.endswith(b"\x04next"):
        got = (got + await stream.read())[-16:]
    assert write.done()
    assert b"never" not in got


# -- async for --------------------------------------------------------------------------------------


@looped
async def test_a_loop_over_a_stream_gets_all_and_ends_with_it(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        data = pattern(kind.scaled(500_000, 500))

        async def send() -> None:
            await near.write(data)
            await near.close_write()

        sending = asyncio.ensure_future(send())
        chunks = [chunk async for chunk in far]
        assert b"".join(chunks) == data
        assert all(chunks)
        await sending
        assert [chunk async for chunk in far] == []


@looped
async def test_a_loop_over_a_stream_that_is_reset_raises(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        reading = asyncio.ensure_future(read_loop(far))
        messages = asyncio.ensure_future(read_all(near))
        await settle()
        near.reset(7)
        for task in (reading, messages):
            with pytest.raises(errors.StreamReset):
                await task


async def read_loop(stream: Stream) -> None:
    async for _ in stream:
        pass


# -- the end ----------------------------------------------------------------------------------------


@looped
async def test_waiting_for_the_end_returns_when_both_halves_have_ended(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        for first in (0, 1):
            ends = await opened(client, server)
            waits = [asyncio.ensure_future(end.wait_closed()) for end in (*ends, ends[0])]
            await ends[first].close_write()
            await settle(20)
            assert not any(wait.done() for wait in waits)
            await ends[1 - first].close_write()
            await asyncio.gather(*waits)
            await ends[0].wait_closed()
            assert ends[0].close_reason is ends[1].close_reason is None


@looped
async def test_waiting_for_the_end_returns_at_a_reset_and_names_it(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        waits = [asyncio.ensure_future(end.wait_closed()) for end in (near, far)]
        gone = asyncio.ensure_future(far.wait_closed())
        await settle()
        gone.cancel()
        near.reset(7)
        await asyncio.gather(*waits)
        assert isinstance(near.close_reason, errors.StreamReset)
        assert isinstance(far.close_reason, errors.StreamReset)
        assert (near.close_reason.remote, far.close_reason.remote) == (False, True)


@looped
async def test_waiting_for_the_end_returns_when_the_connection_is_lost(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        waits = [asyncio.ensure_future(end.wait_closed()) for end in (near, far)]
        await settle()
        client.abort()
        await asyncio.gather(*waits)
        assert isinstance(far.close_reason, errors.ConnectionClosed)


@looped
async def test_the_text_of_a_stream_names_it_and_its_state(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        assert repr(near) == f"<Stream {near.id} without a protocol outbound, open>"
        far.protocol = "/x/1"
        assert repr(far) == f"<Stream {far.id} /x/1 inbound, open>"
        await near.close_write()
        await settle(20)
        assert repr(near).endswith(", open, ended by us>")
        assert repr(far).endswith(", open, ended by the peer>")
        await far.close_write()
        assert repr(far).endswith(", closed>")
        near, far = await opened(client, server)
        near.reset()
        assert repr(near).endswith(", stream reset by us>")


@looped
async def test_the_text_of_a_stream_of_a_swarm_names_the_connection(kind: Kind) -> None:
    class Owner:
        id = "abcd-3"

    async with connected(kind) as (client, server):
        sessions: list[Any] = [client, server]
        for session in sessions:
            session.owner = Owner()
        near, far = await opened(client, server)
        assert " outbound to abcd-3, open>" in repr(near)
        assert " inbound from abcd-3, open>" in repr(far)
