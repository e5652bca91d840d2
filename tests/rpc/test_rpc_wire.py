"""The messages of calls: the vectors of docs/rpc.md, and what is refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from harness import feeding, run
from p2pcore import IncompleteRead, LimitExceeded, RemoteProtocolError, limits
from p2pcore.codes import RpcCode
from p2pcore.errors import RpcError, rpc_error
from p2pcore.rpc import wire

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "rpc.md"


class Fed:
    """A stream that gives bytes in pieces, and counts what a read asks for."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = list(pieces)
        self.held = bytearray()

    async def read_exactly(self, n: int, most: int = 1 << 18) -> bytes:
        assert n <= most
        while len(self.held) < n and self._pieces:
            self.held += self._pieces.pop(0)
            await asyncio.sleep(0)
        if len(self.held) < n:
            raise IncompleteRead(bytes(self.held), n)
        got = bytes(self.held[:n])
        del self.held[:n]
        return got

    @property
    def rest(self) -> bytes:
        return bytes(self.held) + b"".join(self._pieces)


def read(data: bytes, most: int = 1 << 20) -> tuple[int, bytes]:
    stream: Any = Fed([data])
    return run(wire.read_answer(stream, most))


REQUESTS = {
    "add, no deadline": ((b"add", b"\x01\x02", None), "00 03 00000000 00000002 616464 0102"),
    "add, 1.5 s left": ((b"add", b"\x01\x02", 1.5), "00 03 000005dc 00000002 616464 0102"),
    "an empty request": ((b"now", b"", 0.0001), "00 03 00000001 00000000 6e6f77"),
}
ANSWERS = {
    "an answer": (wire.pack_answer(wire.RESULT, b"\x03"), "00 00000001 03"),
    "an item": (wire.pack_answer(wire.ITEM, b"tea"), "01 00000003 746561"),
    "the end of items": (wire.pack_answer(wire.END), "02 00000000"),
    "an error": (wire.pack_error(rpc_error(RpcCode.NOT_FOUND, "no tea")), "03 00000007 05 6e6f20746561"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_packed_as_the_vectors_say(name: str) -> None:
    (method, body, left_s), expected = REQUESTS[name]
    packed = b"".join(wire.pack_request(method, body, left_s))
    assert packed == bytes.fromhex(expected)
    size, left, length = wire.unpack_request_head(packed[: wire.REQUEST.size])
    assert (size, length) == (len(method), len(body))
    assert left == (None if left_s is None else max(0.001, left_s))


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_packed_as_the_vectors_say(name: str) -> None:
    packed, expected = ANSWERS[name]
    assert b"".join(packed) == bytes.fromhex(expected)


@pytest.mark.source
def test_the_document_has_every_vector() -> None:
    text = re.sub(r"\s", "", DOCUMENT.read_text())
    for _, expected in (*REQUESTS.values(), *ANSWERS.values()):
        assert expected.replace(" ", "") in text


@pytest.mark.parametrize("kind", [wire.RESULT, wire.ITEM])
def test_an_answer_is_read_however_it_is_cut_and_nothing_behind_it(kind: int) -> None:
    for chunks, tail in feeding(b"".join(wire.pack_answer(kind, b"some answer"))):
        stream: Any = Fed(chunks)
        assert run(wire.read_answer(stream, 11)) == (kind, b"some answer")
        assert stream.rest == tail


def test_an_error_is_raised_with_its_code_and_its_text() -> None:
    with pytest.raises(RpcError) as caught:
        read(b"".join(wire.pack_error(rpc_error(RpcCode.ABORTED, "während"))))
    assert (caught.value.code, caught.value.message) == (RpcCode.ABORTED, "während")
    with pytest.raises(RpcError) as caught:
        read(bytes.fromhex("03 00000003 c8 ff fe"))
    assert (caught.value.code, caught.value.message) == (RpcCode.UNKNOWN, "\ufffd\ufffd")


def test_the_text_of_an_error_is_cut_at_its_bound() -> None:
    with pytest.raises(RpcError) as caught:
        read(b"".join(wire.pack_error(rpc_error(RpcCode.INTERNAL, "x" * 10_000))))
    assert len(caught.value.message) == limits.RPC_MAX_ERROR_BYTES


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("04 00000000", "kind 4"),
        ("ff ffffffff", "kind 255"),
        ("02 00000001 00", "kind 2 with 1 bytes"),
        ("03 00000000", "an error of 0 bytes"),
        ("03 00001002", "an error of 4098 bytes"),
        ("03 ffffffff", "an error of 4294967295 bytes"),
    ],
)
def test_what_is_no_answer_is_refused_before_its_body_comes(data: str, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        read(bytes.fromhex(data))


def test_an_answer_that_is_too_large_is_refused_before_its_body_comes() -> None:
    with pytest.raises(LimitExceeded) as caught:
        read(bytes.fromhex("00 00000401"), most=1024)
    assert (caught.value.used, caught.value.maximum) == (1025, 1024)


def test_an_end_before_an_answer_has_no_part_and_one_within_it_has() -> None:
    for data in (b"", b"\x00", bytes.fromhex("00 00000004"), bytes.fromhex("00 00000004 aabb")):
        with pytest.raises(IncompleteRead) as caught:
            read(data)
        assert caught.value.partial == data


@pytest.mark.parametrize(
    ("head", "words"),
    [("01 03 00000000 00000000", "flags 0x01"), ("00 00 00000000 00000000", "names no method")],
)
def test_what_is_no_head_of_a_request_is_refused(head: str, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        wire.unpack_request_head(bytes.fromhex(head))


@given(st.binary(max_size=40))
def test_any_bytes_are_an_answer_or_a_typed_error(data: bytes) -> None:
    try:
        kind, body = read(data)
    except (RpcError, RemoteProtocolError, LimitExceeded, IncompleteRead):
        return
    assert b"".join(wire.pack_answer(kind, body)) == data[: 5 + len(body)]


@given(st.binary(min_size=10, max_size=10))
def test_any_bytes_are_the_head_of_a_request_or_a_typed_error(data: bytes) -> None:
    try:
        size, left_s, length = wire.unpack_request_head(data)
    except RemoteProtocolError:
        return
    left_ms = 0 if left_s is None else round(left_s * 1000)
    assert wire.REQUEST.pack(0, size, left_ms, length) == data


def test_a_large_message_is_not_copied_and_a_small_one_is_one_write() -> None:
    large = bytes(100_000)
    assert len(wire.pack_answer(wire.RESULT, b"small")) == len(wire.pack_request(b"m", b"small", None)) == 1
    assert wire.pack_answer(wire.RESULT, large)[1] is large
    assert wire.pack_request(b"m", large, None)[1] is large
