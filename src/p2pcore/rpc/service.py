"""A service: answers calls with the methods that a program gives it.

Comes in: methods; inbound streams, each with one call after another. Goes out: answers, or errors with a
code. What a method raises stays here and in the log, unless it is an RpcError. Never holds more calls than
its bounds allow, and never runs a call whose deadline has passed or whose caller is gone.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from p2pcore import limits, options
from p2pcore.aio.eager import Begun
from p2pcore.codes import RPC_RESET_BASE, RpcCode
from p2pcore.errors import (
    DeadlineExceeded,
    IncompleteRead,
    RpcError,
    StreamClosed,
    rpc_error,
)
from p2pcore.rpc import wire
from p2pcore.rpc.idle import Drains, Idle
from p2pcore.rpc.method import Method, StreamMethod, protocol_of
from p2pcore.rpc.places import Bounds, Places

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn, ProtocolHandler, Stream
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.rpc.service")

Q = TypeVar("Q")
A = TypeVar("A")

_NOTHING: Any = object()


class Server(Drains, Protocol):
    """What a service needs of a host."""

    def set_stream_handler(self, protocol: str, handler: ProtocolHandler, /) -> None:
        """See Host.set_stream_handler."""


class Call:
    """What a method may know about the call that it answers.

    Attributes:
        conn: the connection that the call came on.
        method: the name of the method.
        deadline: the event loop's time when the answer must be there; None: there is no deadline.
    """

    __slots__ = ("conn", "deadline", "method")

    def __init__(self, conn: Conn, method: str, deadline: float | None) -> None:
        self.conn = conn
        self.method = method
        self.deadline = deadline

    @property
    def peer(self) -> PeerId:
        """Who calls: the id that the peer has proved."""
        return self.conn.remote_peer

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None: there is none. For calls that this one makes."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


Handler = Callable[[Q, Call], Awaitable[A]]
"""Answers a call of a Method."""
StreamHandler = Callable[[Q, Call], AsyncIterator[A]]
"""Answers a call of a StreamMethod: an async generator function."""


class Service:
    """Methods under one name, with bounds for all of them together.

        service = Service("/shop/1.0.0")

        @service.method(PRICE)
        async def price(item: str, call: Call) -> float: ...

        service.serve(host)

    A method is cancelled when its deadline passes, when its caller gives up, and when the connection is lost.

    Args:
        name: '/' and more, with a version: "/shop/1.0.0". The protocol id is PREFIX and this name.
        bounds: how many calls may run and wait; see Bounds.
        max_request_bytes, max_answer_bytes: of one message. A call beyond one of them fails with
            RESOURCE_EXHAUSTED.
        idle_s: seconds after which a stream without calls is closed.

    Raises: TypeError, ValueError: an argument is wrong.

    Attributes:
        protocol: the protocol id.
        counts: calls that have ended, by code; None counts those that succeeded. No number ever falls.
    """

    def __init__(
        self,
        name: str,
        *,
        bounds: Bounds | None = None,
        max_request_bytes: int = limits.RPC_MAX_MESSAGE_BYTES,
        max_answer_bytes: int = limits.RPC_MAX_MESSAGE_BYTES,
        idle_s: float = limits.RPC_SERVER_IDLE_S,
    ) -> None:
        options.whole("max_request_bytes", max_request_bytes)
        options.whole("max_answer_bytes", max_answer_bytes)
        options.seconds("idle_s", idle_s)
        self.protocol = protocol_of(name)
        self.counts: Counter[RpcCode | None] = Counter()
        self._name = name
        self._max_request = max_request_bytes
        self._max_answer = max_answer_bytes
        self._idle_s = idle_s
        self._places = Places(options.given("bounds", bounds, Bounds))
        self._methods: dict[bytes, tuple[Method[Any, Any] | StreamMethod[Any, Any], Any]] = {}

    @property
    def num_running(self) -> int:
        """Calls that run now."""
        return self._places.num_running

    @property
    def num_queued(self) -> int:
        """Calls that wait to run."""
        return self._places.num_queued

    @overload
    def method(self, method: Method[Q, A]) -> Callable[[Handler[Q, A]], Handler[Q, A]]: ...
    @overload
    def method(self, method: StreamMethod[Q, A]) -> Callable[[StreamHandler[Q, A]], StreamHandler[Q, A]]: ...
    def method(self, method: Method[Q, A] | StreamMethod[Q, A]) -> Callable[[Any], Any]:
        """Decorates the function that answers calls of `method`, and returns it unchanged.

        The function takes a request and a Call. It returns the answer; for a StreamMethod it is an async
        generator function, and yields them.

        Raises: TypeError: `method` is no method, or the function is of the other kind. ValueError: the
            service has one with this name.
        """
        options.instance("method", method, Method, StreamMethod)

        def add(handler: Any) -> Any:
            options.function("handler", handler)
            _check_kind(method, handler)
            if method.wire_name in self._methods:
                raise ValueError(f"the service {self._name} has a method {method.name!r} already")
            self._methods[method.wire_name] = (method, handler)
            return handler

        return add

    def serve(self, host: Server) -> None:
        """Answers calls that come to `host`. One service may serve several hosts.

        When the host drains, each stream ends after its call, and callers go elsewhere.
        """
        host.set_stream_handler(self.protocol, partial(self._serve, Idle(host, self._idle_s)))

    # -- one stream ----------------------------------------------------------------------------

    async def _serve(self, idle: Idle, stream: Stream) -> None:
        """The stream handler: answers one call after another, until one side ends the stream."""
        while (head := await self._next_head(idle, stream)) is not None:
            if not await self._answer_one(stream, head) or idle.is_draining:
                return

    async def _next_head(self, idle: Idle, stream: Stream) -> bytes | None:
        """The head of the next request; None: no further one comes."""
        idle.begin(stream)
        try:
            return await stream.read_exactly(wire.REQUEST.size)
        except IncompleteRead as error:
            if error.partial:
                raise
            return None
        except StreamClosed:  # by `idle`
            return None
        finally:
            idle.end(stream)

    async def _answer_one(self, stream: Stream, head: bytes) -> bool:
        """Reads the rest of a request and answers it. Returns: whether the stream can carry another call."""
        name_size, left_s, size = wire.unpack_request_head(head)
        deadline = None if left_s is None else asyncio.get_running_loop().time() + left_s
        if size > self._max_request:
            error = _too_large("a request", size, "takes", self._max_request)
            await self._write(stream, wire.pack_error(error))
            self.counts[error.code] += 1
            return False
        stream.set_read_deadline(limits.RPC_REQUEST_TIMEOUT_S)
        try:
            name = await stream.read_exactly(name_size)
            body = await stream.read_exactly(size, size) if size else b""
        except DeadlineExceeded:
            stream.reset(RPC_RESET_BASE + RpcCode.DEADLINE_EXCEEDED)
            return False
        stream.set_read_deadline(None)
        try:
            await self._call(stream, name, body, deadline)
        except RpcError as error:
            await self._write(stream, wire.pack_error(error))
            self.counts[error.code] += 1
        except asyncio.CancelledError:  # the caller is gone, or the host ends
            self.counts[RpcCode.CANCELLED] += 1
            stream.reset(RPC_RESET_BASE + RpcCode.UNAVAILABLE)
            raise
        else:
            self.counts[None] += 1
        return True

    async def _call(self, stream: Stream, name: bytes, body: bytes, deadline: float | None) -> None:
        """Runs a call in a place, and writes its answers. Raises RpcError: what to answer instead."""
        found = self._methods.get(name)
        if found is None:
            shown = name.decode(errors="replace")
            raise rpc_error(RpcCode.UNIMPLEMENTED, f"{self._name} has no method {shown!r}")
        method, handler = found
        call = Call(stream.conn, method.name, deadline)
        peer = call.conn.remote_peer
        if not self._places.try_enter(peer):
            await _in_time(deadline, self._places.enter(peer, len(body)))
        try:
            if deadline is not None and asyncio.get_running_loop().time() >= deadline:
                raise _late()
            request = _decoded(method, body)
            if isinstance(method, Method):
                parts = await self._result(method, handler, request, call)
                await self._write(stream, parts)
            else:
                await _in_time(deadline, self._send_items(stream, method, handler, request, call))
        finally:
            self._places.leave(peer)

    async def _result(
        self, method: Method[Q, A], handler: Handler[Q, A], request: Q, call: Call
    ) -> wire.Parts:
        """Runs the method, and packs what it returns. Raises RpcError."""
        try:
            running = Begun(handler(request, call))  # most methods are done at once, and need no timer
            if running.is_done or call.deadline is None:
                return self._packed(wire.RESULT, method, await running)
            return self._packed(wire.RESULT, method, await _in_time(call.deadline, running))
        except RpcError:
            raise
        except Exception as error:
            raise _failed(call, error) from error

    async def _send_items(
        self, stream: Stream, method: StreamMethod[Q, A], handler: StreamHandler[Q, A], request: Q, call: Call
    ) -> None:
        """Runs the method, and writes each item as it comes: the next one waits until it could be sent."""
        try:
            items = _Guarded(call, handler(request, call))
        except RpcError:
            raise
        except Exception as error:
            raise _failed(call, error) from error
        try:
            while (item := await items.next()) is not _NOTHING:
                await self._write(stream, items.guard(self._packed, wire.ITEM, method, item))
        finally:
            await items.close()
        await self._write(stream, wire.pack_answer(wire.END))

    def _answer_too_large(self, method: str, size: int) -> RpcError:
        error = _too_large("an answer", size, "sends", self._max_answer)
        logger.error("%s: method %s: %s", self._name, method, error.message)
        return error

    def _packed(self, kind: int, method: Method[Q, A] | StreamMethod[Q, A], answer: A) -> wire.Parts:
        body = method.answer.encode(answer)
        if len(body) > self._max_answer:
            raise self._answer_too_large(method.name, len(body))
        return wire.pack_answer(kind, body)

    async def _write(self, stream: Stream, parts: wire.Parts) -> None:
        """Writes one answer whole, or resets the stream. A caller that does not read ends the wait."""
        stream.set_write_deadline(limits.RPC_WRITE_TIMEOUT_S)
        try:
            for part in parts:
                await stream.write(part)
        except BaseException as error:
            late = isinstance(error, DeadlineExceeded)
            stream.reset(RPC_RESET_BASE + (RpcCode.DEADLINE_EXCEEDED if late else RpcCode.UNAVAILABLE))
            raise


class _Guarded:
    """The items of a method. What it raises becomes an RpcError, and goes to the log."""

    __slots__ = ("_call", "_items")

    def __init__(self, call: Call, items: AsyncIterator[Any]) -> None:
        self._call = call
        self._items = items

    async def next(self) -> Any:
        """The next item, or _NOTHING."""
        try:
            return await anext(self._items, _NOTHING)
        except RpcError:
            raise
        except Exception as error:
            raise _failed(self._call, error) from error

    def guard(self, function: Callable[..., wire.Parts], *args: Any) -> wire.Parts:
        """What `function` returns."""
        try:
            return function(*args)
        except RpcError:
            raise
        except Exception as error:
            raise _failed(self._call, error) from error

    async def close(self) -> None:
        """Lets the generator run its `finally` blocks."""
        close = getattr(self._items, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception as error:
                _failed(self._call, error)


def _check_kind(method: Method[Any, Any] | StreamMethod[Any, Any], handler: Any) -> None:
    if isinstance(method, Method) and inspect.isasyncgenfunction(handler):
        raise TypeError(f"the handler of {method.name!r} yields; a Method has one answer, use a StreamMethod")
    if isinstance(method, StreamMethod) and inspect.iscoroutinefunction(handler):
        name = method.name
        raise TypeError(f"the handler of {name!r} never yields; it must be an async generator function")


async def _in_time(deadline: float | None, work: Awaitable[A]) -> A:
    """What `work` returns. Raises RpcError: the deadline passed, and `work` was cancelled."""
    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise _late() from None
        raise


def _late() -> RpcError:
    return rpc_error(RpcCode.DEADLINE_EXCEEDED, "the deadline passed at the service")


def _decoded(method: Method[Q, A] | StreamMethod[Q, A], body: bytes) -> Q:
    try:
        return method.request.decode(body)
    except RpcError:
        raise
    except Exception as error:
        logger.debug("method %s: a request that cannot be decoded: %r", method.name, error)
        raise rpc_error(RpcCode.INVALID_ARGUMENT, "the request cannot be decoded") from error


def _failed(call: Call, error: Exception) -> RpcError:
    """What a caller hears of an error that is not for it."""
    logger.error("%s: method %s raised", call.conn, call.method, exc_info=error)
    return rpc_error(RpcCode.INTERNAL, "the method failed")


def _too_large(what: str, size: int, verb: str, most: int) -> RpcError:
    return rpc_error(RpcCode.RESOURCE_EXHAUSTED, f"{what} of {size} bytes; the service {verb} at most {most}")
