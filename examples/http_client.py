"""HTTP requests with httpx over libp2p streams: python http_client.py ADDRESS PATH [BODY]

It needs httpx. The program uses httpx as always; only its transport is another one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore
import httpx

from p2pcore import Host, Stream, run
from p2pcore.errors import DeadlineExceeded, P2PError

PROTOCOL = "/http/1.1"


class Peer(httpx.AsyncBaseTransport, httpcore.AsyncNetworkBackend):
    """Sends each request to one peer, on a stream of its own. The host name in a URL has no meaning.

    Args:
        target: an address with /p2p/ID, or the id of a connected peer.
    """

    def __init__(self, host: Host, target: str) -> None:
        self._host = host
        self._target = target
        self._pool = httpcore.AsyncConnectionPool(network_backend=self, max_keepalive_connections=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(scheme="http", host="peer", port=None, target=request.url.raw_path)
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                url,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=Body(answer))

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return Network(await self._host.new_stream(self._target, PROTOCOL))
        except (P2PError, OSError) as error:
            raise httpcore.ConnectError(str(error)) from error

    async def aclose(self) -> None:
        await self._pool.aclose()


class Body(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


class Network(httpcore.AsyncNetworkStream):
    """A stream as httpcore sees a socket."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._stream.set_read_deadline(timeout)
        try:
            return await self._stream.read(max_bytes)
        except DeadlineExceeded as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except P2PError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.set_write_deadline(timeout)
        try:
            await self._stream.write(buffer)
        except DeadlineExceeded as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except P2PError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return None


async def main(address: str, path: str, body: str | None = None) -> str:
    async with Host(listen=[]) as host, httpx.AsyncClient(transport=Peer(host, address)) as client:
        url = f"http://peer{path}"
        answer = await (client.get(url) if body is None else client.post(url, content=body))
        return f"{answer.status_code} {answer.text}"


if __name__ == "__main__":
    try:
        print(run(main(*sys.argv[1:])))
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        sys.exit(f"no answer: {error}")
