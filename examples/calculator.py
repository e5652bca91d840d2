"""A service that answers requests.

    python calculator.py serve
    python calculator.py ask ADDRESS add 1 2 3

A message is its length in four bytes, then JSON. A stream carries any number of requests, which are answered
in order.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from p2pcore import Host, IncompleteRead, LimitExceeded, P2PError, RemoteProtocolError, Stream, run

PROTOCOL = "/example-calculator/1.0.0"
MAX_MESSAGE_BYTES = 64 * 1024
IDLE_S = 60
OPERATIONS: dict[str, Callable[[list[float]], float]] = {"add": sum, "multiply": math.prod, "most": max}


async def send(stream: Stream, message: object) -> None:
    data = json.dumps(message).encode()
    await stream.write(len(data).to_bytes(4, "big") + data)


async def receive(stream: Stream) -> Any:
    """The next message. Raises IncompleteRead at the end, RemoteProtocolError or LimitExceeded."""
    size = int.from_bytes(await stream.read_exactly(4), "big")
    if size > MAX_MESSAGE_BYTES:  # checked before we wait for the message
        raise LimitExceeded("MAX_MESSAGE_BYTES", size, MAX_MESSAGE_BYTES)
    try:
        return json.loads(await stream.read_exactly(size))
    except ValueError as error:
        raise RemoteProtocolError(f"what was sent is no JSON: {error}") from error


def answer(request: Any) -> dict[str, Any]:
    """The answer to `request`. If the request is wrong, the answer says so."""
    try:
        return {"result": OPERATIONS[request["operation"]](request["numbers"])}
    except (KeyError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def serve_calculator(stream: Stream) -> None:
    while True:
        stream.set_deadline(IDLE_S)  # a silent peer does not keep its place for ever
        try:
            request = await receive(stream)
        except IncompleteRead as error:
            if error.partial:
                raise  # the stream ended in the middle of a message
            return
        await send(stream, answer(request))


async def serve(address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async with Host(listen=[address]) as host:
        host.set_stream_handler(PROTOCOL, serve_calculator)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


async def ask(address: str, operation: str, *numbers: str) -> None:
    async with Host(listen=[]) as host:
        stream = await host.new_stream(address, PROTOCOL)
        stream.set_deadline(10)
        await send(stream, {"operation": operation, "numbers": [float(each) for each in numbers]})
        reply = await receive(stream)
        await stream.close()
    print(reply["result"] if "result" in reply else f"refused: {reply['error']}")


if __name__ == "__main__":
    try:
        run(serve(*sys.argv[2:]) if sys.argv[1] == "serve" else ask(*sys.argv[2:]))
    except P2PError as error:
        sys.exit(f"no answer: {error}")
    except KeyboardInterrupt:
        pass
