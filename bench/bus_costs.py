"""What the bus over NATS costs: CPU of a process for each thing it does, memory of the server for entries.

Comes in: the nats-server of interop/, which it starts on the loopback. Goes out: lines for
docs/fleet-engines.md. Fixed work; the smallest of several rounds counts. Run: python bench/bus_costs.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from nats_server import NatsServer  # noqa: E402
from p2pcore import run  # noqa: E402
from p2pcore.fleet.bus import BusMessage  # noqa: E402
from p2pcore.fleet.memory_bus import MemoryBus  # noqa: E402
from p2pcore.fleet.nats_bus import NatsBus  # noqa: E402

ROUNDS = 9
VALUE = bytes(60)


def key(number: int, connection: int = 0) -> str:
    """As long as the key of a connection: a peer's id, a process, a number."""
    return f"12D3KooWJ4fcMqVsyBXBDDhKNcNpNnRwUm8wC9FkR{number:08d}abc.w{number % 64:02d}.{connection}"


async def cheapest(work: Callable[[], Awaitable[Any]], count: int) -> tuple[float, float]:
    """CPU and time of one of `count` pieces of `work`, in microseconds."""
    cpu, took = [], []
    for _ in range(ROUNDS):
        began = time.process_time(), time.perf_counter()
        await work()
        cpu.append(time.process_time() - began[0])
        took.append(time.perf_counter() - began[1])
    return min(cpu) / count * 1e6, min(took) / count * 1e6


async def puts(bus: Any, name: str) -> None:
    for batch in (1, 10, 50, 500):
        bucket = await bus.bucket(f"put{batch}", expiry_s=600)
        entries = {key(number): VALUE for number in range(batch)}
        times = max(2000 // batch, 10)

        async def work(bucket: Any = bucket, entries: Any = entries, times: int = times) -> None:
            for _ in range(times):
                await bucket.put(entries)

        cpu, took = await cheapest(work, batch * times)
        print(f"{name} put, {batch} at once: {cpu:.2f} us CPU an entry, {took:.2f} us")


async def gets(bus: Any, name: str) -> None:
    bucket = await bus.bucket("get", expiry_s=600)
    await bucket.put({key(number, each): VALUE for number in range(2000) for each in range(number % 3)})
    for size in (0, 1, 2):
        prefixes = [key(number).partition(".")[0] for number in range(2000) if number % 3 == size]

        async def work(prefixes: list[str] = prefixes) -> None:
            for prefix in prefixes:
                await bucket.get(prefix)

        cpu, took = await cheapest(work, len(prefixes))
        print(f"{name} get, {size} found: {cpu:.1f} us CPU, {took:.1f} us")
    if isinstance(bus, NatsBus):

        async def by_watch() -> None:
            for number in range(300):
                await bucket._get_by_watch(bus.link(), key(number).partition(".")[0])

        cpu, took = await cheapest(by_watch, 300)
        print(f"{name} get by a consumer: {cpu:.1f} us CPU, {took:.1f} us")


async def requests(a: Any, b: Any, name: str) -> None:
    def deliver(message: BusMessage) -> None:
        assert message.answer is not None
        message.answer(message.data)

    await b.subscribe("echo", deliver)

    async def work() -> None:
        for _ in range(1000):
            await a.request("echo", VALUE, timeout_s=10)

    cpu, took = await cheapest(work, 1000)
    print(f"{name} request, both sides in this process: {cpu:.1f} us CPU, {took:.1f} us")


async def bare_requests(url: str) -> None:
    """The same with nats-py alone."""
    import nats

    a, b = await nats.connect(url), await nats.connect(url)

    async def deliver(message: Any) -> None:
        await message.respond(message.data)

    await b.subscribe("bare", cb=deliver)
    await asyncio.sleep(0.2)  # nats-py's flush overtakes what it should flush

    async def work() -> None:
        for _ in range(1000):
            await a.request("bare", VALUE, timeout=10)

    keys = [f"$KV.bare.{key(number)}" for number in range(50)]

    async def publish() -> None:
        for _ in range(40):
            for subject in keys:
                await a.publish(subject, VALUE, "_INBOX.a.b")
            await asyncio.sleep(0)

    cpu, _ = await cheapest(publish, 2000)
    print(f"nats-py alone, publish: {cpu:.2f} us CPU")
    cpu, took = await cheapest(work, 1000)
    print(f"nats-py alone, request, both sides in this process: {cpu:.1f} us CPU, {took:.1f} us")
    await a.close()
    await b.close()


async def stored(count: int, expiry_s: float | None) -> None:
    """Memory and CPU of a server that has nothing else to do."""
    name = "files" if expiry_s is None else "memory"
    async with serving() as server, NatsBus(server.url) as bus:
        bucket = await bus.bucket("b", expiry_s=expiry_s)
        before, began = server.rss_bytes(), server_cpu_s(server)
        for put in ("first", "second"):
            for start in range(0, count, 10_000):
                await bucket.put({key(number): VALUE for number in range(start, start + 10_000)})
            grown = (server.rss_bytes() - before) / count
            print(f"server, {count} entries in {name}, {put} put: {grown:.0f} B resident an entry")
        print(f"server, {name}: {(server_cpu_s(server) - began) / count / 2 * 1e6:.1f} us CPU a put")


@asynccontextmanager
async def serving() -> AsyncIterator[NatsServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder))
        server.start()
        try:
            server.wait_ready()
            yield server
        finally:
            server.kill()


def server_cpu_s(server: NatsServer) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def main(count: int) -> None:
    memory_bus = MemoryBus()
    await puts(memory_bus, "memory")
    await gets(memory_bus, "memory")
    await requests(memory_bus, memory_bus, "memory")
    async with serving() as server, NatsBus(server.url) as a, NatsBus(server.url) as b:
        await puts(a, "nats")
        await gets(a, "nats")
        await requests(a, b, "nats")
        await bare_requests(server.url)
    await stored(count, 3600)
    await stored(count, None)


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
