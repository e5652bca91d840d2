"""Histograms and rows: what the paths of connections and streams write.

Comes in: values at and beside the ends of buckets. Goes out: counts.
"""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest

from p2pcore._fast.loop.metrics import ConnRow, ConnRows, Histogram, Protocols, Traffic


def test_a_value_falls_into_the_first_bucket_whose_end_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1, 10))
    for value in (0.05, 0.1, 0.10001, 1, 9.9, 10, 11, 1e300, math.inf):
        histogram.observe(value)
    counts, total = histogram.read()
    assert counts == [2, 2, 2, 3]
    assert total == math.inf


@pytest.mark.parametrize("value", [-1.0, -math.inf, math.nan, -0.0])
def test_what_is_no_time_counts_as_zero(value: float) -> None:
    histogram = Histogram((1,))
    histogram.observe(value)
    assert histogram.read() == ([1, 0], 0.0)


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1), (1, math.nan, 2)])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Histogram(bounds)


class Addr:
    """An address that begins with a code."""

    def __init__(self, code: int, fourth: int = 0) -> None:
        self._bytes = bytes([code, 1, 2, fourth])

    def to_bytes(self) -> bytes:
        return self._bytes


class Made:
    """A connection: the first byte of its address, and the kind of its peer's key."""

    kind = "a"

    def __init__(self, code: int | None, key_type: int = 1, is_inline: bool = True) -> None:
        self.remote_multiaddr = None if code is None else Addr(code)
        self.remote_peer = Addr(0, key_type) if is_inline else Addr(18, 99)
        self.remote_public_key = SimpleNamespace(type=key_type)


class Maker:
    """Makes rows, and counts them."""

    def __init__(self) -> None:
        self.made: list[tuple[object, int]] = []

    def __call__(self, kind: object, version: int) -> ConnRow:
        self.made.append((kind, version))
        return ConnRow((str(kind), str(version)), (1, 2))


def test_connections_find_the_row_of_their_kind_and_ip_version() -> None:
    maker = Maker()
    rows = ConnRows(maker, (1,), 2)
    for code in (4, 41, 42, 53, None, 4):
        rows.add(Made(code), "a")
    assert maker.made == [("a", 0), ("a", 1), ("a", 2)]
    rows.add(Made(None), "b")
    rows.add(Made(None), "c")  # one kind more than are remembered
    rows.add(Made(None), "a")
    assert maker.made[3:] == [("b", 2), ("c", 2), ("a", 2)]


def test_a_row_counts_what_opens_ends_and_is_dialled() -> None:
    row = ConnRow(("inbound",), (1, 2))
    rows = ConnRows(lambda kind, version: row, (5,), 1)
    for key_type in (0, 1, 1, 3, 4, 5, 200):
        rows.add(Made(None, key_type), "a")
    rows.add(Made(None, 2, is_inline=False), "a")
    rows.left(Made(None), "a", time.monotonic() - 1.5)
    assert row.handshakes is None
    rows.dialled(Made(None), time.monotonic() - 60)
    assert (row.labels, row.opened, row.closed) == (("inbound",), 8, 1)
    assert row.key_types == [1, 2, 1, 1, 3]
    assert row.durations.read()[1] >= 1.5
    assert row.handshakes.read()[0] == [0, 1]


def test_no_duration_is_negative() -> None:
    row = ConnRow(("inbound",), (1, 2))
    rows = ConnRows(lambda kind, version: row, (5,), 1)
    rows.left(Made(None), "a", time.monotonic() + 100)
    assert row.durations.read() == ([1, 0, 0], 0.0)


def test_protocols_beyond_the_bound_share_a_row() -> None:
    protocols = Protocols("inbound", 2, "other")
    rows = [protocols.row(name) for name in ("/a", "/b", "/c", "/d", "/a")]
    assert rows[0] is rows[4]
    assert rows[2] is rows[3] is protocols.row("other")
    assert [row.labels for row in protocols.by_name().values()] == [
        ("inbound", "/a"),
        ("inbound", "/b"),
        ("inbound", "other"),
    ]


def test_a_row_of_one_stream_starts_at_zero() -> None:
    row = Traffic(("inbound", "/x"))
    one = row.apart()
    assert (one.labels, one.opened, one.received) == (row.labels, 0, 0)
