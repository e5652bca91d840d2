"""How each figure is measured: a function for each kind of work does it once for one contender.

Comes in: a `Rig` (peers and cores) and the name of a contender. Goes out: figures by name, in the units of
rows.py. The amount of work is fixed; rates follow from the time it takes. Each measurement has a new
listener, so none inherits memory or caches of another. Each side reports its own CPU time.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import broadcast
from peers import Cores, Held, Line, Listener, Peer, PeerFailure, Process, dial
from rows import LIMIT, OURS

HERE = Path(__file__).resolve().parent
CROWD = Peer("crowd", (sys.executable, str(HERE / "crowd.py")))
"""The dialer of rows about many peers."""
Figures = dict[str, float]

MB = 1_000_000
BULK_BYTES = 1 << 30
SMALL_BYTES = 1 << 27
SMALL_WRITE_BYTES = 1 << 10
DELAYED_BYTES = 1 << 29
"""So many that the half second in which a window grows weighs little."""
CONNS, CONNS_ONE_BY_ONE = 1_600, 400
STREAMS, STREAMS_ONE_BY_ONE = 16_000, 3_000
PINGS, PINGS_AT_ONCE = 5_000, 64_000
MESSAGE_BYTES = 32
IDLE_FROM, IDLE_TO = 500, 2_500
IDLE_WATCH_S = 1.0
FIRST_BYTES = 3
"""New connections for one sample of the first byte."""
DELAY_MS = 30.0
"""The delay each way; a round trip has twice that."""
LOCAL_TIMEOUT_S = 60.0
STRANGERS, STRANGERS_AT_ONCE = 1_000, 16
BUSY_CONNS, BUSY_MESSAGES = 1_000, 100_000
PEERS_FROM, PEERS_TO = 200, 1_000
FLOOD_PER_S, FLOOD_S, FLOOD_AT_ONCE = 200, 7, 256
FLOOD_START_S = 1.0
HONEST_PINGS, HONEST_PER_S = 500, 100
BROADCAST_CONNS, BROADCAST_MESSAGES = 2_000, 20
BUSY_TIMEOUT_S = 120.0
NICE = ("nice", "-n", "10")
"""Strangers share a core with the honest peer; the delay is to be the listener's."""


@dataclass(frozen=True, slots=True)
class Rig:
    """What a measurement needs: the peers by name, the cores, and the slow peers' share of the work."""

    peers: dict[str, Peer]
    cores: Cores
    shares: dict[str, float] = field(default_factory=dict)

    def listener(self, name: str, *options: str) -> Listener:
        """A fresh listener of this peer."""
        return Listener(self.peers[name], self.cores.listener, *options)

    def dial(self, name: str, op: str, to: str, *options: str) -> list[Line]:
        """An operation of this peer as dialer."""
        return dial(self.peers[name], self.cores.dialer, op, to, *options)

    def dialer(self, name: str) -> Peer:
        """Who dials in the rows about many peers: the same for all but the limit, which is no libp2p."""
        return self.peers[LIMIT] if name == LIMIT else CROWD

    def amount(self, name: str, total: int) -> int:
        """`total`, or less for a slow peer, which would take minutes; rates remain comparable."""
        return int(total * self.shares.get(name, 1.0))


Measure = Callable[[Rig, str], Figures]


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that is measured.

    Attributes:
        name: its name in the results.
        measure: a function that does it once.
        contenders: the peers that do it; if empty, all peers.
        options: for the peers; a peer that cannot listen with them is absent and has not failed.
        needs: peers that the measurement needs.
        has_limit: whether the limit does it too; if `contenders` is not empty, that counts.
    """

    name: str
    measure: Measure
    contenders: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    has_limit: bool = False


def _transfer(
    rig: Rig, name: str, *, op: str, total: int, options: tuple[str, ...] = (), size: int = 0
) -> Figures:
    """MB/s of one stream, CPU of both sides in microseconds for each MB."""
    amount = rig.amount(name, total)
    arguments = [*options, "-bytes", str(amount), *(["-size", str(size)] if size else [])]
    with rig.listener(name, *options) as listener:
        before = listener.ask("stat")
        result = rig.dial(name, op, listener.address, *arguments)[-1]
        after = listener.ask("stat")
    listener_us = (after["cpu"] - before["cpu"]) * 1e6
    return {
        "MB_s": result["MB_s"],
        "dialer_us": result["cpu_s"] * 1e6 / (amount / MB),
        "listener_us": listener_us / (amount / MB),
    }


def _repeat(
    rig: Rig, name: str, *, op: str, n: int, c: int, dialer: str = "", options: tuple[str, ...] = ()
) -> Figures:
    """`n` operations, `c` at a time: rate, latency, and CPU of both sides for each."""
    n = rig.amount(name, n)
    arguments = [*options, "-n", str(n), "-c", str(c), "-size", str(MESSAGE_BYTES)]
    with rig.listener(name, *options) as listener:
        before = listener.ask("stat")
        result = rig.dial(dialer or name, op, listener.address, *arguments)[-1]
        after = listener.ask("stat")
    return {
        "per_s": result["per_s"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "dialer_us": result["cpu_us_per"],
        "listener_us": (after["cpu"] - before["cpu"]) * 1e6 / n,
    }


# -- many peers ------------------------------------------------------------------------------------


def _strangers(rig: Rig, name: str, *, options: tuple[str, ...] = ()) -> Figures:
    """CPU of the listener for each new peer that is identified both ways and echoes once."""
    n = rig.amount(name, STRANGERS)
    arguments = (*options, "-n", str(n), "-c", str(STRANGERS_AT_ONCE), "-size", str(MESSAGE_BYTES))
    with rig.listener(name, *options) as listener:
        before = listener.ask("stat")
        result = dial(rig.dialer(name), rig.cores.dialer, "strangers", listener.address, *arguments)[-1]
        after = listener.ask("stat")
    _check_all(result, n)
    return {"per_s": result["per_s"], "listener_us": (after["cpu"] - before["cpu"]) * 1e6 / n}


def _check_all(result: Line, n: int) -> None:
    if result["n"] != n:
        raise PeerFailure(f"{result['n']} of {n} were done")


def _busy(rig: Rig, name: str, *, handler: bool = False) -> Figures:
    """CPU of the listener for each message on one of BUSY_CONNS connections at work, and its delay.

    Args:
        handler: our echo is an async handler, as a program writes it; the others have nothing else.
    """
    n = rig.amount(name, BUSY_MESSAGES)
    served = ("-handler",) if handler and name == OURS else ()
    options = ("-n", str(n), "-c", str(BUSY_CONNS), "-size", str(MESSAGE_BYTES))
    with (
        rig.listener(name, *served) as listener,
        Held(rig.dialer(name), rig.cores.dialer, listener.address, BUSY_CONNS, *options, op="busy") as crowd,
    ):
        before = listener.settled(BUSY_CONNS)
        crowd.say("go")
        result = crowd.answer(BUSY_TIMEOUT_S)
        after = listener.ask("stat")
    return {
        "per_s": result["per_s"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "listener_us": (after["cpu"] - before["cpu"]) * 1e6 / result["n"],
    }


def _honest(rig: Rig, name: str) -> Figures:
    """The delay of an honest peer's ping while strangers connect."""
    flood = ("-n", str(FLOOD_PER_S * FLOOD_S), "-rate", str(FLOOD_PER_S), "-c", str(FLOOD_AT_ONCE))
    pings = ("-n", str(HONEST_PINGS), "-rate", str(HONEST_PER_S))
    with rig.listener(name) as listener:
        strangers = (*NICE, *CROWD.command, "strangers", "-to", listener.address, *flood)
        with Process(strangers, rig.cores.dialer) as process:
            time.sleep(FLOOD_START_S)
            result = dial(CROWD, rig.cores.dialer, "pings", listener.address, *pings)[-1]
            came = process.answer(BUSY_TIMEOUT_S)
    return {"p50_us": result["p50_us"], "p99_us": result["p99_us"], "strangers_s": came["per_s"]}


def _broadcast(rig: Rig, name: str) -> Figures:
    """CPU of the server for each message of a broadcast, and when the last connection has it."""
    kind = {OURS: "p2pcore", LIMIT: "bare"}.get(name, name)
    try:
        return asyncio.run(broadcast.measure(kind, BROADCAST_CONNS, BROADCAST_MESSAGES))
    except (RuntimeError, OSError, TimeoutError) as error:
        raise PeerFailure(f"the broadcast failed: {error}") from error


# -- idle connections ------------------------------------------------------------------------------


def _wakeups(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far: after each wake-up, once."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def _at_rest(listener: Listener, conns: int) -> Figures:
    """Memory, tasks and wake-ups per second with this many idle connections."""
    listener.settled(conns)
    said = listener.ask("gc")
    before = _wakeups(listener.pid)
    time.sleep(IDLE_WATCH_S)
    wakeups = (_wakeups(listener.pid) - before) / IDLE_WATCH_S
    return {"rss": said["rss"], "tasks": said["tasks"], "wakeups": wakeups}


def _idle(rig: Rig, name: str) -> Figures:
    """What each connection adds between IDLE_FROM and IDLE_TO of them, all of one peer."""
    peer, core = rig.peers[name], rig.cores.dialer
    with rig.listener(name) as listener, Held(peer, core, listener.address, IDLE_FROM):
        few = _at_rest(listener, IDLE_FROM)
        with Held(peer, core, listener.address, IDLE_TO - IDLE_FROM):
            many = _at_rest(listener, IDLE_TO)
    return _added(few, many, IDLE_TO - IDLE_FROM)


def _idle_peers(rig: Rig, name: str, *, options: tuple[str, ...] = ()) -> Figures:
    """What each connection adds between PEERS_FROM and PEERS_TO of them, each of a peer of its own."""

    def held(count: int) -> Held:
        return Held(CROWD, rig.cores.dialer, listener.address, count, *options, "-n", str(count), op="held")

    with rig.listener(name, *options) as listener, held(PEERS_FROM):
        few = _at_rest(listener, PEERS_FROM)
        with held(PEERS_TO - PEERS_FROM):
            many = _at_rest(listener, PEERS_TO)
    return _added(few, many, PEERS_TO - PEERS_FROM)


def _added(few: Figures, many: Figures, count: int) -> Figures:
    """What each of `count` connections adds."""
    added = {key: (many[key] - few[key]) / count for key in few}
    return {
        "bytes": added["rss"],
        "tasks": added["tasks"],
        "wakeups_s": max(0.0, added["wakeups"]),  # below 0 is chance: what the rest of the process does
        "total_bytes": many["rss"],
    }


# -- a path with delay -----------------------------------------------------------------------------


@contextmanager
def _delayed(port: int) -> Iterator[int]:
    """The port of a proxy to `port` with DELAY_MS each way; it runs on any core."""
    command = (sys.executable, str(HERE / "delay_proxy.py"), "--to", f"127.0.0.1:{port}")
    with Process((*command, "--delay-ms", str(DELAY_MS))) as proxy:
        said = proxy.line(LOCAL_TIMEOUT_S)
        if said is None or not said.startswith("PORT "):
            raise proxy.failure("the proxy did not start")
        yield int(said.split()[1])


def _first_byte(rig: Rig, name: str) -> Figures:
    """Round trips from the start of a dial to the first byte of an echo; median of FIRST_BYTES dials."""
    took = []
    with rig.listener(name) as listener, _delayed(listener.port) as port:
        for _ in range(FIRST_BYTES):
            options = ("-n", "1", "-c", "1", "-size", str(MESSAGE_BYTES))
            connect, stream = rig.dial(name, "stream", listener.through(port), *options)
            took.append(connect["ms"] + stream["p50_us"] / 1e3)
    ms = statistics.median(took)
    return {"round_trips": ms / (2 * DELAY_MS), "ms": ms}


def _peak_rss(pid: int) -> int:
    """The most memory a process has had so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise PeerFailure("the system does not tell the peak of its memory")


def _delayed_transfer(rig: Rig, name: str) -> Figures:
    """MB/s of one stream over the delayed path, and how far the listener's memory rose."""
    amount = DELAYED_BYTES
    with rig.listener(name) as listener, _delayed(listener.port) as port:
        before = listener.ask("stat")
        result = rig.dial(name, "up", listener.through(port), "-bytes", str(amount))[-1]
        after = listener.ask("stat")
        peak = _peak_rss(listener.pid)
    return {
        "MB_s": result["MB_s"],
        "dialer_us": result["cpu_s"] * 1e6 / (amount / MB),
        "listener_us": (after["cpu"] - before["cpu"]) * 1e6 / (amount / MB),
        "peak_bytes": peak - before["rss"],
    }


# -- in one process --------------------------------------------------------------------------------


def _local(rig: Rig, name: str, *, what: str) -> Figures:
    """A figure of local.py, in a fresh interpreter."""
    with Process((sys.executable, str(HERE / "local.py"), what, name), rig.cores.dialer) as process:
        return {key: float(value) for key, value in process.answer(LOCAL_TIMEOUT_S).items()}


TLS = ("-sec", "tls")
WEBSOCKET = ("-addr", "/ip4/127.0.0.1/tcp/0/ws")

WORKS: tuple[Work, ...] = (
    Work("up", partial(_transfer, op="up", total=BULK_BYTES), has_limit=True),
    Work("down", partial(_transfer, op="down", total=BULK_BYTES), has_limit=True),
    Work("small", partial(_transfer, op="small", total=SMALL_BYTES, size=SMALL_WRITE_BYTES), has_limit=True),
    Work("up_tls", partial(_transfer, op="up", total=BULK_BYTES, options=TLS), options=TLS, has_limit=True),
    Work(
        "down_tls", partial(_transfer, op="down", total=BULK_BYTES, options=TLS), options=TLS, has_limit=True
    ),
    Work("up_ws", partial(_transfer, op="up", total=BULK_BYTES, options=WEBSOCKET), options=WEBSOCKET),
    Work("down_ws", partial(_transfer, op="down", total=BULK_BYTES, options=WEBSOCKET), options=WEBSOCKET),
    Work("conn16", partial(_repeat, op="conn", n=CONNS, c=16), has_limit=True),
    Work("conn16_tls", partial(_repeat, op="conn", n=CONNS, c=16, options=TLS), options=TLS, has_limit=True),
    Work("conn1", partial(_repeat, op="conn", n=CONNS_ONE_BY_ONE, c=1), has_limit=True),
    Work("go_dials", partial(_repeat, op="conn", n=CONNS, c=16, dialer="go"), needs=("go",)),
    Work("stream64", partial(_repeat, op="stream", n=STREAMS, c=64)),
    Work("stream1", partial(_repeat, op="stream", n=STREAMS_ONE_BY_ONE, c=1)),
    Work("pingpong1", partial(_repeat, op="pingpong", n=PINGS, c=1), has_limit=True),
    Work("pingpong64", partial(_repeat, op="pingpong", n=PINGS_AT_ONCE, c=64), has_limit=True),
    Work("strangers", _strangers, has_limit=True),
    Work("strangers_tls", partial(_strangers, options=TLS), options=TLS, has_limit=True),
    Work("busy", _busy, has_limit=True),
    Work("busy_handler", partial(_busy, handler=True), contenders=(OURS, "go")),
    Work("honest", _honest),
    Work("broadcast", _broadcast, contenders=(OURS, "websockets", LIMIT)),
    Work("idle", _idle),
    Work("idle_peers", _idle_peers),
    Work("idle_tls", partial(_idle_peers, options=TLS), options=TLS),
    Work("first_byte", _first_byte),
    Work("delayed_up", _delayed_transfer),
    Work("import", partial(_local, what="import"), contenders=(OURS,)),
    Work("multiaddr", partial(_local, what="multiaddr"), contenders=(OURS, "multiaddr")),
)
