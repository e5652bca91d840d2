"""The metrics of all workers together, as their supervisor shows them.

Comes in: the families of each worker, asked for over its channel at each scrape. Goes out: counters and
histograms added up, gauges with a label `worker`. No counter falls: what a worker that has ended told last is
kept, and so is what a worker told before it stopped answering.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.metrics import text
from p2pcore.metrics.family import Family, added, family, from_json
from p2pcore.metrics.names import GAUGE
from p2pcore.metrics.process import process_families

if TYPE_CHECKING:
    from p2pcore.workers.process import Process

_SUPERVISOR = "supervisor"


class FleetMetrics:
    """See above.

    Args:
        processes: gives the worker processes that there are now. dropped: messages that they have lost.
    """

    def __init__(self, processes: Callable[[], Collection[Process]], dropped: Callable[[], int]) -> None:
        self._processes = processes
        self._dropped = dropped
        self._latest: dict[Process, list[Family]] = {}
        self._base: list[Family] = []  # what workers that have ended have counted
        self._waiting: dict[Process, list[asyncio.Future[None]]] = {}
        self._num_started = 0

    async def text(self, openmetrics: bool = False) -> str:
        """See HostMetrics.text. Takes up to limits.WORKER_METRICS_S if a worker does not answer."""
        return text.render(await self.families(), openmetrics)

    async def families(self) -> list[Family]:
        """The sums, with the metrics of the supervisor's own process."""
        own = [_by_worker(each, _SUPERVISOR) for each in process_families()]
        return added([*await self.own_families(), *own])

    async def own_families(self) -> list[Family]:
        """The sums, without those of this process."""
        asked = [each for each in self._processes() if each.is_ready and not each.ended.done()]
        answers = await asyncio.gather(*map(self._ask, asked))
        answered = {process for process, has_come in zip(asked, answers, strict=True) if has_come}
        found = [*self._base, family("p2pcore_worker_starts_total", self._num_started)]
        names = _names(asked)
        found.append(family("p2pcore_worker_messages_dropped_total", self._dropped()))
        for process, families in self._latest.items():
            found += _told(families, process, names[process] if process in answered else None)
        for process in asked:
            up = family("p2pcore_worker_up", int(process in answered))
            found.append(up.labelled("worker", names[process]))
        return added(found)

    async def _ask(self, process: Process) -> bool:
        """Whether `process` has told its metrics in time."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(process, []).append(answer)
        process.ask_metrics()
        either: list[asyncio.Future[Any]] = [answer, process.ended]
        await asyncio.wait(either, timeout=limits.WORKER_METRICS_S, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            self._waiting.get(process, [answer]).remove(answer)
        return answer.done()

    # -- what workers tell ---------------------------------------------------------------------

    def started(self, process: Process) -> None:
        """`process` serves."""
        self._num_started += 1
        process.ended.add_done_callback(lambda _: self._ended(process))

    def heard(self, process: Process, families: Any) -> None:
        """`process` has told its metrics. Raises KeyError, TypeError, ValueError: they are malformed."""
        self._latest[process] = from_json(families)
        for answer in self._waiting.pop(process, ()):
            if not answer.done():
                answer.set_result(None)

    def _ended(self, process: Process) -> None:
        self._waiting.pop(process, None)
        families = self._latest.pop(process, ())
        self._base = added([*self._base, *_told(families, process, None)])


def _told(families: Iterable[Family], process: Process, name: str | None) -> Iterator[Family]:
    """What counts of the families of one worker. `name`: the label of its gauges; None: they are too old."""
    for each in families:
        if each.spec.kind != GAUGE:
            yield _by_worker(each, str(process.index))
        elif name is not None:
            yield _by_worker(each, name)


def _by_worker(each: Family, name: str) -> Family:
    return each.labelled("worker", name) if each.spec.is_each else each


def _names(processes: Collection[Process]) -> dict[Process, str]:
    """The label of each worker. One that drains while another has its place is told apart."""
    places = Counter(each.index for each in processes)
    return {
        each: f"{each.index} draining" if each.is_draining and places[each.index] > 1 else str(each.index)
        for each in processes
    }
