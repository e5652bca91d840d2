"""The numbers that every Prometheus client shows of its process.

Comes in: nothing. Goes out: families. Takes some 50 microseconds on Linux; other systems have only CPU time
and the limit of descriptors. Source: prometheus.io/docs/instrumenting/writing_clientlibs, "Process metrics".
"""

from __future__ import annotations

import os
import resource
import time
from functools import cache

from p2pcore.metrics.family import Family, family


def process_families() -> list[Family]:
    """Each family has one sample."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    families = [family("process_cpu_seconds_total", time.process_time())]
    families += [family("process_max_fds", soft if soft != resource.RLIM_INFINITY else float("inf"))]
    try:
        fields = _stat()
        families += [
            family("process_virtual_memory_bytes", int(fields[20])),
            family("process_resident_memory_bytes", int(fields[21]) * resource.getpagesize()),
            family("process_start_time_seconds", _boot_time() + int(fields[19]) / os.sysconf("SC_CLK_TCK")),
            family("process_open_fds", _num_fds()),
        ]
    except (OSError, ValueError, IndexError):  # not Linux
        pass
    return families


def _stat() -> list[bytes]:
    """The fields of proc(5) from the third on: number N of the manual has index N - 3."""
    with open("/proc/self/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _num_fds() -> int:
    """Linux 6.2 and later give the number as a size; to list a million of them would take a second."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))


@cache
def _boot_time() -> float:
    with open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    raise ValueError("/proc/stat has no btime")
