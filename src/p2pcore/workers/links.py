"""Streams between processes of one program: each pair has a socket, made when it is first used.

Comes in: the name of another process, and a request. Goes out: a stream to what that process opened for it,
spliced there, so no byte passes through a task. Half closes, resets with their codes and back-pressure pass
through. The sockets carry yamux without encryption. Between workers they are UNIX sockets that the supervisor
passes; between machines fleet/pipes.py carries their bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

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
Name = TypeVar("Name", bound=Hashable)


class LinkRefused(Exception):
    """The other process has not opened what was asked for.

    Attributes:
        reason: a word that the handler has chosen.
    """

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Far:
    """What a handler has opened for another process.

    Attributes:
        stream: negotiated, and nobody reads it; a reset of it ends the other process's stream too.
        ended: called once, when both directions have ended.
    """

    stream: Any
    ended: Callable[[], None] = lambda: None


Handler = Callable[[Request], Awaitable[Far]]
"""Opens what a request of another process wants. Raises LinkRefused; it may be cancelled."""


class Link:
    """What `stream.conn` is for a stream to another process. It is no connection to a peer.

    Attributes:
        id: for logs. remote_peer: the id of this node.
    """

    __slots__ = ("id", "remote_peer", "session")

    def __init__(self, text: str, peer: PeerId, session: YamuxSession) -> None:
        self.id = text
        self.remote_peer = peer
        self.session = session


class Links(Generic[Name]):
    """The links of one process. Made inside the event loop.

    Args:
        connect: asks for a socket to another process, which `begin` is then called with.
        text: of a link in logs, with a place for the name of the process. peer: the id of the node.
        options: of the sessions.
    """

    def __init__(
        self,
        connect: Callable[[Name], Awaitable[object]],
        text: str,
        peer: PeerId,
        options: YamuxOptions,
    ) -> None:
        self._ask = connect
        self._text = text
        self._peer = peer
        self._multiplexer = YamuxMultiplexer(options)
        self._sessions: dict[Name, YamuxSession] = {}
        self._all: set[YamuxSession] = set()
        self._connecting: dict[Name, asyncio.Task[YamuxSession]] = {}
        self._arrivals: dict[Name, asyncio.Future[YamuxSession]] = {}
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def num_streams(self) -> int:
        """Streams of all links, those that others opened too."""
        return sum(session.num_streams for session in self._all)

    def serve(self, kind: str, handler: Handler) -> None:
        """Requests of other processes with this "kind" go to `handler`."""
        self._handlers[kind] = handler

    def stop_serving(self, kind: str) -> None:
        """Ends `serve`. What was opened goes on. Idempotent."""
        self._handlers.pop(kind, None)

    async def open(self, name: Name, kind: str, **fields: Any) -> Stream:
        """A stream to what process `name` opens for this request.

        Raises:
            LinkRefused: it has not opened it.
            BusDown: that process has gone. TimeoutError: it does not answer.
            Also what `connect` raises.
        """
        async with asyncio.timeout(limits.LINK_TIMEOUT_S):
            session = await self._session(name)
            try:
                stream = cast("Stream", await session.open_stream())
            except P2PError as error:
                raise BusDown(f"{self._text.format(name)} has gone") from error
        try:
            await _request(stream, {"kind": kind, **fields})
        except DeadlineExceeded as error:
            stream.reset()
            raise TimeoutError(f"{self._text.format(name)} does not answer") from error
        except P2PError as error:
            stream.reset()
            raise BusDown(f"{self._text.format(name)} has gone") from error
        except BaseException:
            stream.reset()
            raise
        return stream

    def is_connected(self, name: Name) -> bool:
        """Whether `open` would use a link that is there."""
        session = self._sessions.get(name)
        return session is not None and not session.is_closed

    async def _session(self, name: Name) -> YamuxSession:
        if self.is_connected(name):
            return self._sessions[name]
        connecting = self._connecting.get(name)
        if connecting is None:
            connecting = self._start(self._connect(name))
            self._connecting[name] = connecting
            connecting.add_done_callback(lambda task: self._connected(name, task))
        return await asyncio.shield(connecting)  # others may wait for it too

    async def _connect(self, name: Name) -> YamuxSession:
        arrival: asyncio.Future[YamuxSession] = asyncio.get_running_loop().create_future()
        self._arrivals[name] = arrival
        async with asyncio.timeout(limits.LINK_TIMEOUT_S):
            await self._ask(name)
            return await arrival

    def _connected(self, name: Name, task: asyncio.Task[YamuxSession]) -> None:
        del self._connecting[name], self._arrivals[name]
        if not task.cancelled():
            task.exception()  # it may be that nobody waits any more

    # -- sockets that come ---------------------------------------------------------------------

    def received(self, sock: socket.socket, name: Name, is_client: bool) -> None:
        """Calls `begin` in a task."""
        self._start(self.begin(sock, name, is_client))

    async def begin(self, sock: socket.socket, name: Name, is_client: bool) -> YamuxSession:
        """Starts a link to process `name` on a connected socket, which it owns.

        Args: is_client: at one of the two ends.
        """
        conn = MaConn(asyncio.get_running_loop(), sock, (), None)
        await conn.start()
        mailbox = conn.mailbox
        mailbox.insert(PlainChannel())
        session = self._multiplexer.start(mailbox, is_client)
        session.owner = Link(self._text.format(name), self._peer, session)
        self._all.add(session)
        self._sessions[name] = session
        session.set_stream_handler(self._arrived)
        session.add_close_callback(lambda error: self._lost(name, session))
        arrival = self._arrivals.get(name)
        if arrival is not None and not arrival.done():
            arrival.set_result(session)
        return session

    def _arrived(self, stream: Stream) -> None:
        self._start(self._serve(stream))

    def _lost(self, name: Name, session: YamuxSession) -> None:
        session.owner = None  # breaks the circle
        self._all.discard(session)
        if self._sessions.get(name) is session:
            del self._sessions[name]

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- requests of other processes -------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        stream.handler_task = asyncio.current_task()  # cancelled if the other process gives up
        try:
            far = await self._opened(stream)
        except LinkRefused as refused:
            await _answer(stream, {"refused": refused.reason, "text": str(refused)})
        except (P2PError, OSError, ValueError) as error:
            logger.debug("a request of another process failed: %r", error)
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
        for task in self._tasks:
            task.cancel()
        for session in list(self._all):
            session.abort(codes.STREAM_SHUTDOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limits.WORKER_EXIT_S)


class WorkerLinks(Links[int]):
    """The links of one worker to the others, by their numbers. Made inside the event loop.

    Args:
        hub: asked to connect two workers. sock: gives the sockets; owned. number: of this worker.
        peer: the id of the node.
    """

    def __init__(self, hub: HubClient, sock: socket.socket, number: int, peer: PeerId) -> None:
        super().__init__(self._ask_hub, "worker-{}", peer, _OPTIONS)
        self.number = number
        self._hub = hub
        self._reader = DescriptorReader(sock, self.received)

    async def _ask_hub(self, number: int) -> None:
        if number == self.number:
            raise ValueError(f"worker {number} is this process")
        await self._hub.ask("link", to=number)

    async def close(self) -> None:
        """See `Links`."""
        self._reader.close()
        await super().close()


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
