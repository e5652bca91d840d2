"""The wire: back-pressure, closing, aborting, and what is left behind.

Comes in: sockets of all tempers. Goes out: every byte that was accepted, or the reason it was not.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import struct
import weakref

import pytest

from _fast.chains import (
    FIN,
    GO_AWAY,
    SYN,
    WU,
    Cable,
    Frame,
    RawYamux,
    closed,
    data,
    frame,
    frames,
    session_pair,
    socket_pair,
    stream_pair,
    wire_on,
    wire_pair,
    with_limits,
)
from harness import looped, seconds, settle
from p2pcore import errors, limits
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.yamux import YamuxSession


async def receive_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    out = bytearray()
    while piece := await loop.sock_recv(sock, 1 << 16):
        out += piece
    return bytes(out)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@looped
async def test_bytes_go_both_ways(tcp: bool) -> None:
    a, b = await wire_pair(tcp)
    assert a.mailbox is not None
    assert b.mailbox is not None
    a.mailbox.write(b"ping")
    assert await b.mailbox.read_exactly(4) == b"ping"
    b.mailbox.write(b"pong")
    assert await a.mailbox.read_exactly(4) == b"pong"
    a.abort()
    await a.wait_closed()
    with pytest.raises((errors.ConnectionClosed, errors.IncompleteRead)):
        await b.mailbox.read_exactly(1)
    b.abort()
    await b.wait_closed()
    await b.wait_closed()


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@looped
async def test_close_sends_everything_and_then_fin(tcp: bool) -> None:
    near, far = await socket_pair(tcp)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await wire_on(near)
    assert wire.mailbox is not None
    wire.mailbox.insert(PlainChannel())
    sent = bytes(range(256)) * 1000
    for at in range(0, len(sent), 10_000):
        wire.mailbox.write(sent[at : at + 10_000])
    wire.close()  # the last bytes are still gathered in the channel, others wait for the socket
    wire.close()
    assert await receive_all(far) == sent
    far.close()
    await wire.wait_closed()
    assert wire.is_closed


@looped
async def test_close_reads_on_so_that_no_reset_destroys_what_it_sent() -> None:
    near, far = await socket_pair(tcp=True)
    wire = await wire_on(near)
    assert wire.mailbox is not None
    wire.mailbox.write(b"last words")
    wire.close()
    far.send(bytes(1000))  # a close(2) with this unread would send RST
    assert await receive_all(far) == b"last words"
    far.send(bytes(1000))
    far.close()
    await wire.wait_closed()


def test_a_peer_that_never_ends_its_half_is_waited_for_only_so_long() -> None:
    out = with_limits(
        """
        near, far = await socket_pair(tcp=True)
        wire = await wire_on(near)
        wire.close()
        await wire.wait_closed()
        print(wire.is_closed)
        """,
        CLOSE_DRAIN_TIMEOUT_S=0.01,
    )
    assert out == "True\n"


def test_a_peer_that_takes_no_byte_is_closed_and_one_that_takes_some_is_not() -> None:
    out = with_limits(
        """
        near, far = await socket_pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        wire = await wire_on(near)
        box = wire.mailbox
        box.insert(PlainChannel())
        session = YamuxSession(True)
        box.replace(session)
        stream = await session.open_stream()
        write = asyncio.ensure_future(stream.write(bytes(200_000)))
        await eventually(lambda: session.paused)
        for _ in range(3):
            far.recv(33_000)  # now and then a little, less than the kernel would call room
            await asyncio.sleep(seconds(0.25))
        print(session.is_closed)
        try:
            await write
        except errors.ConnectionClosed as error:
            print(error, type(error.__cause__).__name__)
        await wire.wait_closed()
        """,
        WRITE_STALL_TIMEOUT_S=seconds(0.6),
    )
    said = f"the connection broke: the peer took no byte for {seconds(0.6):g} s TimeoutError"
    assert out == f"False\n{said}\n"


@looped
async def test_a_peer_that_does_not_read_pauses_the_session_and_bounds_the_queue() -> None:
    near, far = await socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await wire_on(near)
    assert wire.mailbox is not None
    box = wire.mailbox
    box.insert(PlainChannel())
    session = YamuxSession(True)
    box.replace(session)
    streams = [await session.open_stream() for _ in range(20)]
    writes = [asyncio.ensure_future(s.write(bytes(200_000))) for s in streams]
    await settle()
    assert session.paused
    assert not any(w.done() for w in writes[1:])
    loop = asyncio.get_running_loop()
    got = bytearray()
    while len(got) < 20 * 200_000:
        got += await loop.sock_recv(far, 1 << 20)
    await asyncio.gather(*writes)
    assert not session.paused
    session.abort()
    await wire.wait_closed()


@looped
async def test_what_control_frames_may_queue_is_bounded() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.clog()
    for _ in range(100):
        box.write(bytes(10_000))
    assert cable.aborted
    assert len(cable.queue) <= limits.MAX_QUEUED_CONTROL_BYTES + 10_000
    with pytest.raises(errors.LimitExceeded):
        await box.read_exactly(1)


@looped
async def test_a_session_that_closes_while_the_socket_is_full_sends_its_last_record() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    filling = peer.clog()
    write = asyncio.ensure_future(stream.write(b"gathered"))
    await write
    closing = asyncio.ensure_future(peer.session.close())
    await settle()
    assert not peer.eof_written
    raw = b""
    while not peer.eof_written:
        raw += peer.sent()
        peer.drain()
    raw += peer.sent()
    assert frames(raw[filling:]) == [Frame(0, 0, 1, 8, b"gathered"), Frame(GO_AWAY, 0, 0, 0)]
    peer.deliver_eof()
    await closing


@looped
async def test_a_close_that_overflows_the_queue_ends_the_connection_and_raises_nothing() -> None:
    peer = RawYamux(max_inbound_streams=100_000)
    peer.session.set_stream_handler(lambda stream: None)
    peer.clog()
    id = 1
    while len(peer.queue) < limits.MAX_QUEUED_CONTROL_BYTES - 70_000:
        peer.deliver(b"".join(frame(WU, SYN, i) for i in range(id, id + 200, 2)))
        await settle()
        id += 200
    while not peer.session.is_closed:
        for stream_id in range(id, id + 4000, 2):
            peer.deliver(frame(WU, SYN, stream_id))
        id += 4000
        await settle()
        if len(peer.queue) > limits.MAX_QUEUED_CONTROL_BYTES:
            break
    closing = peer.session.close()
    await closing
    assert peer.lost


@pytest.mark.parametrize("how", ["reset", "close"])
@looped
async def test_the_peers_reset_ends_everything_with_connection_closed(how: str) -> None:
    near, far = await socket_pair(tcp=True)
    wire = await wire_on(near)
    assert wire.mailbox is not None
    box = wire.mailbox
    box.insert(PlainChannel())
    session = YamuxSession(True)
    box.replace(session)
    stream = await session.open_stream()
    reading = asyncio.ensure_future(stream.read())
    await settle()
    if how == "reset":
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    with pytest.raises(errors.ConnectionClosed):
        await reading
    with pytest.raises(errors.ConnectionClosed):
        await stream.write(b"x")
    await wire.wait_closed()


@looped
async def test_what_came_before_a_connection_broke_is_read_though_a_write_notices_first() -> None:
    near, far = await socket_pair(tcp=True)
    wire = await wire_on(near)
    box = wire.mailbox
    assert box is not None
    box.insert(PlainChannel())
    session = YamuxSession(False)
    box.replace(session)
    far.send(frame(WU, SYN, 1))
    opened = await session.accept_stream()
    await settle()
    sent = bytes(range(256)) * 100
    far.send(data(1, sent) + frame(WU, FIN, 1))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()  # resets: our next send fails before the loop has read
    opened.write(b"into the void")
    await asyncio.ensure_future(asyncio.sleep(0))
    got = b""
    while piece := await opened.read():
        got += piece
    assert got == sent
    await wire.wait_closed()


@looped
async def test_a_send_on_a_broken_socket_is_connection_closed() -> None:
    cable = Cable()
    box = cable.mailbox
    cable.far.close()
    box.write(b"into the void")
    assert cable.aborted
    with pytest.raises(errors.ConnectionClosed) as caught:
        await box.read_exactly(1)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EPIPE


@looped
async def test_close_and_abort_from_within_feed_wait_until_it_returns() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(data(1, b"before") + frame(GO_AWAY, 0, 0, 1) + data(1, b"never"))
    assert peer.eof_written
    assert await stream.read() == b"before"
    cable = Cable()
    cable.mailbox.insert(PlainChannel())
    cable.deliver(b"x")
    cable.wire.abort()
    cable.deliver(b"dropped")
    await settle()
    assert cable.lost


@looped
async def test_an_abort_or_close_before_the_connection_is_made_ends_it_when_it_is() -> None:
    loop = asyncio.get_running_loop()
    for end in ("abort", "close"):
        near, far = await socket_pair()
        wire = Wire(loop)
        getattr(wire, end)()
        await loop.connect_accepted_socket(lambda wire=wire: wire, near)  # type: ignore[misc]
        assert await loop.sock_recv(far, 1) == b""
        far.close()
        await wire.wait_closed()


@looped
async def test_an_idle_connection_has_no_buffer_no_deadline_and_no_timer() -> None:
    client, server = await session_pair()
    a, b = await stream_pair(client, server)
    for _ in range(20):
        await a.write(bytes(200_000))
        for _ in range(20):
            await b.read_exactly(10_000)
    await b.write(b"and back")
    await a.read_exactly(8)
    await settle(20)
    state = loop_state(asyncio.get_running_loop())
    assert state.num_watched == 0
    taken = state.num_free_records
    assert taken >= 1
    others = [await session_pair() for _ in range(5)]
    for one, two in others:
        c, d = await stream_pair(one, two)
        await c.write(bytes(100_000))
        await d.read_exactly(100_000)
    await settle(20)
    assert state.num_watched == 0
    assert state.num_free_records <= taken + 6
    await closed(client, server, *[s for pair in others for s in pair])
    await settle()
    assert state.num_watched == 0


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@looped
async def test_nothing_is_left_of_a_closed_connection(tcp: bool) -> None:
    client, server = await session_pair(tcp)
    a, b = await stream_pair(client, server)
    waiting = asyncio.ensure_future(b.read())
    await a.write(b"x")
    await waiting
    lost = asyncio.ensure_future(b.read())
    await settle()
    await closed(client, server)
    with pytest.raises(errors.ConnectionClosed):
        await lost
    refs = [weakref.ref(o) for o in (client, server, a, b)]
    del client, server, a, b, waiting, lost
    await settle()
    gc.collect()
    assert [r() for r in refs] == [None] * 4
