"""A service with typed methods: one answer, a stream of answers, errors with codes.

    python rpc_stock.py serve
    python rpc_stock.py order ADDRESS tea 3
    python rpc_stock.py watch ADDRESS tea

Service and client share the methods and their codecs, so a type checker sees a wrong request at its caller.
Here they are JSON; a codec is any pair of functions.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict, dataclass

from p2pcore import Host, rpc, run

SERVICE = "/example-stock/1.0.0"


@dataclass
class Order:
    item: str
    count: int


ORDERS = rpc.Codec[Order](
    lambda order: json.dumps(asdict(order)).encode(), lambda data: Order(**json.loads(data))
)
NUMBERS = rpc.Codec[int](lambda number: json.dumps(number).encode(), lambda data: int(json.loads(data)))
TEXTS = rpc.Codec[str](str.encode, bytes.decode)

ORDER = rpc.Method("order", ORDERS, NUMBERS)
"""Takes something out. Answers how many are left."""
WATCH = rpc.StreamMethod("watch", TEXTS, NUMBERS)
"""How many are left: now, and after each change, until nothing is left."""


class Stock:
    """What is there, and the methods of the service."""

    def __init__(self) -> None:
        self.service = rpc.Service(SERVICE)
        self.service.method(ORDER)(self.order)
        self.service.method(WATCH)(self.watch)
        self._left = {"tea": 10, "rice": 5}
        self._changed = asyncio.Condition()

    async def order(self, request: Order, call: rpc.Call) -> int:
        left = self._find(request.item)
        if not 0 < request.count <= left:
            raise rpc.RpcError(rpc.Code.FAILED_PRECONDITION, f"{left} of {request.item} are left")
        async with self._changed:
            self._left[request.item] = left = left - request.count
            self._changed.notify_all()
        return left

    async def watch(self, item: str, call: rpc.Call) -> AsyncIterator[int]:
        while left := self._find(item):
            yield left
            async with self._changed:
                while self._left[item] == left:
                    await self._changed.wait()
        yield 0

    def _find(self, item: str) -> int:
        if item not in self._left:
            raise rpc.RpcError(rpc.Code.NOT_FOUND, f"there is no {item}")
        return self._left[item]


async def serve(address: str = "/ip4/127.0.0.1/tcp/0") -> None:
    async with Host(listen=[address]) as host:
        Stock().service.serve(host)
        print(*host.addrs_with_peer, sep="\n", flush=True)
        await asyncio.Event().wait()


async def order(address: str, item: str, count: str) -> None:
    async with Host(listen=[]) as host, rpc.Client(host, address, SERVICE) as stock:
        print(await stock.call(ORDER, Order(item, int(count)), timeout_s=5))


async def watch(address: str, item: str) -> None:
    async with (
        Host(listen=[]) as host,
        rpc.Client(host, address, SERVICE) as stock,
        stock.stream(WATCH, item) as numbers,
    ):
        async for number in numbers:
            print(number, flush=True)


if __name__ == "__main__":
    commands: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "serve": serve,
        "order": order,
        "watch": watch,
    }
    try:
        run(commands[sys.argv[1]](*sys.argv[2:]))
    except rpc.RpcError as error:
        sys.exit(f"refused: {error}")
    except KeyboardInterrupt:
        pass
