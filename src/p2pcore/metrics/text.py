"""Prometheus' two text formats.

Comes in: families. Goes out: text, of the format 0.0.4 or of OpenMetrics 1.0. Never measures, never reorders.
Source: prometheus.io/docs/instrumenting/exposition_formats; the OpenMetrics specification, version 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from p2pcore.metrics.family import Buckets, Family, Value
from p2pcore.metrics.names import COUNTER

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_TOTAL = "_total"


def render(families: Iterable[Family], openmetrics: bool = False) -> str:
    """The text of `families`; each name must come once. A family without samples is left out."""
    lines: list[str] = []
    for each in families:
        if each.samples:
            lines += _head(each, openmetrics)
            lines += _lines(each)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""])


def content_type(openmetrics: bool) -> str:
    """What the header Content-Type says of `render`."""
    return OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE


def _head(each: Family, openmetrics: bool) -> tuple[str, str]:
    name, spec = each.name, each.spec
    if openmetrics and spec.kind == COUNTER:
        name = name.removesuffix(_TOTAL)
    help_text = spec.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {help_text}", f"# TYPE {name} {spec.kind}"


def _lines(each: Family) -> Iterator[str]:
    name = each.name
    for values, sample in each.samples.items():
        labels = ",".join(map(_label, each.labels, values))
        if isinstance(sample, Buckets):
            yield from _histogram(name, labels, sample)
        elif labels:
            yield f"{name}{{{labels}}} {_number(sample)}"
        else:
            yield f"{name} {_number(sample)}"


def _label(name: str, value: str) -> str:
    return f'{name}="{value.translate(_ESCAPED)}"'


def _histogram(name: str, labels: str, value: Buckets) -> Iterator[str]:
    before = f"{labels}," if labels else ""
    ends = [*map(repr, value.bounds), "+Inf"]
    for end, count in zip(ends, accumulate(value.counts), strict=True):
        yield f'{name}_bucket{{{before}le="{end}"}} {count}'
    braces = f"{{{labels}}}" if labels else ""
    yield f"{name}_sum{braces} {_number(value.sum)}"
    yield f"{name}_count{braces} {sum(value.counts)}"


def _number(value: Value) -> str:
    if value == float("inf"):
        return "+Inf"
    return repr(value)


def size_of(families: Iterable[Family]) -> int:
    """The number of series."""
    return sum(_series(sample) for each in families for sample in each.samples.values())


def _series(sample: Value) -> int:
    return len(sample.counts) + 2 if isinstance(sample, Buckets) else 1
