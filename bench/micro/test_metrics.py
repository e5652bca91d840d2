"""How long a scrape takes, and what an event costs that is counted.

Comes in: families of 300 series; rows. Goes out: the time of one text, and of one event.
"""

from __future__ import annotations

from typing import Any

from p2pcore import Multiaddr
from p2pcore._fast.loop.metrics import Histogram
from p2pcore.interfaces import ConnKind, ConnState, Direction
from p2pcore.metrics.family import Buckets, family
from p2pcore.metrics.names import DURATIONS_S, HANDSHAKES_S
from p2pcore.metrics.recorder import Recorder
from p2pcore.metrics.text import render, size_of
from swarm_fakes import FakeConn, peer

ADDR = Multiaddr("/ip4/1.2.3.4/tcp/4001")


def test_text_of_300_series(benchmark: Any) -> None:
    streams = {("inbound", f"/protocol/{number}"): number for number in range(162)}
    durations = Buckets(DURATIONS_S, (1,) * (len(DURATIONS_S) + 1), 1.5)
    kinds = {("inbound", "tcp", "/noise", f"/mux/{each}", "true", "ip4"): durations for each in range(5)}
    name = "libp2p_swarm_connection_duration_seconds"
    families = [family("p2pcore_streams", streams), family(name, kinds)]
    assert 300 <= size_of(families) <= 310
    benchmark(render, families)


def test_connection_comes_and_goes(benchmark: Any) -> None:
    kind: Any = ConnKind(None, Direction.INBOUND, ConnState("s", "m", "t", False), False)  # type: ignore[arg-type]
    conns, conn = Recorder().conns, FakeConn(peer(1), at=ADDR)

    def comes_and_goes() -> None:
        conns.add(conn, kind)
        conns.left(conn, kind, 0.0)

    benchmark(comes_and_goes)


def test_value_falls_into_a_bucket(benchmark: Any) -> None:
    histogram = Histogram(HANDSHAKES_S)
    benchmark(histogram.observe, 0.02)
