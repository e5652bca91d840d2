#!/usr/bin/env python3
"""The Python peer for interop tests and benchmarks: p2pcore with the commands of ../README.md.

Comes in: arguments, lines on standard input. Goes out: lines of JSON; if the operation
fails, one line that begins with ERROR, and exit status 1. Uses the public names of p2pcore only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeVar

from common import (
    ECHO,
    GREETING_BYTES,
    HALFCLOSE,
    PERF,
    RESET,
    STAT,
    Progress,
    Wrong,
    cpu_s,
    identified,
    out,
    patterned,
    raise_descriptor_limit,
    read_pattern,
    write_pattern,
)
from node import make_host, make_supervisor, parse
from p2pcore import Conn, Host, Multiaddr, P2PError, PerfRun, Stream, StreamReset, run
from serve import Lines, Server, listen, obey

T = TypeVar("T")

STALL_S = 60.0
"""If nothing happens for this long, the operation is given up."""
ASK_S = 10.0
"""How long the other side may take to count what we did."""
OUR_CODE, ITS_CODE = 66, 77
WRITE_BYTES = 8192
BLOCK_BYTES = 65536
IDLE_DIALS = 32
"""Dials of `idle` under way at once."""


class Client:
    """One host, one connection, one operation."""

    def __init__(self, options: argparse.Namespace, host: Host) -> None:
        self.options = options
        self.host = host
        self.target = Multiaddr(options.to)
        self.size: int = options.size or 32
        self.workers: int = options.c or 1
        self.conn: Conn

    async def run(self) -> None:
        """The operations that were asked for, one after another on one connection."""
        names = self.options.op.split(",")
        if names not in (["conn"], ["idle"]):
            await self.connect()
        for name in names:
            if name in ("up", "down", "small"):
                await self.perf(name)
            else:
                await getattr(self, "conns" if name == "conn" else name)()

    async def connect(self) -> None:
        began = perf_counter()
        self.conn = await self.host.connect(self.target)
        ms = (perf_counter() - began) * 1e3
        state = self.conn.state
        early = state.early_muxer
        out({"op": "connect", "ms": ms, "security": state.security, "muxer": state.muxer, "early": early})

    async def open(self, protocol: str) -> Stream:
        return await self.conn.new_stream(protocol, allow_limited=True)

    async def stat(self) -> dict[str, Any]:
        stream = await self.open(STAT)
        text = bytearray()
        while data := await stream.read():
            text += data
        await stream.close()
        answer: dict[str, Any] = json.loads(text)
        return answer

    async def ask(self, what: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Repeats `stat` until it satisfies `enough`."""
        end = perf_counter() + ASK_S
        while not enough(answer := await self.stat()):
            if perf_counter() > end:
                raise Wrong(f"{what}: the other side still says {answer}")
            await asyncio.sleep(0.01)
        return answer

    # -- one after another ---------------------------------------------------------------------

    async def ping(self) -> None:
        async for rtt in self.host.pings(self.conn, self.options.n):
            Progress.count += 1
            out({"op": "ping", "rtt_us": rtt * 1e6})

    async def identify(self) -> None:
        told = identified(await self.host.identify(self.conn), self.conn.remote_public_key)
        answer = await self.ask("identify", lambda stat: stat["peer"] is not None)
        out({"op": "identify"} | told | {"remote": answer["peer"]})

    async def echo(self) -> None:
        total = self.options.bytes
        stream = await self.open(ECHO)
        got = await both(write_pattern(stream, 0, total, WRITE_BYTES), read_pattern(stream, 0))
        if got != total:
            raise Wrong(f"got {got} bytes of {total} back")
        await stream.close()
        out({"op": "echo", "ok": True, "bytes": got})

    async def perf(self, op: str) -> None:
        total = self.options.bytes
        up, down = (0, total) if op == "down" else (total, 0)
        block = self.size if op == "small" else BLOCK_BYTES
        stream = await self.open(PERF)
        cpu, began = cpu_s(), perf_counter()
        await self.measured(PerfRun(stream, up, down, block))
        seconds = perf_counter() - began
        out({"op": op, "MB_s": total / seconds / 1e6, "seconds": seconds, "cpu_s": cpu_s() - cpu})

    async def measured(self, perf: PerfRun) -> None:
        """Runs it, and shows the watchdog its progress."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            nonlocal timer
            Progress.count = perf.sent + perf.received
            timer = loop.call_later(STALL_S / 4, look)

        timer = loop.call_later(STALL_S / 4, look)
        try:
            await perf.run()
        finally:
            timer.cancel()

    # -- half close and reset ------------------------------------------------------------------

    async def halfclose(self) -> None:
        before = await self.stat()
        await PerfRun(await self.open(PERF), GREETING_BYTES, GREETING_BYTES).run()
        stream = await self.open(HALFCLOSE)
        if (got := await read_pattern(stream, 0)) != GREETING_BYTES:
            raise Wrong(f"got {got} bytes of {GREETING_BYTES} before the other side's half close")
        await write_pattern(stream, 0, self.options.bytes, WRITE_BYTES)
        await stream.close()
        counters = ("halfclosed", "halfclosed_bad")
        after = await self.ask("halfclose", lambda stat: any(stat[key] != before[key] for key in counters))
        if after["halfclosed_bad"] != before["halfclosed_bad"]:
            raise Wrong("the other side got wrong bytes after its half close")
        out({"op": "halfclose", "ok": True, "bytes": self.options.bytes})

    async def reset(self) -> None:
        before = await self.stat()
        stream = await self.start_reset(b"c", OUR_CODE)
        await stream.read_exactly(1)
        stream.reset(OUR_CODE)
        counters = ("resets", "resets_bad")
        after = await self.ask("reset", lambda stat: any(stat[key] != before[key] for key in counters))
        if after["resets_bad"] != before["resets_bad"]:
            raise Wrong("the other side did not see the reset as one")
        code = await reset_code(await self.start_reset(b"s", ITS_CODE))
        out({"op": "reset", "ok": True, "remote_code": after["reset_code"], "code": code})

    async def start_reset(self, mode: bytes, code: int) -> Stream:
        stream = await self.open(RESET)
        await stream.write(mode + code.to_bytes(4, "big"))
        return stream

    # -- many at once --------------------------------------------------------------------------

    async def streams(self) -> None:
        count, size = self.options.c or 1000, self.options.size or 1024
        began = perf_counter()
        arrived = asyncio.Barrier(count)
        await asyncio.gather(*(self.one_of_many(number, size, arrived) for number in range(count)))
        seconds = perf_counter() - began
        out({"op": "streams", "ok": True, "c": count, "size": size, "seconds": seconds})

    async def one_of_many(self, number: int, size: int, arrived: asyncio.Barrier) -> None:
        stream = await self.open(ECHO)
        back = await both(stream.write(patterned(number, size)), stream.read_exactly(size))
        if back != patterned(number, size):
            raise Wrong(f"stream {number}: wrong bytes")
        await arrived.wait()
        start = number + size
        got = await both(write_pattern(stream, start, size, size), read_pattern(stream, start))
        if got != size:
            raise Wrong(f"stream {number}: {got} bytes of {size}")
        await stream.close()

    async def conn_once(self) -> None:
        conn = await self.host.swarm.dial_addr(self.target)
        await conn.close()

    async def conns(self) -> None:
        await self.parallel(lambda worker: self.conn_once())

    async def stream(self) -> None:
        message, size, conn = bytes(self.size), self.size, self.conn

        async def once(worker: int) -> None:
            stream = await conn.new_stream(ECHO, allow_limited=True)
            await stream.write(message)
            await stream.read_exactly(size)
            await stream.close()

        await self.parallel(once)

    async def pingpong(self) -> None:
        message, size = bytes(self.size), self.size
        streams = [await self.open(ECHO) for _ in range(self.workers)]

        async def once(worker: int) -> None:
            await streams[worker].write(message)
            await streams[worker].read_exactly(size)

        await self.parallel(once)

    async def parallel(self, once: Callable[[int], Awaitable[None]]) -> None:
        """n operations by C workers; reports rate and latency."""
        left = iter(range(self.options.n))
        took: list[float] = []

        async def work(worker: int) -> None:
            for _ in left:
                began = perf_counter()
                await once(worker)
                took.append(perf_counter() - began)
                Progress.count += 1

        cpu, began = cpu_s(), perf_counter()
        await asyncio.gather(*map(work, range(self.workers)))
        seconds, cpu = perf_counter() - began, cpu_s() - cpu
        n = len(took)
        took.sort()
        line = {"op": self.options.op, "n": n, "c": self.workers, "per_s": n / seconds}
        percentiles = {"p50_us": took[n // 2] * 1e6, "p99_us": took[n * 99 // 100] * 1e6}
        out(line | percentiles | {"cpu_us_per": cpu / n * 1e6})

    async def idle(self) -> None:
        left = iter(range(self.options.n))
        held: list[Conn] = []

        async def dial() -> None:
            for _ in left:
                held.append(await self.host.swarm.dial_addr(self.target))

        await asyncio.gather(*(dial() for _ in range(IDLE_DIALS)))
        print(f"HELD {len(held)}", flush=True)
        await Lines().next()


async def both(writing: Awaitable[None], reading: Awaitable[T]) -> T:
    """Awaits both at once. Returns: the result of `reading`."""
    writer = asyncio.ensure_future(_as_coroutine(writing))
    try:
        result = await reading
        await writer
        return result
    finally:
        writer.cancel()


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def reset_code(stream: Stream) -> int:
    """The code with which the other side resets `stream`."""
    try:
        await stream.read(1)
    except StreamReset as error:
        if error.remote:
            return error.code
        raise
    raise Wrong("expected a reset by the other side")


def watch() -> None:
    """Ends the process when nothing has happened for STALL_S."""
    loop = asyncio.get_running_loop()

    def look(last: int) -> None:
        if Progress.count == last:
            print(f"ERROR nothing happened for {STALL_S:g} s", file=sys.stderr, flush=True)
            os._exit(1)
        loop.call_later(STALL_S, look, Progress.count)

    loop.call_later(STALL_S, look, -1)


async def relay_with_workers(options: argparse.Namespace) -> None:
    """Runs until `quit` or the end of standard input."""
    async with make_supervisor(options) as supervisor:
        for addr in supervisor.addrs_with_peer:
            print(f"ADDR {addr}", flush=True)
        lines = Lines()
        while await lines.next() not in (None, "quit"):
            pass
        await supervisor.drain(0)


async def main(options: argparse.Namespace) -> None:
    if options.op == "relay" and options.workers > 1:
        await relay_with_workers(options)
        return
    async with make_host(options) as host:
        if options.op == "listen":
            await listen(host, options.bare, options.handler)
        elif options.op == "relay":
            await obey(Server(host))
        else:
            if options.op != "idle":
                watch()
            await Client(options, host).run()


if __name__ == "__main__":
    try:
        raise_descriptor_limit()
        run(main(parse(sys.argv[1:])))
    except (P2PError, OSError, Wrong, ValueError) as failure:
        print(f"ERROR {failure or repr(failure)}".replace("\n", " "), file=sys.stderr)
        sys.exit(1)
