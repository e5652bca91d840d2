"""The metrics of a host as observable instruments of OpenTelemetry.

Comes in: a host, a MeterProvider. Goes out: instruments whose callbacks read the host when the SDK exports.
Nothing happens between exports. Needs opentelemetry-api; without an SDK the API takes no measurements.

OpenTelemetry has no observable histogram, so a histogram becomes two counters: NAME_count and NAME_sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from p2pcore.metrics.family import Buckets, Family, Value
from p2pcore.metrics.names import COUNTER, HISTOGRAM, SPECS, Spec
from p2pcore.values.version import __version__

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ImportError as error:
    raise ImportError(
        "p2pcore.contrib.otel needs opentelemetry-api: pip install opentelemetry-api"
    ) from error

if TYPE_CHECKING:
    from p2pcore.host import Host

_Callback = Callable[[CallbackOptions], Iterable[Observation]]


def instrument(host: Host, meter_provider: MeterProvider | None = None, name: str = "") -> None:
    """Makes the instruments of `host`. Call it once for each host, while its event loop runs.

    Args:
        host: its metrics are read in the thread that exports.
        meter_provider: None: the global one.
        name: if given, each observation has the attribute `host`.
    """
    attributes = {"host": name} if name else {}
    provider = meter_provider or get_meter_provider()
    meter = provider.get_meter("p2pcore", __version__, attributes=attributes)  # each host needs its own
    host.metrics.lag.begin()
    source = _Source(host, attributes)
    for metric, spec in SPECS.items():
        if metric.startswith("process_"):
            continue
        if spec.kind == HISTOGRAM:
            meter.create_observable_counter(f"{metric}_count", [source.of(metric, _count)], "1", spec.help)
            meter.create_observable_counter(
                f"{metric}_sum", [source.of(metric, _sum)], _unit(metric), spec.help
            )
        else:
            _create(meter, metric, spec, source.of(metric, _plain))


def _create(meter: Any, metric: str, spec: Spec, callback: _Callback) -> None:
    make = meter.create_observable_counter if spec.kind == COUNTER else meter.create_observable_gauge
    make(metric, [callback], _unit(metric), spec.help)


def _unit(metric: str) -> str:
    base = metric.removesuffix("_total")
    return "s" if base.endswith("_seconds") else "By" if base.endswith("_bytes") else "1"


class _Source:
    """Reads a host once for all callbacks of one export."""

    def __init__(self, host: Host, attributes: dict[str, str]) -> None:
        self._host = host
        self._attributes = attributes
        self._families: dict[str, Family] = {}
        self._given: set[str] = set()

    def of(self, metric: str, value: Callable[[Value], float]) -> _Callback:
        """The callback of one instrument."""
        key = f"{metric} {value.__name__}"

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for labels, sample in self._read(key, metric):
                yield Observation(value(sample), labels)

        return observe

    def _read(self, key: str, metric: str) -> Iterator[tuple[dict[str, str], Value]]:
        if key in self._given or not self._families:  # the first callback, or the next export
            self._families = {each.name: each for each in self._host.metrics.own_families()}
            self._given.clear()
        self._given.add(key)
        if (found := self._families.get(metric)) is not None:
            for values, sample in found.samples.items():
                yield dict(zip(found.labels, values, strict=True)) | self._attributes, sample


def _plain(sample: Value) -> float:
    assert not isinstance(sample, Buckets)
    return sample


def _count(sample: Value) -> float:
    assert isinstance(sample, Buckets)
    return sum(sample.counts)


def _sum(sample: Value) -> float:
    assert isinstance(sample, Buckets)
    return sample.sum
