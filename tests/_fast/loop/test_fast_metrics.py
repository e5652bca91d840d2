"""Histograms and rows: what the paths of connections and streams write.

Comes in: values at and beside the ends of buckets. Goes out: counts.
"""

from __future__ import annotations

import math

import pytest

from p2pcore._fast.loop.metrics import ConnRow, Histogram, Traffic


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


def test_a_row_of_connections_counts_what_opens_and_what_ends() -> None:
    row = ConnRow(("inbound",), (1, 2))
    for _ in range(3):
        row.add()
    row.end(1.5)
    assert (row.labels, row.opened, row.closed) == (("inbound",), 3, 1)
    assert row.durations.read() == ([0, 1, 0], 1.5)


def test_a_row_of_one_stream_starts_at_zero() -> None:
    row = Traffic(("inbound", "/x"))
    one = row.apart()
    assert (one.labels, one.opened, one.received) == (row.labels, 0, 0)
