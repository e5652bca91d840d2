"""One suite for everything that listens and dials: each promise of Transport and Listener, in every cell.

Comes in: the table of cells.py. Never skips a cell.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cells import CELLS, Cell, Ends

from harness import eventually, run, settle
from p2pcore import errors
from p2pcore.errors import (
    ConnectionClosed,
    ListenerClosed,
    P2PError,
    PeerIdMismatch,
    RelayRefused,
    StreamReset,
)
from p2pcore.interfaces import CapableConn, Direction, Stream
from p2pcore.upgrade.listener import ListenerState
from p2pcore.values.keys import PrivateKey

pytestmark = [
    pytest.mark.parametrize("cell", CELLS, ids=str),
    pytest.mark.filterwarnings("error::ResourceWarning"),
]

MANY = 2 * 1024 * 1024
"""More than a window, a pipe and a mailbox hold together."""


def in_cell(test: Callable[[Ends], Awaitable[None]]) -> Callable[[Cell], None]:
    """Runs `test` with both nodes of a cell, on a loop of its own; no task may be left behind."""

    def wrapper(cell: Cell) -> None:
        async def main() -> None:
            async with cell.ends() as ends:
                await test(ends)
            await eventually(lambda: len(asyncio.all_tasks()) == 1)

        run(main())

    wrapper.__name__ = test.__name__
    return wrapper


def pattern(n: int) -> bytes:
    """`n` bytes no part of which repeats."""
    blocks = (hashlib.blake2b(i.to_bytes(4, "big")).digest() for i in range(n // 64 + 1))
    return b"".join(blocks)[:n]


async def read_to_end(stream: Stream) -> bytes:
    got = bytearray()
    while data := await stream.read():
        got += data
    return bytes(got)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.close_write()


async def send(stream: Stream, data: bytes) -> None:
    for at in range(0, len(data), 100_000):
        await stream.write(data[at : at + 100_000])
    await stream.close_write()


async def send_on(stream: Stream) -> None:
    while True:
        await stream.write(bytes(100_000))


async def streams(outbound: CapableConn, inbound: CapableConn) -> tuple[Stream, Stream]:
    """A stream the dialler opened, and its other end."""
    ours = await outbound.session.open_stream()
    await ours.write(b"!")
    theirs = await inbound.session.accept_stream()
    assert await theirs.read_exactly(1) == b"!"
    return ours, theirs


@in_cell
async def test_both_ends_know_their_addresses_ids_and_protocols(ends: Ends) -> None:
    listener = await ends.listen()
    assert not str(listener.multiaddr).endswith("/0")
    outbound, inbound = await ends.connect(listener)
    assert outbound.remote_multiaddr == inbound.local_multiaddr == listener.multiaddr
    assert inbound.remote_multiaddr in (outbound.local_multiaddr, None)
    assert (inbound.remote_multiaddr is None) is (ends.transport == "unix")
    assert (outbound.kind.direction, inbound.kind.direction) == (Direction.OUTBOUND, Direction.INBOUND)
    assert outbound.remote_peer == inbound.kind.local_peer == ends.server
    assert inbound.remote_peer == outbound.kind.local_peer != ends.server
    assert outbound.remote_public_key.peer_id() == ends.server
    for conn in (outbound, inbound):
        assert conn.kind.state.transport == ends.transport
        assert ends.cell.security in conn.kind.state.security
        assert ends.cell.muxer in conn.kind.state.muxer
        assert not conn.is_closed


@in_cell
async def test_a_ping_goes_there_and_back(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ours, theirs = await streams(outbound, inbound)
    for i in range(3):
        await ours.write(bytes([i]) * 32)
        await theirs.write(await theirs.read_exactly(32))
        assert await ours.read_exactly(32) == bytes([i]) * 32


@in_cell
async def test_more_than_all_buffers_hold_comes_back_whole(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ours, theirs = await streams(outbound, inbound)
    data = pattern(MANY)
    got, *_ = await asyncio.gather(read_to_end(ours), send(ours, data), echo(theirs))
    assert got == data


@in_cell
async def test_many_streams_at_once_keep_apart_and_may_be_opened_by_either_end(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())

    async def serve(conn: CapableConn) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(echo(await conn.session.accept_stream()))

    async def ask(conn: CapableConn, i: int) -> None:
        stream = await conn.session.open_stream()
        data = pattern(1000 + i)[i:]
        got, _ = await asyncio.gather(read_to_end(stream), send(stream, data))
        assert got == data
        await stream.close()

    serving = [asyncio.ensure_future(serve(conn)) for conn in (outbound, inbound)]
    await asyncio.gather(*(ask(conn, i) for conn in (outbound, inbound) for i in range(50)))
    await asyncio.gather(*serving)


@in_cell
async def test_a_stream_half_closed_still_carries_the_answer(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ours, theirs = await streams(outbound, inbound)
    await send(ours, b"question")
    assert await read_to_end(theirs) == b"question"
    await send(theirs, b"answer")
    assert await read_to_end(ours) == b"answer"
    await ours.close()
    await theirs.close()
    await eventually(lambda: outbound.session.num_streams == inbound.session.num_streams == 0)


@in_cell
async def test_a_reset_ends_one_stream_and_leaves_the_others(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ours, theirs = await streams(outbound, inbound)
    other, their_other = await streams(outbound, inbound)
    ours.reset(7)
    with pytest.raises(StreamReset):
        await theirs.read()
    await other.write(b"alive")
    assert await their_other.read() == b"alive"
    assert not outbound.is_closed


@in_cell
async def test_what_was_written_just_before_close_arrives(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ours, theirs = await streams(outbound, inbound)
    data = pattern(200_000)  # within one window, and more than one record or socket buffer takes at once
    await send(ours, data)
    closing = asyncio.ensure_future(outbound.session.close())
    assert await read_to_end(theirs) == data
    await closing
    await eventually(lambda: inbound.is_closed)


@in_cell
async def test_a_close_while_data_flows_ends_every_wait(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ours, theirs = await streams(outbound, inbound)
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(each)
        for each in (send_on(ours), read_to_end(ours), outbound.session.accept_stream())
    ]
    await theirs.read()
    await inbound.session.close()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, (ConnectionClosed, StreamReset)) or result == b"", repr(result)
    await eventually(lambda: outbound.is_closed)


@in_cell
async def test_an_abort_is_noticed_at_the_other_end(ends: Ends) -> None:
    outbound, inbound = await ends.connect(await ends.listen())
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    outbound.session.add_close_callback(ended.set_result)
    inbound.abort()
    inbound.abort()
    assert isinstance(await ended, ConnectionClosed)
    with pytest.raises(ConnectionClosed):
        await outbound.session.open_stream()


@in_cell
async def test_a_dial_where_nobody_listens_is_refused(ends: Ends) -> None:
    listener = await ends.listen()
    await listener.close()
    with pytest.raises((OSError, errors.NegotiationError)) as caught:
        await ends.dial(listener.multiaddr)
    assert not isinstance(caught.value, TimeoutError)


@in_cell
async def test_a_peer_that_proves_another_id_is_refused(ends: Ends) -> None:
    listener = await ends.listen()
    # A relay knows nobody of that id, and connects us to nobody.
    refusal = RelayRefused if ends.transport == "p2p-circuit" else PeerIdMismatch
    with pytest.raises(refusal):
        await ends.dial(listener.multiaddr, PrivateKey.generate().peer_id())


@in_cell
async def test_a_listener_closed_while_peers_dial_leaves_nobody_waiting(ends: Ends) -> None:
    listener = await ends.listen()
    accepting = asyncio.ensure_future(listener.accept())
    dialling = [asyncio.ensure_future(ends.dial(listener.multiaddr)) for _ in range(4)]
    await settle(20)
    await listener.close()
    await asyncio.wait([accepting])
    if accepting.exception() is None:
        accepting.result().abort()
    for result in await asyncio.gather(*dialling, return_exceptions=True):
        if isinstance(result, BaseException):
            assert isinstance(result, (OSError, P2PError)), repr(result)
        else:
            await eventually(lambda: result.is_closed)  # noqa: B023


@in_cell
async def test_accept_after_close_says_so_and_accepted_connections_live_on(ends: Ends) -> None:
    listener = await ends.listen()
    outbound, inbound = await ends.connect(listener)
    waiting = asyncio.ensure_future(listener.accept())
    await asyncio.sleep(0)
    await listener.close()
    await listener.close()
    assert listener.state is ListenerState.CLOSED
    for accept in (waiting, listener.accept()):
        with pytest.raises(ListenerClosed):
            await accept
    ours, theirs = await streams(outbound, inbound)
    await theirs.write(b"still here")
    assert await ours.read() == b"still here"


@in_cell
async def test_a_drain_serves_who_was_there_and_refuses_who_comes_later(ends: Ends) -> None:
    listener = await ends.listen()
    early = [await ends.dial(listener.multiaddr) for _ in range(3)]
    draining = asyncio.ensure_future(listener.drain())
    accepted = [await listener.accept() for _ in early]
    await draining
    assert not any(conn.is_closed for conn in (*early, *accepted))
    with pytest.raises(ListenerClosed):
        await listener.accept()
    with pytest.raises((OSError, errors.NegotiationError)):
        await ends.dial(listener.multiaddr)
    for conn in accepted:
        conn.abort()


@in_cell
async def test_an_address_is_free_again_as_soon_as_its_listener_is_closed(ends: Ends) -> None:
    addr = None
    for _ in range(3):
        listener = await ends.listen(addr)
        addr = listener.multiaddr
        outbound, _ = await ends.connect(listener)
        assert outbound.remote_multiaddr == addr
        await listener.close()


@in_cell
async def test_an_address_that_is_taken_is_an_error(ends: Ends) -> None:
    listener = await ends.listen()
    with pytest.raises(OSError):
        await ends.listen(listener.multiaddr)
    await ends.connect(listener)  # and the one that has it goes on


@in_cell
async def test_16_connections_nobody_accepts_hold_back_the_17th(ends: Ends) -> None:
    listener = await ends.listen()
    for _ in range(16):
        await ends.dial(listener.multiaddr)
    await eventually(lambda: listener.num_ready == 16)
    late = asyncio.ensure_future(ends.dial(listener.multiaddr))
    await eventually(lambda: listener.num_accepted == 17)
    await settle(20)
    assert (listener.num_ready, listener.num_upgrading, late.done()) == (16, 0, False)
    accepted = [await listener.accept() for _ in range(17)]
    await late
    for conn in accepted:
        conn.abort()
