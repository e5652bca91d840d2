"""The two text formats, read by the parser of prometheus_client.

Comes in: families, a host's and made ones. Goes out: what another program understands of their text.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from harness import looped
from hosts import pair
from p2pcore.metrics.family import Buckets, Family, added, by_host, family, from_json, to_json
from p2pcore.metrics.names import DIALS_S, HANDSHAKES_S
from p2pcore.metrics.text import render, size_of

STRANGE = 'quote " back \\ line \n ünïcødé 漢'


@pytest.mark.parametrize("openmetrics", [False, True])
@looped
async def test_another_parser_reads_what_a_host_shows(openmetrics: bool) -> None:
    async with pair({"echo": True, "identify": True}) as both:
        await both.dialer.echo(both.conn, b"x")
        for host in (both.server, both.dialer):
            families = host.metrics.families()
            text = render(families, openmetrics)
            parsed = list((parse_openmetrics if openmetrics else parse_text)(text))
            samples = sum(len(each.samples) for each in parsed)
            assert samples == size_of(families)
            kinds = {each.name.removesuffix("_total"): each.spec.kind for each in families if each.samples}
            assert {each.name: each.type for each in parsed} == kinds
            for mark in ("# HELP ", "# TYPE "):
                names = Counter(line.split()[2] for line in text.splitlines() if line.startswith(mark))
                assert set(names.values()) == {1}
                assert len(names) == len(kinds)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_label_values_are_escaped(openmetrics: bool) -> None:
    text = render([family("p2pcore_trimmed_total", {(STRANGE,): 1})], openmetrics)
    (parsed,) = (parse_openmetrics if openmetrics else parse_text)(text)
    assert parsed.samples[0].labels == {"reason": STRANGE}
    assert text.encode().decode() == text
    assert all("\n" not in line for line in text.split("\n"))


def test_buckets_are_added_up_and_end_with_infinity() -> None:
    value = Buckets((0.5, 1.0), (1, 2, 3), 7.5)
    lines = render([family("p2pcore_loop_lag_seconds", value)]).splitlines()
    assert lines[2:] == [
        'p2pcore_loop_lag_seconds_bucket{le="0.5"} 1',
        'p2pcore_loop_lag_seconds_bucket{le="1.0"} 3',
        'p2pcore_loop_lag_seconds_bucket{le="+Inf"} 6',
        "p2pcore_loop_lag_seconds_sum 7.5",
        "p2pcore_loop_lag_seconds_count 6",
    ]


def test_openmetrics_ends_with_eof_and_names_counters_without_total() -> None:
    text = render([family("p2pcore_trimmed_total", {("marks",): 3})], True)
    assert text.splitlines()[1:] == [
        "# TYPE p2pcore_trimmed counter",
        'p2pcore_trimmed_total{reason="marks"} 3',
        "# EOF",
    ]


def test_a_family_without_samples_is_left_out() -> None:
    assert render([family("p2pcore_trimmed_total", {})]) == ""


def test_buckets_are_those_of_go() -> None:
    assert len(HANDSHAKES_S) == 35
    assert HANDSHAKES_S[:3] == (0.001, 0.0013000000000000002, 0.0016900000000000003)
    assert DIALS_S[-1] == 2.0


def test_families_of_the_same_name_are_added() -> None:
    one = family("p2pcore_trimmed_total", {("marks",): 1, ("idle",): 2})
    two = family("p2pcore_trimmed_total", {("marks",): 10})
    lag = family("p2pcore_loop_lag_seconds", Buckets((1.0,), (1, 2), 3.0))
    sums = added([one, lag, two, lag])
    assert sums[0].samples == {("marks",): 11, ("idle",): 2}
    assert sums[1].samples == {(): Buckets((1.0,), (2, 4), 6.0)}
    assert one.samples[("marks",)] == 1, "a sum changes no family"
    with pytest.raises(ValueError, match="labels"):
        added([one, one.labelled("worker", "0")])


def test_hosts_have_names_or_there_is_one() -> None:
    one = [family("p2pcore_stream_handlers", 1)]
    assert by_host({"": one}) == one
    named = by_host({"a": one, "b": one})
    assert named == [Family("p2pcore_stream_handlers", ("host",), {("a",): 1, ("b",): 1})]
    with pytest.raises(ValueError, match="needs a name"):
        by_host({"": one, "b": one})


@looped
async def test_json_carries_every_family() -> None:
    async with pair() as both:
        families = both.server.metrics.families()
        assert from_json(json.loads(json.dumps(to_json(families)))) == families


@pytest.mark.parametrize("bad", [[["unknown", [], []]], [["process_open_fds", [], [[[], "x"]]]], [1]])
def test_json_that_is_no_family_is_refused(bad: list[object]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        from_json(bad)


def test_a_series_costs_a_few_calls() -> None:
    """A millisecond for 300 series is 3 us each: about 30 calls. Calls do not depend on the machine."""
    samples = {(f"/protocol/{number}",): number for number in range(300)}
    families = [family("p2pcore_handler_errors_total", samples)]
    calls = Counter[str]()
    sys.setprofile(lambda frame, event, arg: calls.update([event]))
    try:
        render(families)
    finally:
        sys.setprofile(None)
    assert calls["call"] + calls["c_call"] <= 12 * 300
