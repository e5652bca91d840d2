"""A random walk: everything is opened, closed, failed and cancelled, over all transports and muxers.

Comes in: P2PCORE_WALK_S, seconds (2 by default, scaled); P2PCORE_WALK_SEED. Goes out: the promise that at the
end every counter is 0, and that what is counted is what can be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HANG_S, eventually, run, seconds
from p2pcore import Conn, Host, Multiaddr, RelayOptions, Stream
from p2pcore.errors import P2PError
from p2pcore.interfaces import Stream as AnyStream

WALK_S = float(os.environ.get("P2PCORE_WALK_S") or seconds(2))
SEED = int(os.environ.get("P2PCORE_WALK_SEED") or random.SystemRandom().randrange(1 << 32))
ECHO, SINK, FAILS, ABSENT = "/walk/echo/1", "/walk/sink/1", "/walk/fails/1", "/walk/absent/1"
MAX_TASKS = 60
MAX_CONNS = 40
EXPECTED = (P2PError, OSError)
"""What a call may raise: TimeoutError and ConnectionError are OSErrors."""


async def _echo(stream: AnyStream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def _sink(stream: AnyStream) -> None:
    while await stream.read(1000):
        pass


async def _fails(stream: AnyStream) -> None:
    await stream.read(1)
    raise RuntimeError("a handler that fails")


class Walk:
    """Hosts of one muxer that dial one another, and steps that chance chooses."""

    def __init__(self, hosts: list[Host], chance: random.Random) -> None:
        self.hosts = hosts
        self.chance = chance
        self.tasks: set[asyncio.Task[None]] = set()
        self.streams: list[Stream] = []
        self.done: Counter[str] = Counter()
        self.unexpected: list[BaseException] = []
        self.steps: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.connect, 6),
            (self.open, 12),
            (self.use, 30),
            (self.end, 12),
            (self.cancel, 8),
            (self.close_conn, 3),
            (self.close_peer, 1),
            (self.stranger, 3),
            (self.listen_again, 1),
            (self.ping, 3),
        ]

    # -- steps ---------------------------------------------------------------------------------

    async def connect(self) -> None:
        one, other = self.chance.sample(self.hosts, 2)
        if other.addrs_with_peer and one.swarm.num_conns < MAX_CONNS:
            addr = self.chance.choice(other.addrs_with_peer)
            dial = self.chance.random() < 0.7
            await (one.swarm.dial_addr(addr) if dial else one.connect(addr, ignore_backoff=True))

    async def open(self) -> None:
        conn = self._conn()
        if conn is not None:
            protocol = self.chance.choice((ECHO, ECHO, SINK, FAILS, ABSENT))
            self.streams.append(await conn.new_stream(protocol, allow_limited=True))

    async def use(self) -> None:
        stream = self._stream()
        if stream is None:
            return
        size = self.chance.choice((1, 10, 1000, 70_000, 300_000))
        match self.chance.randrange(4):
            case 0 | 1:
                await stream.write(bytes(size))
            case 2:
                await stream.read(size)
            case 3:
                stream.set_deadline(self.chance.choice((0.001, 0.1, None)))

    async def end(self) -> None:
        stream = self._stream()
        if stream is not None:
            how = self.chance.randrange(5)
            if how == 0:
                stream.reset(how)
            elif how == 4:
                self.streams.remove(stream)  # dropped, without a word
            else:
                await (stream.close, stream.close_write, stream.close_read)[how - 1]()

    async def cancel(self) -> None:
        if self.tasks:
            self.chance.choice(list(self.tasks)).cancel()

    async def close_conn(self) -> None:
        conn = self._conn()
        if conn is not None:
            if self.chance.random() < 0.5:
                await conn.close()
            else:
                conn.abort()

    async def close_peer(self) -> None:
        one, other = self.chance.sample(self.hosts, 2)
        await one.close_peer(other.peer_id)

    async def stranger(self) -> None:
        """Somebody who speaks another language, or nothing, or leaves in the middle of a handshake."""
        addr = self._tcp(self.chance.choice(self.hosts))
        if addr is None:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", int(addr.value_for_protocol("tcp") or 0))
        writer.write(
            self.chance.choice((b"", b"GET / HTTP/1.1\r\n", b"\x13/multistream/1.0.0\n\x07/noise\n"))
        )
        if self.chance.random() < 0.5:
            await reader.read(100)
        writer.transport.abort()

    async def listen_again(self) -> None:
        """A listener ends, and another one begins."""
        host = self.chance.choice(self.hosts[1:])
        addr = self._tcp(host)
        if addr is not None:
            await host.swarm.listen_close(addr)
            await host.swarm.add_listen_addr("/ip4/127.0.0.1/tcp/0")

    async def ping(self) -> None:
        one, other = self.chance.sample(self.hosts, 2)
        if one.swarm.conns_to_peer(other.peer_id):
            await one.ping(other.peer_id, timeout_s=seconds(1))

    # -- what they act on ----------------------------------------------------------------------

    def _conn(self) -> Conn | None:
        conns = self.chance.choice(self.hosts).swarm.conns()
        return self.chance.choice(conns) if conns else None

    def _stream(self) -> Stream | None:
        return self.chance.choice(self.streams[-50:]) if self.streams else None

    @staticmethod
    def _tcp(host: Host) -> Multiaddr | None:
        found = [addr for addr in host.swarm.listen_addresses() if [*map(str, addr)] == ["ip4", "tcp"]]
        return found[0] if found else None

    # -- walking -------------------------------------------------------------------------------

    async def go(self, for_s: float) -> None:
        until = asyncio.get_running_loop().time() + for_s
        steps, weights = zip(*self.steps, strict=True)
        while asyncio.get_running_loop().time() < until:
            (step,) = self.chance.choices(steps, weights)
            if len(self.tasks) >= MAX_TASKS:
                step = self.cancel
            self._start(step)
            await asyncio.sleep(self.chance.choice((0, 0, 0, 0.001)))
        await self._over()

    def _start(self, step: Callable[[], Awaitable[None]]) -> None:
        async def one() -> None:
            name = getattr(step, "__name__", "")
            try:
                await step()
                self.done[name] += 1
            except EXPECTED:
                self.done[f"{name} failed"] += 1

        task = asyncio.get_running_loop().create_task(one())
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.unexpected.append(task.exception())  # type: ignore[arg-type]

    async def _over(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await eventually(lambda: not self.tasks)
        for error in self.unexpected:
            raise error
        self.streams.clear()


@contextlib.asynccontextmanager
async def meeting(muxer: str, folder: Path) -> AsyncIterator[list[Host]]:
    """Four hosts: on TCP, WebSocket, a UNIX socket and in memory; and one behind the first, which relays."""
    listen = (
        ["/ip4/127.0.0.1/tcp/0"],
        ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"],
        [f"/unix/{folder / 'walk.sock'}", "/ip4/127.0.0.1/tcp/0"],
        ["/memory/0", "/ip4/127.0.0.1/tcp/0"],
    )
    security = (["noise", "tls"], ["tls", "noise"], ["noise"], ["noise", "tls"])
    async with contextlib.AsyncExitStack() as stack:
        hosts = []
        for at, (addrs, protocols) in enumerate(zip(listen, security, strict=True)):
            options: dict[str, Any] = {} if at else {"relay_service": RelayOptions()}
            host = Host(listen=addrs, security=protocols, muxers=[muxer], **options)
            hosts.append(await stack.enter_async_context(host))
        behind = hosts[0].addrs_with_peer[0].encapsulate("/p2p-circuit")
        hosts.append(await stack.enter_async_context(Host(listen=[behind], muxers=[muxer])))
        for host in hosts:
            for protocol, handler in ((ECHO, _echo), (SINK, _sink), (FAILS, _fails)):
                host.set_stream_handler(protocol, handler)
        yield hosts
        await _emptied(hosts)


async def _emptied(hosts: list[Host]) -> None:
    """Every connection ends; then nothing is counted any more, and nothing is found that was not counted."""
    await hosts[-1].close()  # else it goes on asking for a place at the relay
    for host in hosts:
        await asyncio.gather(*(conn.close() for conn in host.swarm.conns()), return_exceptions=True)

    def counts_nothing(host: Host) -> bool:
        gc.collect()  # a stream that failed with bytes nobody read counts as long as it is there
        return not _counted(host)

    for at, host in enumerate(hosts):
        try:
            await eventually(lambda host=host: counts_nothing(host), timeout=HANG_S / 8)
        except TimeoutError:
            raise AssertionError(f"seed {SEED}: host {at} still counts {_counted(host)}") from None


def _counted(host: Host) -> dict[str, int]:
    """What a host still counts; {} once all has ended."""
    ledger = host.swarm.ledger
    names = ("num_conns", "num_streams", "unread", "unsent", "used", "num_peers", "state")
    found = {name: getattr(ledger, name) for name in names}
    found["conns"] = host.swarm.num_conns
    found["handlers"] = host.swarm.num_handlers_running
    for listener in host.swarm._listeners._tasks:
        found[f"upgrading on {listener.multiaddr}"] = getattr(listener, "num_upgrading", 0)
        found[f"ready on {listener.multiaddr}"] = getattr(listener, "num_ready", 0)
    for use in host.limits_report():
        if use.limit.startswith(("max_conns", "max_streams", "max_handlers")):
            found[use.limit] = use.used or 0
    return {name: count for name, count in found.items() if count}


def _living() -> Counter[str]:
    """Objects of connections, and open descriptors."""
    for _ in range(3):
        gc.collect()
    kinds = ("p2pcore._fast.mux", "p2pcore._fast.chain", "p2pcore.swarm.conn", "p2pcore.manet.conn")
    names = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    found = Counter(name for name in names if name.startswith(kinds))
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    return found


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
def test_a_random_walk_leaves_every_counter_at_0(
    muxer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Handlers fail on purpose; and a kept record keeps the error it names, with every frame that it passed.
    caplog.set_level(logging.CRITICAL, "p2pcore")

    async def walked(folder: str, for_s: float) -> Counter[str]:
        (tmp_path / folder).mkdir()
        async with meeting(muxer, tmp_path / folder) as hosts:
            walk = Walk(hosts, random.Random(SEED))
            await walk.go(for_s)
            return walk.done

    run(walked("first", WALK_S / 10))  # what a process opens once, it keeps
    before = _living()
    done = run(walked("then", WALK_S), timeout=HANG_S + 10 * WALK_S)
    print(f"{muxer}, seed {SEED}: {dict(sorted(done.items()))}")
    assert done["connect"], done
    more = _living() - before
    assert not more, (SEED, more)
