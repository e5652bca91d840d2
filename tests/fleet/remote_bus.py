"""The buses of real worker processes, driven by a test in another process.

Comes in: in a worker, a Worker; in the test, connections to workers. Goes out: RemoteBus objects. Each has
its worker do what a test says, and calls the callbacks of the test. All on one stream, pickled, in order.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from p2pcore import Conn, Host, P2PError, Stream, Worker
from p2pcore.fleet import BusMessage, WorkersBus
from p2pcore.limits import BUS_MAX_MESSAGE_BYTES

BUS, WHO = "/test-bus/1", "/test-who/1"
_MOST = 2 * BUS_MAX_MESSAGE_BYTES


# -- in a worker -------------------------------------------------------------------------------


def make(worker: Worker) -> Host:
    """A worker whose buses a test drives: one for each stream of BUS."""
    host = worker.host()

    async def who(stream: Stream) -> None:
        await stream.write(str(os.getpid()).encode())

    async def serve(stream: Stream) -> None:
        await _Served(stream, WorkersBus(worker)).run()

    host.set_stream_handler(WHO, who)
    host.set_stream_handler(BUS, serve)
    return host


class _Served:
    """One bus here, and the stream to its test."""

    def __init__(self, stream: Stream, bus: WorkersBus) -> None:
        self._stream = stream
        self._objects: dict[int, Any] = {0: bus}  # what calls and closes name by number
        self._answers: dict[int, Callable[[Any], None]] = {}
        self._numbers = itertools.count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sender = _Sender(stream)

    async def run(self) -> None:
        with suppress(P2PError):
            async for message in self._stream.msgs(_MOST):
                kind, *rest = pickle.loads(message)
                getattr(self, f"_{kind}")(*rest)
        for task in list(self._tasks.values()):
            task.cancel()
        await self._objects[0].close()

    def _call(self, n: int, on: int, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        task = asyncio.ensure_future(self._run(n, on, name, args, more))
        self._tasks[n] = task
        task.add_done_callback(lambda _: self._tasks.pop(n, None))

    async def _run(self, n: int, on: int, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        args = tuple(self._callback(each) if isinstance(each, Token) else each for each in args)
        try:
            found = getattr(self._objects[on], name)(*args, **more)
            result = await found if asyncio.iscoroutine(found) else found
        except Exception as error:
            self._sender.send("failed", n, error)
            return
        if not isinstance(result, bytes | dict | bool | None):  # a bucket or a subscription: it stays here
            self._objects[n] = result
            result = None
        self._sender.send("done", n, result)

    def _callback(self, token: Token) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if isinstance(args[0], BusMessage):
                message, number = args[0], 0
                if message.answer is not None:
                    number = next(self._numbers)
                    self._answers[number] = message.answer
                args = (message.subject, message.data, number)
            self._sender.send("event", token.number, args)

        return call

    def _cancel(self, n: int) -> None:
        if n in self._tasks:
            self._tasks[n].cancel()

    def _answer(self, number: int, data: Any) -> None:
        self._answers[number](data)

    def _close(self, n: int) -> None:
        if n in self._objects:
            self._objects[n].close()

    def _is_up(self, n: int) -> None:
        self._sender.send("done", n, self._objects[0].is_up)


# -- in the test -------------------------------------------------------------------------------


class Token:
    """Stands for a callback of the test."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Sender:
    """Sends messages in the order of the calls, without a wait of the caller."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queue: list[bytes] = []
        self._sending: asyncio.Task[None] | None = None

    def send(self, *message: Any) -> None:
        self._queue.append(pickle.dumps(message))
        if self._sending is None:
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        try:
            with suppress(P2PError):
                while self._queue:
                    await self._stream.write_msg(self._queue.pop(0))
        finally:
            self._sending = None


class _Handle:
    """A subscription of the test."""

    def __init__(self, bus: RemoteBus, n: int, token: int) -> None:
        self._bus = bus
        self._n = n
        self._token = token

    def close(self) -> None:
        self._bus._callbacks.pop(self._token, None)
        self._bus._sender.send("close", self._n)


class RemoteBus:
    """A `Bus` that is in another process. `start` connects it."""

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._callbacks: dict[int, Callable[..., None]] = {}
        self.is_up = True
        self.num_dropped = 0

    async def start(self) -> None:
        self._stream = await self._conn.new_stream(BUS)
        self._sender = _Sender(self._stream)
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._stream.msgs(_MOST):
            kind, n, what = pickle.loads(message)
            if kind == "event":
                self._event(n, what)
                continue
            call = self._calls.get(n)
            if call is not None and not call.done():
                if kind == "failed":
                    call.set_exception(what)
                else:
                    call.set_result(what)

    def _event(self, token: int, args: tuple[Any, ...]) -> None:
        callback = self._callbacks.get(token)
        if callback is None:
            return
        if len(args) == 3:
            subject, data, number = args
            sender = self._sender
            answer = (lambda answer: sender.send("answer", number, answer)) if number else None
            args = (BusMessage(subject, data, answer),)
        with suppress(RuntimeError):  # what a callback of a test raises on purpose
            callback(*args)

    async def _call(self, on: int, name: str, *args: Any, **more: Any) -> tuple[int, Any]:
        n = next(self._numbers)
        call: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[n] = call
        self._sender.send("call", n, on, name, args, more)
        try:
            return n, await call
        except asyncio.CancelledError:
            self._sender.send("cancel", n)
            raise
        finally:
            del self._calls[n]

    async def _call_with(self, on: int, name: str, first: Any, callback: Any) -> _Handle:
        token = next(self._numbers)
        given = callback
        if callable(callback):
            self._callbacks[token], given = callback, Token(token)
        try:
            n, _ = await self._call(on, name, first, given)
        except BaseException:
            self._callbacks.pop(token, None)
            raise
        return _Handle(self, n, token)

    def on_state(self, changed: Any) -> Any:
        if not callable(changed):
            raise TypeError(
                "changed must be a function"
            )  # checked in the worker as well; there it is awaited
        return _Handle(self, 0, 0)  # its engine never comes back, so the tests that would be told are skipped

    async def publish(self, subject: str, data: bytes) -> None:
        await self._call(0, "publish", subject, data)

    async def subscribe(self, subject: str, deliver: Any) -> Any:
        return await self._call_with(0, "subscribe", subject, deliver)

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        _, answer = await self._call(0, "request", subject, data, timeout_s=timeout_s)
        found: bytes = answer
        return found

    async def bucket(self, name: str, *, expiry_s: float | None = None) -> Any:
        n, _ = await self._call(0, "bucket", name, expiry_s=expiry_s)
        return RemoteBucket(self, n)

    async def close(self) -> None:
        if self.is_up:
            self.is_up = False
            self._callbacks.clear()
            await self._call(0, "close")

    async def leave(self) -> None:
        """The test has ended."""
        await self.close()
        await self._stream.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


class RemoteBucket:
    """A `Bucket` that is in another process."""

    def __init__(self, bus: RemoteBus, n: int) -> None:
        self._bus = bus
        self._n = n

    async def put(self, entries: Mapping[str, bytes | None]) -> None:
        await self._bus._call(self._n, "put", entries)

    async def get(self, key: str) -> dict[str, bytes]:
        _, entries = await self._bus._call(self._n, "get", key)
        found: dict[str, bytes] = entries
        return found

    async def swap(self, key: str, expected: bytes | None, value: bytes | None) -> bool:
        _, is_swapped = await self._bus._call(self._n, "swap", key, expected, value)
        assert isinstance(is_swapped, bool)
        return is_swapped

    async def watch(self, key: str, changed: Any) -> Any:
        return await self._bus._call_with(self._n, "watch", key, changed)
