"""Calls a second and CPU a call: p2pcore.rpc, a protocol written by hand on streams, and grpcio.

    .venv/bin/python bench/rpc.py [--rounds 5] [--json FILE]

Server and client are two processes, each on its own core. In each round every contender does the same calls,
each with a new server; the one that goes first changes. By hand is what a user writes without p2pcore.rpc: a
stream for each call, with no deadline, no errors, no limits. grpcio (grpc.aio, no TLS) is left out if it is
not installed; p2pcore encrypts. Figures are medians; ratios compare medians of the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from p2pcore import Host, Stream, rpc, run

NAME = "/bench/1"
HAND = "/bench-by-hand/1"
ECHO = rpc.Method("echo", rpc.BYTES, rpc.BYTES)
CONTENDERS = ("rpc", "hand", "grpc")
CALLS = 4000
WARM_UP = 200
WORKS = {"one at a time, 32B": (1, 32), "64 at once, 32B": (64, 32), "64 at once, 16KiB": (64, 16384)}
SERVER = "CPU of the server, all works"
ANSWER_S = 120
Call = Callable[[bytes], Awaitable[bytes]]


def pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


# -- servers -----------------------------------------------------------------------------------


async def serving(address: object) -> None:
    """Prints the address, waits until stdin ends, and prints the seconds of CPU since."""
    print(address, flush=True)
    began = time.process_time()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(time.process_time() - began, flush=True)


async def serve_p2pcore() -> None:
    service = rpc.Service(NAME)

    @service.method(ECHO)
    async def echo(request: bytes, call: rpc.Call) -> bytes:
        return request

    async def by_hand(stream: Stream) -> None:
        size = int.from_bytes(await stream.read_exactly(4), "big")
        await stream.write(size.to_bytes(4, "big") + await stream.read_exactly(size))

    async with Host() as host:
        service.serve(host)
        host.set_stream_handler(HAND, by_hand)
        await serving(host.addrs_with_peer[0])


async def serve_grpc() -> None:
    import grpc

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await serving(f"127.0.0.1:{port}")
    await server.stop(None)


def calls(at_once: int) -> int:
    return CALLS // at_once * at_once


def warm_up(at_once: int) -> int:
    return (WARM_UP // at_once + 1) * at_once


# -- clients -----------------------------------------------------------------------------------


async def measure(call: Call) -> dict[str, list[float]]:
    """Microseconds of time and of our CPU for a call, of each work."""
    figures = {}
    for work, (at_once, size) in WORKS.items():
        data = bytes(size)

        async def repeat(times: int, data: bytes = data) -> None:
            for _ in range(times):
                if await call(data) != data:
                    raise AssertionError("the answer is wrong")

        await asyncio.gather(*(repeat(warm_up(at_once) // at_once) for _ in range(at_once)))
        began, cpu = time.perf_counter(), time.process_time()
        num = calls(at_once)
        await asyncio.gather(*(repeat(num // at_once) for _ in range(at_once)))
        figures[work] = [
            (time.perf_counter() - began) / num * 1e6,
            (time.process_time() - cpu) / num * 1e6,
        ]
    return figures


async def ask_rpc(address: str) -> dict[str, list[float]]:
    async with Host(listen=[]) as host, rpc.Client(host, address, NAME) as client:
        return await measure(lambda data: client.call(ECHO, data))


async def ask_hand(address: str) -> dict[str, list[float]]:
    async with Host(listen=[]) as host:
        conn = await host.connect(address)

        async def call(data: bytes) -> bytes:
            stream = await host.new_stream(conn, HAND)
            await stream.write(len(data).to_bytes(4, "big") + data)
            await stream.close_write()
            size = int.from_bytes(await stream.read_exactly(4), "big")
            answer = await stream.read_exactly(size)
            await stream.close()
            return answer

        return await measure(call)


async def ask_grpc(address: str) -> dict[str, list[float]]:
    import grpc

    async with grpc.aio.insecure_channel(address) as channel:
        return await measure(channel.unary_unary("/bench/echo"))


# -- rounds ------------------------------------------------------------------------------------


def sample(contender: str) -> dict[str, list[float]]:
    """One contender, once, with a server of its own."""
    kind = "grpc" if contender == "grpc" else "p2pcore"
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        asked = subprocess.run(
            [sys.executable, __file__, "ask", contender, address],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=ANSWER_S,
        )
        said, _ = server.communicate(timeout=ANSWER_S)
        figures: dict[str, list[float]] = json.loads(asked.stdout)
        num = sum(calls(at_once) + warm_up(at_once) for at_once, _ in WORKS.values())
        cpu_us = float(said) / num * 1e6
        return figures | {SERVER: [cpu_us, cpu_us]}
    finally:
        server.kill()
        server.communicate()


def contenders() -> list[str]:
    with suppress(ImportError):
        import grpc  # noqa: F401

        return list(CONTENDERS)
    return list(CONTENDERS[:2])


def rounds(count: int) -> dict[str, dict[str, list[float]]]:
    """The medians of time and CPU, by work and contender."""
    names = contenders()
    samples: dict[str, list[dict[str, list[float]]]] = {name: [] for name in names}
    for i in range(count):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            samples[name].append(sample(name))
    return {
        work: {
            name: [statistics.median(each[work][k] for each in samples[name]) for k in range(2)]
            for name in names
        }
        for work in (*WORKS, SERVER)
    }


def show(found: dict[str, dict[str, list[float]]]) -> None:
    for work, figures in found.items():
        base = figures["rpc"]
        print(work)
        for name, (wall, cpu) in figures.items():
            ratios = f"rpc/{name}: time {base[0] / wall:.2f}x, CPU {base[1] / cpu:.2f}x"
            if work == SERVER:
                print(f"  {name:5} {cpu:7.1f} us a call   rpc/{name}: {base[1] / cpu:.2f}x")
            else:
                rate = f"{wall:7.1f} us a call {1e6 / wall:7,.0f} calls/s"
                print(f"  {name:5} {rate}   CPU of the client {cpu:6.1f} us   {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = rounds(options.rounds)
    show(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        pin(0)
        if sys.argv[2] == "grpc":
            asyncio.run(serve_grpc())
        else:
            run(serve_p2pcore())
    elif sys.argv[1:2] == ["ask"]:
        pin(1)
        asks = {"rpc": ask_rpc, "hand": ask_hand, "grpc": ask_grpc}
        ask = asks[sys.argv[2]](sys.argv[3])
        print(json.dumps(asyncio.run(ask) if sys.argv[2] == "grpc" else run(ask)))
    else:
        main()
