"""The listening side of the scale checks: a host that can be asked to give memory back.

Comes in: a Worker of p2pcore. Goes out: a host with echo, ping, identify, and TRIM.
"""

from __future__ import annotations

import ctypes
import gc
import json

from p2pcore import ConnManager, Host, Stream, Worker

TRIM = "/p2pcore-bench/trim/1"


async def _trim(stream: Stream) -> None:
    """Collects garbage, gives free memory back to the kernel, and reports the results of the upgrades."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # another C library
        pass
    await stream.write(json.dumps({"ok": True}).encode())


def make(worker: Worker) -> Host:
    """The factory."""
    # The usual high mark is 0.9 of what the descriptors allow, which is less than the check holds.
    host = worker.host(echo=True, conn_manager=ConnManager(high=0))
    host.set_stream_handler(TRIM, _trim)
    return host
