"""MemoryWire: what a socket promises, without one: order, bounds, back-pressure, half-close, ends."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

from _fast.chains import secured, with_limits
from harness import eventually, looped, seconds, settle
from p2pcore import limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.memory import MemoryWire, memory_pair
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.errors import ConnectionClosed, IncompleteRead

PIPE = limits.MEMORY_PIPE_BYTES


def pair(is_started: bool = True) -> tuple[MemoryWire, MemoryWire]:
    wires = memory_pair(asyncio.get_running_loop())
    if is_started:
        for wire in wires:
            wire.start()
    return wires


def box(wire: MemoryWire) -> Mailbox:
    assert wire.mailbox is not None
    return wire.mailbox


def sessions() -> tuple[YamuxSession, YamuxSession, MemoryWire, MemoryWire]:
    """A client's and a server's session; nobody reads yet."""
    one, two = pair(is_started=False)
    key_1, key_2 = os.urandom(32), os.urandom(32)
    client, server = YamuxSession(True), YamuxSession(False)
    secured(one, key_1, key_2).replace(client)  # type: ignore[arg-type]
    secured(two, key_2, key_1).replace(server)  # type: ignore[arg-type]
    return client, server, one, two


@looped
async def test_bytes_arrive_in_order_both_ways() -> None:
    one, two = pair()
    for i in range(10):
        box(one).write(bytes([i]) * 1000)
    box(two).write(b"back")
    assert await box(two).read_exactly(10_000) == b"".join(bytes([i]) * 1000 for i in range(10))
    assert await box(one).read_exactly(4) == b"back"
    one.abort()
    two.abort()


@looped
async def test_nothing_is_fed_before_start_nor_from_within_a_write() -> None:
    one, two = pair(is_started=False)
    box(one).write(b"early")
    await settle()
    assert box(two).num_held == 0
    two.start()
    assert box(two).num_held == 0
    assert await box(two).read_exactly(5) == b"early"
    one.abort()
    two.abort()


@looped
async def test_a_mailbox_that_is_full_holds_no_more() -> None:
    one, two = pair()
    data = os.urandom(4 * PIPE)
    writer = box(one)
    for at in range(0, PIPE, 32768):
        writer.write(data[at : at + 32768])
    await settle(10)
    assert box(two).num_held <= limits.RECEIVE_BUFFER_BYTES
    got = b""
    while len(got) < PIPE:
        got += await box(two).read(65536)
    assert got == data[:PIPE]
    one.abort()
    two.abort()


@looped
async def test_writers_wait_while_the_other_end_takes_nothing_and_go_on_when_it_does() -> None:
    client, server, one, two = sessions()
    streams = [await client.open_stream() for _ in range(4)]
    one.start()
    data = os.urandom(limits.YAMUX_INITIAL_WINDOW_BYTES)
    writing = [asyncio.ensure_future(stream.write(data)) for stream in streams]
    await settle(20)
    assert not all(each.done() for each in writing)  # the pipe holds a window and a bit
    two.start()
    received = []
    for _ in streams:
        inbound = await server.accept_stream()
        received.append(await inbound.read_exactly(len(data)))
    await asyncio.gather(*writing)
    assert received == [data] * 4
    client.abort()
    server.abort()


@looped
async def test_an_orderly_end_delivers_everything_first() -> None:
    client, server, one, two = sessions()
    one.start()
    two.start()
    stream = await client.open_stream()
    data = os.urandom(limits.YAMUX_INITIAL_WINDOW_BYTES)
    await stream.write(data)
    await stream.close_write()
    inbound = await server.accept_stream()
    await asyncio.gather(client.close(), server.accept_stream(), return_exceptions=True)
    assert client.is_closed
    assert await inbound.read_exactly(len(data)) == data
    await eventually(lambda: server.is_closed and one.is_closed and two.is_closed)


@looped
async def test_an_abort_ends_the_other_end_behind_what_was_sent() -> None:
    one, two = pair()
    box(one).write(b"last words")
    one.abort()
    one.abort()
    reader = box(two)
    assert await reader.read_exactly(10) == b"last words"
    with pytest.raises((ConnectionClosed, IncompleteRead)):
        await reader.read_exactly(1)
    await eventually(lambda: reader.is_lost)
    assert two.is_closed
    with pytest.raises(ConnectionClosed):
        reader.write(b"too late")


@looped
async def test_what_came_before_the_other_end_went_is_read_though_bytes_for_it_wait() -> None:
    one, two = pair()
    box(two).write(bytes(PIPE + 1))
    box(one).write(b"last words")
    one.abort()
    assert await box(two).read_exactly(10) == b"last words"
    await eventually(lambda: two.is_closed)


@looped
async def test_a_write_to_an_end_that_is_gone_ends_this_one_too() -> None:
    one, two = pair(is_started=False)
    writer = box(one)
    two.abort()
    writer.write(b"into the void")
    assert one.is_closed
    await settle()
    assert writer.is_lost


@looped
async def test_an_abort_wakes_writers_that_wait() -> None:
    client, _, one, two = sessions()
    one.start()
    streams = [await client.open_stream() for _ in range(4)]
    data = bytes(limits.YAMUX_INITIAL_WINDOW_BYTES)
    writing = [asyncio.ensure_future(stream.write(data)) for stream in streams]
    await settle(20)
    assert not all(each.done() for each in writing)
    two.abort()
    results = await asyncio.gather(*writing, return_exceptions=True)
    assert any(isinstance(each, ConnectionClosed) for each in results)
    await eventually(lambda: client.is_closed)


def test_an_end_that_takes_nothing_is_given_up_after_the_stall_time() -> None:
    out = with_limits(
        """
        from p2pcore._fast.chain.memory import memory_pair
        one, two = memory_pair(asyncio.get_running_loop())
        one.start()
        box = one.mailbox
        box.write(bytes(limits.MEMORY_PIPE_BYTES))
        await eventually(lambda: one.is_closed)
        try:
            await box.read_exactly(1)
        except errors.ConnectionClosed as error:
            print(error)
        """,
        WRITE_STALL_TIMEOUT_S=0.3,
    )
    assert "took no byte for 0.3 s" in out


def test_a_peer_that_takes_something_first_and_then_nothing_has_no_second_stall_time() -> None:
    stall = seconds(2)
    out = with_limits(
        f"""
        from wires import connected
        async with connected() as (box, theirs):
            box.write(bytes(1 << 22))
            await asyncio.sleep(0)
            theirs.recv(65536)
            async with asyncio.timeout({1.6 * stall}):
                try:
                    await box.read_exactly(1)
                except errors.ConnectionClosed as error:
                    print(error)
        """,
        WRITE_STALL_TIMEOUT_S=stall,
    )
    assert f"took no byte for {stall:g} s" in out


def test_an_end_that_does_not_end_its_half_is_given_up_after_the_drain_time() -> None:
    out = with_limits(
        """
        from p2pcore._fast.chain.memory import memory_pair
        from p2pcore._fast.mux.yamux import YamuxSession
        one, two = memory_pair(asyncio.get_running_loop())
        one.start()
        session = YamuxSession(True)
        one.mailbox.insert(PlainChannel())
        one.mailbox.replace(session)
        await session.close()
        print(one.is_closed, two.is_closed)
        """,
        CLOSE_DRAIN_TIMEOUT_S=0.3,
    )
    assert out.split() == ["True", "False"]


@looped
async def test_control_bytes_for_an_end_that_takes_nothing_are_bounded() -> None:
    one, two = pair(is_started=False)
    writer = box(one)
    for _ in range((PIPE + limits.MAX_QUEUED_CONTROL_BYTES) // 32768):
        writer.write(bytes(32768))
    assert not one.is_closed
    writer.write(bytes(32768))
    assert one.is_closed
    two.abort()


@looped
async def test_ends_that_are_lost_leave_no_cycle() -> None:
    one, two = pair()
    one.abort()
    await eventually(lambda: two.is_closed)
    await settle()
    gc.collect()
    one = two = None  # type: ignore[assignment]
    assert gc.collect() == 0
