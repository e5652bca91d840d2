"""A local port that leads to a program behind a peer.

    python port_forward.py expose LOCAL [ADDRESS]      streams lead to LOCAL, where a program listens
    python port_forward.py connect ADDRESS LOCAL       connections to LOCAL become streams to the peer

LOCAL is a multiaddr: /ip4/127.0.0.1/tcp/8080 or /unix/run/app.sock. Each prints its address.
"""

from __future__ import annotations

import asyncio
import sys

from p2pcore import Host, run
from p2pcore.streams import forward, to_local

PROTOCOL = "/example-tunnel/1.0.0"


async def expose(local: str, address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async with Host(listen=[address]) as host:
        host.set_stream_handler(PROTOCOL, to_local(local), max_streams_per_peer=100)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


async def connect(address: str, local: str) -> None:
    async with (
        Host(listen=[]) as host,
        forward(local, lambda: host.new_stream(address, PROTOCOL), max_conns=100) as port,
    ):
        print(port.local, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    try:
        run(expose(*arguments) if command == "expose" else connect(*arguments))
    except KeyboardInterrupt:
        pass
