"""Splice: two streams made one circuit, against peers that speak yamux by hand and in real ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from _fast.chains import (
    DATA,
    FIN,
    RST,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    data,
    frame,
    session_pair,
    stream_pair,
    with_limits,
)
from harness import cuts, eventually, looped, settle
from p2pcore import codes
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore._fast.mux.splice import Splice
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.errors import ConnectionClosed, LimitExceeded, LocalProtocolError, StreamReset

WORDS = bytes(range(256)) * 8


class Circuit:
    """Two peers by hand, `near` and `far`, and a circuit between stream 1 of each."""

    def __init__(self, max_bytes: int = -1, seconds: float = 0) -> None:
        self.near, self.far = RawYamux(), RawYamux()
        self.bounds = (max_bytes, seconds)
        self.ended: list[BaseException | None] = []
        self.streams: list[Any] = []

    async def start(self) -> Splice:
        self.streams = [await self.near.open_inbound(), await self.far.open_inbound()]
        splice = Splice(*self.streams, *self.bounds, self.ended.append)
        splice.start()
        return splice


def bodies(frames: list[Frame]) -> bytes:
    return b"".join(each.body for each in frames if each.type == DATA)


def flags(frames: list[Frame]) -> int:
    found = 0
    for each in frames:
        found |= each.flags
    return found


@looped
async def test_what_comes_on_one_stream_leaves_on_the_other_however_it_is_cut() -> None:
    for chunks in cuts(WORDS[:600]):
        circuit = Circuit()
        splice = await circuit.start()
        circuit.near.deliver(*(data(1, chunk) for chunk in chunks))
        circuit.far.deliver(data(1, b"back"))
        assert bodies(await circuit.far.answers()) == WORDS[:600]
        assert bodies(await circuit.near.answers()) == b"back"
        assert splice.passed == (600, 4)


@looped
async def test_what_the_streams_held_before_goes_first() -> None:
    circuit = Circuit()
    streams = [await circuit.near.open_inbound(), await circuit.far.open_inbound()]
    circuit.near.deliver(data(1, b"early"))
    circuit.far.deliver(data(1, b"bird", FIN))
    Splice(streams[0], streams[1], -1, 0, circuit.ended.append).start()
    circuit.near.deliver(data(1, b" late"))
    assert bodies(await circuit.far.answers()) == b"early late"
    answers = await circuit.near.answers()
    assert bodies(answers) == b"bird"
    assert flags(answers) & FIN


@looped
async def test_a_half_close_is_carried_across_behind_the_data_and_the_other_half_goes_on() -> None:
    circuit = Circuit()
    splice = await circuit.start()
    circuit.near.deliver(data(1, b"all", FIN))
    answers = await circuit.far.answers()
    assert bodies(answers) == b"all"
    assert answers[-1] == Frame(WU, FIN, 1, 0)
    circuit.far.deliver(data(1, b"answer"))
    assert bodies(await circuit.near.answers()) == b"answer"
    assert not circuit.ended
    circuit.far.deliver(frame(WU, FIN, 1))
    assert flags(await circuit.near.answers()) & FIN
    await settle()
    assert circuit.ended == [None]
    assert splice.is_closed
    assert circuit.near.session.num_streams == circuit.far.session.num_streams == 0


@looped
async def test_a_reset_on_one_side_resets_the_other_with_its_code() -> None:
    circuit = Circuit()
    await circuit.start()
    circuit.far.deliver(frame(WU, RST, 1, 5))
    answers = await circuit.near.answers()
    assert answers == [Frame(WU, RST, 1, 5)]
    await settle()
    assert isinstance(circuit.ended[0], StreamReset)


@looped
async def test_the_end_of_one_connection_resets_the_other_stream() -> None:
    circuit = Circuit()
    await circuit.start()
    circuit.near.deliver_eof()
    assert flags(await circuit.far.answers()) & RST
    await settle()
    assert isinstance(circuit.ended[0], ConnectionClosed)
    assert not circuit.far.session.is_closed


@looped
async def test_what_a_circuit_still_holds_of_a_source_that_is_gone_goes_on_and_then_its_end() -> None:
    circuit = Circuit()
    await circuit.start()
    circuit.near.deliver(data(1, bytes(WINDOW)))  # all that the far side takes without credit
    first = bodies(await circuit.far.answers())
    circuit.near.deliver(data(1, WORDS), data(1, WORDS, FIN))  # the first of them fills the target's queue
    assert len(first) == WINDOW
    circuit.near.deliver_eof()
    circuit.far.deliver(data(1, b"to nobody"))
    assert not bodies(await circuit.far.answers())
    assert not circuit.ended
    circuit.far.deliver(frame(WU, 0, 1, WINDOW))
    answers = await circuit.far.answers()
    assert bodies(answers) == WORDS + WORDS
    assert flags(answers) & FIN
    assert not flags(answers) & RST
    circuit.far.deliver(frame(WU, FIN, 1))
    await settle()
    assert circuit.ended == [None]


@looped
async def test_a_target_that_takes_nothing_holds_the_source_back_within_its_window() -> None:
    circuit = Circuit()
    await circuit.start()
    piece = bytes(32768)

    def granted(frames: list[Frame]) -> int:
        return sum(each.length for each in frames if each.type == WU and not each.flags)

    sent, room = 0, WINDOW
    for _ in range(100):
        while room - len(piece) >= 0:
            circuit.near.deliver(data(1, piece))
            room -= len(piece)
            sent += len(piece)
        more = granted(await circuit.near.answers())
        if not more:
            break
        room += more
    assert sent <= 3 * WINDOW, "the target's window, the source's, and one piece"
    left = bodies(await circuit.far.answers())
    assert len(left) == WINDOW
    circuit.far.deliver(frame(WU, 0, 1, 4 * WINDOW))
    left = bodies(await circuit.far.answers())
    assert WINDOW + len(left) == sent
    assert granted(await circuit.near.answers())


@looped
async def test_exactly_the_limit_passes_and_one_byte_more_resets_both() -> None:
    circuit = Circuit(max_bytes=1000)
    await circuit.start()
    circuit.near.deliver(data(1, bytes(600)), data(1, bytes(400)))
    circuit.far.deliver(data(1, bytes(1000)))
    assert len(bodies(await circuit.far.answers())) == 1000
    assert len(bodies(await circuit.near.answers())) == 1000
    assert not circuit.ended
    circuit.far.deliver(data(1, b"x"))
    code = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
    assert await circuit.near.answers() == [Frame(WU, RST, 1, code)]
    assert await circuit.far.answers() == [Frame(WU, RST, 1, code)]
    await settle()
    assert isinstance(circuit.ended[0], LimitExceeded)
    assert len(circuit.ended) == 1


@looped
async def test_the_limit_is_each_ways_own() -> None:
    circuit = Circuit(max_bytes=1000)
    await circuit.start()
    for _ in range(2):
        circuit.near.deliver(data(1, bytes(500)))
        circuit.far.deliver(data(1, bytes(500)))
    circuit.near.deliver(frame(WU, FIN, 1))
    circuit.far.deliver(frame(WU, FIN, 1))
    await settle()
    assert circuit.ended == [None]


def test_a_circuit_is_cut_when_its_time_is_up() -> None:
    out = with_limits(
        """
        from p2pcore._fast.mux.splice import Splice
        near, far = RawYamux(), RawYamux()
        streams = [await near.open_inbound(), await far.open_inbound()]
        ended = []
        Splice(*streams, -1, 0.01, ended.append).start()
        await eventually(lambda: ended)
        print(type(ended[0]).__name__, near.session.num_streams, far.session.num_streams)
        """
    )
    assert out.split() == ["TimeoutError", "0", "0"]


@looped
async def test_an_end_from_here_resets_both_once() -> None:
    circuit = Circuit(seconds=60)
    splice = await circuit.start()
    assert loop_state(asyncio.get_running_loop()).num_watched == 1
    reason = ConnectionClosed("enough")
    splice.abort(reason)
    splice.abort(ConnectionClosed("again"))
    await settle()
    assert circuit.ended == [reason]
    assert loop_state(asyncio.get_running_loop()).num_watched == 0
    assert flags(await circuit.near.answers()) & flags(await circuit.far.answers()) & RST


@looped
async def test_a_stream_that_has_failed_or_is_read_is_no_part_of_a_circuit() -> None:
    circuit = Circuit()
    near, far = await circuit.near.open_inbound(), await circuit.far.open_inbound()
    circuit.far.deliver(frame(WU, RST, 1))
    splice = Splice(near, far, -1, 0, circuit.ended.append)
    with pytest.raises(StreamReset):
        splice.start()
    circuit.near.deliver(data(1, b"mine"))
    assert await near.read() == b"mine", "the other one was left alone"
    other = await circuit.far.open_inbound(3)
    reading = asyncio.ensure_future(other.read())
    await settle()
    with pytest.raises(LocalProtocolError):
        Splice(near, other, -1, 0, circuit.ended.append).start()
    reading.cancel()


@looped
async def test_a_circuit_of_real_sessions_carries_more_than_all_buffers_both_ways_without_a_task() -> None:
    sessions: list[YamuxSession] = []
    ends: list[Any] = []
    for _ in range(2):
        client, server = await session_pair()
        sessions += [client, server]
        ends += await stream_pair(client, server)
    ended: list[BaseException | None] = []
    before = len(asyncio.all_tasks())
    Splice(ends[1], ends[3], -1, 0, ended.append).start()
    assert len(asyncio.all_tasks()) == before
    one, other, sent = ends[0], ends[2], WORDS * 4096

    async def write(stream: Any) -> None:
        await stream.write(sent)
        await stream.close_write()

    async def read(stream: Any) -> bytes:
        out = bytearray()
        while piece := await stream.read():
            out += piece
        return bytes(out)

    *_, there, back = await asyncio.gather(write(one), write(other), read(other), read(one))
    assert there == back == sent
    await eventually(lambda: ended)
    assert ended == [None]
    for session in sessions:
        session.abort()
    await settle()
