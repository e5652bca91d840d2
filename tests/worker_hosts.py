"""Factories of hosts for the tests of workers: each is imported in a fresh interpreter.

Comes in: a Worker. Goes out: a host that tells its process id, or fails as a test wants.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

from p2pcore import Host, RelayOptions, Stream, Worker

WHO = "/test-who/1"
COUNTS = "/test-counts/1"


async def _say_who(stream: Stream) -> None:
    await stream.write(str(os.getpid()).encode())


def make(worker: Worker) -> Host:
    """Serves echo, and WHO: the pid."""
    host = worker.host(echo=True)
    host.set_stream_handler(WHO, _say_who)
    return host


async def make_later(worker: Worker, greeting: str) -> Host:
    """As `make`, after a wait; reports `greeting`."""
    await asyncio.sleep(0)
    worker.report(greeting=greeting, index=worker.index)
    return make(worker)


def broken(worker: Worker) -> Host:
    """Fails."""
    raise RuntimeError("this factory does not work")


def mortal(worker: Worker, status: int) -> Host:
    """Ends its process at SIGUSR1."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, os._exit, status)
    return make(worker)


def blocking(worker: Worker, seconds: float) -> Host:
    """Blocks its event loop at SIGUSR1, once."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, time.sleep, seconds)
    return make(worker)


def silent(worker: Worker) -> Host:
    """Ends its process without a report."""
    os._exit(7)


def ready_twice(worker: Worker) -> Host:
    """Reports a second time that it is ready, which no real worker does."""
    asyncio.get_running_loop().call_later(
        0.05, lambda: worker._channel.send(event="ready", addrs=[], has_turn=False)
    )
    return make(worker)


def limited(worker: Worker) -> Host:
    """Reports the limits that its host has."""
    host = make(worker)
    limits = host.limits
    worker.report(conns=limits.max_conns, streams=limits.max_streams, per_peer=limits.max_conns_per_peer)
    return host


def relaying(worker: Worker, options: RelayOptions) -> Host:
    """A relay. Tells its pid, how many reservations and circuits it has."""
    host = worker.host(relay_service=options)
    host.set_stream_handler(WHO, _say_who)

    async def count(stream: Stream) -> None:
        service = host.relay_service
        assert service is not None
        counts = {
            "reservations": service.num_reservations,
            "circuits": service.num_circuits,
            "bytes": service.num_bytes,
            "stops": sum(map(len, service._stops.values())),
            "ends": len(service._ends),
        }
        await stream.write(json.dumps(counts).encode())

    host.set_stream_handler(COUNTS, count)
    return host
