"""Streams between the workers of one supervisor: each pair has a UNIX socket, made when it is first used.

Comes in: the number of another worker, and a request. Goes out: a stream to what that worker opened for it,
spliced there, so no byte passes through the supervisor or a task. Half closes, resets with their codes and
back-pressure pass through. The sockets carry yamux without encryption: both ends are of one program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from p2pcore import codes, limits
from p2pcore._fast.crypto.secure import PlainChannel
from p2pcore._fast.mux.splice import Splice
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.errors import BusDown, DeadlineExceeded, P2PError
from p2pcore.manet.conn import MaConn
from p2pcore.muxers.yamux import YamuxMultiplexer, YamuxOptions
from p2pcore.values.peer_id import PeerId
from p2pcore.workers.descriptors import DescriptorReader
from p2pcore.workers.hub_client import HubClient

logger = logging.getLogger("p2pcore.workers")

Request = dict[str, Any]
T = TypeVar("T")


class LinkRefused(Exception):
    """The other worker has not opened what was asked for.

    Attributes:
        reason: a word that the handler has chosen.
    """

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Far:
    """What a handler has opened for another worker.

    Attributes:
        stream: negotiated, and nobody reads it; a reset of it ends the other worker's stream too.
        ended: called once, when both directions have ended.
    """

    stream: Any
    ended: Callable[[], None] = lambda: None


Handler = Callable[[Request], Awaitable[Far]]
"""Opens what a request of another worker wants. Raises LinkRefused; it may be cancelled."""


class Link:
    """What `stream.conn` is for a stream to another worker. It is no connection to a peer.

    Attributes:
        id: for logs. remote_peer: the id of this node, which all its workers share.
    """

    __slots__ = ("id", "remote_peer", "session")

    def __init__(self, number: int, peer: PeerId, session: YamuxSession) -> None:
        self.id = f"worker-{number}"
        self.remote_peer = peer
        self.session = session


class Links:
    """The links of one worker. Made inside the event loop.

    Args:
        hub: asked to connect two workers. sock: gives the sockets; owned. number: of this worker.
        peer: the id of the node.
    """

    def __init__(self, hub: HubClient, sock: socket.socket, number: int, peer: PeerId) -> None:
        self.number = number
        self._hub = hub
        self._peer = peer
        self._reader = DescriptorReader(sock, self._received)
        self._multiplexer = YamuxMultiplexer(_OPTIONS)
        self._sessions: dict[int, YamuxSession] = {}
        self._all: set[YamuxSession] = set()
        self._connecting: dict[int, asyncio.Task[YamuxSession]] = {}
        self._arrivals: dict[int, asyncio.Future[YamuxSession]] = {}
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def serve(self, kind: str, handler: Handler) -> None:
        """Requests of other workers with this "kind" go to `handler`."""
        self._handlers[kind] = handler

    def stop_serving(self, kind: str) -> None:
        """Ends `serve`. What was opened goes on. Idempotent."""
        self._handlers.pop(kind, None)

    async def open(self, number: int, kind: str, **fields: Any) -> Stream:
        """A stream to what worker `number` opens for this request.

        Raises:
            LinkRefused: it has not opened it.
            BusDown: that worker, or the supervisor, has gone. TimeoutError: it does not answer.
        """
        if number == self.number:
            raise ValueError(f"worker {number} is this process")
        async with asyncio.timeout(limits.LINK_TIMEOUT_S):
            session = await self._session(number)
            try:
                stream = cast("Stream", await session.open_stream())
            except P2PError as error:
                raise BusDown(f"worker {number} has gone") from error
        try:
            await _request(stream, {"kind": kind, **fields})
        except DeadlineExceeded as error:
            stream.reset()
            raise TimeoutError(f"worker {number} does not answer") from error
        except P2PError as error:
            stream.reset()
            raise BusDown(f"worker {number} has gone") from error
        except BaseException:
            stream.reset()
            raise
        return stream

    async def _session(self, number: int) -> YamuxSession:
        session = self._sessions.get(number)
        if session is not None and not session.is_closed:
            return session
        connecting = self._connecting.get(number)
        if connecting is None:
            connecting = self._start(self._connect(number))
            self._connecting[number] = connecting
            connecting.add_done_callback(lambda task: self._connected(number, task))
        return await asyncio.shield(connecting)  # others may wait for it too

    async def _connect(self, number: int) -> YamuxSession:
        arrival: asyncio.Future[YamuxSession] = asyncio.get_running_loop().create_future()
        self._arrivals[number] = arrival
        async with asyncio.timeout(limits.LINK_TIMEOUT_S):
            await self._hub.ask("link", to=number)
            return await arrival

    def _connected(self, number: int, task: asyncio.Task[YamuxSession]) -> None:
        del self._connecting[number], self._arrivals[number]
        if not task.cancelled():
            task.exception()  # it may be that nobody waits any more

    # -- sockets that come ---------------------------------------------------------------------

    def _received(self, sock: socket.socket, number: int, is_client: bool) -> None:
        self._start(self._begin(sock, number, is_client))

    async def _begin(self, sock: socket.socket, number: int, is_client: bool) -> None:
        conn = MaConn(asyncio.get_running_loop(), sock, (), None)
        await conn.start()
        mailbox = conn.mailbox
        mailbox.insert(PlainChannel())
        session = self._multiplexer.start(mailbox, is_client)
        session.owner = Link(number, self._peer, session)
        self._all.add(session)
        self._sessions[number] = session
        session.set_stream_handler(self._arrived)
        session.add_close_callback(lambda error: self._lost(number, session))
        arrival = self._arrivals.get(number)
        if arrival is not None and not arrival.done():
            arrival.set_result(session)

    def _arrived(self, stream: Stream) -> None:
        self._start(self._serve(stream))

    def _lost(self, number: int, session: YamuxSession) -> None:
        session.owner = None  # breaks the circle
        self._all.discard(session)
        if self._sessions.get(number) is session:
            del self._sessions[number]

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- requests of other workers -------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        stream.handler_task = asyncio.current_task()  # cancelled if the other worker gives up
        try:
            far = await self._opened(stream)
        except LinkRefused as refused:
            await _answer(stream, {"refused": refused.reason, "text": str(refused)})
        except (P2PError, OSError, ValueError) as error:
            logger.debug("a request of another worker failed: %r", error)
            stream.reset()
        except BaseException:
            stream.reset()
            raise
        else:
            await self._join(stream, far)

    async def _opened(self, stream: Stream) -> Far:
        async with asyncio.timeout(limits.LINK_TIMEOUT_S):
            request = json.loads(await stream.read_msg(limits.LINK_MESSAGE_BYTES))
        handler = self._handlers.get(request["kind"])
        if handler is None:
            raise LinkRefused("GONE", f"nobody serves {request['kind']}")
        return await handler(request)

    async def _join(self, stream: Stream, far: Far) -> None:
        stream.handler_task = None
        try:
            await _answer(stream, {})
            Splice(stream, far.stream, -1, 0, lambda error: far.ended()).start()
        except BaseException as error:
            stream.reset()
            far.stream.reset()
            far.ended()
            if not isinstance(error, P2PError):
                raise

    async def close(self) -> None:
        """Ends all links. Idempotent."""
        self._reader.close()
        for task in self._tasks:
            task.cancel()
        for session in list(self._all):
            session.abort(codes.STREAM_SHUTDOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limits.WORKER_EXIT_S)


async def _request(stream: Stream, request: Request) -> None:
    """Sends a request and reads the answer. Raises LinkRefused, P2PError, TimeoutError."""
    stream.set_deadline(limits.LINK_ANSWER_S)
    await stream.write_msg(json.dumps(request).encode())
    answer = json.loads(await stream.read_msg(limits.LINK_MESSAGE_BYTES))
    stream.set_deadline(None)
    if "refused" in answer:
        raise LinkRefused(answer["refused"], answer["text"])


async def _answer(stream: Stream, answer: Request) -> None:
    await stream.write_msg(json.dumps(answer).encode())


_OPTIONS = YamuxOptions(
    max_inbound_streams=limits.LINK_MAX_STREAMS,
    max_outbound_streams=limits.LINK_MAX_STREAMS,
    max_window_bytes=limits.LINK_WINDOW_BYTES,
)
