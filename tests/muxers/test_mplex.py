"""The mplex multiplexer: options reach the session, it satisfies interfaces, and hosts agree on it.

Comes in: options and a chain; two hosts. Goes out: sessions that keep them.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from _fast.chains import Cable
from _fast.mplex_chain import BUFFER, MSG_I, NEW, RESET_R, Message, messages, msg
from harness import eventually, looped, settle
from hosts import pair
from p2pcore import errors, interfaces, limits
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore.muxers.mplex import PROTOCOL, MplexMultiplexer, MplexOptions


def start(options: MplexOptions | None = None, is_client: bool = False) -> tuple[Cable, MplexSession]:
    cable = Cable()
    cable.mailbox.insert(PlainChannel())
    return cable, MplexMultiplexer(options).start(cable.mailbox, is_client)


def test_its_name_is_the_one_peers_negotiate() -> None:
    assert MplexMultiplexer().protocol == PROTOCOL == "/mplex/6.7.0"


def test_its_defaults_are_the_limits() -> None:
    assert dataclasses.asdict(MplexOptions()) == {
        "max_inbound_streams": limits.MPLEX_MAX_INBOUND_STREAMS,
        "max_outbound_streams": limits.MPLEX_MAX_OUTBOUND_STREAMS,
        "max_stream_bytes": limits.MPLEX_STREAM_BUFFER_BYTES,
        "max_buffered_bytes": limits.MPLEX_MAX_BUFFERED_BYTES,
        "stall_s": limits.MPLEX_STALL_S,
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
async def test_its_options_are_kept() -> None:
    cable, session = start(
        MplexOptions(
            max_inbound_streams=1,
            max_outbound_streams=0,
            max_stream_bytes=2 * BUFFER,
            max_buffered_bytes=2 * BUFFER,
            stall_s=0.0,
        )
    )
    cable.deliver(msg(NEW, 1), msg(NEW, 2))
    assert messages(await cable.all_sent()) == [Message(RESET_R, 2)]
    opening = asyncio.ensure_future(session.open_stream())
    await settle()
    assert not opening.done()
    opening.cancel()
    for _ in range(2 * BUFFER // 65536):
        assert cable.reading
        cable.deliver(msg(MSG_I, 1, bytes(65536)))
    assert not cable.reading
    await eventually(lambda: cable.reading)
    assert messages(await cable.all_sent()) == [Message(RESET_R, 1)]


@looped
async def test_it_needs_a_record_layer_and_a_live_chain() -> None:
    cable = Cable()
    with pytest.raises(errors.LocalProtocolError):
        MplexMultiplexer().start(cable.mailbox, True)
    cable.mailbox.insert(PlainChannel())
    box = cable.mailbox
    cable.abort()
    await settle()
    with pytest.raises(errors.ConnectionClosed):
        MplexMultiplexer().start(box, True)


@pytest.mark.parametrize(
    ("server", "dialer", "agreed"),
    [
        (["mplex"], ["mplex"], PROTOCOL),
        (["yamux", "mplex"], ["mplex"], PROTOCOL),
        (["mplex"], ["yamux", "mplex"], PROTOCOL),
        (["yamux", "mplex"], ["yamux", "mplex"], "/yamux/1.0.0"),
    ],
)
@looped
async def test_hosts_agree_on_what_both_have(server: list[str], dialer: list[str], agreed: str) -> None:
    options = {"echo": True, "identify": True, "ping": True}
    async with pair({"muxers": server} | options, {"muxers": dialer} | options) as hosts:
        assert hosts.conn.state.muxer == hosts.server_conn.state.muxer == agreed
        for one, conn in ((hosts.dialer, hosts.conn), (hosts.server, hosts.server_conn)):
            data = bytes(range(256)) * 800
            assert await one.echo(conn, data) == data
            assert len(await one.ping(conn)) == 1
            assert "/echo/1.0.0" in (await one.identify(conn)).protocols


@looped
async def test_the_bound_on_streams_of_a_host_holds_for_mplex_too() -> None:
    only = {"muxers": ["mplex"], "mplex": MplexOptions(max_inbound_streams=1), "echo": True}
    async with pair(only, {"muxers": ["mplex"]}) as hosts:
        first = await hosts.conn.new_stream("/echo/1.0.0")
        await first.write(b"x")
        assert await first.read() == b"x"
        second = await hosts.conn.new_stream("/echo/1.0.0")
        with pytest.raises(errors.StreamReset):
            await second.read()
