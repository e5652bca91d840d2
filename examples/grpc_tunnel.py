"""gRPC between peers, with grpc.aio unchanged: python grpc_tunnel.py serve [ADDRESS] | ask ADDRESS NAME

It needs grpcio. gRPC speaks only to sockets, so each side has a UNIX socket in a directory that only its user
can open. p2pcore joins the two sockets by streams, which carry HTTP/2 as it is.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

import grpc
import grpc.aio

from p2pcore import Host, run
from p2pcore.streams import forward, to_local

PROTOCOL = "/example-grpc/1.0.0"


async def hello(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    if not request:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a name is expected")
    return b"hello " + request


async def serve(address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    """A gRPC server as always, on a socket to which every stream of PROTOCOL leads."""
    with tempfile.TemporaryDirectory() as directory:
        server = grpc.aio.server()
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Hello": grpc.unary_unary_rpc_method_handler(hello)
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Greeter", methods),))
        server.add_insecure_port(f"unix:{directory}/grpc")
        await server.start()
        async with Host(listen=[address]) as host:
            host.set_stream_handler(PROTOCOL, to_local(f"/unix{directory}/grpc"))
            print(*host.addrs_with_peer, sep="\n", flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                await server.stop(1)


async def ask(address: str, name: str) -> str:
    """A gRPC channel as always, on a socket that leads to the peer."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            Host(listen=[]) as host,
            forward(f"/unix{directory}/grpc", lambda: host.new_stream(address, PROTOCOL)),
            grpc.aio.insecure_channel(f"unix:{directory}/grpc") as channel,
        ):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/Greeter/Hello")
            answer = await call(name.encode(), timeout=30)
            return answer.decode()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    try:
        if command == "ask":
            print(run(ask(*arguments)))
        else:
            run(serve(*arguments))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except KeyboardInterrupt:
        pass
