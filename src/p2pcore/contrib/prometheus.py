"""The metrics of hosts in a registry of prometheus_client, beside those of the program.

Comes in: hosts. Goes out: a collector, which reads them at each scrape. Nothing happens between scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from p2pcore.metrics.family import Buckets, Family, Value, by_host
from p2pcore.metrics.names import COUNTER, HISTOGRAM

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector as _Collector
except ImportError as error:
    raise ImportError(
        "p2pcore.contrib.prometheus needs prometheus_client: pip install prometheus-client"
    ) from error

if TYPE_CHECKING:
    from p2pcore.host import Host


class Collector(_Collector):
    """Give it to a registry while the event loop runs: `REGISTRY.register(Collector(host))`.

    The metrics of the process are left out, because prometheus_client has them itself.

    Args:
        hosts: a host, or several by name. With names, each sample has a label `host`. A registry takes one
            Collector, so give it all hosts of the process at once.
    """

    def __init__(self, hosts: Host | Mapping[str, Host]) -> None:
        self._hosts = dict(hosts) if isinstance(hosts, Mapping) else {"": hosts}

    def describe(self) -> Iterable[Metric]:
        """The same as `collect`: names and kinds."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The families of all hosts. It may run in any thread."""
        for each in by_host({name: host.metrics.own_families() for name, host in self._hosts.items()}):
            yield _metric(each)


def _metric(each: Family) -> Metric:
    spec, labels = each.spec, list(each.labels)
    if spec.kind == HISTOGRAM:
        histogram = HistogramMetricFamily(each.name, spec.help, labels=labels)
        for values, sample in each.samples.items():
            assert isinstance(sample, Buckets)
            histogram.add_metric(list(values), _cumulated(sample), sample.sum)
        return histogram
    kind = CounterMetricFamily if spec.kind == COUNTER else GaugeMetricFamily
    metric = kind(each.name, spec.help, labels=labels)
    for values, sample in each.samples.items():
        metric.add_metric(list(values), _plain(sample))
    return metric


def _cumulated(sample: Buckets) -> list[tuple[str, float]]:
    ends = [*map(repr, sample.bounds), "+Inf"]
    return list(zip(ends, accumulate(sample.counts), strict=True))


def _plain(sample: Value) -> float:
    assert not isinstance(sample, Buckets)
    return sample
