"""A request between two workers, over a round trip of their bus alone: at most 3.

Comes in: how many rounds. Goes out: microseconds of both, and the ratio. One follows the other, so that they
meet the same machine and the same caches: many round trips in a row take a third less CPU each. The peer is a
process of its own. The status is 1 if the ratio of the medians is above 3. Run: python bench/workers_fleet.py
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from typing import Any

from p2pcore import Host, Stream, Supervisor, Worker, run
from p2pcore.fleet import BusMessage, Fleet, WorkersBus

CONTROL, ASK = "/bench-workers/control/1", "/bench-workers/ask/1"
COUNT = 200  # of each kind in a round
MOST = 3.0


def make(worker: Worker) -> Host:
    """The factory. Worker 1 answers on the bus; worker 0 obeys the control stream."""
    host = worker.host(identify=False)
    bus = WorkersBus(worker)
    fleet = Fleet(host, bus)

    @contextlib.asynccontextmanager
    async def echoing() -> Any:
        def answer(message: BusMessage) -> None:
            if message.answer is not None:
                message.answer(message.data)

        await bus.subscribe(f"echo.{worker.index}", answer)
        yield

    async def control(stream: Stream) -> None:
        async for message in stream.msgs():
            order = json.loads(message)
            answer: dict[str, Any] = {"index": worker.index}
            if "peer" in order:
                answer = await measured(order["peer"])
            await stream.write_msg(json.dumps(answer).encode())

    async def measured(peer: str) -> dict[str, Any]:
        trips, requests = [], []
        for _ in range(COUNT):
            began = time.perf_counter()
            await bus.request("echo.1", b"x" * 100, timeout_s=30)
            trips.append(time.perf_counter() - began)
            began = time.perf_counter()
            await fleet.request(peer, ASK, b"hello")
            requests.append(time.perf_counter() - began)
        return {"trips": trips, "requests": requests}

    host.set_stream_handler(CONTROL, control)
    worker.beside(fleet)
    worker.beside(echoing())
    return host


async def be_peer(addr: str) -> None:
    """A peer that is connected to worker 1 and answers. It prints its id."""

    async def answer(stream: Stream) -> None:
        await stream.write_msg(await stream.read_msg())

    async with Host(listen=(), identify=False) as host:
        host.set_stream_handler(ASK, answer)
        await connected(host, addr, 1)
        print(host.peer_id, flush=True)
        await asyncio.Event().wait()


async def connected(host: Host, addr: str, index: int) -> Stream:
    """A control stream to worker `index`."""
    for _ in range(100):
        conn = await host.swarm.dial_addr(addr)
        stream = await conn.new_stream(CONTROL)
        if (await told(stream))["index"] == index:
            return stream
        await conn.close()
    raise RuntimeError(f"no connection to worker {index}")


async def told(stream: Stream, **order: Any) -> dict[str, Any]:
    await stream.write_msg(json.dumps(order).encode())
    answer: dict[str, Any] = json.loads(await stream.read_msg(1 << 20))
    return answer


async def main(rounds: int) -> int:
    async with Supervisor(make, workers=2) as supervisor, Host(listen=(), identify=False) as host:
        addr = str(supervisor.addrs_with_peer[0])
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--peer", addr, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            peer = (await process.stdout.readline()).decode().strip()
            stream = await connected(host, addr, 0)
            await asyncio.sleep(1)  # until worker 0 knows where the peer is
            await told(stream, peer=peer)
            ratios, trips, requests = [], [], []
            for _ in range(rounds):
                found = await told(stream, peer=peer)
                trips += found["trips"]
                requests += found["requests"]
                ratios.append(statistics.median(found["requests"]) / statistics.median(found["trips"]))
        finally:
            process.kill()
            await process.wait()
    for what, tenth in (("undisturbed (the tenth percentile)", 1), ("the median", 5)):
        trip, request = (1e6 * sorted(took)[len(took) * tenth // 10] for took in (trips, requests))
        print(f"{what}: bus {trip:.0f} us, request {request:.0f} us: {request / trip:.2f} round trips")
    print(f"medians of the rounds: {min(ratios):.2f} to {max(ratios):.2f}")
    return request / trip > MOST


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peer", help="for itself")
    given = parser.parse_args()
    if given.peer:
        run(be_peer(given.peer))
    else:
        sys.exit(run(main(given.rounds)))
