"""A node in several processes, with the metrics of all of them at one place.

    python worker_fleet.py serve [WORKERS] [METRICS]     METRICS: HOST:PORT for Prometheus, 127.0.0.1:9464
    python worker_fleet.py ask ADDRESS TEXT...           each text over a connection of its own
    python worker_fleet.py scrape METRICS                what the fleet counts, as Prometheus sees it

`serve` prints the address of the node, then the URL of the metrics. SIGHUP replaces the workers one by one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from urllib.request import urlopen

from p2pcore import Host, MetricsServer, PrivateKey, Stream, Supervisor, Worker, run

PROTOCOL = "/example-fleet/1.0.0"
MAX_TEXT_BYTES = 1000
SHOWN = ("p2pcore_streams_opened_total", "p2pcore_connections{", "p2pcore_worker_up")
SCRAPE_S = 10


async def shout(stream: Stream) -> None:
    async for text in stream.msgs(MAX_TEXT_BYTES):
        await stream.write_msg(text.upper())


def make(worker: Worker) -> Host:
    """Runs in each worker: its part of the node."""
    host = worker.host()
    host.set_stream_handler(PROTOCOL, shout, max_streams=1000)
    return host


async def serve(workers: str = "2", metrics: str = "127.0.0.1:9464") -> None:
    key = PrivateKey.generate()  # a real service reads it: PrivateKey.read("node.key")
    async with (
        Supervisor(
            make, workers=int(workers), private_key=key, listen=["/ip4/127.0.0.1/tcp/0"]
        ) as supervisor,
        MetricsServer(supervisor, metrics) as server,
    ):
        print(*supervisor.addrs_with_peer, f"http://{server.address}/metrics", sep="\n", flush=True)
        await asyncio.Event().wait()


async def ask(address: str, *texts: str) -> None:
    for text in texts:
        async with Host(listen=[]) as host, host.stream(address, PROTOCOL) as stream:
            await stream.write_msg(text.encode())
            print((await stream.read_msg(MAX_TEXT_BYTES)).decode())


async def scrape(url: str) -> None:
    def read() -> str:
        with urlopen(url, timeout=SCRAPE_S) as answer:
            return str(answer.read(), "utf-8")

    for line in (await asyncio.to_thread(read)).splitlines():
        if line.startswith(SHOWN):
            print(line)


if __name__ == "__main__":
    commands: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "serve": serve,
        "ask": ask,
        "scrape": scrape,
    }
    try:
        run(commands[sys.argv[1]](*sys.argv[2:]))
    except KeyboardInterrupt:
        pass
