"""How each figure is measured: a function for each kind of work does it once for one contender.

Comes in: a `Rig` (peers and cores) and the name of a contender. Goes out: figures by name, in the units of
rows.py. The amount of work is fixed; rates follow from the time it takes. Each measurement has a new
listener, so none inherits memory or caches of another. Each side reports its own CPU time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from peers import Cores, Held, Line, Listener, Peer, PeerFailure, Process, dial

HERE = Path(__file__).resolve().parent
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
    """

    name: str
    measure: Measure
    contenders: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


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
    """What each connection adds between IDLE_FROM and IDLE_TO of them (half as many for a slow peer)."""
    peer, core = rig.peers[name], rig.cores.dialer
    with rig.listener(name) as listener, Held(peer, core, listener.address, IDLE_FROM):
        few = _at_rest(listener, IDLE_FROM)
        with Held(peer, core, listener.address, IDLE_TO - IDLE_FROM):
            many = _at_rest(listener, IDLE_TO)
    added = {key: (many[key] - few[key]) / (IDLE_TO - IDLE_FROM) for key in few}
    return {
        "bytes": added["rss"],
        "tasks": added["tasks"],
        "wakeups_s": added["wakeups"],
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
    Work("up", partial(_transfer, op="up", total=BULK_BYTES)),
    Work("down", partial(_transfer, op="down", total=BULK_BYTES)),
    Work("small", partial(_transfer, op="small", total=SMALL_BYTES, size=SMALL_WRITE_BYTES)),
    Work("up_tls", partial(_transfer, op="up", total=BULK_BYTES, options=TLS), options=TLS),
    Work("down_tls", partial(_transfer, op="down", total=BULK_BYTES, options=TLS), options=TLS),
    Work("up_ws", partial(_transfer, op="up", total=BULK_BYTES, options=WEBSOCKET), options=WEBSOCKET),
    Work("down_ws", partial(_transfer, op="down", total=BULK_BYTES, options=WEBSOCKET), options=WEBSOCKET),
    Work("conn16", partial(_repeat, op="conn", n=CONNS, c=16)),
    Work("conn16_tls", partial(_repeat, op="conn", n=CONNS, c=16, options=TLS), options=TLS),
    Work("conn1", partial(_repeat, op="conn", n=CONNS_ONE_BY_ONE, c=1)),
    Work("go_dials", partial(_repeat, op="conn", n=CONNS, c=16, dialer="go"), needs=("go",)),
    Work("stream64", partial(_repeat, op="stream", n=STREAMS, c=64)),
    Work("stream1", partial(_repeat, op="stream", n=STREAMS_ONE_BY_ONE, c=1)),
    Work("pingpong1", partial(_repeat, op="pingpong", n=PINGS, c=1)),
    Work("pingpong64", partial(_repeat, op="pingpong", n=PINGS_AT_ONCE, c=64)),
    Work("idle", _idle),
    Work("first_byte", _first_byte),
    Work("delayed_up", _delayed_transfer),
    Work("import", partial(_local, what="import"), contenders=("python",)),
    Work("multiaddr", partial(_local, what="multiaddr"), contenders=("python", "multiaddr")),
)
