"""Both ways a write can wait, window and socket, one turning into the other."""

from __future__ import annotations

import asyncio
import os
import socket

from harness import eventually, looped
from p2pcore import limits
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.muxers.yamux import YamuxMultiplexer


async def sessions(buffer_bytes: int) -> tuple[YamuxSession, YamuxSession]:
    """A client and a server over sockets with small kernel buffers."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    wires = Wire(loop), Wire(loop)
    for wire, sock in zip(wires, (left, right), strict=True):
        await loop.connect_accepted_socket(lambda wire=wire: wire, sock)
    keys = os.urandom(32), os.urandom(32)
    boxes = [wire.mailbox for wire in wires]
    assert boxes[0] is not None
    assert boxes[1] is not None
    boxes[0].insert(NoiseChannel(keys[0], keys[1]))
    boxes[1].insert(NoiseChannel(keys[1], keys[0]))
    muxer = YamuxMultiplexer()
    return muxer.start(boxes[0], True), muxer.start(boxes[1], False)


@looped
async def test_a_write_that_a_window_update_lets_go_on_into_a_full_socket_is_finished_later() -> None:
    data = os.urandom(4 * 1024 * 1024)

    client, server = await sessions(8192)
    stream = await client.open_stream()
    writing = asyncio.create_task(stream.write(data))
    inbound = await server.accept_stream()
    # Only the window stops the writer now: all it was allowed has arrived, and nothing is in the socket.
    await eventually(lambda: inbound.num_buffered == limits.YAMUX_INITIAL_WINDOW_BYTES)
    received = bytearray()
    while len(received) < len(data):
        received += await inbound.read()
    await writing
    assert received == data
    client.abort()
    server.abort()
