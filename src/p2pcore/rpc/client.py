"""The client of one service at one peer.

Comes in: methods with requests. Goes out: answers, or one RpcError for whatever went wrong. Each call has a
stream for itself while it lasts; streams and the connection are used again. Never sends a request twice,
unless the peer has shown that it has not run it, or the caller allows it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, Self, TypeVar

from p2pcore import codes, limits, options
from p2pcore.aio.deadlines import Deadlines, end_stream
from p2pcore.codes import RPC_RESET_BASE, RpcCode
from p2pcore.errors import (
    ConnectionClosed,
    DeadlineExceeded,
    IncompleteRead,
    LimitExceeded,
    NegotiationError,
    NegotiationTimeout,
    P2PError,
    ProtocolNotSupported,
    RefusedByPeer,
    RemoteProtocolError,
    RpcError,
    StreamReset,
    is_unserved,
    rpc_error,
)
from p2pcore.rpc import wire
from p2pcore.rpc.method import Method, StreamMethod, protocol_of
from p2pcore.rpc.pool import Pool
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from p2pcore.interfaces import Conn, Network, Stream
    from p2pcore.rpc.retry import Retry

Q = TypeVar("Q")
A = TypeVar("A")

_DEFAULT: Final[Any] = object()


class Dialer(Protocol):
    """What a client needs of a host."""

    @property
    def swarm(self) -> Network:
        """Where connections that lead to nothing are reported."""
        ...

    def connect(self, target: Conn | PeerId | Multiaddr | str, /) -> Awaitable[Conn]:
        """See Host.connect."""
        ...


class Client:
    """Calls the methods of one service at one peer; an async context manager.

        async with rpc.Client(host, address, "/shop/1.0.0") as shop:
            price = await shop.call(PRICE, "tea", timeout_s=1)

    It connects when the first call needs it, and again after the connection was lost.

    Args:
        host: opens the connections.
        target: the peer: an address, an id, or a connection; see Host.connect.
        service: the name of the service.
        timeout_s: seconds for a call that does not say otherwise; None: no deadline.
        max_streams: calls under way at once; others wait for one of them, in order.
        max_request_bytes, max_answer_bytes: of one message. A call beyond one of them fails with
            RESOURCE_EXHAUSTED.
        idle_s: seconds after which a stream that no call uses is closed. It takes up to twice as long.
        allow_limited: use a connection even if a relay limits it.

    Raises:
        TypeError, ValueError: an argument is wrong. AddressError, IdentityError: `target` is malformed.
    """

    def __init__(
        self,
        host: Dialer,
        target: Conn | PeerId | Multiaddr | str,
        service: str,
        *,
        timeout_s: float | None = limits.RPC_TIMEOUT_S,
        max_streams: int = limits.RPC_MAX_STREAMS,
        max_request_bytes: int = limits.RPC_MAX_MESSAGE_BYTES,
        max_answer_bytes: int = limits.RPC_MAX_MESSAGE_BYTES,
        idle_s: float = limits.RPC_IDLE_S,
        allow_limited: bool = False,
    ) -> None:
        _check_timeout(timeout_s)
        options.whole("max_streams", max_streams, 1)
        options.whole("max_request_bytes", max_request_bytes)
        options.whole("max_answer_bytes", max_answer_bytes)
        options.seconds("idle_s", idle_s)
        options.flag("allow_limited", allow_limited)
        self._host = host
        self._target = _target(target)
        self._is_named = isinstance(self._target, PeerId) or (
            isinstance(self._target, Multiaddr) and self._target.peer_id is not None
        )
        self._protocol = protocol_of(service)
        self._timeout_s = timeout_s
        self._max_request = max_request_bytes
        self._max_answer = max_answer_bytes
        self._allow_limited = allow_limited
        self._pool = Pool(self._open, max_streams, idle_s)
        self._deadlines = Deadlines(end_stream)
        self._conn: Conn | None = None
        self._dialing = asyncio.Lock()
        self._num_failed_dials = 0
        self._dial_failure = (RpcCode.UNAVAILABLE, "")
        self._is_closed = False

    @property
    def conn(self) -> Conn | None:
        """The connection that calls use now, if there is one."""
        return self._conn

    async def call(
        self,
        method: Method[Q, A],
        request: Q,
        *,
        timeout_s: float | None = _DEFAULT,
        retry: Retry | None = None,
    ) -> A:
        """The answer to `request`.

        If this is cancelled, the service learns it and cancels the method.

        Args:
            timeout_s: seconds from now, for connecting, waiting, and all attempts; the service knows what is
                left of them. 0: fails at once. None: no deadline. By default as the client was told.
            retry: the call may run more than once; makes it again after some errors. See Retry.

        Raises:
            RpcError: the call failed; `code` says why. Its cause is the error below it, if there is one.
                RpcTimeout is also a TimeoutError, RpcUnavailable also a ConnectionError.
            Exception: what the request's codec raises.
        """
        body = self._encoded(method, request)
        deadline = self._deadline(timeout_s)
        failed = 0
        while True:
            try:
                return _decoded(method, await self._attempt(method.wire_name, body, deadline))
            except RpcError as error:
                failed += 1
                if retry is None or (pause_s := retry.pause(failed, error)) is None:
                    raise
                left_s = _left(deadline)
                if left_s is not None and pause_s >= left_s:
                    raise
            await asyncio.sleep(pause_s)

    def stream(self, method: StreamMethod[Q, A], request: Q, *, timeout_s: float | None = None) -> Items[A]:
        """The answers to `request`, one after another.

            async with client.stream(PRICES, "tea") as prices:
                async for price in prices: ...

        The service makes the next one when the caller has taken enough of the earlier ones. The end of the
        block tells the service that no more are wanted.

        Args: timeout_s: seconds from now until the last item; None: no deadline.

        Raises: as `call`; errors of the call come from the iteration.
        """
        return Items(self, method, self._encoded(method, request), self._deadline(timeout_s))

    async def close(self) -> None:
        """Closes the streams that no call uses. Calls under way go on; further ones fail. Idempotent.

        The connection stays: it belongs to the host.
        """
        self._is_closed = True
        self._pool.close()
        self._deadlines.rest()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- one call ------------------------------------------------------------------------------

    def _encoded(self, method: Method[Q, A] | StreamMethod[Q, A], request: Q) -> bytes:
        if self._is_closed:
            raise rpc_error(RpcCode.CANCELLED, "the client was closed")
        body = method.request.encode(request)
        if len(body) > self._max_request:
            over = LimitExceeded(
                "max_request_bytes", len(body), self._max_request, setting="rpc.Client(max_request_bytes=...)"
            )
            raise rpc_error(RpcCode.RESOURCE_EXHAUSTED, str(over)) from over
        return body

    def _deadline(self, timeout_s: float | None) -> float | None:
        if timeout_s is _DEFAULT:
            timeout_s = self._timeout_s
        else:
            _check_timeout(timeout_s)
        return None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s

    async def _attempt(self, name: bytes, body: bytes, deadline: float | None) -> bytes:
        """One attempt of a call. Returns: the encoded answer. Raises RpcError."""
        stream, (kind, answer) = await self._begin(name, body, deadline)
        if kind != wire.RESULT:
            self._failed(stream, RemoteProtocolError(f"an answer of kind {kind} to a call with one answer"))
        self._give(stream)
        return answer

    async def _begin(
        self, name: bytes, body: bytes, deadline: float | None
    ) -> tuple[Stream, tuple[int, bytes]]:
        """Sends a request, reads the first answer. Returns: the stream, for the caller to end, and it."""
        moves = 0
        while True:
            stream = self._pool.maybe_take()
            is_fresh = False
            if stream is None:
                stream, is_fresh = await self._take(deadline)
            left_s = _left(deadline)
            if left_s is not None and left_s <= 0:
                self._pool.give(stream)
                raise _late("the deadline passed before the request was sent")
            try:
                if deadline is not None:
                    self._deadlines.watch(stream, deadline)
                for part in wire.pack_request(name, body, left_s):
                    await stream.write(part)
                return stream, await wire.read_answer(stream, self._max_answer)
            except RpcError:
                self._give(stream)
                raise
            except BaseException as error:
                if not await self._may_resend(stream, error, is_fresh) or moves > limits.RPC_MAX_MOVES:
                    self._failed(stream, error)
                moves += is_fresh
                self._deadlines.forget(stream)
                stream.reset()
                self._pool.drop()

    async def _may_resend(self, stream: Stream, error: BaseException, is_fresh: bool) -> bool:
        """Whether the service has shown that it has not seen the request."""
        if is_unserved(error, stream.is_acknowledged):
            self._conn = None  # the peer ends: it may have another connection, or another node at its address
            if stream.conn is not None and not stream.conn.is_closed:  # None: its end has been told
                self._host.swarm.peer_drains(stream.conn)
            return True
        if is_fresh:
            return False
        if isinstance(error, ConnectionClosed):
            return await _has_ended(stream)
        return isinstance(error, IncompleteRead) and not error.partial

    async def _take(self, deadline: float | None) -> tuple[Stream, bool]:
        """A stream from the pool, and whether it is new. Raises RpcError."""
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise _late("no time is left")
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                return await self._pool.take()
        except TimeoutError as error:
            if limit.expired():
                raise _late("no stream to the peer in time") from None
            raise _rpc_error(error) from error
        except RpcError:
            raise
        except (P2PError, OSError) as error:
            raise _rpc_error(error) from error

    async def _open(self) -> Stream:
        """A new stream, on a new connection if there is none."""
        conn = await self._connected()
        try:
            return await conn.new_stream(self._protocol, self._allow_limited)
        except ConnectionClosed:  # it has ended since the last call
            if conn is self._target:
                raise
            return await (await self._connected()).new_stream(self._protocol, self._allow_limited)

    async def _connected(self) -> Conn:
        """The connection for a new stream. The host knows which one is the best, if the peer's id is known.

        It also knows that a peer drains. An address without an id would be dialled for each stream: there one
        call dials if the connection has ended, and the others have its success or its failure.
        """
        if self._is_named:
            self._conn = await self._host.connect(self._target)
            return self._conn
        if self._conn is not None and not self._conn.is_closed:
            return self._conn
        failures = self._num_failed_dials
        async with self._dialing:
            if self._conn is not None and not self._conn.is_closed:
                return self._conn
            if self._num_failed_dials > failures:
                raise rpc_error(*self._dial_failure)
            try:
                self._conn = await self._host.connect(self._target)
            except (P2PError, OSError) as error:
                self._num_failed_dials += 1
                self._dial_failure = (_code_of(error), str(error))
                raise
            return self._conn

    def _give(self, stream: Stream) -> None:
        """The call on `stream` is over, and it can carry another one."""
        self._deadlines.forget(stream)
        self._pool.give(stream)

    def _failed(self, stream: Stream, error: BaseException) -> NoReturn:
        """Ends the stream of a call that failed, and raises the error for the caller."""
        self._deadlines.forget(stream)
        stream.reset(_reset_code(error))
        self._pool.drop()
        if isinstance(error, (P2PError, OSError)):
            raise _rpc_error(error) from error
        try:
            raise error
        finally:
            del error  # else it keeps itself alive by its traceback

    # -- for Items -----------------------------------------------------------------------------

    async def _items(self, name: bytes, body: bytes, deadline: float | None) -> AsyncGenerator[bytes, None]:
        """The encoded items of a call."""
        stream, (kind, item) = await self._begin(name, body, deadline)
        try:
            while kind == wire.ITEM:
                yield item
                kind, item = await wire.read_answer(stream, self._max_answer)
            if kind != wire.END:
                raise RemoteProtocolError(f"an answer of kind {kind} to a call with a stream of answers")
        except RpcError:
            self._give(stream)
            raise
        except BaseException as error:
            self._failed(stream, error)
        self._give(stream)


class Items(Generic[A]):
    """The answers of a StreamMethod: an async iterator, and a context manager that ends the call."""

    __slots__ = ("_items", "_method")

    def __init__(
        self, client: Client, method: StreamMethod[Any, A], body: bytes, deadline: float | None
    ) -> None:
        self._method = method
        self._items = client._items(method.wire_name, body, deadline)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> A:
        """The next answer. Raises RpcError."""
        return _decoded(self._method, await anext(self._items))

    async def aclose(self) -> None:
        """Ends the call: the service learns that no more is wanted. Idempotent."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _target(target: Conn | PeerId | Multiaddr | str) -> Conn | PeerId | Multiaddr:
    if not isinstance(target, str):
        return target
    return Multiaddr(target) if target.startswith("/") else PeerId(target)


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None:
        options.seconds("timeout_s", timeout_s, or_zero=True, most=limits.RPC_MAX_TIMEOUT_S)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - asyncio.get_running_loop().time()


def _decoded(method: Method[Any, A] | StreamMethod[Any, A], body: bytes) -> A:
    try:
        return method.answer.decode(body)
    except Exception as error:
        raise rpc_error(RpcCode.INTERNAL, f"the answer of {method.name} cannot be decoded") from error


def _late(message: str) -> RpcError:
    return rpc_error(RpcCode.DEADLINE_EXCEEDED, message)


def _reset_code(error: BaseException) -> int:
    """What the service hears when a call ends early."""
    if isinstance(error, RemoteProtocolError):
        return codes.STREAM_PROTOCOL_VIOLATION
    if isinstance(error, DeadlineExceeded):
        return RPC_RESET_BASE + RpcCode.DEADLINE_EXCEEDED
    if isinstance(error, LimitExceeded):
        return RPC_RESET_BASE + RpcCode.RESOURCE_EXHAUSTED
    return RPC_RESET_BASE + RpcCode.CANCELLED


async def _has_ended(stream: Stream) -> bool:
    """Whether the peer had ended `stream`, without an answer, before the connection ended. It never waits."""
    try:
        return not await stream.read(1)
    except P2PError:
        return False


def _rpc_error(error: BaseException) -> RpcError:
    """What the caller hears of an error below the call."""
    if isinstance(error, DeadlineExceeded):
        return _late("no answer in time")
    return rpc_error(_code_of(error), str(error))


def _code_of(error: BaseException) -> RpcCode:
    if isinstance(error, ProtocolNotSupported):
        return RpcCode.UNIMPLEMENTED
    if isinstance(error, (LimitExceeded, RefusedByPeer)):
        return RpcCode.RESOURCE_EXHAUSTED
    if isinstance(error, RemoteProtocolError):
        return RpcCode.INTERNAL
    if isinstance(error, NegotiationError) and not isinstance(error, NegotiationTimeout):
        return RpcCode.INTERNAL
    if isinstance(error, StreamReset):
        return _RESETS.get(error.code, RpcCode.UNAVAILABLE)
    return RpcCode.UNAVAILABLE


_RESETS: Final = {RPC_RESET_BASE + code: code for code in RpcCode} | {
    codes.STREAM_PROTOCOL_VIOLATION: RpcCode.INTERNAL
}
