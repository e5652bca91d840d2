"""What test_own_faults.py runs as root, in a network namespace of its own: one promise."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import p2pcore
from p2pcore import Host, TcpOptions
from p2pcore.errors import DialError
from p2pcore.values.keys import PrivateKey

NOBODY = 65534


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


async def no_route_blames_nobody() -> None:
    """Without a network, and then with routes that say no."""
    peer = PrivateKey.generate().peer_id()
    addrs = [f"/ip4/8.8.8.8/tcp/1/p2p/{peer}", f"/ip6/2001:4860::1/tcp/1/p2p/{peer}"]
    async with Host(listen=()) as host:
        for kind in ("", "unreachable", "prohibit"):
            if kind:
                ip("route", "replace", kind, "8.8.8.0/24")
                ip("-6", "route", "replace", kind, "2001:4860::/32")
            for addr in addrs:
                try:
                    await host.connect(addr)
                except DialError as error:
                    print(kind, error)
                assert len(host.swarm._dialer.backoff) == 0, (kind, addr)


async def a_low_port_is_left_to_root() -> None:
    """Binds a low port, gives up root, and dials from there as it cannot any more."""
    listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/81"]
    async with (
        Host(listen=listen[:1]) as server,
        Host(listen=listen[1:], tcp=TcpOptions(dial_from_listener=True)) as dialer,
    ):
        os.setuid(NOBODY)
        await dialer.ping(server.addrs_with_peer[0])


if __name__ == "__main__":
    ip("link", "set", "lo", "up")
    p2pcore.run(asyncio.wait_for(globals()[sys.argv[1]](), 30))
