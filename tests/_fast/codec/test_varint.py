"""Varints: the published vectors, every way to cut the bytes, and nothing but the promised outcomes."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from harness import feeding
from p2pcore._fast.codec import varint
from p2pcore.errors import RemoteProtocolError

VECTORS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (255, "ff01"),
    (300, "ac02"),
    (16384, "808001"),
    (2**63 - 1, "ffffffffffffffff7f"),
]
MALFORMED = ["8100", "ffffffffffffffffff01", "80808080808080808001", "808000", "8080808080808080808080"]
CUT_SHORT = ["80", "", "ffffffffffffffff", "ff80"]


@pytest.mark.parametrize(("value", "encoded"), VECTORS)
def test_vectors_hold_both_ways(value: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert varint.encode(value) == data
    assert varint.decode(data) == (value, len(data))


@pytest.mark.parametrize(("value", "encoded"), VECTORS)
def test_decodes_from_any_pieces(value: int, encoded: str) -> None:
    for chunks, tail in feeding(bytes.fromhex(encoded)):
        held, found = b"", None
        for chunk in chunks:
            held += chunk
            found = found or varint.decode(held)
        assert found == (value, len(held) - len(tail))


@pytest.mark.parametrize("encoded", MALFORMED)
def test_overlong_and_padded_forms_are_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        varint.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("encoded", CUT_SHORT)
def test_wants_more_when_cut_short(encoded: str) -> None:
    assert varint.decode(bytes.fromhex(encoded)) is None


@pytest.mark.parametrize("value", [-1, 2**63, 2**64, 2**200])
def test_values_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        varint.encode(value)


@pytest.mark.parametrize("offset", [-1, 3])
def test_offsets_outside_the_data_are_refused(offset: int) -> None:
    with pytest.raises(ValueError, match="offset"):
        varint.decode(b"\x01\x02", offset)


def test_reads_any_buffer_from_an_offset() -> None:
    for data in (b"\xff\xac\x02\xff", bytearray(b"\xff\xac\x02\xff"), memoryview(b"\xff\xac\x02\xff")):
        assert varint.decode(data, 1) == (300, 3)
    assert varint.decode(b"\x01", 1) is None


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_within_other_bytes(value: int, before: bytes, after: bytes) -> None:
    encoded = varint.encode(value)
    assert len(encoded) <= 9
    assert varint.decode(before + encoded + after, len(before)) == (value, len(before) + len(encoded))


@given(st.binary(max_size=16))
def test_arbitrary_bytes_have_three_outcomes(data: bytes) -> None:
    try:
        found = varint.decode(data)
    except RemoteProtocolError:
        return
    if found is not None:
        assert varint.encode(found[0]) == data[: found[1]]
