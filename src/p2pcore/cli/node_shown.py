"""The status of a node as lines for people.

Comes in: two statuses of p2pcore.admin.describe and the time between them. Goes out: lines, the first of each
part being its head. Rates need two statuses; with one there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from p2pcore import LimitUse
from p2pcore.cli.output import columns
from p2pcore.resources.report import table

Status = dict[str, Any]
K = TypeVar("K")

IN, OUT = "in", "out"

RATES = {
    "opened": ("connections opened",),
    "closed": ("connections closed",),
    "refused": ("connections refused", "streams refused"),
    "dials": ("dials worked", "dials failed"),
    "streams": ("streams opened",),
    IN: ("bytes in",),
    OUT: ("bytes out",),
}
"""The rates that are shown, each with the counters that it sums."""


@dataclass(frozen=True, slots=True)
class Change:
    """What has changed from one status to the next.

    Attributes:
        per_s: each of RATES by its name. cpu: the share of one core, by pid; the key 0 is for all together.
    """

    per_s: dict[str, float]
    cpu: dict[int, float]


def change(before: Status, now: Status) -> Change | None:
    """The rates between two statuses; None: no time has passed. A worker that was replaced brings no rate."""
    seconds = now["uptime_s"] - before["uptime_s"]
    if seconds <= 0:
        return None
    counts = [status.get("counters", {}) for status in (before, now)]
    sums = {
        name: [sum(each.get(part, 0) for part in parts) for each in counts] for name, parts in RATES.items()
    }
    per_s = {name: max(0.0, after - first) / seconds for name, (first, after) in sums.items()}
    spent = [_cpu_by_pid(status) for status in (before, now)]
    cpu = {
        pid: max(0.0, after - spent[0][pid]) / seconds for pid, after in spent[1].items() if pid in spent[0]
    }
    return Change(per_s, cpu)


def _cpu_by_pid(status: Status) -> dict[int, float]:
    workers = {worker["pid"]: worker.get("cpu_s", 0.0) for worker in status.get("workers", ())}
    return {0: status["cpu_s"], **workers}


def parts(status: Status, rates: Change | None = None) -> list[list[str]]:
    """The lines of each part: the node, its workers if it has any, its limits."""
    several = _workers(status["workers"], rates) if "workers" in status else []
    return [part for part in (_node(status, rates), several, _limits(status["limits"])) if part]


def _node(status: Status, rates: Change | None) -> list[str]:
    inbound = status["conns_inbound"]
    cpu = f", {100 * rates.cpu[0]:.1f} % of a core" if rates and 0 in rates.cpu else ""
    rows = [
        ("state", f"{status['state']}, up {duration(status['uptime_s'])}"),
        ("address", "\n".join(status["addrs"]) or "-"),
        ("connections", f"{status['conns']} ({inbound} inbound, {status['conns'] - inbound} outbound)"),
        ("streams", f"{status['streams']}, {status['handlers']} handlers"),
        ("memory", f"{status['rss_bytes'] / 2**20:.1f} MiB, {status['fds']} descriptors"),
        ("cpu", f"{status['cpu_s']:.1f} s{cpu}"),
    ]
    if rates:
        counts = {name: value for name, value in rates.per_s.items() if name not in (IN, OUT)}
        rows.append(("each second", ", ".join(f"{value:.1f} {name}" for name, value in counts.items())))
        traffic = (f"{rates.per_s[way] / 1e6:.3f} MB/s {way}" for way in (IN, OUT))
        rows.append(("traffic", ", ".join(traffic)))
    head = f"{status['kind']} {status['peer_id']}  p2pcore {status['version']}  pid {status['pid']}"
    return [head, *columns(list(_each_line(rows)))]


def _each_line(rows: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Each line of a value in a row of its own."""
    for name, value in rows:
        for number, line in enumerate(value.split("\n")):
            yield ("" if number else name), line


def _workers(workers: Sequence[Status], rates: Change | None) -> list[str]:
    rows = [("worker", "pid", "conns", "streams", "cpu", "memory", "silent")]
    for worker in workers:
        share = rates.cpu.get(worker["pid"]) if rates else None
        rows.append(
            (
                str(worker["index"]),
                str(worker["pid"]),
                str(worker.get("conns", "-")),
                str(worker.get("streams", "-")),
                f"{worker.get('cpu_s', 0):.1f} s" if share is None else f"{100 * share:.1f} %",
                f"{worker.get('rss_bytes', 0) / 2**20:.1f} MiB",
                f"{worker['silent_s']:.0f} s" if worker["silent_s"] else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _limits(uses: Iterable[dict[str, Any]]) -> list[str]:
    """The limits that are in use, or have refused something."""
    shown = [LimitUse(**use) for use in uses if use["used"] or use["refused"]]
    return table(shown) if shown else []


def duration(seconds: float) -> str:
    """A time in its two largest units: "3 d 4 h", "12 s"."""
    left = int(seconds)
    found: list[str] = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (found and len(found) < 2) or (not found and name == "s"):
            found.append(f"{count} {name}")
    return " ".join(found[:2])
