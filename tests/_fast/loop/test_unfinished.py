"""A deadline for what the peer has begun: in each layer that may hold a part of a record or frame.

Comes in: halves of records by hand, on a clock that jumps. Goes out: when the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from _fast.chains import KEY_A, KEY_B, SYN, Cable, RawYamux, data, frame
from _fast.mplex_chain import MSG_I, NEW, RawMplex, msg
from _fast.websocket_frames import MASK, frame as websocket_frame
from p2pcore import limits
from p2pcore._fast.chain.websocket import WebsocketLayer
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore._fast.crypto.tls import TlsChannel
from p2pcore._fast.loop.loop_state import loop_state
from tls_pairs import sealed, shaken
from virtual_time import now, virtual

LOOK_S = limits.UNFINISHED_LOOK_S


async def noise(body: bytes) -> tuple[Cable, bytes]:
    """A cable with a noise channel, and a record for it."""
    near, far = Cable(), Cable()
    near.mailbox.insert(NoiseChannel(KEY_A, KEY_B))
    far.mailbox.insert(NoiseChannel(KEY_B, KEY_A))
    far.mailbox.write(body)
    return near, await far.all_sent()


async def tls(body: bytes) -> tuple[Cable, bytes]:
    client, server = shaken()
    cable = Cable()
    cable.mailbox.insert(TlsChannel(server))
    return cable, sealed(client, [body])


async def websocket(body: bytes) -> tuple[Cable, bytes]:
    cable = Cable()
    cable.mailbox.insert(WebsocketLayer(False))
    return cable, websocket_frame(body, mask=MASK)


async def yamux(body: bytes) -> tuple[Cable, bytes]:
    peer = RawYamux()
    peer.deliver(frame(1, SYN, 1))
    return peer, data(1, body)


async def mplex(body: bytes) -> tuple[Cable, bytes]:
    peer = RawMplex()
    peer.deliver(msg(NEW, 1))
    return peer, msg(MSG_I, 1, body)


MAKERS = {each.__name__: each for each in (noise, tls, websocket, yamux, mplex)}
each_layer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
Make = Callable[[bytes], Any]


def num_unfinished() -> int:
    return loop_state(asyncio.get_running_loop()).num_unfinished


@each_layer
@virtual
async def test_what_arrives_whole_is_never_looked_at(make: Make) -> None:
    cable, raw = await make(b"whole")
    cable.deliver(raw)
    assert num_unfinished() == 0


@each_layer
@pytest.mark.parametrize("cut", [1, -1], ids=["first byte", "all but the last byte"])
@virtual
async def test_what_never_ends_ends_the_connection(make: Make, cut: int) -> None:
    cable, raw = await make(b"never whole")
    cable.deliver(raw[:cut])
    began = now()
    while not cable.lost:
        await asyncio.sleep(1)
        assert now() < began + 4 * LOOK_S
    assert now() - began >= 2 * LOOK_S
    assert num_unfinished() == 0


@each_layer
@virtual
async def test_what_goes_on_lives_and_is_forgotten_when_it_is_whole(make: Make) -> None:
    cable, raw = await make(b"slow, but it comes")
    cable.deliver(raw[:-1])
    await asyncio.sleep(1.5 * LOOK_S)
    cable.deliver(raw[-1:])
    await asyncio.sleep(2 * LOOK_S)
    assert num_unfinished() == 0
    assert not cable.lost


@pytest.mark.parametrize("make", [websocket, yamux, mplex])
@virtual
async def test_a_long_frame_may_take_any_time_while_something_of_it_comes(make: Make) -> None:
    """These layers hand on what comes, so a frame that is slow holds nothing."""
    cable, raw = await make(bytes(1000))
    for at in range(0, len(raw), 100):
        cable.deliver(raw[at : at + 100])
        await asyncio.sleep(1.5 * LOOK_S)
    assert not cable.lost
    assert num_unfinished() == 0


@pytest.mark.parametrize("make", [noise, tls])
@virtual
async def test_a_byte_now_and_then_does_not_keep_the_buffer_of_a_record(make: Make) -> None:
    cable, raw = await make(bytes(1000))
    for at in range(20):
        cable.deliver(raw[at : at + 1])
        await asyncio.sleep(LOOK_S / 3)
    assert cable.lost


@virtual
async def test_many_records_cut_by_the_reads_are_no_reason_to_end() -> None:
    """A busy connection has a record in parts at each look, another one each time."""
    near, far = Cable(), Cable()
    near.mailbox.insert(NoiseChannel(KEY_A, KEY_B))
    far.mailbox.insert(NoiseChannel(KEY_B, KEY_A))
    rest = b""
    for number in range(20):
        far.mailbox.write(bytes(1000))
        raw = rest + await far.all_sent()
        near.deliver(raw[:-10])
        rest = raw[-10:]
        assert near.mailbox.num_held == 1000 * number
        await asyncio.sleep(LOOK_S / 2)
    assert not near.lost


@virtual
async def test_a_connection_that_ends_is_looked_at_no_more() -> None:
    cable, raw = await noise(b"half")
    cable.deliver(raw[:5])
    assert num_unfinished() == 1
    cable.wire.abort()
    await asyncio.sleep(0.1)
    assert num_unfinished() == 0
