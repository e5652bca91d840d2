"""Tools for both sides of the Python peer: lines of JSON, patterned bytes, figures of this process.

Comes in: objects, counts. Goes out: lines on standard output, bytes, numbers. Uses public names only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pcore import IdentifyInfo, PublicKey, Stream

ECHO, PERF, PING = "/echo/1.0.0", "/perf/1.0.0", "/ipfs/ping/1.0.0"
HALFCLOSE, RESET, STAT = "/interop/halfclose/1.0.0", "/interop/reset/1.0.0", "/interop/stat/1.0.0"
GREETING_BYTES = 65536
READ_BYTES = 65536
PERIOD = 251

_PATTERN = memoryview(bytes(range(PERIOD)) * (READ_BYTES // PERIOD + 2))


class Wrong(Exception):
    """The other side did something wrong."""


class Progress:
    """Counts the steps of an operation, to tell a stall from a slow peer."""

    count = 0


def patterned(start: int, size: int) -> memoryview:
    """Bytes `start` to `start + size` of the pattern; at most READ_BYTES."""
    at = start % PERIOD
    return _PATTERN[at : at + size]


async def write_pattern(stream: Stream, start: int, total: int, block: int) -> None:
    """Writes `total` patterned bytes, `block` at a time, and ends our half."""
    for done in range(0, total, block):
        await stream.write(patterned(start + done, min(block, total - done)))
        Progress.count += 1
    await stream.close_write()


async def read_pattern(stream: Stream, start: int) -> int:
    """Reads to the end, and checks every byte. Returns: how many bytes came."""
    total = 0
    while data := await stream.read(READ_BYTES):
        if data != patterned(start + total, len(data)):
            raise Wrong(f"a wrong byte among {len(data)} from byte {total} on")
        total += len(data)
        Progress.count += 1
    return total


def out(line: dict[str, Any]) -> None:
    """Prints one line of JSON and flushes it."""
    print(json.dumps(line), flush=True)


def cpu_s() -> float:
    """User and system time of this process."""
    return time.process_time()


def rss() -> int:
    """Resident memory in bytes."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def release_memory() -> None:
    """Collects garbage, and gives free memory back to the system where the allocator can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def raise_descriptor_limit() -> None:
    """Raises the limit of descriptors to the system's maximum."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def identified(info: IdentifyInfo, key: PublicKey) -> dict[str, Any]:
    """What identify learned, in the form of ../README.md."""
    records = info.record_addrs
    return {
        "peer_id": str(info.peer),
        "public_key": key.to_protobuf().hex(),
        "protocol_version": info.protocol_version,
        "agent": info.agent_version,
        "protocols": sorted(info.protocols),
        "addrs": [str(addr) for addr in info.listen_addrs],
        "observed": None if info.observed_addr is None else str(info.observed_addr),
        "record_addrs": None if records is None else [str(addr) for addr in records],
    }
