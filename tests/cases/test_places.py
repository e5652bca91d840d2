"""A stream's place is given back when the program here has done with it, whatever the peer does.

Comes in: peers that never end their half, programs that forget to close. Goes out: the promise that neither
uses places up, keeps a drain waiting, or costs without a bound.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from _fast import mplex_chain
from _fast.chains import RST, SYN, WU, RawYamux, data, frame
from _fast.mplex_chain import RawMplex
from harness import eventually, looped, seconds
from hosts import pair
from p2pcore import MplexOptions, YamuxOptions, errors, limits
from p2pcore.interfaces import Stream

OPTIONS: dict[str, dict[str, Any]] = {
    "yamux": {"yamux": YamuxOptions(max_inbound_streams=16)},
    "mplex": {"muxers": ["mplex"], "mplex": MplexOptions(max_inbound_streams=16)},
}
both = pytest.mark.parametrize("muxer", ["yamux", "mplex"])


async def answer(stream: Stream) -> None:
    await stream.write(await stream.read_exactly(4))


def raw(muxer: str, **options: Any) -> Any:
    return (RawYamux if muxer == "yamux" else RawMplex)(**options)


def opening(muxer: str, number: int) -> bytes:
    if muxer == "yamux":
        return frame(WU, SYN, 2 * number + 1)
    return mplex_chain.msg(mplex_chain.NEW, number)


def saying(muxer: str, number: int, what: bytes) -> bytes:
    return (
        data(2 * number + 1, what) if muxer == "yamux" else mplex_chain.msg(mplex_chain.MSG_I, number, what)
    )


@both
@looped
async def test_a_peer_that_reads_every_answer_and_never_closes_is_served_on(muxer: str) -> None:
    async with pair(OPTIONS[muxer], {"muxers": [muxer]}) as hosts:
        hosts.server.set_stream_handler("/x/1", answer)
        held = []
        for _ in range(50):
            stream = await hosts.conn.new_stream("/x/1")
            held.append(stream)
            await stream.write(b"abcd")
            assert await stream.read() == b"abcd"
            assert await stream.read() == b""
        assert hosts.server_conn.num_streams == 0
        async with asyncio.timeout(seconds(10)):
            assert await hosts.server.drain(seconds(30)) == 0


@both
@looped
async def test_streams_that_wait_for_the_peers_end_are_bounded(muxer: str) -> None:
    peer = raw(muxer)
    most = limits.MAX_LINGERING_STREAMS
    for number in range(most + 5):
        peer.deliver(opening(muxer, number))
        await (await peer.session.accept_stream()).close()
    assert peer.session.num_streams == 0
    if muxer == "yamux":
        gone = [f.id // 2 for f in await peer.answers() if f.flags & RST]
    else:
        gone = [m.id for m in await peer.answers() if m.flag == mplex_chain.RESET_R]
    assert gone == list(range(5)), "the oldest"


@both
@looped
async def test_a_stream_closed_here_is_reset_in_time_if_the_peer_goes_on(
    muxer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINGER_S", seconds(0.1))
    peer = raw(muxer)
    for number in range(2):
        peer.deliver(opening(muxer, number))
    quiet, busy = [await peer.session.accept_stream() for _ in range(2)]
    await quiet.close()
    await busy.close()
    peer.deliver(saying(muxer, 1, b"late"))
    assert not busy.is_closed
    await eventually(lambda: busy.is_closed)
    assert not quiet.is_closed, "nothing has to be told to a peer that waits"


# -- async with, and streams nobody closes ----------------------------------------------------------


async def fail_in(stream: Stream) -> None:
    async with stream:
        await stream.write(b"x")
        assert await stream.read() == b"y", "it is being served"
        raise ZeroDivisionError


@both
@looped
async def test_async_with_closes_and_resets_where_the_block_raises(muxer: str) -> None:
    async with pair({"muxers": [muxer]}, {"muxers": [muxer]}) as hosts:
        got: list[bytes | type[BaseException]] = []

        async def serve(stream: Stream) -> None:
            try:
                await stream.write(b"y" if await stream.read_exactly(1) else b"")
                got.append(await stream.read())
            except errors.StreamReset:
                got.append(errors.StreamReset)

        hosts.server.set_stream_handler("/x/1", serve)
        async with await hosts.conn.new_stream("/x/1") as stream:
            await stream.write(b"x")
        await eventually(lambda: got == [b""])
        stream = await hosts.conn.new_stream("/x/1")
        with pytest.raises(ZeroDivisionError):
            await fail_in(stream)
        await eventually(lambda: got == [b"", errors.StreamReset])
        assert stream.is_closed


@both
@looped
async def test_a_stream_that_was_dropped_is_reset_and_its_place_freed(muxer: str) -> None:
    async with pair({"muxers": [muxer]}, {"muxers": [muxer]}) as hosts:
        hosts.server.set_stream_handler("/x/1", answer)
        kept = await hosts.conn.new_stream("/x/1")
        await kept.write(b"ab")
        dropped = await hosts.conn.new_stream("/x/1")
        await dropped.write(b"ab")
        await eventually(lambda: hosts.server_conn.num_streams == 2)
        del dropped
        gc.collect()
        await eventually(lambda: hosts.conn.num_streams == hosts.server_conn.num_streams == 1)
        assert not kept.is_closed
        await kept.write(b"cd")
        assert await kept.read() == b"abcd"


@both
@looped
async def test_dropped_streams_are_no_reason_to_refuse_or_to_wait(muxer: str) -> None:
    most = {"yamux": {"max_inbound_streams": 2}, "mplex": {"max_inbound_streams": 2}}[muxer]
    peer = raw(muxer, **most)
    for number in range(2):
        peer.deliver(opening(muxer, number))
        await peer.session.accept_stream()
    peer.deliver(opening(muxer, 2))
    stream = await peer.session.accept_stream()
    assert peer.session.num_streams == 1
    assert peer.session.num_refused == 0
    assert not stream.is_closed


@both
@looped
async def test_an_open_that_waits_at_the_limit_finds_a_stream_that_is_dropped_right_after_a_look(
    muxer: str,
) -> None:
    """The usual look comes each STREAM_SWEEP_S, which is longer than this test waits."""
    options: dict[str, Any] = {
        "yamux": {"yamux": YamuxOptions(max_outbound_streams=4)},
        "mplex": {"muxers": ["mplex"], "mplex": MplexOptions(max_outbound_streams=4)},
    }
    async with pair({"muxers": [muxer]}, options[muxer]) as hosts:
        hosts.server.set_stream_handler("/x/1", answer)
        held = [await hosts.conn.open_stream() for _ in range(4)]
        opening_one = asyncio.ensure_future(hosts.conn.open_stream())  # looks, and finds none
        await asyncio.sleep(0.01)
        held.pop()
        async with asyncio.timeout(limits.STREAM_SWEEP_S / 2):
            await opening_one


@looped
async def test_what_was_said_whole_is_not_reset_when_the_stream_is_dropped() -> None:
    peer = RawYamux(max_inbound_streams=1)
    stream = await peer.open_inbound(1)
    await stream.write(b"all of it")
    await stream.close_write()
    del stream
    peer.deliver(frame(WU, SYN, 3))
    assert (await peer.session.accept_stream()).id == 3
    assert not [f for f in await peer.answers() if f.flags & RST]


@looped
async def test_in_debug_mode_a_warning_says_where_a_dropped_stream_was_opened() -> None:
    asyncio.get_running_loop().set_debug(True)
    async with pair() as hosts:
        hosts.server.set_stream_handler("/x/1", answer)
        await hosts.conn.new_stream("/x/1")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await eventually(lambda: not hosts.conn.num_streams)
        (warning,) = [
            w for w in caught if w.category is ResourceWarning and "unclosed stream" in str(w.message)
        ]
        assert "/x/1" in str(warning.message)
        assert "test_places.py" in str(warning.message)
