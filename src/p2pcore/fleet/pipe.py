"""One end of a pipe between two processes, whose bytes the bus carries: what a socket is on one machine.

Comes in: bytes from a socket, and messages from the other end. Goes out: the other. Each message has a
number, and an answer once its bytes are in the socket; only FLEET_PIPE_CHUNKS of them wait for that. So the
bus needs nothing but requests for order, loss and a window. Whatever goes wrong ends the pipe.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from p2pcore import limits
from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, BusError, BusStreamLost, LimitExceeded, RemoteProtocolError

OPEN: Final = 1
"""The first message of a pipe; its body is the id of the process that sends it."""
DATA: Final = 2
LOOK: Final = 3
"""Asks whether the pipe is there."""
END: Final = 4
"""The sender has ended the pipe; nobody answers."""
TAKEN: Final = b"+"
REFUSED: Final = b"-"
"""There is no such pipe, or no room for one."""

ID_BYTES: Final = 8
_VERSION: Final = 1
_HEAD: Final = struct.Struct(f">BB{ID_BYTES}sQ")

Answer = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """A message of a pipe.

    Attributes:
        kind: OPEN, DATA, LOOK or END. pipe: its id, ID_BYTES. number: of this DATA, from 0 on.
        body: of DATA, at most FLEET_PIPE_CHUNK_BYTES; of OPEN.
    """

    kind: int
    pipe: bytes
    number: int = 0
    body: bytes = b""


def packed(piece: Piece) -> bytes:
    """`piece` as bytes."""
    return _HEAD.pack(_VERSION, piece.kind, piece.pipe, piece.number) + piece.body


def unpacked(data: bytes) -> Piece:
    """The piece in `data`. Raises RemoteProtocolError: there is none."""
    if len(data) < _HEAD.size:
        raise RemoteProtocolError(f"a message of a pipe has at least {_HEAD.size} bytes, not {len(data)}")
    version, kind, pipe, number = _HEAD.unpack_from(data)
    if version != _VERSION or not OPEN <= kind <= END:
        raise RemoteProtocolError(f"a message of a pipe is of version {version} and kind {kind}")
    return Piece(kind, pipe, number, data[_HEAD.size :])


class Pipe:
    """See above. It takes bytes from `run` on, and sends them from `opened` on.

    Args:
        id: of the pipe. process: at the other end.
        ask: sends it a message, and returns its answer. Raises as Bus.request.
        is_bus_up: whether the engine is there.
        sock: owned. num_streams: what the pipe is for; without any it asks nothing, and ends after a while.
        ended: called once, at once when it ends; None: the socket was closed in good order.
    """

    def __init__(
        self,
        id: bytes,
        process: str,
        ask: Callable[[bytes], Awaitable[bytes]],
        is_bus_up: Callable[[], bool],
        sock: socket.socket,
        num_streams: Callable[[], int],
        ended: Callable[[Pipe, BusStreamLost | None], None],
    ) -> None:
        sock.setblocking(False)
        self.id = id
        self.process = process
        self._ask = ask
        self._is_bus_up = is_bus_up
        self._sock = sock
        self._num_streams = num_streams
        self._ended = ended
        self._room = asyncio.Semaphore(limits.FLEET_PIPE_CHUNKS)
        self._sending: set[asyncio.Task[None]] = set()
        self._next = 0  # the number of the next DATA for the socket
        self._early: dict[int, tuple[bytes, Answer]] = {}
        self._queue: asyncio.Queue[tuple[bytes, Answer]] = asyncio.Queue()
        self._num_unanswered = 0
        self._is_open = asyncio.Event()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.done()

    def end(self, error: BusStreamLost | None) -> None:
        """Ends it at once; see `ended`. Idempotent."""
        if not self._over.done():
            self._over.set_result(None)
            self._ended(self, error)

    def opened(self) -> None:
        """The other end knows the pipe: what it is sent from now on finds it there. Idempotent."""
        self._is_open.set()

    async def run(self) -> None:
        """Carries bytes until the pipe has ended, then closes the socket."""
        work = [asyncio.create_task(each()) for each in (self._read, self._write, self._look)]
        try:
            await self._over
        finally:
            tasks = [*work, *self._sending]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sock.close()  # not before: the event loop must have let go of it

    # -- from the socket to the bus ------------------------------------------------------------

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        await self._is_open.wait()
        for number in itertools.count():
            await self._room.acquire()
            try:
                data = await loop.sock_recv(self._sock, limits.FLEET_PIPE_CHUNK_BYTES)
            except OSError:
                data = b""
            if not data:
                self.end(None)
                return
            task = asyncio.create_task(self._send(Piece(DATA, self.id, number, data)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, piece: Piece) -> None:
        """Sends a piece, and waits until the other end has taken it."""
        try:
            if await self._ask(packed(piece)) != TAKEN:
                self.end(BusStreamLost(Undelivered.GONE, f"process {self.process} has no such streams"))
        except (BusError, TimeoutError, LimitExceeded) as error:
            self.end(self._lost(error))
        finally:
            self._room.release()

    def _lost(self, error: Exception) -> BusStreamLost:
        is_away = isinstance(error, BusDown) and not self._is_bus_up()
        lost = BusStreamLost(Undelivered.BUS_DOWN if is_away else Undelivered.GONE, str(error))
        lost.__cause__ = error
        return lost

    async def _look(self) -> None:
        """Asks the other end now and then whether it has our streams: what it says last may be lost."""
        idle = 0
        await self._is_open.wait()
        while idle < limits.FLEET_PIPE_IDLE_LOOKS:
            await asyncio.sleep(limits.FLEET_PIPE_LOOK_S)
            idle = 0 if self._num_streams() else idle + 1
            if not idle:
                await self._room.acquire()
                await self._send(Piece(LOOK, self.id))
        self.end(None)

    # -- from the bus to the socket ------------------------------------------------------------

    def take(self, piece: Piece, answer: Answer | None) -> None:
        """A message of the other end. What came before is dropped; what is beyond the window ends it."""
        if piece.kind == END:
            self.end(BusStreamLost(Undelivered.GONE, f"process {self.process} has ended them"))
        elif answer is None or piece.kind == OPEN:
            return
        elif piece.kind == LOOK:
            answer(TAKEN)
        elif piece.number >= self._next and piece.number not in self._early:
            self._take(piece, answer)

    def _take(self, piece: Piece, answer: Answer) -> None:
        is_beyond = piece.number >= self._next + limits.FLEET_PIPE_CHUNKS
        is_too_long = len(piece.body) > limits.FLEET_PIPE_CHUNK_BYTES
        if is_beyond or is_too_long or self._num_unanswered >= limits.FLEET_PIPE_CHUNKS:
            self.end(BusStreamLost(Undelivered.GONE, f"process {self.process} sends more than it may"))
            return
        self._num_unanswered += 1
        self._early[piece.number] = piece.body, answer
        while self._next in self._early:
            self._queue.put_nowait(self._early.pop(self._next))
            self._next += 1

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, answer = await self._queue.get()
            try:
                await loop.sock_sendall(self._sock, data)
            except OSError:
                self.end(None)
                return
            self._num_unanswered -= 1
            answer(TAKEN)
