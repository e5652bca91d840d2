"""The yamux multiplexer: options reach the session, and it satisfies interfaces.

Comes in: options and a chain. Goes out: sessions that keep them.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from _fast.chains import RST, SYN, WINDOW, WU, Cable, Frame, frame, frames, split_frames
from harness import eventually, looped, settle
from p2pcore import errors, interfaces, limits
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.muxers.yamux import PROTOCOL, YamuxMultiplexer, YamuxOptions


def start(options: YamuxOptions | None = None, is_client: bool = False) -> tuple[Cable, YamuxSession]:
    cable = Cable()
    cable.mailbox.insert(PlainChannel())
    return cable, YamuxMultiplexer(options).start(cable.mailbox, is_client)


def test_its_name_is_the_one_peers_negotiate() -> None:
    assert YamuxMultiplexer().protocol == PROTOCOL == "/yamux/1.0.0"


def test_its_defaults_are_the_limits() -> None:
    assert dataclasses.asdict(YamuxOptions()) == {
        "max_inbound_streams": limits.YAMUX_MAX_INBOUND_STREAMS,
        "max_outbound_streams": limits.YAMUX_MAX_OUTBOUND_STREAMS,
        "ack_backlog": limits.YAMUX_ACK_BACKLOG,
        "max_window_bytes": limits.YAMUX_MAX_WINDOW_BYTES,
        "window_budget_bytes": limits.YAMUX_WINDOW_BUDGET_BYTES,
        "keepalive_s": 0.0,
        "refused_per_s": limits.REFUSED_STREAMS_PER_S,
        "refused_burst": limits.REFUSED_STREAMS_BURST,
        "resets_per_s": limits.RESET_STREAMS_PER_S,
        "reset_burst": limits.RESET_STREAMS_BURST,
    }


@looped
async def test_it_makes_muxed_conns_of_either_side() -> None:
    for is_client in (True, False):
        _, session = start(is_client=is_client)
        assert isinstance(session, interfaces.MuxedConn)
        assert session.is_client is is_client
        assert session.owner is None
        assert (session.num_streams, session.is_closed, session.close_reason) == (0, False, None)


@looped
async def test_max_inbound_streams_is_kept() -> None:
    cable, session = start(YamuxOptions(max_inbound_streams=1))
    cable.deliver(frame(WU, SYN, 1), frame(WU, SYN, 3))
    await settle()
    assert frames(cable.sent()) == [Frame(WU, RST, 3, 0x1002)]
    assert session.num_streams == 1


@looped
async def test_ack_backlog_is_kept() -> None:
    _, session = start(YamuxOptions(ack_backlog=1), is_client=True)
    await session.open_stream()
    waiting = asyncio.ensure_future(session.open_stream())
    await settle()
    assert not waiting.done()
    waiting.cancel()


@looped
async def test_windows_start_at_the_initial_one() -> None:
    cable, session = start(YamuxOptions(max_window_bytes=WINDOW))
    cable.deliver(frame(WU, SYN, 1))
    stream = await session.accept_stream()
    assert stream.windows == (WINDOW, WINDOW, WINDOW)
    with pytest.raises(ValueError, match="max_window_bytes must be a whole number from 262144"):
        YamuxOptions(max_window_bytes=WINDOW - 1)


@looped
async def test_keepalive_pings_while_idle() -> None:
    cable, _ = start(YamuxOptions(keepalive_s=0.01))
    await eventually(lambda: [f.type for f in split_frames(cable.sent())[0]] == [2])


@looped
async def test_it_needs_a_record_layer_and_a_live_chain() -> None:
    cable = Cable()
    with pytest.raises(errors.LocalProtocolError):
        YamuxMultiplexer().start(cable.mailbox, True)
    cable.mailbox.insert(PlainChannel())
    box = cable.mailbox
    cable.abort()
    await settle()
    with pytest.raises(errors.ConnectionClosed):
        YamuxMultiplexer().start(box, True)
