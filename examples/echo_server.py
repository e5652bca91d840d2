"""Sends every byte back, until Ctrl-C: python echo_server.py [ADDRESS]"""

from __future__ import annotations

import asyncio
import sys

from p2pcore import Host, Stream, run

PROTOCOL = "/example-echo/1.0.0"


async def echo(stream: Stream) -> None:
    """Serves one stream. It is closed when this returns, and reset when this raises."""
    while data := await stream.read():
        await stream.write(data)


async def main(address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async with Host(listen=[address]) as host:
        host.set_stream_handler(PROTOCOL, echo)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        run(main(*sys.argv[1:2]))
    except KeyboardInterrupt:
        pass
