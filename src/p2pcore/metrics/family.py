"""A metric with its samples, as every exposition and every sum takes it.

Comes in: label values and numbers. Goes out: Family objects, their sums, and a form that JSON can hold. Never
measures anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from p2pcore.metrics.names import SPECS, Spec


@dataclass(frozen=True, slots=True)
class Buckets:
    """The value of a histogram.

    Attributes:
        bounds: the upper ends. counts: of each bucket, not added up; one more than bounds.
        sum: of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    def __add__(self, other: Buckets) -> Buckets:
        counts = tuple(map(sum, zip(self.counts, other.counts, strict=True)))
        return Buckets(self.bounds, counts, self.sum + other.sum)


Value = int | float | Buckets
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: a key of names.SPECS. labels: the names of the labels.
        samples: values by the values of the labels.
    """

    name: str
    labels: Labels
    samples: dict[Labels, Value] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """Kind, labels and help."""
        return SPECS[self.name]

    def labelled(self, label: str, value: str) -> Family:
        """The same samples with one label more, in front."""
        return Family(
            self.name,
            (label, *self.labels),
            {(value, *values): sample for values, sample in self.samples.items()},
        )


def family(name: str, samples: Mapping[Any, Value] | Value) -> Family:
    """A family of the table. `samples`: by label values; a single value if there are no labels."""
    by_labels: dict[Labels, Value] = dict(samples) if isinstance(samples, Mapping) else {(): samples}
    return Family(name, SPECS[name].labels, by_labels)


def added(families: Iterable[Family]) -> list[Family]:
    """One family of each name, in order. Samples with the same labels are added."""
    found: dict[str, Family] = {}
    for each in families:
        sums = found.setdefault(each.name, Family(each.name, each.labels))
        if sums.labels != each.labels:
            raise ValueError(f"{each.name} has the labels {sums.labels} and {each.labels}")
        for values, sample in each.samples.items():
            before = sums.samples.get(values)
            sums.samples[values] = sample if before is None else before + sample  # type: ignore[operator]
    return list(found.values())


def by_host(hosts: Mapping[str, Iterable[Family]]) -> list[Family]:
    """The families of several hosts, with a label `host`. A host named "" has no such label."""
    if "" in hosts and len(hosts) > 1:
        raise ValueError("each of several hosts needs a name")
    families = (each if not name else each.labelled("host", name) for name in hosts for each in hosts[name])
    return added(families)


# -- JSON --------------------------------------------------------------------------------------


def to_json(families: Iterable[Family]) -> list[Any]:
    """The same as lists and numbers. `from_json` reads it in a process of the same version."""
    return [
        [each.name, list(each.labels), [[list(key), _plain(value)] for key, value in each.samples.items()]]
        for each in families
    ]


def from_json(data: Sequence[Any]) -> list[Family]:
    """The families of `to_json`. Raises KeyError, ValueError, TypeError: it is something else."""
    families = []
    for name, labels, samples in data:
        SPECS[name]
        found = {tuple(key): _value(value) for key, value in samples}
        families.append(Family(name, tuple(labels), found))
    return families


def _plain(value: Value) -> Any:
    if isinstance(value, Buckets):
        return [value.bounds, value.counts, value.sum]
    return value


def _value(data: Any) -> Value:
    if isinstance(data, list):
        bounds, counts, total = data
        return Buckets(tuple(bounds), tuple(counts), total)
    if isinstance(data, (int, float)):
        return data
    raise ValueError(f"{data!r} is not a number")
