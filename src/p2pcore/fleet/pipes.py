"""Streams to peers of processes that only the bus reaches: on other machines, or without a supervisor.

Comes in: a process, a peer, a protocol; messages of other processes. Goes out: streams as those between
workers (workers/links.py), on a pipe over the bus in the place of a UNIX socket. Each pair of processes that
needs one has one pipe. docs/fleet.md has why.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from p2pcore import limits
from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, BusStreamLost, LimitExceeded, NotDelivered, RemoteProtocolError
from p2pcore.fleet import names
from p2pcore.fleet.opened import negotiated, open_for
from p2pcore.fleet.pipe import END, ID_BYTES, OPEN, REFUSED, TAKEN, Answer, Piece, Pipe, packed, unpacked
from p2pcore.muxers.yamux import YamuxOptions
from p2pcore.workers.links import Far, LinkRefused, Links, Request

if TYPE_CHECKING:
    from p2pcore._fast.mux.stream import Stream as LinkStream
    from p2pcore._fast.mux.yamux import YamuxSession
    from p2pcore.fleet.bus import Bus, BusMessage
    from p2pcore.interfaces import Network, Stream
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.fleet")

_KIND: Final = "fleet-open"


class Pipes:
    """The pipes of one process.

    Args:
        network: the host's swarm. bus: carries the bytes. subject: of the messages to a process.
        process: the id of this one.
    """

    def __init__(self, network: Network, bus: Bus, subject: Callable[[str], str], process: str) -> None:
        self._network = network
        self._bus = bus
        self._subject = subject
        self._process = process
        self._links = Links(self._connect, "process-{}", network.local_peer, _OPTIONS)
        self._links.serve(_KIND, self._serve)
        self._pipes: dict[bytes, Pipe] = {}
        self._sessions: dict[bytes, YamuxSession] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def num_streams(self) -> int:
        """Streams that are open, for this process and for others."""
        return self._links.num_streams

    async def open(self, process: str, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        """A stream of `protocol` to `peer`, which is connected to `process`; see Fleet.open.

        Raises: NotDelivered: there is no stream, and `may_have_arrived` is False.
        """
        if self.num_streams >= limits.FLEET_MAX_BUS_STREAMS:
            raise NotDelivered(
                peer, Undelivered.BUSY, detail="this process has too many streams over the bus"
            )
        opening = self._open(process, peer=str(peer), protocol=protocol)
        return await negotiated(opening, peer, protocol, timeout_s, lambda: self._bus.is_up)

    async def _open(self, process: str, **fields: Any) -> LinkStream:
        """If the other end of a pipe has gone while there was no stream, the first one finds out."""
        was_there = self._links.is_connected(process)
        try:
            return await self._links.open(process, _KIND, **fields)
        except BusDown:
            if not was_there or self._is_closed or not self._bus.is_up:
                raise
            return await self._links.open(process, _KIND, **fields)

    async def _serve(self, request: Request) -> Far:
        if self.num_streams > limits.FLEET_MAX_BUS_STREAMS:  # with this one
            raise LinkRefused(Undelivered.BUSY.name, "that process has too many streams over the bus")
        return await open_for(self._network, request)

    # -- pipes ---------------------------------------------------------------------------------

    async def _connect(self, process: str) -> None:
        """Makes a pipe to another process. Raises as Bus.request; BusDown: it wants none; LimitExceeded."""
        if self._is_closed:
            raise BusDown("this fleet has ended")
        if len(self._pipes) >= limits.FLEET_MAX_PIPES:
            raise LimitExceeded("FLEET_MAX_PIPES", len(self._pipes) + 1, limits.FLEET_MAX_PIPES)
        pipe = await self._make(secrets.token_bytes(ID_BYTES), process, is_client=True)
        try:
            opening = packed(Piece(OPEN, pipe.id, body=self._process.encode()))
            if await self._asking(process)(opening) != TAKEN:
                raise BusDown(f"process {process} takes no more streams")
            pipe.opened()
        except BaseException as error:
            pipe.end(BusStreamLost(Undelivered.GONE, str(error)))
            raise

    async def _make(self, id: bytes, process: str, *, is_client: bool) -> Pipe:
        """A pipe, and a session on it. Raises OSError: there are no descriptors left."""
        ours, theirs = socket.socketpair()

        def num_streams() -> int:
            session = self._sessions.get(id)
            return 0 if session is None else session.num_streams

        is_up = lambda: self._bus.is_up  # noqa: E731
        pipe = self._pipes[id] = Pipe(
            id, process, self._asking(process), is_up, ours, num_streams, self._ended
        )
        self._start(pipe.run())
        try:
            session = await self._links.begin(theirs, process, is_client)
        except BaseException as error:
            pipe.end(BusStreamLost(Undelivered.GONE, str(error)))
            raise
        if pipe.is_over:
            session.abort()
        else:
            self._sessions[id] = session
        return pipe

    def _asking(self, process: str) -> Callable[[bytes], Any]:
        subject = self._subject(process)
        return lambda data: self._bus.request(subject, data, timeout_s=limits.FLEET_PIPE_ANSWER_S)

    def _ended(self, pipe: Pipe, error: BusStreamLost | None) -> None:
        del self._pipes[pipe.id]
        session = self._sessions.pop(pipe.id, None)
        if session is not None and not session.is_closed:
            session.abort(error=error)
        if self._bus.is_up:
            self._start(self._tell_end(pipe))

    async def _tell_end(self, pipe: Pipe) -> None:
        """Best effort: the other end finds out by itself too, a little later."""
        try:
            async with asyncio.timeout(limits.FLEET_PIPE_ANSWER_S):
                await self._bus.publish(self._subject(pipe.process), packed(Piece(END, pipe.id)))
        except (BusDown, TimeoutError):
            pass

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- messages of other processes -----------------------------------------------------------

    def deliver(self, message: BusMessage) -> None:
        """Takes a message of a pipe from the bus."""
        try:
            piece = unpacked(message.data)
            if piece.kind == OPEN:
                self._asked(piece, message.answer)
                return
        except RemoteProtocolError as error:
            logger.warning("a message of another process cannot be read: %s", error)
            return
        pipe = self._pipes.get(piece.pipe)
        if pipe is not None:
            pipe.take(piece, message.answer)
        elif message.answer is not None:
            message.answer(REFUSED)

    def _asked(self, piece: Piece, answer: Answer | None) -> None:
        """Another process wants a pipe. Raises RemoteProtocolError: it has no id."""
        process = piece.body.decode("ascii", "replace")
        try:
            names.word("process", process)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        if answer is None:
            return
        if self._is_closed or piece.pipe in self._pipes or len(self._pipes) >= limits.FLEET_MAX_PIPES:
            answer(REFUSED)
            return
        self._start(self._accept(piece.pipe, process, answer))

    async def _accept(self, id: bytes, process: str, answer: Answer) -> None:
        try:
            pipe = await self._make(id, process, is_client=False)
        except OSError as error:
            logger.warning("no pipe to process %s: %s", process, error)
            answer(REFUSED)
        else:
            answer(TAKEN)
            pipe.opened()

    # -- the end -------------------------------------------------------------------------------

    def process_ended(self, process: str) -> None:
        """`process` has no lease any more: its streams end at once."""
        self._end_all(Undelivered.GONE, "the process has ended, or stands still", process)

    def away(self) -> None:
        """The engine is away: all streams end at once."""
        self._end_all(Undelivered.BUS_DOWN, "the engine of the bus went away")

    def _end_all(self, reason: Undelivered, detail: str, process: str | None = None) -> None:
        for pipe in list(self._pipes.values()):
            if process in (None, pipe.process):
                pipe.end(BusStreamLost(reason, detail))

    async def close(self) -> None:
        """Ends all streams, and tells the other processes. Idempotent."""
        self._is_closed = True
        self._end_all(Undelivered.GONE, "this fleet has ended")
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._links.close()


_OPTIONS = YamuxOptions(
    max_inbound_streams=limits.FLEET_MAX_BUS_STREAMS,
    max_outbound_streams=limits.FLEET_MAX_BUS_STREAMS,
    max_window_bytes=limits.FLEET_PIPE_WINDOW_BYTES,
    ack_backlog=limits.FLEET_MAX_BUS_STREAMS,
)
