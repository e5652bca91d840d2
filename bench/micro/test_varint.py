"""Varints from Python, beside the `varint` package that `multiaddr` brings.

Comes in: values of one to nine bytes. Goes out: time of one conversion; the size in the id.
"""

from __future__ import annotations

from typing import Any

import pytest

from p2pcore._fast.codec import varint

VALUES = {"1B": 5, "2B": 300, "4B": 7367777, "9B": 2**63 - 1}
by_value = pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))


@by_value
def test_encode(benchmark: Any, value: int) -> None:
    benchmark.group = "varint encode"
    assert benchmark(varint.encode, value) == varint.encode(value)


@by_value
def test_decode(benchmark: Any, value: int) -> None:
    benchmark.group = "varint decode"
    data = varint.encode(value)
    assert benchmark(varint.decode, data) == (value, len(data))


@by_value
def test_encode_with_the_varint_package(benchmark: Any, value: int) -> None:
    package = pytest.importorskip("varint")
    benchmark.group = "varint encode"
    assert benchmark(package.encode, value) == varint.encode(value)


@by_value
def test_decode_with_the_varint_package(benchmark: Any, value: int) -> None:
    package = pytest.importorskip("varint")
    benchmark.group = "varint decode"
    assert benchmark(package.decode_bytes, varint.encode(value)) == value
