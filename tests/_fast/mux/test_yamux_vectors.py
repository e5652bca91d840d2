"""Yamux against every test vector, and every row of "Bad input", of its fact sheet.

Comes in: frames by hand, cut in every way. Goes out: what the session answered. Source: libp2p/specs
yamux; the vectors are computed from its header layout.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from _fast.chains import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW,
    WU,
    Frame,
    RawYamux,
    data,
    frame,
    frames,
)
from harness import cuts, looped, settle
from p2pcore import errors
from p2pcore._fast.mux.yamux import YamuxStream

VECTORS = {
    "WU SYN, stream 1, +0": ("000100010000000100000000", Frame(WU, SYN, 1, 0)),
    "WU ACK, stream 1, +0": ("000100020000000100000000", Frame(WU, ACK, 1, 0)),
    "Data SYN, stream 1, hello": (
        "00000001000000010000000568656c6c6f",
        Frame(DATA, SYN, 1, 5, b"hello"),
    ),
    "Data, stream 1, hello": ("00000000000000010000000568656c6c6f", Frame(DATA, 0, 1, 5, b"hello")),
    "Data ACK, stream 1, hi": ("0000000200000001000000026869", Frame(DATA, ACK, 1, 2, b"hi")),
    "WU, stream 1, +131072": ("000100000000000100020000", Frame(WU, 0, 1, 131072)),
    "WU SYN, stream 2, 16 MiB - 256 KiB": ("000100010000000200fc0000", Frame(WU, SYN, 2, 16515072)),
    "Data FIN, stream 1, empty": ("000000040000000100000000", Frame(DATA, FIN, 1, 0)),
    "WU FIN, stream 1": ("000100040000000100000000", Frame(WU, FIN, 1, 0)),
    "Data RST, stream 1": ("000000080000000100000000", Frame(DATA, RST, 1, 0)),
    "WU RST, stream 1": ("000100080000000100000000", Frame(WU, RST, 1, 0)),
    "WU RST, stream 1, code 0x1001": ("000100080000000100001001", Frame(WU, RST, 1, 0x1001)),
    "Ping request": ("0002000100000000deadbeef", Frame(PING, SYN, 0, 0xDEADBEEF)),
    "Ping reply": ("0002000200000000deadbeef", Frame(PING, ACK, 0, 0xDEADBEEF)),
    "Go Away normal": ("000300000000000000000000", Frame(GO_AWAY, 0, 0, 0)),
    "Go Away protocol": ("000300000000000000000001", Frame(GO_AWAY, 0, 0, 1)),
    "Go Away internal": ("000300000000000000000002", Frame(GO_AWAY, 0, 0, 2)),
    "Go Away shutdown": ("000300000000000000001006", Frame(GO_AWAY, 0, 0, 0x1006)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_helpers_read_and_write_the_vectors(name: str) -> None:
    raw, parsed = VECTORS[name]
    assert frames(bytes.fromhex(raw)) == [parsed]
    assert bytes(parsed).hex() == raw


def vector(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name][0])


@looped
async def test_received_vectors_mean_what_they_say() -> None:
    for chunks in cuts(vector("Data SYN, stream 1, hello")):
        peer = RawYamux()
        peer.deliver(*chunks)
        stream = await peer.session.accept_stream()
        assert stream.id == 1
        assert await stream.read_exactly(5) == b"hello"
        assert stream.windows[:2] == (WINDOW, WINDOW - 5)
        peer.deliver(vector("WU, stream 1, +131072"))
        assert stream.windows[0] == WINDOW + 131072
        peer.deliver(vector("Data FIN, stream 1, empty"))
        assert await stream.read() == b""
        assert not stream.is_closed


@looped
async def test_sent_frames_are_the_vectors() -> None:
    peer = RawYamux(is_client=True)
    stream = await peer.session.open_stream()
    await settle()
    assert peer.sent() == vector("WU SYN, stream 1, +0")
    await stream.write(b"hello")
    await settle()
    assert peer.sent() == vector("Data, stream 1, hello")
    await stream.close_write()
    await settle()
    assert peer.sent() == vector("WU FIN, stream 1")
    stream.reset(0x1001)
    await settle()
    assert peer.sent() == vector("WU RST, stream 1, code 0x1001")


@looped
async def test_streams_opened_here_are_odd_for_clients_and_even_for_servers() -> None:
    for is_client, ids in ((True, [1, 3, 5]), (False, [2, 4, 6])):
        peer = RawYamux(is_client)
        assert peer.session.is_client is is_client
        assert [(await peer.session.open_stream()).id for _ in range(3)] == ids
        assert await peer.answers() == [Frame(WU, SYN, id, 0) for id in ids]


@looped
async def test_a_syn_may_carry_a_larger_window() -> None:
    peer = RawYamux(is_client=True)
    peer.deliver(vector("WU SYN, stream 2, 16 MiB - 256 KiB"))
    stream = await peer.session.accept_stream()
    assert stream.windows[0] == 16 * 1024 * 1024


@looped
async def test_the_conversation_of_the_sheet() -> None:
    said = ["000100010000000100000000", "00000000000000010000000568656c6c6f", "000100040000000100000000"]
    heard = ["000100020000000100000000", "00000000000000010000000568656c6c6f", "000100040000000100000000"]
    client = RawYamux(is_client=True)
    stream = await client.session.open_stream()
    await settle()
    sent = [client.sent().hex()]
    await stream.write(b"hello")
    await settle()
    sent.append(client.sent().hex())
    await stream.close_write()
    await settle()
    sent.append(client.sent().hex())
    assert sent == said
    for chunks in cuts(bytes.fromhex("".join(said))):
        server = RawYamux()
        server.deliver(*chunks)
        echo = await server.session.accept_stream()
        await settle()
        got = [server.sent().hex()]
        await echo.write(await echo.read_exactly(5))
        assert await echo.read() == b""
        await settle()
        got.append(server.sent().hex())
        await echo.close_write()
        await settle()
        got.append(server.sent().hex())
        assert got == heard
        assert echo.is_closed
        assert server.session.num_streams == 0
    client.deliver(bytes.fromhex("".join(heard)))
    assert await stream.read_exactly(5) == b"hello"
    assert await stream.read() == b""
    assert stream.is_closed
    assert client.session.num_streams == 0


# -- bad input: what ends the session -----------------------------------------------------------

FATAL = {
    "version != 0": "010000000000000100000000",
    "type > 3": "000400000000000100000000",
    "type 255": "00ff00000000000000000000",
    "data for stream 0": "000000000000000000000000",
    "window update for stream 0": "000100000000000000000000",
    "SYN on stream 0": "000100010000000000000000",
    "ping for stream 1": "000200010000000100000000",
    "go-away for stream 1": "000300000000000100000000",
    "SYN with our parity": "000100010000000200000000",
    "SYN for an open id": "000100010000000500000000" * 2,
    "data over the fresh window": "000100010000000100000000" + "000000000000000100040001",
    "SYN with more data than a window": "000000010000000100040001",
    "SYN with 4 GiB": "0000000100000001ffffffff",
    "data of 4 GiB": "000100010000000100000000" + "0000000000000001ffffffff",
    "window update past 2^32-1": "000100010000000100000000" + "0001000000000001fffc0000",
    "SYN whose window passes 2^32-1": "0001000100000001fffc0000",
}


@pytest.mark.parametrize("name", FATAL)
@looped
async def test_a_broken_rule_is_answered_by_go_away_1_and_the_end(name: str) -> None:
    raw = bytes.fromhex(FATAL[name])
    for chunks in cuts(raw):
        for tail in (b"", b"\xa5tail\x00", data(1, b"late")):
            peer = RawYamux()
            peer.deliver(*chunks[:-1], chunks[-1] + tail)
            assert isinstance(peer.session.close_reason, errors.RemoteProtocolError)
            assert (await peer.answers())[-1] == Frame(GO_AWAY, 0, 0, 1)
            assert peer.eof_written
            with pytest.raises(errors.RemoteProtocolError):
                await peer.session.open_stream()


@looped
async def test_a_client_refuses_odd_ids() -> None:
    peer = RawYamux(is_client=True)
    peer.deliver(frame(WU, SYN, 3))
    assert await peer.answers() == [Frame(GO_AWAY, 0, 0, 1)]


@looped
async def test_the_largest_window_is_allowed() -> None:
    peer = RawYamux()
    peer.deliver(frame(WU, SYN, 1), frame(WU, 0, 1, 0xFFFFFFFF - WINDOW))
    stream = await peer.session.accept_stream()
    assert isinstance(stream, YamuxStream)
    assert stream.windows[0] == 0xFFFFFFFF


@looped
async def test_exactly_one_window_is_allowed_and_nothing_is_buffered_beyond() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    header = bytes.fromhex("000000000000000100040000")
    peer.deliver(header[:5], header[5:])
    for _ in range(4):
        peer.deliver(bytes(WINDOW // 4))
    assert stream.num_buffered == WINDOW
    assert isinstance(stream, YamuxStream)
    assert stream.windows[1] == 0
    peer.deliver(data(1, b"x"))
    assert isinstance(peer.session.close_reason, errors.RemoteProtocolError)
    assert stream.num_buffered == WINDOW
    assert await stream.read_exactly(WINDOW) == bytes(WINDOW)
    with pytest.raises(errors.RemoteProtocolError):
        await stream.read()


# -- bad input: what is ignored ------------------------------------------------------------------

IGNORED = {
    "data for an unknown stream": data(9, b"nobody"),
    "window update for an unknown stream": frame(WU, 0, 9, 5),
    "FIN for an unknown stream": frame(WU, FIN, 9),
    "RST for an unknown stream": frame(WU, RST, 9, 7),
    "ACK for an unknown stream": frame(WU, ACK, 2),
    "ACK for a stream the peer opened": frame(WU, ACK, 1),
    "ACK twice": frame(WU, ACK, 1) * 2,
    "unknown flag bits": frame(WU, 0xFFF0, 1),
    "ping with neither SYN nor ACK": frame(PING, 0, 0, 3),
    "unsolicited pong": frame(PING, ACK, 0, 77),
    "zero-length data": data(1, b""),
    "window update of nothing": frame(WU, 0, 1, 0),
}


@pytest.mark.parametrize("name", IGNORED)
@looped
async def test_harmless_input_is_ignored(name: str) -> None:
    for chunks in cuts(IGNORED[name]):
        peer = RawYamux()
        stream = await peer.open_inbound()
        peer.deliver(*chunks[:-1], chunks[-1] + data(1, b"and on"))
        assert await peer.answers() == []
        assert await stream.read() == b"and on"
        assert not peer.session.is_closed
        assert peer.session.num_streams == 1


@looped
async def test_a_second_fin_and_a_second_reset_are_ignored() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound()
    peer.deliver(frame(WU, FIN, 1), frame(DATA, FIN, 1))
    assert await stream.read() == b""
    peer.deliver(frame(WU, RST, 1), frame(WU, RST, 1), frame(WU, FIN, 1))
    with pytest.raises(errors.StreamReset):
        await stream.write(b"x")
    assert await peer.answers() == []
    assert not peer.session.is_closed


@looped
async def test_data_after_fin_resets_that_stream_only() -> None:
    peer = RawYamux()
    stream = await peer.open_inbound(1)
    other = await peer.open_inbound(3)
    peer.deliver(frame(WU, FIN, 1), data(1, b"more") + data(3, b"fine"))
    assert await peer.answers() == [Frame(WU, RST, 1, 1)]
    with pytest.raises(errors.RemoteProtocolError):
        await stream.read()
    assert await other.read() == b"fine"


@looped
async def test_a_ping_is_answered_with_its_value() -> None:
    for chunks in cuts(vector("Ping request")):
        peer = RawYamux()
        peer.deliver(*chunks)
        await settle()
        assert peer.sent() == vector("Ping reply")


@looped
async def test_a_wrong_pong_is_no_answer() -> None:
    peer = RawYamux(is_client=True)
    ping = peer.session.ping()
    (sent,) = await peer.answers()
    peer.deliver(frame(PING, ACK, 0, sent.length + 1))
    assert peer.session.rtt == 0
    peer.deliver(frame(PING, ACK, 0, sent.length))
    assert await ping == peer.session.rtt > 0


@looped
async def test_input_that_ends_inside_a_frame_ends_the_session_with_a_connection_error() -> None:
    for raw in (frame(WU, SYN, 1)[:7], data(1, b"hello")[:-2]):
        peer = RawYamux()
        stream = await peer.open_inbound(3)
        peer.deliver(raw)
        peer.deliver_eof()
        await settle()
        assert isinstance(peer.session.close_reason, errors.ConnectionClosed)
        with pytest.raises(errors.ConnectionClosed):
            await stream.read()
        assert peer.lost


@looped
async def test_a_stream_over_the_limit_is_reset_and_only_it() -> None:
    peer = RawYamux(max_inbound_streams=2)
    peer.deliver(frame(WU, SYN, 1), frame(WU, SYN, 3), data(5, b"too many", SYN) + data(1, b"fine"))
    first = await peer.session.accept_stream()
    assert await first.read() == b"fine"
    assert Frame(WU, RST, 5, 0x1002) in await peer.answers()
    assert peer.session.num_streams == 2
    first.reset()
    peer.deliver(frame(WU, SYN, 7))
    assert peer.session.num_streams == 2
    assert not peer.session.is_closed


@looped
async def test_streams_nobody_accepts_are_reset_beyond_the_backlog() -> None:
    peer = RawYamux(ack_backlog=3)
    for id in (1, 3, 5, 7):
        peer.deliver(frame(WU, SYN, id))
    assert await peer.answers() == [Frame(WU, RST, 7, 0x1002)]
    await peer.session.accept_stream()
    peer.deliver(frame(WU, SYN, 9))
    assert peer.session.num_streams == 4 - 1 + 1


@looped
async def test_after_our_go_away_a_syn_opens_nothing() -> None:
    peer = RawYamux()
    closing = peer.session.close()
    peer.deliver(frame(WU, SYN, 1))
    assert await peer.answers() == [Frame(GO_AWAY, 0, 0, 0)]
    assert peer.session.num_streams == 0
    peer.deliver_eof()
    await closing


@looped
async def test_once_ids_are_used_up_a_syn_is_reset() -> None:
    peer = RawYamux(is_client=True, first_id=0xFFFFFFFD)
    stream = await peer.session.open_stream()
    with pytest.raises(errors.ConnectionClosed, match="ids"):
        await peer.session.open_stream()
    peer.deliver(frame(WU, SYN, 2))
    assert await peer.answers() == [Frame(WU, SYN, 0xFFFFFFFD, 0), Frame(WU, RST, 2, 0)]
    assert not peer.session.is_closed
    stream.reset()
    assert await peer.answers() == [Frame(WU, RST, 0xFFFFFFFD, 0), Frame(GO_AWAY, 0, 0, 0)]
    assert peer.session.is_closed


@pytest.mark.parametrize("first", [0xFFFFFFFC, 0xFFFFFFFD])
@looped
async def test_no_stream_id_is_used_twice_at_the_end_of_the_numbers(first: int) -> None:
    peer = RawYamux(is_client=bool(first % 2), first_id=first - 2)
    ids = [(await peer.session.open_stream()).id for _ in range(2)]
    assert ids == [first - 2, first]
    for _ in range(3):
        with pytest.raises(errors.ConnectionClosed):
            await peer.session.open_stream()


def order(events: list[str]) -> Callable[[object], None]:
    return lambda error: events.append(type(error).__name__)


@looped
async def test_flags_are_processed_as_syn_ack_body_fin_reset() -> None:
    peer = RawYamux()
    peer.deliver(data(1, b"all at once", SYN | ACK | FIN))
    stream = await peer.session.accept_stream()
    assert await stream.read() == b"all at once"
    assert await stream.read() == b""
    peer.deliver(data(3, b"never seen", SYN | FIN | RST))
    await settle()
    assert peer.session.num_streams == 1
