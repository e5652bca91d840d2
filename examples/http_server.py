"""An ASGI application that uvicorn serves over libp2p streams: python http_server.py [ADDRESS]

It needs uvicorn. `app` may be any ASGI application, for instance one of FastAPI or Starlette.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from p2pcore import Host, Stream, run
from p2pcore.streams import StreamTransport

PROTOCOL = "/http/1.1"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says who asked for what, and how long the body of the request was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    answer = {"path": scope["path"], "peer": scope["state"]["peer"], "bytes": size}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class HttpServer:
    """Serves `app`. Each stream is a connection for uvicorn.

    `scope["state"]["peer"]` is the id that the peer has proved.
    """

    def __init__(self, app: Any) -> None:
        self._config = uvicorn.Config(app, http="h11", lifespan="off", log_config=None)
        self._config.load()
        self._state = ServerState()

    async def serve(self, stream: Stream) -> None:
        """A stream handler."""
        state = {"peer": str(stream.conn.remote_peer)}
        transport = StreamTransport(stream, H11Protocol(self._config, self._state, state))
        await transport.wait_closed()


async def main(address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async with Host(listen=[address]) as host:
        host.set_stream_handler(PROTOCOL, HttpServer(app).serve)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        run(main(*sys.argv[1:2]))
    except KeyboardInterrupt:
        pass
