"""The honest client of a row: `python -m attacks.honest ADDR [--behind]`; see `measure` for what it measures.

Comes in: "measure SECONDS HELD_PER_S FRESH_PER_S SLOW DEAD" on standard input. Goes out: JSON lines.
Each of its peers has its own identity and its own address. Latencies count from the time at which something
was due, so everything that a stall delays has seen it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from attacks import place
from attacks.rawpeer import DATA, Identity, RawPeer, opening
from p2pcore import Conn, Host, Multiaddr, P2PError, TcpOptions, run

ECHO = "/echo/1.0.0"
HOSTS = 32
PATIENCE_S = 10.0
SLOW_HANDSHAKE_S = 4.5
MESSAGE = bytes(32)
Failure = (P2PError, OSError, TimeoutError)


class Samples:
    """Latencies in ms, and failures by their text."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.failures: Counter[str] = Counter()

    async def one(self, due: float, work: Callable[[], Awaitable[object]]) -> None:
        """Runs `work`, which was due at `due`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await work()
        except Failure as error:
            self.failures[f"{type(error).__name__}: {str(error)[:80]}"] += 1
        else:
            self.took.append((time.monotonic() - due) * 1e3)

    def summary(self) -> dict[str, object]:
        """Counts, percentiles, and the commonest failures."""
        took = sorted(self.took) or [0.0]
        at = {name: took[min(len(took) - 1, int(len(took) * share))] for name, share in SHARES.items()}
        return {
            "done": len(self.took),
            "failed": sum(self.failures.values()),
            **{name: round(value, 3) for name, value in at.items()},
            "failures": dict(self.failures.most_common(3)),
        }


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


class Honest:
    """Peers that want little: an echo of 32 bytes on a stream of its own."""

    def __init__(self, addr: str, fresh_addr: str, hosts: list[Host]) -> None:
        self._addr = Multiaddr(addr)
        self._fresh_addr = Multiaddr(fresh_addr)
        self._hosts = hosts
        self._held: Conn | None = None
        self._dialling = asyncio.Lock()
        self._slow = 0

    async def _echo(self, conn: Conn) -> None:
        stream = await conn.new_stream(ECHO, allow_limited=True)
        try:
            await stream.write(MESSAGE)
            await stream.read_exactly(len(MESSAGE))
        finally:
            await stream.close()

    async def _held_echo(self, number: int) -> None:
        async with self._dialling:
            if self._held is None or self._held.is_closed:
                was_cut = self._held is not None
                self._held = await self._hosts[0].swarm.dial_addr(self._addr)
                if was_cut:
                    raise ConnectionResetError("the held connection was cut")
        await self._echo(self._held)

    async def _fresh_echo(self, number: int) -> None:
        conn = await self._hosts[1 + number % (len(self._hosts) - 1)].swarm.dial_addr(self._fresh_addr)
        try:
            await self._echo(conn)
        finally:
            await conn.close()

    async def _dialled_echo(self, number: int) -> None:
        """As `_fresh_echo`, but all with the host that dials dead addresses, and through its dialler."""
        host = self._hosts[1]
        conn = await host.connect(self._fresh_addr, ignore_backoff=True)
        try:
            await self._echo(conn)
        finally:
            await conn.close()

    async def _slow_echo(self, number: int) -> None:
        seed = hashlib.sha256(f"slow {number}".encode()).digest()
        source, wait = place.honest(HOSTS + number), partial(asyncio.sleep, SLOW_HANDSHAKE_S / 2)
        peer = await RawPeer.connect(str(self._addr), source, Identity(seed), seed, wait)
        answered = asyncio.get_running_loop().create_future()

        def look(kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
            if kind == DATA and body.endswith(MESSAGE) and not answered.done():
                answered.set_result(None)

        peer.on_frame = look
        try:
            peer.write(opening(1, ECHO, MESSAGE))
            await asyncio.wait([answered, peer.lost], return_when="FIRST_COMPLETED")
            if not answered.done():
                raise ConnectionResetError("the node has ended the connection")
        finally:
            peer.abort()

    async def measure(
        self, seconds: float, held: float, fresh: float, slow: int, dead: int
    ) -> dict[str, object]:
        """Measures echoes; see the command line.

        Args:
            held: a second, on a connection it holds. fresh: a second, on a new connection each.
            slow: on new connections whose handshake takes SLOW_HANDSHAKE_S.
            dead: peers with dead addresses that are dialled all the time; `fresh` then has one dialler.
        """
        work = self._dialled_echo if dead else self._fresh_echo
        dialling = [asyncio.create_task(self._dial_dead(number)) for number in range(dead)]
        kinds = {name: Samples() for name in ("held", "fresh", "slow")}
        begun = time.monotonic()
        await asyncio.gather(
            self._side_by_side(kinds["held"], begun, seconds, held, self._held_echo),
            self._side_by_side(kinds["fresh"], begun, seconds, fresh, work),
            self._side_by_side(
                kinds["slow"], begun, slow / SLOW_PER_S, SLOW_PER_S if slow else 0, self._slow_echo
            ),
        )
        for task in dialling:
            task.cancel()
        return {
            name: samples.summary() for name, samples in kinds.items() if samples.took or samples.failures
        }

    async def _dial_dead(self, number: int) -> None:
        """Dials 100 addresses of one peer that nobody answers, over and over."""
        with dead_port() as port:
            peer = Identity(hashlib.sha256(f"dead {number}".encode()).digest()).key.peer_id()
            addrs = [f"/ip4/{place.dead(number, at)}/tcp/{port}" for at in range(DEAD_ADDRS)]
            while True:
                with contextlib.suppress(*Failure):
                    await self._hosts[1].swarm.dial_peer(peer, map(Multiaddr, addrs), ignore_backoff=True)
                await asyncio.sleep(0)

    async def _side_by_side(
        self,
        samples: Samples,
        begun: float,
        seconds: float,
        per_s: float,
        work: Callable[[int], Awaitable[None]],
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * per_s)):
                due = begun + number / per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(samples.one(due, lambda number=number: work(number)))  # type: ignore[misc]


SLOW_PER_S = 5.0
DEAD_ADDRS = 100


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """A port of every local address that answers nothing: the queue of its socket is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("", 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((place.node(), port))
        yield port


async def _main(addr: str, is_behind: bool) -> None:
    hosts = [
        Host(listen=(), identify=False, tcp=TcpOptions(dial_from=place.honest(number)))
        for number in range(HOSTS)
    ]
    target = await _behind(addr) if is_behind else None
    told = {"ready": True, "target": None if target is None else str(target.peer_id)}
    print(json.dumps(told), flush=True)
    dialled = addr if target is None else f"{addr}/p2p-circuit/p2p/{target.peer_id}"
    client = Honest(addr, dialled, hosts)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, seconds, held, fresh, slow, dead = line.split()
        answer = await client.measure(float(seconds), float(held), float(fresh), int(slow), int(dead))
        print(json.dumps(answer), flush=True)


async def _behind(relay: str) -> Host:
    """A host that can only be reached through the node."""
    source = TcpOptions(dial_from=place.honest(HOSTS))
    host = Host(listen=[f"{relay}/p2p-circuit"], echo=True, identify=False, tcp=source)
    await host.start()
    return host


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addr")
    parser.add_argument("--behind", action="store_true", help="be reached through the node, a relay")
    options = parser.parse_args()
    run(_main(options.addr, options.behind))


if __name__ == "__main__":
    main()
