"""WebsocketLayer: vectors, each rule of RFC 6455 a peer can break, any cuts, closing, no buffers."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from _fast.chains import KEY_A, KEY_B, Cable, with_limits
from _fast.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    frame,
    frames,
)
from harness import cuts, feeding, looped, settle
from p2pcore import errors, limits
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.websocket import WebsocketLayer
from p2pcore._fast.crypto.secure import NoiseChannel, PlainChannel
from p2pcore._fast.loop.loop_state import loop_state

HELLO = bytes.fromhex("132f6d756c746973747265616d2f312e302e300a")
"""multistream-select's header message."""
BOTH = pytest.mark.parametrize("is_client", [False, True], ids=["server", "client"])


def socket(is_client: bool) -> tuple[Cable, Mailbox]:
    """A layer of this role on a cable, and the mailbox on top of it."""
    cable = Cable()
    box = cable.mailbox
    box.insert(WebsocketLayer(is_client))
    return cable, box


def peers(is_client: bool, payload: bytes = b"", opcode: int = BINARY, **options: Any) -> bytes:
    """A frame as the peer of this role sends it."""
    return frame(payload, opcode, mask=None if is_client else MASK, **options)


# -- vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_client", "raw"),
    [
        (False, "829437fa213d24d54c485b8e484e4388445c5ad5101307d41137"),
        (True, "8214132f6d756c746973747265616d2f312e302e300a"),
        (True, "0203132f6d8011756c746973747265616d2f312e302e300a"),
    ],
    ids=["masked frame of a client", "frame of a server", "two fragments of a server"],
)
@looped
async def test_received_vectors(is_client: bool, raw: str) -> None:
    for chunks, tail in feeding(bytes.fromhex(raw)):
        cable, box = socket(is_client)
        if tail:
            chunks[-1] = chunks[-1][: -len(tail)] + peers(is_client, tail)
        cable.deliver(*chunks)
        assert await box.read_exactly(len(HELLO) + len(tail)) == HELLO + tail
        assert box.num_held == 0


@looped
async def test_sent_vectors() -> None:
    cable, box = socket(is_client=False)
    box.write(HELLO)
    assert cable.sent() == bytes.fromhex("8214132f6d756c746973747265616d2f312e302e300a")
    box.write(bytes(65537))
    assert cable.sent() == bytes.fromhex("827f0000000000010001") + bytes(65537)
    cable, box = socket(is_client=True)
    box.write(bytes(300))
    raw = cable.sent()
    assert raw[:4] == bytes.fromhex("82fe012c")
    assert raw[8:] == raw[4:8] * 75  # zeros show the mask


@looped
async def test_ping_and_close_vectors() -> None:
    cable, _ = socket(is_client=True)
    cable.deliver(bytes.fromhex("8900"))
    await settle()
    raw = cable.sent()
    assert raw[:2] == bytes.fromhex("8a80")
    assert len(raw) == 6
    cable.wire.close()
    assert frames(cable.sent()) == [Frame(CLOSE, (1000).to_bytes(2, "big"), True, raw_mask(cable))]
    cable, _ = socket(is_client=False)
    cable.deliver(bytes.fromhex("888237fa213d3412"))
    await settle()
    assert cable.sent() == bytes.fromhex("880203e8")


class raw_mask:
    """Equal to any mask: it is random."""

    def __init__(self, _: object) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and len(other) == 4


# -- lengths, fragments, control frames --------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("size", [1, 125, 126, 127, 65535, 65536, 65537, 200_000])
@looped
async def test_every_form_of_length_is_sent_and_received(is_client: bool, size: int) -> None:
    payload = os.urandom(size)
    cable, box = socket(is_client)
    box.write(payload)
    sent = frames(await cable.all_sent())
    assert b"".join(each.payload for each in sent) == payload
    assert all(each.opcode == BINARY and each.fin and len(each.payload) <= 65537 for each in sent)
    assert all((each.mask is not None) is is_client for each in sent)
    cable.deliver(peers(is_client, payload))
    got = b""
    while len(got) < size:
        got += await box.read(limits.MAILBOX_BYTES)
    assert got == payload


@BOTH
@looped
async def test_frames_cut_at_every_byte_are_the_same(is_client: bool) -> None:
    raw = (
        peers(is_client, b"one", TEXT, fin=False)
        + peers(is_client, b"ping", PING)
        + peers(is_client, b"", CONTINUATION, fin=False)
        + peers(is_client, b"two", CONTINUATION)
        + peers(is_client, b"unasked", PONG)
        + peers(is_client, bytes(range(200)))
        + peers(is_client, (1001).to_bytes(2, "big") + "schön".encode(), CLOSE)
    )
    for chunks in cuts(raw):
        cable, box = socket(is_client)
        cable.deliver(*chunks)
        await settle()
        with pytest.raises(errors.IncompleteRead) as caught:
            await box.read_exactly(1000)
        assert caught.value.partial == b"onetwo" + bytes(range(200))
        answers = [(each.opcode, each.payload) for each in frames(cable.sent())]
        assert answers == [(PONG, b"ping"), (CLOSE, (1001).to_bytes(2, "big"))]
        assert cable.eof_written


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 1000])
@looped
async def test_a_payload_is_unmasked_wherever_it_is_cut(size: int) -> None:
    payload = os.urandom(size)
    for at in range(0, size + 1, max(1, size // 20)):
        for start in range(8):  # where the payload lies in memory
            cable, box = socket(is_client=False)
            raw = peers(False, bytes(start)) + peers(False, payload)
            cable.deliver(raw[: len(raw) - at], raw[len(raw) - at :])
            assert await box.read_exactly(start + size) == bytes(start) + payload


@looped
async def test_masks_differ_and_are_not_a_counter() -> None:
    cable, box = socket(is_client=True)
    seen = set()
    for _ in range(1500):  # more than one filling of the pool
        box.write(b"x")
        seen.add(frames(cable.sent())[0].mask)
    assert len(seen) > 1490
    steps = {int.from_bytes(b or b"") - int.from_bytes(a or b"") for a, b in itertools.pairwise(sorted(seen))}  # type: ignore[type-var]
    assert len(steps) > 100


def test_a_forked_process_has_masks_of_its_own() -> None:
    code = """
        import os
        from _fast.websocket_frames import frames
        from p2pcore._fast.chain.websocket import WebsocketLayer
        cable = Cable()
        cable.mailbox.insert(WebsocketLayer(True))
        cable.mailbox.write(b"x")
        cable.sent()
        child = os.fork()
        cable.mailbox.write(bytes(4))
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        first, second = (each.mask for each in frames(cable.sent()))
        print(first != second)
    """
    assert with_limits(code).split() == ["True"]


@looped
async def test_frames_of_an_unlimited_length_stream_through() -> None:
    cable, box = socket(is_client=True)
    cable.deliver(bytes([0x82, 127]) + (1 << 62).to_bytes(8, "big"))
    for _ in range(100):
        cable.deliver(bytes(1000))
        assert await box.read_exactly(1000) == bytes(1000)
    assert not cable.closing


# -- what breaks the rules ---------------------------------------------------------------------------

BAD = {
    "reserved bit 1": lambda c: peers(c, b"x", rsv=4),
    "reserved bit 2": lambda c: peers(c, b"x", rsv=2),
    "reserved bit 3": lambda c: peers(c, b"x", rsv=1),
    **{f"opcode {op}": (lambda c, op=op: peers(c, b"x", op)) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "the mask of the other role": lambda c: frame(b"x", mask=MASK if c else None),
    "long control frame": lambda c: peers(c, bytes(126), PING),
    "control frame in 64 bits": lambda c: bytes([0x89, 127 if c else 255]) + (1 << 40).to_bytes(8, "big"),
    "fragmented ping": lambda c: peers(c, b"x", PING, fin=False),
    "fragmented close": lambda c: peers(c, b"", CLOSE, fin=False),
    "continuation of nothing": lambda c: peers(c, b"x", CONTINUATION),
    "continuation of a message that ended": lambda c: (
        peers(c, b"x", fin=False) + peers(c, b"y", CONTINUATION) + peers(c, b"z", CONTINUATION)
    ),
    "a message inside a message": lambda c: peers(c, b"x", fin=False) + peers(c, b"y"),
    "a length below 126 in 16 bits": lambda c: bytes([0x82, 126 if c else 254, 0, 125]) + bytes(4),
    "a length of 16 bits in 64": lambda c: (
        bytes([0x82, 127 if c else 255]) + (65535).to_bytes(8, "big") + bytes(4)
    ),
    "the top bit of a length": lambda c: bytes([0x82, 127 if c else 255, 128]) + bytes(7) + bytes(4),
    "half a close code": lambda c: peers(c, b"\x03", CLOSE),
    **{
        f"close code {code}": (lambda c, code=code: peers(c, code.to_bytes(2, "big"), CLOSE))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "a reason that is no text": lambda c: peers(c, b"\x03\xe8\xff", CLOSE),
}


@BOTH
@pytest.mark.parametrize("case", BAD)
@looped
async def test_bad_frames_are_answered_with_1002_and_end_the_connection(is_client: bool, case: str) -> None:
    raw = BAD[case](is_client)
    for chunks in cuts(raw):
        cable, box = socket(is_client)
        cable.deliver(*chunks)
        assert cable.aborted
        await settle()
        with pytest.raises(errors.RemoteProtocolError) as caught:
            await box.read_exactly(10)
        assert caught.value.code == 1002
        last = frames(cable.sent())[-1]
        assert (last.opcode, last.payload) == (CLOSE, (1002).to_bytes(2, "big"))


@BOTH
@looped
async def test_a_bad_start_is_refused_before_the_rest_of_the_frame_comes(is_client: bool) -> None:
    cable, _ = socket(is_client)
    cable.deliver(bytes([0x89, 127 | (0 if is_client else 128)]))
    assert cable.aborted


@BOTH
@looped
async def test_empty_frames_in_a_row_are_bounded(is_client: bool) -> None:
    most = limits.WEBSOCKET_MAX_EMPTY_FRAMES
    cable, box = socket(is_client)
    cable.deliver(peers(is_client) * most + peers(is_client, b"x") + peers(is_client) * most)
    assert await box.read_exactly(1) == b"x"
    assert not cable.aborted
    cable.deliver(peers(is_client))
    assert cable.aborted
    await settle()
    with pytest.raises(errors.LimitExceeded):
        await box.read_exactly(1)
    assert frames(cable.sent())[-1].payload == (1008).to_bytes(2, "big")


@BOTH
@looped
async def test_an_end_inside_a_frame_is_an_error_and_between_frames_is_not(is_client: bool) -> None:
    raw = peers(is_client, b"whole")
    for at in range(1, len(raw)):
        cable, box = socket(is_client)
        cable.deliver(raw[:at])
        cable.deliver_eof()
        await settle()
        with pytest.raises(errors.ConnectionClosed, match="inside"):
            await box.read_exactly(9)
    cable, box = socket(is_client)
    cable.deliver(raw)
    cable.deliver_eof()
    with pytest.raises(errors.IncompleteRead) as caught:
        await box.read_exactly(9)
    assert caught.value.partial == b"whole"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                frame,
                st.binary(max_size=130),
                st.integers(0, 15),
                fin=st.booleans(),
                mask=st.sampled_from([None, MASK]),
                rsv=st.sampled_from([0, 0, 0, 1]),
            ),
        ),
        max_size=8,
    ),
    st.lists(st.integers(0, 600), max_size=6),
    st.booleans(),
)
@looped
async def test_whatever_a_peer_sends_ends_in_no_other_error(
    pieces: list[bytes], at: list[int], is_client: bool
) -> None:
    raw = b"".join(pieces)
    cable, box = socket(is_client)
    edges = sorted({0, len(raw), *(min(a, len(raw)) for a in at)})
    for begin, end in itertools.pairwise(edges):
        cable.deliver(raw[begin:end])
    cable.deliver_eof()
    await settle()
    allowed = (
        errors.RemoteProtocolError,
        errors.LimitExceeded,
        errors.ConnectionClosed,
        errors.IncompleteRead,
    )
    with pytest.raises(allowed):
        await box.read_exactly(10_000)
    frames(cable.sent())  # all we answer is well-formed


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(0, 2000), max_size=8), st.booleans()
)
@looped
async def test_two_layers_understand_one_another_however_the_bytes_are_cut(
    pieces: list[bytes], at: list[int], is_client: bool
) -> None:
    sender, out = socket(is_client)
    reader, box = socket(not is_client)
    for piece in pieces:
        out.write(piece)
    raw = sender.sent()
    edges = sorted({0, len(raw), *(min(a, len(raw)) for a in at)})
    for begin, end in itertools.pairwise(edges):
        reader.deliver(raw[begin:end])
    whole = b"".join(pieces)
    assert await box.read_exactly(len(whole)) == whole


# -- pings -----------------------------------------------------------------------------------------


@BOTH
@looped
async def test_of_many_pings_in_one_turn_the_newest_is_answered(is_client: bool) -> None:
    cable, box = socket(is_client)
    cable.deliver(b"".join(peers(is_client, str(i).encode(), PING) for i in range(5000)))
    await settle()
    assert [(each.opcode, each.payload) for each in frames(cable.sent())] == [(PONG, b"4999")]
    cable.deliver(peers(is_client, b"later", PING) + peers(is_client, b"data"))
    await settle()
    assert [(each.opcode, each.payload) for each in frames(cable.sent())] == [(PONG, b"later")]
    assert await box.read_exactly(4) == b"data"


@looped
async def test_pings_of_a_peer_that_does_not_read_queue_nothing() -> None:
    cable, box = socket(is_client=False)
    filling = cable.clog()
    box.write(bytes(1000))
    assert cable.queue
    queued = len(cable.queue)
    for i in range(1000):
        cable.deliver(peers(False, str(i).encode(), PING))
        if i % 100 == 0:
            await settle()
    await settle()
    assert len(cable.queue) == queued
    sent = await cable.all_sent()
    answers = [(each.opcode, each.payload) for each in frames(sent[filling:])]
    assert answers == [(BINARY, bytes(1000)), (PONG, b"999")]


# -- closing ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("code", [1000, 1001, None])
@looped
async def test_orderly_close_codes_are_the_end_of_input(is_client: bool, code: int | None) -> None:
    cable, box = socket(is_client)
    cable.deliver(peers(is_client, b"last") + close(code, mask=None if is_client else MASK) + b"\xff" * 99)
    with pytest.raises(errors.IncompleteRead) as caught:
        await box.read_exactly(5)
    assert caught.value.partial == b"last"
    await settle()
    answer = frames(cable.sent())
    assert [(each.opcode, each.payload) for each in answer] == [
        (CLOSE, b"" if code is None else code.to_bytes(2, "big"))
    ]
    assert cable.eof_written
    assert not cable.aborted
    box.write(b"after the close frame nothing is sent")
    assert cable.sent() == b""
    cable.deliver_eof()
    assert cable.closing


@BOTH
@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
@looped
async def test_other_close_codes_are_errors_that_name_the_code(is_client: bool, code: int) -> None:
    cable, box = socket(is_client)
    mask = None if is_client else MASK
    cable.deliver(peers(is_client, b"data") + close(code, b"too bad", mask=mask))
    await settle()
    with pytest.raises(errors.ConnectionClosed, match=rf"code {code}, 'too bad'"):
        await box.read_exactly(5)
    assert [(each.opcode, each.payload) for each in frames(cable.sent())] == [
        (CLOSE, code.to_bytes(2, "big"))
    ]


@BOTH
@looped
async def test_an_orderly_end_sends_what_was_written_then_a_close_frame_then_fin(is_client: bool) -> None:
    cable, box = socket(is_client)
    box.insert(PlainChannel())
    box.write(b"last words")
    box.close()
    await settle()
    assert [(each.opcode, each.payload) for each in frames(cable.sent())] == [
        (BINARY, b"last words"),
        (CLOSE, (1000).to_bytes(2, "big")),
    ]
    assert cable.eof_written
    cable.deliver(close(1000, mask=None if is_client else MASK))  # the peer's answer is drained
    cable.deliver_eof()
    await settle()
    assert cable.sent() == b""
    assert cable.lost
    assert not cable.aborted


@looped
async def test_what_is_written_while_the_peers_close_is_told_still_leaves() -> None:
    """A layer above that ends on end of input gets its last words out in front of our close frame."""
    cable, box = socket(is_client=False)
    box.insert(PlainChannel())
    box.write(b"gathered")
    cable.deliver(close(1000, mask=MASK))
    await settle()
    assert [each.opcode for each in frames(cable.sent())] == [BINARY, CLOSE]


@looped
async def test_a_lost_layer_refuses_to_send() -> None:
    cable, box = socket(is_client=False)
    cable.abort()
    await settle()
    with pytest.raises(errors.ConnectionClosed):
        box.write(b"x")
    with pytest.raises(TypeError):
        WebsocketLayer()  # type: ignore[call-arg]


# -- records above it --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("size", [1, 90, 125 - 18, 126 - 18, 1000, 65519, 65519 * 3 + 5])
@looped
async def test_a_noise_record_leaves_as_one_frame_and_is_not_copied(is_client: bool, size: int) -> None:
    sender, out = socket(is_client)
    out.insert(NoiseChannel(KEY_A, KEY_B))
    reader, box = socket(not is_client)
    box.insert(NoiseChannel(KEY_B, KEY_A))
    plain = os.urandom(size)
    blocks = loop_state(sender.loop).num_free_records
    out.write(plain)
    raw = await sender.all_sent()
    assert loop_state(sender.loop).num_free_records <= blocks + 1  # only the record's own
    records = frames(raw)
    assert len(records) == -(-size // 65519)
    assert [len(each.payload) for each in records] == [
        min(65519, size - at) + 18 for at in range(0, size, 65519)
    ]
    reader.deliver(raw)
    got = b""
    while len(got) < size:
        got += await box.read(limits.MAILBOX_BYTES)
    assert got == plain


@looped
async def test_bytes_the_upgrade_left_go_through_the_layer_first() -> None:
    for chunks in cuts(peers(False, b"early")):
        cable = Cable()
        box = cable.mailbox
        cable.deliver(chunks[0])
        box.insert(WebsocketLayer(False))
        cable.deliver(*chunks[1:])
        assert await box.read_exactly(5) == b"early"


@BOTH
@looped
async def test_an_idle_layer_owns_no_buffer(is_client: bool) -> None:
    state = loop_state(Cable().loop)
    layers = [socket(is_client) for _ in range(20)]
    for cable, box in layers:
        box.write(b"out")
        cable.deliver(peers(is_client, b"in")[:-1])
    assert state.num_free_records == 1  # one served them all, and came back
    assert state.num_watched == 0


def test_the_limit_of_empty_frames_is_the_one_of_limits() -> None:
    code = """
        from _fast.websocket_frames import frame
        from p2pcore._fast.chain.websocket import WebsocketLayer
        cable = Cable()
        cable.mailbox.insert(WebsocketLayer(True))
        cable.deliver(frame() * 3)
        print(cable.aborted)
        cable.deliver(frame())
        print(cable.aborted)
    """
    assert with_limits(code, WEBSOCKET_MAX_EMPTY_FRAMES=3).split() == ["False", "True"]
