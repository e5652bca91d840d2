"""The status of a host, as values that JSON can hold; and the sum for several processes.

Comes in: a host. Goes out: one dict. It looks at every connection and every peer: ask once a second at most.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from p2pcore.codes import Direction
from p2pcore.values.version import __version__

if TYPE_CHECKING:
    from p2pcore.host import Host

_BEGAN = time.monotonic()
_SUMMED = ("conns", "conns_inbound", "streams", "handlers", "cpu_s", "rss_bytes", "fds")
_OF_THE_NODE = frozenset({"max_conns", "max_streams", "memory"})


def describe(host: Host) -> dict[str, Any]:
    """The status of `host`.

    Returns: `kind` "node", `peer_id`, `version`, `pid`, `state` ("serving" or "draining"), `uptime_s` of the
        process, `addrs`, the numbers `conns`, `conns_inbound`, `streams`, `handlers`, `cpu_s`, `rss_bytes`
        and `fds` (None: not known), `counters` (those of Host.counters, "streams opened", "bytes in" and
        "bytes out") and `limits` (see Host.limits_report).
    """
    conns = host.swarm.conns()
    return {
        **about("node", str(host.peer_id), host.is_draining or host.swarm.is_closed, host.addrs_with_peer),
        "conns": len(conns),
        "conns_inbound": sum(conn.direction is Direction.INBOUND for conn in conns),
        "streams": sum(conn.num_streams for conn in conns),
        "handlers": host.swarm.num_handlers_running,
        "cpu_s": time.process_time(),
        "rss_bytes": rss_bytes(),
        "fds": _num_descriptors(),
        "counters": _counters(host),
        "limits": [asdict(use) for use in host.limits_report()],
    }


def _counters(host: Host) -> dict[str, int]:
    ledger = host.swarm.ledger
    more = {"bytes in": ledger.bytes_in, "bytes out": ledger.bytes_out}
    return host.counters() | {"streams opened": host.metrics.streams_opened} | more


def about(kind: str, peer_id: str, is_draining: bool, addrs: Iterable[object]) -> dict[str, Any]:
    """What a node and a supervisor tell in the same way."""
    return {
        "kind": kind,
        "peer_id": peer_id,
        "version": __version__,
        "pid": os.getpid(),
        "state": "draining" if is_draining else "serving",
        "uptime_s": time.monotonic() - _BEGAN,
        "addrs": [str(addr) for addr in addrs],
    }


def total(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of several statuses of `describe`. Of limits for each peer or subnet: the highest numbers."""
    counters: Counter[str] = Counter()
    for worker in workers:
        counters.update(worker.get("counters", {}))
    sums = {name: sum(worker.get(name) or 0 for worker in workers) for name in _SUMMED}
    return sums | {"counters": dict(counters), "limits": _limits(workers)}


def _limits(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for worker in workers:
        for use in worker.get("limits", ()):
            known = merged.setdefault(
                use["limit"], dict.fromkeys(use) | {"limit": use["limit"], "refused": 0}
            )
            add = sum if use["limit"] in _OF_THE_NODE else max
            for field in ("used", "peak", "maximum"):
                known[field] = _merged(add, known[field], use[field])
            known["refused"] += use["refused"]
    return list(merged.values())


def _merged(add: Any, *numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return add(known) if known else None


def rss_bytes() -> int:
    """The resident memory of this process."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the maximum so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _num_descriptors() -> int | None:
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd")) - 1
    return None
