"""Text encodings of bytes: published vectors, the standard library as a second opinion, bad input."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, strategies as st

from p2pcore._fast.codec import multibase as base
from p2pcore.errors import IdentityError

PREFIXES = "079fFbBcCvVtThkKzZmMuU"
NUMBERS = "9kKzZ"  # bases that are no power of two: bounded

# The "yes mani !" family of the multibase test suite, and strings with leading zero bytes.
MANI = b"yes mani !"
VECTORS = [
    (MANI, "001111001011001010111001100100000011011010110000101101110011010010010000000100001"),
    (MANI, "7362625631006654133464440102"),
    (MANI, "9573277761329450583662625"),
    (MANI, "f796573206d616e692021"),
    (MANI, "F796573206D616E692021"),
    (MANI, "bpfsxgidnmfxgsibb"),
    (MANI, "BPFSXGIDNMFXGSIBB"),
    (MANI, "vf5in683dc5n6i811"),
    (MANI, "VF5IN683DC5N6I811"),
    (MANI, "cpfsxgidnmfxgsibb"),
    (MANI, "tf5in683dc5n6i811"),
    (MANI, "hxf1zgedpcfzg1ebb"),
    (MANI, "k2lcpzo5yikidynfl"),
    (MANI, "K2LCPZO5YIKIDYNFL"),
    (MANI, "z7paNL19xttacUY"),
    (MANI, "Z7Pznk19XTTzBtx"),
    (MANI, "meWVzIG1hbmkgIQ"),
    (MANI, "MeWVzIG1hbmkgIQ=="),
    (MANI, "ueWVzIG1hbmkgIQ"),
    (MANI, "UeWVzIG1hbmkgIQ=="),
    (b"\x00" + MANI, "z17paNL19xttacUY"),
    (b"\x00\x00" + MANI, "z117paNL19xttacUY"),
    (b"\x00\x00" + MANI, "k002lcpzo5yikidynfl"),
    (b"", "z"),
    (b"", "b"),
    (b"\x00", "z1"),
]
MALFORMED = [
    "",  # no prefix
    "?abc",  # no such prefix
    "é1",
    "zO",  # letters base58 leaves out
    "zI",
    "z0",
    "zl",
    "z1 ",
    "b0",  # digits base32 leaves out
    "b1",
    "ba",  # one digit makes no byte
    "baaa",
    "baaaaaa",
    "baa======",  # padding where there is none
    "caa",  # none where there should be
    "caa=====",
    "caa=======",
    "caaaaaaaa========",
    "faa0",  # half a byte
    "fgg",
    "ma",
    "maa==",
    "Maa",
    "Maa=",
    "Maa=a",
    "MAAAA====",
    "mA-A_",  # the other base64
    "uA+A/",
    "mAA\n",
    "02",
    "78",
    "9a",
    "k-",
    "z\x00",
    "zé",
]


@pytest.mark.parametrize(("data", "text"), VECTORS)
def test_vectors_hold_both_ways(data: bytes, text: str) -> None:
    assert base.encode(text[0], data) == text
    assert base.decode(text) == data


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        base.decode(text)


@pytest.mark.parametrize(("text", "data"), [("fAbCd", b"\xab\xcd"), ("BpFsXgIdNmFxGsIbB", MANI)])
def test_case_is_ignored_where_the_alphabet_has_one(text: str, data: bytes) -> None:
    assert base.decode(text) == data


def test_unused_bits_of_the_last_digit_are_ignored() -> None:
    assert base.decode("bpfsxgidnmfxgsibb") == base.decode("BPFSXGIDNMFXGSIBB")
    assert base.decode("mAA") == base.decode("mAB") == b"\x00"


def test_base58_without_prefix() -> None:
    assert base.encode58(b"\x00\x01") == "12"
    assert base.decode58("12") == b"\x00\x01"
    with pytest.raises(IdentityError):
        base.decode58("0")


@pytest.mark.parametrize("prefix", NUMBERS)
def test_quadratic_bases_are_bounded(prefix: str) -> None:
    longest = b"\xff" * 160
    assert base.decode(base.encode(prefix, longest)) == longest
    with pytest.raises(IdentityError):
        base.encode(prefix, b"\xff" * 161)
    with pytest.raises(IdentityError):
        base.decode(prefix + "9" * 100_000)


@pytest.mark.parametrize("prefix", NUMBERS)
def test_what_could_not_be_written_in_a_quadratic_base_is_not_read(prefix: str) -> None:
    zero = base.encode(prefix, b"\0")[1:]
    assert base.decode(prefix + zero * 160) == bytes(160)
    for text in (zero * 161, zero * 160 + "2", zero + base.encode(prefix, b"\xff" * 160)[1:]):
        with pytest.raises(IdentityError):
            base.decode(prefix + text)


@pytest.mark.parametrize("prefix", ["", "bb", "é", "?", "\ud800"])
def test_unknown_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(IdentityError):
        base.encode(prefix, b"abc")


@given(st.sampled_from(PREFIXES), st.binary(max_size=160))
def test_round_trip(prefix: str, data: bytes) -> None:
    assert base.decode(base.encode(prefix, data)) == data


@given(st.binary(max_size=100))
def test_agrees_with_the_standard_library(data: bytes) -> None:
    assert base.encode("f", data) == "f" + data.hex()
    assert base.encode("C", data) == "C" + base64.b32encode(data).decode()
    assert base.encode("T", data) == "T" + base64.b32hexencode(data).decode()
    assert base.encode("M", data) == "M" + base64.b64encode(data).decode()
    assert base.encode("U", data) == "U" + base64.urlsafe_b64encode(data).decode()
    assert base.encode("9", data).lstrip("90") == str(int.from_bytes(data)).lstrip("90")


@given(st.sampled_from(PREFIXES), st.text(max_size=60) | st.text("01aAzZ=", max_size=60))
def test_arbitrary_text_gives_bytes_or_one_error(prefix: str, text: str) -> None:
    try:
        data = base.decode(prefix + text)
    except IdentityError:
        return
    assert base.decode(base.encode(prefix, data)) == data
