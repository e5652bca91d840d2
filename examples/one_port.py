"""Listens for plain TCP and for WebSocket on one port, until Ctrl-C: python one_port.py [PORT]

The first bytes of a connection tell its kind. Both addresses lead to the same host and the same handlers.
"""

from __future__ import annotations

import asyncio
import sys

from p2pcore import Host, Stream, run

PROTOCOL = "/example-transport/1.0.0"


async def say_transport(stream: Stream) -> None:
    """Tells the peer which transport it uses."""
    assert stream.conn is not None
    await stream.write(stream.conn.state.transport.encode())


async def main(port: str = "4001") -> None:
    tcp = f"/ip4/127.0.0.1/tcp/{port}"
    async with Host(listen=[tcp, f"{tcp}/ws"]) as host:
        host.set_stream_handler(PROTOCOL, say_transport)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        run(main(*sys.argv[1:2]))
    except KeyboardInterrupt:
        pass
