"""What the limits on connections cost for each connection: at accept, when it is complete, and at its end.

Comes in: a connection from a public IPv4 or IPv6 address, or from the loopback, which is exempt. Goes out:
the time of all three steps together.
"""

from __future__ import annotations

from typing import Any

import pytest

from p2pcore import Limits, Multiaddr
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.conn import Conn, ConnOwner
from swarm_fakes import FakeConn, peer

IPS = {"ip4": "1.2.3.4", "ip6": "2a00:1:2:3::4", "loopback": "127.0.0.1"}


class Raw:
    """An accepted socket: its address as accept(2) gives it."""

    def __init__(self, ip: str) -> None:
        self.remote_sockaddr = (ip, 4001)


@pytest.mark.parametrize("ip", IPS.values(), ids=list(IPS))
@pytest.mark.parametrize("limits", ["on", "off"])
def test_connection_comes_and_goes(benchmark: Any, ip: str, limits: str) -> None:
    benchmark.group = f"limits on a connection: {limits}"
    given = Limits(max_conns=10_000, conn_rate_per_subnet=1e9, conn_burst_per_subnet=1_000_000)
    admission = Admission(limits=given.resolved()) if limits == "on" else Admission()
    raw: Any = Raw(ip)
    made: Any = FakeConn(peer(1), at=Multiaddr(f"/ip{6 if ':' in ip else 4}/{ip}/tcp/4001"))
    conn = Conn(made, 1, 0.0, ConnOwner(lambda *_: None))

    def comes_and_goes() -> None:
        assert admission.admits(raw)
        admission.admit(conn)
        admission.left(conn)

    benchmark(comes_and_goes)
